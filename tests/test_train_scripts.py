"""``train.py`` and ``single_org_train.py`` as a user runs them, on a tiny domain made here."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from emlib.learn.models.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SIDE = 48
# The published network on patches so small that a step takes milliseconds.
QUICK = "--preset paper --patch_size 32 --stride 16 --batch_size 4 --threads 1 --device cpu --precision 32".split()


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Two train sections and one val section with bright membranes and dark mitochondria."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, names in (("train", ("00", "01")), ("val", ("02",))):
        for name in names:
            masks = {"membranes": np.zeros((SIDE, SIDE), bool), "mitochondria": np.zeros((SIDE, SIDE), bool)}
            masks["membranes"][rng.integers(4, 20) :: 16] = True
            y, x = rng.integers(4, 24, 2)
            masks["mitochondria"][y : y + 16, x : x + 16] = True
            grey = 128 + 100 * masks["membranes"] - 90 * masks["mitochondria"] + rng.normal(0, 10, (SIDE, SIDE))
            for folder, image in {"raw": grey.clip(0, 255), **{n: m * 255 for n, m in masks.items()}}.items():
                path = root / "tiny" / split / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.astype(np.uint8)).save(path)
    return root


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """They take longer than such a training; the first test looks at them."""
    if "writes_a_model" not in request.node.name:
        without_figures(monkeypatch)


def without_figures(monkeypatch):
    monkeypatch.setattr("emlib.learn.training.journal.save_figure", lambda figure, folder, name: [])
    monkeypatch.setattr("emlib.learn.training.fit.write_contact_sheet", lambda *given: [])


@pytest.fixture
def call(call_script):
    """Return a function that runs a script in this process and gives (exit code, stdout, stderr)."""

    def run(script, *argv):
        done = call_script(script, *argv)
        return done.returncode, done.stdout, done.stderr

    return run


def flags(data_root, out, *more):
    return ["--data_root", data_root, "--domain", "tiny", "--out_path", out, *QUICK, *more]


def weights(path):
    return load_checkpoint(path).model.state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_train_writes_a_model_and_args_that_repeat_it(call, data_root, tmp_path, monkeypatch):
    out = tmp_path / "model.pth"
    code, said, err = call("train.py", *flags(data_root, out, "--epochs", 2, "--voxel_size", 50, 4.6, 4.6))
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert "2 train and 1 val sections, membranes, mitochondria" in lines[0] and "cpu, fp32" in lines[0]
    assert lines[1].startswith("epoch 1/2  loss ") and "patches/s" in lines[1] and "(membranes 0." in lines[1]
    assert lines[-2] == f"wrote {out}"
    for name in ("args.yaml", "curves.pdf", "curves.png", "history.csv", "last.pth"):
        assert name in lines[-1] and (tmp_path / "model" / name).is_file()
    checkpoint = load_checkpoint(out)
    assert checkpoint.organelles == ("membranes", "mitochondria") and checkpoint.voxel_size_nm == (50, 4.6, 4.6)
    assert set(checkpoint.metrics) >= {"iou", "iou/membranes", "dice/mitochondria"} and checkpoint.training is None
    args = yaml.safe_load((tmp_path / "model" / "args.yaml").read_text())
    assert args["lr"] == 1e-4 and args["epochs"] == 2 and args["domain"] == "tiny"
    again = tmp_path / "again.pth"
    without_figures(monkeypatch)
    assert call("train.py", "--config", tmp_path / "model" / "args.yaml", "--out_path", again)[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_single_organelle_is_the_same_training(call, data_root, tmp_path):
    one, other = tmp_path / "one.pth", tmp_path / "other.pth"
    code, said, _ = call("single_org_train.py", *flags(data_root, one, "--epochs", 1, "--organelle", "mitochondria"))
    assert code == 0 and "sections, mitochondria;" in said
    assert call("train.py", *flags(data_root, other, "--epochs", 1, "--organelles", "mitochondria", "--quiet"))[:2] == (
        0,
        "",
    )
    assert load_checkpoint(one).organelles == ("mitochondria",)
    assert equal(weights(one), weights(other))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [(), "--sampling random --augment strong --patches_per_epoch 40 --workers 1 --ema 0.9".split()],
    ids=["grid", "random"],
)
def test_a_killed_training_resumes_to_the_same_model(call, data_root, tmp_path, more):
    """SIGTERM at any moment of the training: exit code 130, how to go on, and in the end the undisturbed model."""
    whole, parts = tmp_path / "whole.pth", tmp_path / "parts.pth"
    assert call("train.py", *flags(data_root, whole, "--epochs", 4, "--quiet", *more))[0] == 0
    argv = list(map(str, [sys.executable, ROOT / "train.py", *flags(data_root, parts, "--epochs", 4, *more)]))
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("epoch 1"):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("interrupted in epoch ") and last.endswith("--resume") and "to go on: python " in last
    code, said, _ = call("train.py", *flags(data_root, parts, "--epochs", 4, "--resume", *more))
    assert code == 0 and "epoch 4/4" in said and "epoch 1/4" not in said
    assert equal(weights(parts), weights(whole))
    assert equal(weights(parts.with_suffix("") / "last.pth"), weights(whole.with_suffix("") / "last.pth"))


@pytest.mark.slow
def test_two_processes_train_and_one_speaks(run_script, data_root, tmp_path):
    out = tmp_path / "two.pth"
    done = run_script("train.py", *flags(data_root, out, "--epochs", 1, "--devices", 2), timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == 1 and out.is_file()


def test_resume_refuses_other_flags_and_begins_where_nothing_is(call, data_root, tmp_path):
    out = tmp_path / "model.pth"
    code, said, _ = call("train.py", *flags(data_root, out, "--epochs", 1, "--resume"))
    assert code == 0 and f"note: nothing to resume, there is no {tmp_path / 'model' / 'last.pth'}" in said
    code, _, err = call("train.py", *flags(data_root, out, "--epochs", 2, "--resume", "--lr", 0.5))
    assert code == 2 and "was trained with --lr 0.0001, now it is 0.5; give the flags it was started with" in err
    code, said, _ = call("train.py", *flags(data_root, out, "--epochs", 1))
    assert code == 0 and "will be replaced; --resume would go on with it" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--domain", "tinny"], "tiny"),
        (["--organelles", "nuclei"], "nuclei"),
        (["--patch_size", 64], "64"),
        (["--patch_size", 16, "--stride", 8], "--patch_size is at least 32"),
        (["--loss", "dyce"], "dyce"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else value,
)
def test_what_cannot_be_trained_is_told_in_one_line(call, data_root, tmp_path, more, said):
    code, _, err = call("train.py", *flags(data_root, tmp_path / "model.pth", *more))
    assert code == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not list(tmp_path.rglob("*.pth"))


def test_an_out_path_that_is_a_folder_is_refused(call, data_root, tmp_path):
    code, _, err = call("train.py", *flags(data_root, tmp_path))
    assert code == 2 and f"--out_path {tmp_path} is a folder; name a file in it" in err


def test_a_damaged_state_is_refused(call, data_root, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "last.pth").write_bytes(b"PK\3\4 cut short")
    code, _, err = call("train.py", *flags(data_root, tmp_path / "model.pth", "--resume"))
    assert code == 2 and err.startswith("error: ") and "last.pth" in err and err.count("\n") == 1


def test_a_full_disk_is_one_line_and_the_old_model_survives(call, data_root, tmp_path):
    """The largest file that the process may write stands in for the end of the disk."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "model.pth"
    assert call("train.py", *flags(data_root, out, "--epochs", 1, "--quiet"))[0] == 0
    old = out.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        code, _, err = call("train.py", *flags(data_root, out, "--epochs", 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and f"error: cannot write {out}" in err and err.count("\n") == 1
    assert out.read_bytes() == old and not list(tmp_path.rglob(".*.tmp*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_that_is_not_there_is_replaced_by_the_cpu(call, data_root, tmp_path):
    code, said, _ = call("train.py", *flags(data_root, tmp_path / "m.pth", "--epochs", 1, "--device", "cuda"))
    assert code == 0 and "warning: --device cuda" in said and "; cpu, fp32" in said


@pytest.mark.slow
def test_real_sections_train_within_a_budget(call, real_data, tmp_path):
    code, said, _ = call(
        "train.py", "--data_root", real_data, "--domain", "drosophila-vnc", "--out_path", tmp_path / "m.pth",
        "--time_budget", 0.3, "--patch_size", 64, "--batch_size", 2,
    )  # fmt: skip
    assert code == 0 and "time is up" in said, said
    assert load_checkpoint(tmp_path / "m.pth").voxel_size_nm == (50, 4.6, 4.6)
