"""Checkpoints: what goes in comes out, no code of a file runs, and every file that is none is one clear line."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from emlib.errors import UserError
from emlib.learn.models import model_files
from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import FORMAT, find_checkpoint, load_checkpoint, save_checkpoint
from emlib.learn.models.mexconn import mexconn_weights
from emlib.learn.normalisation import Normalisation

ARCHITECTURE = {"name": "experts-paper", "organelles": ["membranes", "synapses"], "widths": [16, 32]}
LAPTOP = {"name": "experts-laptop", "organelles": ["vesicles"], "widths": [4, 8], "expert_widths": [4, 4]}
ABOUT = {
    "architecture": ARCHITECTURE,
    "normalisation": Normalisation(0.1 + 0.2, 1 / 3),
    "voxel_size_nm": (50.0, 4.6, 4.6),
    "metrics": {"iou": 2 / 3, "dice/synapses": None},
    "settings": {"epochs": 3, "loss": "dice+bce", "lr": 1e-4},
}


def network(architecture=ARCHITECTURE, seed=0):
    """A network with numbers everywhere, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(architecture)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.01)
            else:
                tensor.fill_(7)
    return model


def one_line(call, *args, **kwargs):
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(tmp_path / "model.pth", network(), **ABOUT)


@pytest.mark.parametrize("architecture", [ARCHITECTURE, LAPTOP], ids=lambda a: a["name"])
def test_a_round_trip_is_bit_equal(tmp_path, architecture):
    model = network(architecture).train()
    path = save_checkpoint(tmp_path / "new" / "folder" / "model.pth", model, **{**ABOUT, "architecture": architecture})
    found = load_checkpoint(path)
    before, after = model.state_dict(), found.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert not found.model.training and model.training
    assert found.architecture == architecture and found.organelles == tuple(architecture["organelles"])
    assert found.normalisation == ABOUT["normalisation"] and found.voxel_size_nm == ABOUT["voxel_size_nm"]
    assert found.metrics == ABOUT["metrics"] and found.settings == ABOUT["settings"] and found.training is None
    assert found.versions["torch"] == torch.__version__ and set(found.versions) == {"emlib", "torch", "python"}
    assert found.path == path and found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_state_of_a_training_comes_back_as_it_was(tmp_path):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.rand(2, 1, 16, 16)).mean().backward()
    optimizer.step()
    history = [{"epoch": 0, "iou": np.float64(0.5), "note": None, "loss": float("nan")}]
    state = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": 4, "pair": (1, [2.5, True])}
    path = save_checkpoint(tmp_path / "last.pth", model, **ABOUT, training={**state, "history": history})
    found = load_checkpoint(path).training
    assert found["step"] == 4 and found["pair"] == (1, [2.5, True]) and torch.equal(found["rng"], state["rng"])
    assert found["history"][0]["iou"] == 0.5 and np.isnan(found["history"][0]["loss"])
    again = torch.optim.AdamW(build_model(ARCHITECTURE).parameters(), lr=1)
    again.load_state_dict(found["optimizer"])
    for before, after in zip(
        optimizer.state_dict()["state"].values(), again.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_state_that_could_not_be_loaded_again_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"not \w*Path"):
        save_checkpoint(tmp_path / "m.pth", network(), **ABOUT, training={"a": [Path("x")]})
    with pytest.raises(ValueError, match="not ndarray"):
        save_checkpoint(tmp_path / "m.pth", network(), **ABOUT, training={"a": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    model = network()
    with torch.no_grad():
        model.encoder.layers[0].bn1.running_var[3] = 1e6  # beyond float16
    whole, half = (save_checkpoint(tmp_path / f"{h}.pth", model, **ABOUT, half=h) for h in (False, True))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    found = load_checkpoint(half).model.state_dict()
    for key, tensor in model.state_dict().items():
        assert found[key].dtype == tensor.dtype
        if key == "encoder.layers.0.bn1.running_var" or not tensor.is_floating_point():
            assert torch.equal(found[key], tensor)
        else:
            assert torch.equal(found[key], tensor.half().float())


def test_the_bundled_size_holds_the_paper_network(tmp_path):
    names = {"name": "experts-paper", "organelles": ["a", "b", "c"]}
    path = save_checkpoint(tmp_path / "m.pth", build_model(names), **{**ABOUT, "architecture": names}, half=True)
    assert path.stat().st_size < 10e6


def test_equal_networks_give_equal_bytes(tmp_path):
    """Whatever the file's name, the folder, the process or the memory format."""
    script = (
        "import sys, torch; sys.path[:0] = sys.argv[2:]\n"
        "from test_learn_checkpoint import ABOUT, network, save_checkpoint\n"
        "model = network().to(memory_format=torch.channels_last)\n"
        "save_checkpoint(sys.argv[1], model, **ABOUT, training={'lr': [0.5, torch.ones(2)]})\n"
    )
    here = Path(__file__).resolve().parent
    there = tmp_path / "other" / "b.pth"
    subprocess.run([sys.executable, "-c", script, str(there), str(here), str(here.parent)], check=True)
    state = {"lr": [0.5, torch.ones(2)]}
    path = save_checkpoint(tmp_path / "a.pth", network(), **ABOUT, training=state)
    assert path.read_bytes() == there.read_bytes()


def test_loading_leaves_the_random_generator_alone(saved):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_checkpoint(saved)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("limit", [10, 20_000])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, saved, limit):
    """A limit on the size of files refuses writes at once or in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    before, (soft, hard) = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert len(before) > limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        text = one_line(save_checkpoint, saved, network(seed=1), **ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {saved}" in text and "free space" in text
    assert saved.read_bytes() == before and os.listdir(tmp_path) == [saved.name]


def test_no_space_is_told_by_its_name(monkeypatch, saved):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = saved.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in one_line(save_checkpoint, saved, network(seed=1), **ABOUT)
    monkeypatch.undo()
    assert saved.read_bytes() == before


# Files that are no checkpoint


class Bomb:
    """Runs a command when unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("place", ["weights", "about", "training", "format", "bare", "wrapped"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_bomb_is_one_line_and_runs_no_code(tmp_path, saved, place, form):
    path, trace = tmp_path / "bomb.pth", tmp_path / "it_ran"
    content = torch.load(saved, weights_only=True)
    if place == "weights":
        content["weights"]["encoder.layers.0.conv1.bias"] = Bomb(trace)
    elif place in ("bare", "wrapped"):
        content = Bomb(trace) if place == "bare" else {"model_state_dict": Bomb(trace), **content["weights"]}
    else:
        content[place] = Bomb(trace)
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    text = one_line(load_checkpoint, path)
    assert str(path) in text and "give a file that train.py wrote" in text
    if form != "pickle":
        assert "holds Python objects other than weights, which are never loaded" in text
    assert not trace.exists()
    if form != "pickle" and place == "bare":  # the test can fail: loaded with trust, it runs
        torch.load(path, weights_only=False)
        assert trace.exists()


def damage(saved, how):
    data = saved.read_bytes()
    if how == "empty":
        return b""
    if how == "text":
        return b"this is no model\n" * 100
    if how == "png":
        return b"\x89PNG\r\n\x1a\n" + bytes(200)
    if how == "npy":
        file = BytesIO()
        np.save(file, np.zeros((3, 4)))
        return file.getvalue()
    if how == "zip":
        file = BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme.txt", "hello")
        return file.getvalue()
    if how == "deflated":  # would unfold to more than the file
        file = BytesIO()
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        return file.getvalue()
    if how == "flipped":
        middle = len(data) // 2  # among the weights: PyTorch itself does not notice
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data[: int(len(data) * float(how))]


@pytest.mark.parametrize(
    "how", ["empty", "text", "png", "npy", "zip", "deflated", "flipped", "0.001", "0.1", "0.5", "0.9", "0.9999"]
)
def test_a_foreign_or_damaged_file_is_one_line(tmp_path, saved, how):
    path = tmp_path / "bad.pth"
    path.write_bytes(damage(saved, how))
    text = one_line(load_checkpoint, path)
    assert text.startswith(f"{path} is no checkpoint, or is damaged or cut short; give a file that train.py wrote")


def test_every_truncation_of_a_small_file_is_one_line(tmp_path):
    tiny = {"name": "experts-paper", "organelles": ["a"], "widths": [2]}
    data = save_checkpoint(tmp_path / "t.pth", network(tiny), **{**ABOUT, "architecture": tiny}).read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        assert "cut.pth is no checkpoint" in one_line(load_checkpoint, tmp_path / "cut.pth")


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, 3, "text", None, {"a": torch.zeros(2)}, torch.zeros(3), {"state_dict": {"fc": torch.ones(1)}}],
)
def test_a_pytorch_file_of_something_else_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    text = one_line(load_checkpoint, tmp_path / "other.pth")
    assert "it is a PyTorch file, but neither a checkpoint of emlib nor weights of MExConn" in text


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    assert "Python objects other than weights" in one_line(load_checkpoint, tmp_path / "module.pth")


def change(**new):
    return lambda content: content.update(new)


def change_weights(**new):
    return lambda content: content["weights"].update({key.replace("__", "."): value for key, value in new.items()})


DEEP = "[" * 100_000
BIAS = "encoder__layers__0__conv1__bias"
WIDE = '{"architecture": {"name": "experts-paper", "organelles": ["a"], "widths": [900000]}}'


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change(format="emlib checkpoint 2"), "was written by a later emlib ('emlib checkpoint 2'); update emlib"),
        (change(format=3), "neither a checkpoint of emlib"),
        (change(about="{"), "is a damaged checkpoint"),
        (change(about=None), "is a damaged checkpoint"),
        (change(about="[]"), "is a damaged checkpoint"),
        (change(about="{}"), "is a damaged checkpoint"),
        (change(about=DEEP), "is a damaged checkpoint"),
        (change(about='{"architecture": []}'), "is a damaged checkpoint"),
        (change(about='{"architecture": {"name": "unet9", "organelles": ["a"]}}'), "there is no network 'unet9'"),
        (change(about=WIDE), "the network experts-paper needs 900000 × 1 × 3 × 3"),
        (change(weights=None), "is a damaged checkpoint"),
        (change(weights={}), "its weights lack encoder.layers.0.conv1.weight"),
        (lambda content: content.pop("weights"), "is a damaged checkpoint"),
        (lambda content: content.pop("training"), "is a damaged checkpoint"),
        (change_weights(**{BIAS: 3}), "its weights encoder.layers.0.conv1.bias are no ordinary tensor"),
        (change_weights(**{BIAS: torch.zeros(1).expand(16)}), "are no ordinary tensor"),
        (change_weights(**{BIAS: torch.zeros(16).to_sparse()}), "are no ordinary tensor"),
        (change_weights(**{BIAS: torch.zeros(16, dtype=torch.complex64)}), "are no ordinary tensor"),
        (change_weights(**{BIAS: torch.zeros(17)}), "conv1.bias are 17, the network experts-paper needs 16"),
        (change_weights(extra=torch.zeros(1)), "weights that the network experts-paper has not, such as 'extra'"),
    ],
)
def test_another_schema_is_one_line(tmp_path, saved, edit, says):
    content = torch.load(saved, weights_only=True)
    edit(content)
    torch.save(content, tmp_path / "edited.pth")
    text = one_line(load_checkpoint, tmp_path / "edited.pth")
    assert says in text and text.startswith(str(tmp_path / "edited.pth"))


def test_a_checkpoint_says_what_it_is_without_emlib(saved):
    content = torch.load(saved, weights_only=True)
    assert content["format"] == FORMAT and set(content) == {"format", "about", "weights", "training"}


# Weights of MExConn


def mexconn(experts=3):
    """A state dict under the published names; which these are is tested in test_learn_models.py."""
    names = [f"o{k}" for k in range(experts)]
    return network({"name": "experts-paper", "organelles": names, "widths": [16, 32]}).state_dict()


def prefixed(prefix, weights):
    return {f"{prefix}{key}": tensor for key, tensor in weights.items()}


WRAPPED = {
    "bare": lambda w: w,
    "module.": lambda w: prefixed("module.", w),
    "compiled": lambda w: prefixed("module._orig_mod.", w),
    "model_state_dict": lambda w: {"model_state_dict": w, "epoch": 3, "optimizer_state_dict": {"state": {}}},
    "state_dict": lambda w: {"state_dict": prefixed("model.", w) | {"loss.weight": torch.ones(2)}, "hyper": [1]},
    "model": lambda w: {"epoch": 3, "model": prefixed("module.", w)},
    "no num_batches_tracked": lambda w: {k: t for k, t in w.items() if not k.endswith("num_batches_tracked")},
    "float16": lambda w: {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in w.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_plain_mexconn_weights_are_imported(tmp_path, wrapping, legacy):
    weights = mexconn()
    torch.save(WRAPPED[wrapping](weights), tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
    found = load_checkpoint(tmp_path / "m.pth")
    assert found.organelles == ("expert_0", "expert_1", "expert_2") and found.voxel_size_nm is None
    assert found.normalisation == Normalisation() and found.model.level_channels == (16, 32)
    for key, tensor in found.model.state_dict().items():
        expected = weights[key].half().float() if wrapping == "float16" else weights[key]
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, expected.to(tensor.dtype))


def test_experts_of_plain_weights_can_be_named_and_are_saved_under_these_names(tmp_path):
    torch.save(mexconn(2), tmp_path / "m.pth")
    found = load_checkpoint(tmp_path / "m.pth", organelles=["membranes", "synapses"])
    assert found.organelles == found.model.organelles == ("membranes", "synapses")
    what = {name: getattr(found, name) for name in ABOUT}
    again = load_checkpoint(save_checkpoint(tmp_path / "ours.pth", found.model, **what), organelles=["not", "these"])
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert again.organelles == found.organelles and torch.equal(again.model(x), found.model(x))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda w: w.pop("decoders.1.out_conv.bias"), "its weights lack decoders.1.out_conv.bias"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("decoders.0")], "its weights lack decoders.0."),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("decoders")], "an encoder and no expert"),
        (lambda w: [w.pop(k) for k in list(w) if ".se." in k], "its weights lack encoder.layers.0.se.fc1.weight"),
        (
            lambda w: w.update({"decoders.0.out_conv.weight": torch.zeros(2, 16, 1, 1)}),
            "are 2 × 16 × 1 × 1, the network",
        ),
        (lambda w: w.update({"encoder.layers.0.conv1.weight": torch.zeros(16, 3, 3, 3)}), "takes 3 values per pixel"),
        (lambda w: w.update({"encoder.layers.0.conv1.weight": torch.zeros(16)}), "not those of 2D convolutions"),
        (lambda w: w.update({"head.weight": torch.zeros(1)}), "has not, such as 'head.weight'"),
    ],
)
def test_weights_of_a_like_network_are_one_line(tmp_path, edit, says):
    weights = dict(mexconn())
    edit(weights)
    torch.save(weights, tmp_path / "m.pth")
    text = one_line(load_checkpoint, tmp_path / "m.pth")
    assert says in text and text.startswith(str(tmp_path / "m.pth"))


def test_names_that_are_not_as_many_as_experts_are_one_line(tmp_path):
    torch.save(mexconn(2), tmp_path / "m.pth")
    text = one_line(load_checkpoint, tmp_path / "m.pth", organelles=["membranes"])
    assert "it holds 2 experts, and 1 organelles were named (membranes)" in text


def test_endless_nesting_ends():
    content = {}
    content["model"] = content
    assert mexconn_weights(content) is None


# Where models are found


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A models/ folder as in a checkout, with another one as working directory."""
    folder, here = tmp_path / "repository" / "models", tmp_path / "here"
    (folder / "pretrained").mkdir(parents=True)
    (here / "models" / "fly").mkdir(parents=True)
    monkeypatch.setattr(model_files, "MODELS", folder)
    monkeypatch.chdir(here)
    return folder


def test_a_bundled_model_is_found_by_name_and_a_file_wins(models):
    bundled = save_checkpoint(models / "pretrained" / "fly-experts.pth", network(), **ABOUT)
    assert find_checkpoint("fly-experts") == bundled and load_checkpoint("fly-experts").path == bundled
    Path("fly-experts").touch()
    assert find_checkpoint("fly-experts") == Path("fly-experts")


def test_a_missing_model_names_those_that_exist(models):
    for file in (models / "pretrained" / "fly-experts.pth", Path("models/fly/model.pth"), Path("models/fly/x.txt")):
        file.touch()
    text = one_line(load_checkpoint, "./models/flies/model.pth")
    assert text == "there is no model models/flies/model.pth; there is models/fly/model.pth, fly-experts"
    assert one_line(find_checkpoint, "fly-expert").endswith("; there is fly-experts, models/fly/model.pth")
    assert one_line(find_checkpoint, "models/fly").endswith(
        "models/fly is a folder; name the .pth file of a model; there is models/fly/model.pth"
    )
    for k in range(7):
        Path(f"models/fly/{k}.pth").touch()
    assert one_line(find_checkpoint, "none").endswith("and 4 more")


def test_without_any_model_the_message_says_how_to_get_one(models):
    assert one_line(find_checkpoint, "model.pth") == "there is no model model.pth; train one with train.py"


def test_a_file_that_cannot_be_read_is_one_line(saved):
    saved.chmod(0)
    if os.access(saved, os.R_OK):
        pytest.skip("this user reads everything")
    assert one_line(load_checkpoint, saved).startswith(f"cannot read {saved}: Permission denied")


def test_the_bundled_model_is_found_by_its_name():
    checkpoint = load_checkpoint("drosophila-vnc-experts")
    assert checkpoint.path.stat().st_size < 10e6
    assert set(checkpoint.organelles) == {"membranes", "mitochondria", "synapses"}
    assert checkpoint.voxel_size_nm == (50.0, 4.6, 4.6) and checkpoint.metrics["iou"] > 0.75
    assert checkpoint.settings["preset"] == "desktop" and checkpoint.settings["epochs"] == 56
