"""``predict.py`` as a user calls it: what it writes against the network itself, resuming, mistakes, ONNX."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emlib.learn.inference import predict_section
from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.prediction import onnx_file
from emlib.learn.tiles import TileSettings
from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.ome_zarr import open_zarr, write_ome_zarr
from emlib.volumes.open import open_volume
from emlib.volumes.tiff import write_tiff

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("membranes", "mitochondria")
TILES = ("--tile", "96", "--overlap", "32")
MEAN = Normalisation(0.5, 0.25)


def save_model(path, activation="sigmoid", names=NAMES):
    torch.manual_seed(1)
    architecture = {"name": "experts-laptop", "organelles": list(names), "widths": [6], "expert_widths": [6]}
    architecture |= {"activation": activation} if activation != "sigmoid" else {}
    settings = {"colours": {"mitochondria": "#E69F00"}, **({"class_ids": [0, 7, 3]} if len(names) == 3 else {})}
    about = {"normalisation": MEAN, "voxel_size_nm": (50, 4, 4), "metrics": {}, "settings": settings}
    return save_checkpoint(path, build_model(architecture), architecture=architecture, **about)


def tissue(shape, seed=0):
    """Blobs of some pixels, so that masks have areas."""
    coarse = np.random.default_rng(seed).integers(0, 256, [*shape[:-2], *(-(-n // 6) for n in shape[-2:])])
    fine = coarse.repeat(6, -1).repeat(6, -2)
    return fine[..., : shape[-2], : shape[-1]].astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "model.pth")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "em").mkdir()
    for i, shape in enumerate([(70, 90), (110, 64), (48, 130)]):
        Image.fromarray(tissue(shape, i)).save(tmp_path / f"em/{i:02d}.png")
    return tmp_path / "em"


@pytest.fixture
def call(call_script):
    """Return a function that runs the script in this process and gives (exit code, stdout, stderr)."""

    def run(*argv):
        done = call_script("predict.py", *argv)
        return done.returncode, done.stdout, done.stderr

    return run


def refused(call, *argv):
    code, out, err = call(*argv)
    lines = [line for line in err.splitlines() if line and not line.startswith(("note: ", "warning: "))]
    assert code == 2 and len(lines) == 1 and not out, (code, err)
    return lines[0]


def expected(model, image):
    """Probabilities (E, Y, X) by the library itself."""
    checkpoint = load_checkpoint(model)
    network = checkpoint.model.to(memory_format=torch.channels_last)
    return predict_section(network, image, MEAN, TileSettings(96, 32))


def png(path):
    return np.asarray(Image.open(path))


def files(folder, *, without=("runs",)):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(without)}


def test_a_folder_of_images(call, model, folder, tmp_path):
    extras = ("--overlay", "--colour_masks", "--probabilities")
    code, out, err = call("--model_path", model, "--input", folder, "--output", tmp_path / "out", *TILES, *extras)
    assert code == 0 and not err, err
    assert out.startswith("predicted 3 images, 0.0196 megapixels in ") and f"written: {tmp_path / 'out/overlay'}" in out
    for i in range(3):
        name, em = f"{i:02d}", png(folder / f"{i:02d}.png")
        found = expected(model, em)
        overlay, colours = (png(tmp_path / f"out/{what}/{name}.png") for what in ("overlay", "colour_masks"))
        for k, organelle in enumerate(NAMES):
            mask = png(tmp_path / f"out/{organelle}/{name}.png")
            assert mask.dtype == np.uint8 and np.array_equal(mask, (found[k] >= 0.5) * np.uint8(255))
            probability = np.load(tmp_path / f"out/probabilities/{organelle}/{name}.npy")
            assert probability.dtype == np.float16 and np.array_equal(probability, found[k].astype(np.float16))
        assert (colours[found[1] >= 0.5] == (230, 159, 0)).all() and not colours[(found < 0.5).all(0)].any()
        changed = (overlay != em[..., None]).any(-1)
        assert changed.any() and not changed[(found < 0.5).all(0)].any()
    again = call("--model_path", model, "--input", folder, "--output", tmp_path / "again", *TILES, *extras)
    assert again[0] == 0 and files(tmp_path / "out") == files(tmp_path / "again")
    record = json.loads((tmp_path / "out/predict.json").read_text())
    assert record["model"]["sha256"] == load_checkpoint(model).sha256 and record["settings"]["tile"] == 96


def test_one_organelle_and_a_threshold(call, model, folder, tmp_path):
    found = expected(model, png(folder / "00.png"))[1]
    threshold = float(np.median(found))
    argv = ("--model_path", model, "--input", folder / "00.png", "--output", tmp_path / "out", *TILES)
    code, *_ = call(*argv, "--organelles", "mitochondria", "--threshold", threshold)
    assert code == 0 and not (tmp_path / "out/membranes").exists()
    mask = png(tmp_path / "out/mitochondria/00.png")
    assert np.array_equal(mask > 0, found >= np.float32(threshold)) and 0.3 < (mask > 0).mean() < 0.7


def test_classes_that_exclude_each_other(call, folder, tmp_path):
    model = save_model(tmp_path / "softmax.pth", "softmax", ("background", *NAMES))
    argv = ("--model_path", model, "--input", folder, *TILES)
    assert call(*argv, "--output", tmp_path / "out")[0] == 0
    assert call(*argv, "--output", tmp_path / "one", "--organelles", "mitochondria")[0] == 0
    best = expected(model, png(folder / "01.png")).argmax(0)
    assert len(np.unique(best)) > 1
    mask = png(tmp_path / "out/masks/01.png")
    assert mask.dtype == np.uint8 and np.array_equal(mask, np.array([0, 7, 3])[best])
    assert np.array_equal(png(tmp_path / "one/masks/01.png"), np.array([0, 0, 3])[best])


def test_volumes_of_all_formats_give_the_same(call, model, tmp_path):
    volume, size = tissue((5, 60, 70)), (40.0, 4.0, 4.0)
    write_tiff(tmp_path / "a.tif", volume, size)
    write_hdf5(tmp_path / "a.h5", volume, size, "em/raw")
    write_ome_zarr(tmp_path / "a.zarr", volume, size)
    np.save(tmp_path / "n.npy", volume)
    (tmp_path / "s").mkdir()
    for z, section in enumerate(volume):
        Image.fromarray(section).save(tmp_path / f"s/{z}.png")
    masks = np.stack([expected(model, section)[1] for section in volume]) >= 0.5
    inputs = [tmp_path / name for name in ("a.tif", "a.h5", "a.zarr", "n.npy", "s")]
    argv = ("--model_path", model, "--organelles", "mitochondria", "--output", tmp_path / "out", *TILES)
    code, out, err = call(*argv, "--input", *inputs, "--dataset", "em/raw", "--stack", "--overlay")
    assert code == 0 and out.startswith("predicted 5 inputs"), err
    written = sorted(path.name for path in (tmp_path / "out/mitochondria").iterdir())
    assert written == ["a_h5.zarr", "a_tif.tif", "a_zarr.zarr", "n.tif", "s.tif"]  # one stem, three files
    for name in written:
        source = open_volume(tmp_path / "out/mitochondria" / name)
        assert np.array_equal(source.read(tuple(slice(0, n) for n in source.shape)), masks * np.uint8(255))
        assert source.voxel_size_nm == (size if name.startswith("a_") else None)
    assert len(list((tmp_path / "out/overlay/s").glob("section_*.png"))) == 5
    assert not (tmp_path / "out/.partial").exists()


def test_colour_becomes_grey_with_a_note(call, model, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", rgb, photometric="rgb")
    Image.fromarray(rgb).convert("L").save(tmp_path / "grey.png")
    inputs = [tmp_path / name for name in ("a.png", "b.tif", "grey.png")]
    code, _, err = call("--model_path", model, "--input", *inputs, "--output", tmp_path / "out", *TILES)
    assert code == 0 and err.count("note:") == 1 and "a.png is in colour; its brightness is taken" in err
    a, b, grey = (png(tmp_path / f"out/membranes/{name}.png") for name in ("a", "b", "grey"))
    assert np.array_equal(a, grey) and np.array_equal(b, grey)


def test_pixels_of_another_size(call, model, folder, tmp_path):
    argv = ("--model_path", model, "--input", folder / "00.png", "--voxel_size", 50, 8, 8, *TILES)
    code, _, err = call(*argv, "--output", tmp_path / "as_it_is")
    assert code == 0 and "a factor of 2; --resample matches them" in err
    code, _, err = call(*argv, "--output", tmp_path / "out", "--resample", "--probabilities")
    assert code == 0 and not err
    assert np.load(tmp_path / "out/probabilities/membranes/00.npy").shape == png(folder / "00.png").shape
    assert files(tmp_path / "out")["membranes/00.png"] != files(tmp_path / "as_it_is")["membranes/00.png"]


def test_objects_are_numbered_and_measured(call, model, folder, tmp_path):
    argv = ("--model_path", model, "--input", folder, "--output", tmp_path / "out", *TILES)
    code, _, err = call(*argv, "--instances", "components", "--measure", "--organelles", "mitochondria")
    assert code == 0 and "50 × 4 × 4 nm (z y x), the model's" in err
    import pandas as pd

    table = pd.read_csv(tmp_path / "out/objects.csv", dtype={"image": str})
    for name in ("00", "01", "02"):
        labels = tifffile.imread(tmp_path / f"out/instances/mitochondria/{name}.tif")
        mask = png(tmp_path / f"out/mitochondria/{name}.png") > 0
        rows = table[table["image"] == name]
        assert not labels[~mask].any() and sorted(rows["id"]) == sorted(set(np.unique(labels)) - {0})
        assert rows["area_um2"].to_numpy() == pytest.approx(np.bincount(labels.ravel())[1:] * 16e-6, rel=1e-4)
    assert len(table) > 3 and set(table["organelle"]) == {"mitochondria"}


def test_memory_does_not_grow_with_the_number_of_images(model, tmp_path, call):
    image = Image.fromarray(tissue((96, 96)))
    peaks = {}
    for count in (2, 20, 200):
        (tmp_path / str(count)).mkdir()
        for i in range(count):
            image.save(tmp_path / f"{count}/{i}.png")
        tracemalloc.start()
        argv = ("--model_path", model, "--input", tmp_path / str(count), "--output", tmp_path / f"out{count}")
        assert call(*argv, *TILES, "--overlay", "--quiet")[0] == 0
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # what one image and its results take is 0.2 MB, what 180 take 40 MB
    assert peaks[200] < peaks[20] + 1.5e6, peaks


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["volume", "images"])
def test_killed_and_resumed_is_byte_identical(call, model, tmp_path, kind):
    if kind == "volume":
        write_ome_zarr(tmp_path / "em.zarr", tissue((40, 128, 128)), (40, 4, 4))
        given, extras = tmp_path / "em.zarr", ("--probabilities", "--overlay")
    else:
        (tmp_path / "em").mkdir()
        for i in range(40):
            Image.fromarray(tissue((128, 128), i)).save(tmp_path / f"em/{i}.png")
        given, extras = tmp_path / "em", ("--overlay",)
    argv = ["--model_path", model, "--input", given, *TILES, "--tta", *extras, "--quiet", "--threads", "1"]
    done = tmp_path / "out/predict_done.jsonl"
    command = [sys.executable, str(ROOT / "predict.py"), *map(str, argv), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (done.is_file() and done.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = done.read_bytes().count(b"\n")
    assert 5 <= before < 40, "it was not killed half way"
    assert call(*argv, "--output", tmp_path / "out", "--resume")[0] == 0
    assert done.read_bytes().splitlines()[:before] and call(*argv, "--output", tmp_path / "all")[0] == 0
    resumed, straight = files(tmp_path / "out"), files(tmp_path / "all")
    assert resumed == straight and len(straight) > 40
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/overlay").rglob("*.png")}
    assert call(*argv, "--output", tmp_path / "out", "--resume")[0] == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_results_of_another_model_are_not_mixed(call, model, folder, tmp_path):
    argv = ("--input", folder / "00.png", "--output", tmp_path / "out", *TILES)
    assert call("--model_path", model, *argv)[0] == 0
    other = save_model(tmp_path / "other.pth", names=("membranes", "synapses"))
    for more in ((), ("--resume",)):
        assert "another model; choose another --output, or give --overwrite" in refused(
            call, "--model_path", other, *argv, *more
        )
    assert call("--model_path", other, *argv, "--overwrite")[0] == 0
    assert (tmp_path / "out/synapses/00.png").exists() and not (tmp_path / "out/mitochondria").exists()


def test_output_within_the_input(call, model, folder):
    argv = ("--model_path", model, "--input", folder, "--output", folder / "predictions", *TILES)
    assert "lies in the input" in refused(call, *argv) and not (folder / "predictions").exists()
    assert call(*argv, "--into_input")[0] == 0


def test_mistakes(call, model, folder, tmp_path):
    write_hdf5(tmp_path / "v.h5", tissue((3, 40, 40)), (40, 4, 4), "volumes/raw")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.pth").write_text("no checkpoint")
    (tmp_path / "bad.png").write_bytes((folder / "00.png").read_bytes()[:60])
    (tmp_path / "model.ts").write_text("")
    (tmp_path / "no.onnx").write_text("no onnx")
    write_tiff(tmp_path / "long.tif", tissue((3, 40, 40)), (50, 4, 4))
    np.save(tmp_path / "complex.npy", np.ones((3, 40, 40), np.complex64))
    np.save(tmp_path / "complex2d.npy", np.ones((40, 40), np.complex64))
    Image.fromarray(np.ones((12, 40), np.uint8)).save(tmp_path / "flat.png")
    one = ("--input", folder / "00.png")
    known = ("--model_path", model)
    for number, (argv, said) in enumerate(
        [
            (("--model_path", tmp_path / "no.pth", *one), "no.pth"),
            (("--model_path", tmp_path / "no.onnx", *one), "no.onnx"),
            (("--model_path", tmp_path / "model.ts", *one), "can run any code as it is loaded"),
            ((*known,), "name what to predict with --input"),
            ((*known, "--input", tmp_path / "empty"), "holds no sections"),
            ((*known, "--input", tmp_path / "nothing.png"), "no such file or folder"),
            ((*known, "--input", tmp_path / "*.jpg"), "no file has such a name"),
            ((*known, "--input", tmp_path / "complex.npy"), "complex.npy holds complex64"),
            ((*known, "--input", tmp_path / "complex2d.npy"), "complex2d.npy holds complex64"),
            ((*known, *one, "--input", folder / "00.png", tmp_path / "flat.png"), "flat.png is 12 × 40 pixels"),
            ((*known, "--input", tmp_path / "bad.png"), "bad.png"),
            ((*known, "--input", folder, "--stack"), "sections differ in size"),
            ((*known, "--input", f"{tmp_path / 'v.h5'}:em"), "has no dataset em; it holds volumes/raw (3, 40, 40)"),
            ((*known, "--input", tmp_path / "v.h5", "--dataset", "em"), "has no dataset em; it holds volumes/raw"),
            ((*known, *one, "--dataset", "em"), "no --input is one"),
            ((*known, *one, "--orthogonal"), "--orthogonal is for volumes"),
            ((*known, *one, "--format", "zarr"), "--format is for volumes"),
            ((*known, "--input", tmp_path / "long.tif", "--orthogonal"), "those of"),
            ((*known, *one, "--organelles", "mitochondira"), "did you mean mitochondria"),
            ((*known, *one, *one[1:]), "twice"),
            ((*known, *one, "--resample"), "give --voxel_size"),
            ((*known, *one, "--tile", "100"), "--tile must be a multiple of 32"),
            ((*known, *one, "--export", "onxx", "m"), "did you mean onnx"),
        ]
    ):
        line = refused(call, "--output", tmp_path / f"out{number}", *TILES, *argv)
        assert said in line, (said, line)
    assert "0.3 is too little" in refused(call, *known, *one, "--output", tmp_path / "out", "--memory_gb", "0.3")


def test_a_full_disk_keeps_what_is_whole(call, model, folder, tmp_path):
    """The largest file that the process may write stands in for the end of the disk."""
    resource = pytest.importorskip("resource")
    argv = ("--model_path", model, "--input", folder, "--output", tmp_path / "out", *TILES, "--probabilities")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (13_500, hard))  # the second image's probabilities take 14 208
    try:
        line = refused(call, *argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in line and "01.npy" in line and "--output" in line
    assert not [path for path in (tmp_path / "out").rglob("*.tmp*")]
    code, out, _ = call(*argv, "--resume")
    assert code == 0 and "(1 of them by an earlier run)" in out
    assert call(*argv[:5], tmp_path / "straight", *argv[6:])[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_onnx_gives_the_same_masks(call, model, folder, tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    code, out, err = call("--model_path", model, "--export", "onnx", tmp_path / "m.onnx")
    assert code == 0 and "opset 18" in out and "largest difference from the checkpoint: " in out, err
    assert float(out.split("checkpoint: ")[1].split()[0]) < 1e-5
    for name in ("model.pth", "m.onnx"):
        given = model if name == "model.pth" else tmp_path / name
        code, _, err = call("--model_path", given, "--input", folder, "--output", tmp_path / name[0:2], *TILES)
        assert code == 0, err
    ours, theirs = (files(tmp_path / name) for name in ("mo", "m."))
    masks = [name for name in ours if name.endswith(".png")]
    assert len(masks) == 6 and all(ours[name] == theirs[name] for name in masks)
    import onnx

    proto = onnx.load(tmp_path / "m.onnx")
    told = {one.key: one.value for one in proto.metadata_props}
    assert json.loads(told["organelles"]) == list(NAMES) and json.loads(told["voxel_size_nm"]) == [50, 4, 4]
    assert str(ROOT).encode() not in (tmp_path / "m.onnx").read_bytes()


def test_torchscript_gives_the_same_logits(call, model, tmp_path):
    code, out, err = call("--model_path", model, "--export", "torchscript", tmp_path / "m.ts")
    assert code == 0 and "TorchScript" in out, err
    loaded, image = torch.jit.load(tmp_path / "m.ts"), torch.randn(1, 1, 96, 32)
    assert torch.allclose(loaded(image), load_checkpoint(model).model(image), atol=1e-5)


def test_onnxruntime_that_is_not_installed(call, folder, tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_text("")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    argv = ("--model_path", tmp_path / "m.onnx", "--input", folder, "--output", tmp_path / "out")
    assert "the package onnxruntime, which is not installed; pip install onnxruntime" in refused(call, *argv)
    assert onnx_file.need("json") is json


def test_zarr_results_open_as_volumes(call, model, tmp_path):
    write_ome_zarr(tmp_path / "em.zarr", tissue((3, 64, 64)), (8, 8, 8))
    argv = ("--model_path", model, "--input", tmp_path / "em.zarr", "--output", tmp_path / "out", *TILES)
    assert call(*argv, "--orthogonal", "--probabilities", "--instances")[0] == 0
    for name in ("membranes", "probabilities/membranes", "instances/membranes"):
        source = open_zarr(tmp_path / f"out/{name}/em.zarr")
        assert source.shape == (3, 64, 64) and source.voxel_size_nm == (8, 8, 8)
