"""Training from a labelled volume that stays in its files: the same patches, statistics and weights as from memory."""

import h5py
import numpy as np
import pytest
import tifffile
import torch
from test_train_scripts import call  # noqa: F401
from test_volume_training import QUICK, cells, no_curves  # noqa: F401

from emlib.errors import UserError
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.transforms import read_augment
from emlib.learn.volumes import counts, data
from emlib.learn.volumes.batches import VolumeBatches
from emlib.learn.volumes.counts import blocks_of, count_values, looked_at
from emlib.learn.volumes.data import VolumeDataSettings, open_labelled
from emlib.learn.volumes.labelled import LabelledVolume, along, crop
from emlib.learn.volumes.reading_cost import decoded_for
from emlib.learn.volumes.targets import boundary_targets
from emlib.volumes.grey import to_uint8
from emlib.volumes.levels import open_levels
from emlib.volumes.ome_zarr import write_ome_zarr
from emlib.volumes.open import open_volume
from emlib.volumes.precomputed import write_precomputed
from emlib.volumes.volume import VolumeSource

SMALL = 2e-5  # GB: no volume fits into memory, a chunk does


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """The same EM and labels as .npy, in Zarr and in HDF5."""
    folder = tmp_path_factory.mktemp("volume")
    labels, em = cells()
    for name, array in (("em", em), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)
        write_ome_zarr(folder / f"{name}.zarr", array, (10, 10, 10), chunk=16)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=array, chunks=(8, 8, 8), compression="gzip")
    return folder


def opened(folder, suffix=".npy", **more):
    lines = []
    named = {name: folder / f"{file}{suffix}" for name, file in (("volume", "em"), ("labels", "labels"))}
    return open_labelled(VolumeDataSettings(**{**named, "voxel_size": (10, 10, 10), **more}), lines.append), lines


# ---- what is read in parts is what lies in memory


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("first", "size"), [((2, 3, 4), (1, 5, 6)), ((-2, -3, 7), (5, 20, 9)), ((9, 0, -40), (3, 4, 70))]
)
def test_a_crop_is_that_of_the_volume_mirrored_all_round(axis, first, size):
    array = np.random.default_rng(0).integers(0, 255, (11, 9, 13))
    planes = along(array, axis)
    periods = [np.pad(np.arange(n), 60, "reflect") for n in planes.shape]
    at = [period[60 + start : 60 + start + count] for period, start, count in zip(periods, first, size, strict=True)]
    assert (crop(array, axis, first, size) == planes[np.ix_(*at)]).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "bool"])
def test_grey_of_files_and_of_memory_is_that_of_the_whole(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(counts, "BLOCK", (5, 16, 24))
    labels, em = cells()
    wide = em.astype(float) - 100
    stored = em > 120 if dtype == "bool" else (wide if dtype != "uint16" else wide * 90 + 30000).astype(dtype)
    np.save(tmp_path / "em.npy", stored)
    np.save(tmp_path / "labels.npy", labels)
    for memory_gb in (2.0, SMALL):
        found, lines = opened(tmp_path, memory_gb=memory_gb)
        assert bool(lines) == (memory_gb == SMALL)
        for part in (found.train, found.val):
            span = slice(part.first_z, part.first_z + part.em.shape[0])
            assert (part.em[:, :, :] == to_uint8(stored[span])[0]).all() if memory_gb == 2 else True
            box = (slice(1, 3), slice(5, 40), slice(0, 33))
            assert (part.em[box] == to_uint8(stored[span])[0][box]).all()


@pytest.mark.parametrize("size", [(10, 10, 10), (4, 4, 4), (50, 4, 4), (30, 2, 5)])
@pytest.mark.parametrize("ignore", [None, 0])
def test_targets_of_boxes_are_those_of_the_whole(tmp_path, monkeypatch, size, ignore):
    monkeypatch.setattr(counts, "BLOCK", (4, 10, 16))
    labels, em = cells((20, 30, 35), 12)
    labels[5:9, 3:20, 8:11] = 0
    np.save(tmp_path / "em.npy", em)
    np.save(tmp_path / "labels.npy", labels)
    both = [opened(tmp_path, voxel_size=size, ignore=ignore, memory_gb=gb)[0] for gb in (2.0, SMALL)]
    compared = (0, 1, 2) if max(size) <= 2 * min(size) else (1, 2)
    for name in ("train", "val"):
        held, read = (getattr(each, name) for each in both)
        whole = boundary_targets(labels[held.first_z : held.first_z + held.em.shape[0]], size, compared, ignore)
        assert isinstance(held.targets, np.ndarray) and not isinstance(read.targets, np.ndarray)
        assert (held.targets == whole).all()
        for box in blocks_of(read.em.shape, 1):
            assert (read.targets[box] == whole[box]).all()
    assert both[0].fingerprints == both[1].fingerprints and both[0].share == both[1].share
    assert both[0].normalisation() == both[1].normalisation()


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".h5"])
def test_batches_from_files_are_those_from_memory(volume, suffix):
    held, read = opened(volume)[0], opened(volume, suffix, memory_gb=SMALL)[0]
    settings = PatchSettings(40, 40, 6, "random", 24)  # higher than the sections along x and y
    how = {"normalisation": held.normalisation(), "augment": read_augment("strong"), "seed": 5}
    one, other = (each.batches(settings, **how) for each in (held, read))
    assert (one.class_balance() == other.class_balance()).all()
    for step in (0, 3):
        for a, b in zip(one.batch(1, step), other.batch(1, step), strict=True):
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def test_only_what_a_patch_shows_is_read(volume):
    boxes = []
    array = np.zeros((500, 600, 700), np.uint8)

    class Watched:
        shape = array.shape

        def __getitem__(self, box):
            boxes.append([side.stop - side.start for side in box])
            return array[box]

    labelled = LabelledVolume(Watched(), Watched(), (0, 1, 2), 5)
    settings = PatchSettings(32, 32, 8, "random", 64)
    batches = VolumeBatches(labelled, settings, normalisation=Normalisation())
    for step in range(batches.steps_per_epoch):
        batches.batch(0, step)
    assert len(boxes) == 2 * 64 and all(sorted(sides) in ([5, 32, 32], [1, 32, 32]) for sides in boxes)


# ---- passes over a volume


def test_blocks_cover_the_volume_once_and_begin_at_fixed_sections_of_the_file():
    seen = np.zeros((70, 600, 30), int)
    for box in blocks_of(seen.shape, 50):
        seen[box] += 1
        assert (50 + box[0].start) % 32 == 0 or box[0].start == 0
    assert (seen == 1).all()


def test_of_a_large_volume_some_blocks_are_looked_at_in_memory_as_in_files(volume, monkeypatch):
    monkeypatch.setattr(counts, "BLOCK", (4, 16, 16))
    monkeypatch.setattr(counts, "MOST_VOXELS", 12_000)
    held, read = opened(volume)[0], opened(volume, ".zarr", memory_gb=SMALL)[0]
    assert 8_000 < count_values(held.train.em, held.train.first_z).sum() < 16_000
    assert held.normalisation() == read.normalisation() and held.share == read.share
    assert list(held.fingerprints.values()) == list(read.fingerprints.values())
    assert len(looked_at((400, 400, 400))) == 12 < len(blocks_of((400, 400, 400))) == 62_500


# ---- train.py


def trained(call, folder, suffix, out, *more):  # noqa: F811
    files = ["--volume", folder / f"em{suffix}", "--labels", folder / f"labels{suffix}"]
    argv = [*files, "--out_path", out, *QUICK.split(), "--voxel_size", 10, 10, 10, "--patches_per_epoch", 12, *more]
    code, said, err = call("train.py", *argv)
    assert (code, err) == (0, ""), err
    return said


def test_weights_from_zarr_are_those_from_memory(call, volume, tmp_path, no_curves):  # noqa: F811
    said = trained(call, volume, ".npy", tmp_path / "memory.pth", "--epochs", 1)
    assert "patches are read from the files" not in said
    said = trained(call, volume, ".zarr", tmp_path / "zarr.pth", "--epochs", 1, "--memory_gb", SMALL)
    assert (
        "note: EM and targets would take 0.0 GB, more than --memory_gb 2e-05; patches are read from the files" in said
    )
    for name in ("{}.pth", "{}/last.pth"):
        one, other = (load_checkpoint(tmp_path / name.format(which)) for which in ("memory", "zarr"))
        assert one.normalisation == other.normalisation and one.metrics == other.metrics
        a, b = one.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_training_goes_on_with_less_memory(call, volume, tmp_path, no_curves):  # noqa: F811
    out = tmp_path / "model.pth"
    trained(call, volume, ".npy", out, "--epochs", 1, "--schedule", "constant")
    said = trained(call, volume, ".npy", out, "--epochs", 2, "--schedule", "constant", "--resume", "--memory_gb", SMALL)
    assert "epoch 2/2" in said and "epoch 1/2" not in said


# ---- what cannot be read in parts


def test_a_file_that_is_read_whole_or_not_at_all_is_one_line(tmp_path):
    labels, em = cells()
    np.save(tmp_path / "labels.npy", labels)
    tifffile.imwrite(tmp_path / "em.tif", np.moveaxis(em, 0, -1), compression="zlib", metadata={"axes": "YXZ"})
    settings = VolumeDataSettings(
        tmp_path / "em.tif", tmp_path / "labels.npy", voxel_size=(10, 10, 10), memory_gb=SMALL
    )
    with pytest.raises(UserError, match=r"can only be read in pieces of 24 × 48 × 40 voxels .*fetch_data.py .*--zarr"):
        open_labelled(settings, print)


def test_slow_files_are_told(volume, monkeypatch):
    assert decoded_for((1, 64, 64), 1, (5, 32, 32), (1000, 1000, 1000)) == 32 * 68 * 95
    monkeypatch.setattr(data, "GB", 1)  # a budget of bytes
    found = []
    piece = VolumeSource("em", (1000, 4000, 4000), np.dtype("u1"), lambda box: None, piece=(1, 4000, 4000))
    data.check_pieces(piece, "--volume", (0, 1), (5, 128, 128), 2.0, found.append)
    assert len(found) == 1 and found[0].startswith(
        "warning: em is read in pieces of 1 × 4000 × 4000 voxels, 2048 million"
    )
    assert "--zarr FILE.zarr' and give that as --volume" in found[0]
    data.check_pieces(piece, "--volume", (0,), (3, 128, 128), 2.0, found.append)
    assert len(found) == 1


def test_holes_in_the_grey_are_one_line(tmp_path):
    labels, em = cells()
    bad = em.astype(np.float32)
    bad[3, 4, 5] = np.nan
    np.save(tmp_path / "em.npy", bad)
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(UserError, match="holds 1 NaN or infinite voxels; replace or crop them"):
        opened(tmp_path, memory_gb=SMALL)
    np.save(tmp_path / "em.npy", np.full_like(em, 9))
    with pytest.raises(UserError, match="holds a single grey value 9 in z 0-17; give other sections"):
        opened(tmp_path)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_worker_processes_read_the_same_patches(volume, suffix):
    """They are forked from a process that has read the files already."""
    read = opened(volume, suffix, memory_gb=SMALL)[0]
    batches = read.batches(PatchSettings(16, 16, 2, "random", 4), normalisation=Normalisation())
    here, there = (list(batches.loader(0, workers=workers)) for workers in (0, 1))
    assert len(here) == 2 and all(torch.equal(a[0], b[0]) for a, b in zip(here, there, strict=True))


@pytest.mark.slow
def test_worker_processes_read_precomputed_volumes(volume):
    """Its library does not survive a fork."""
    for name, kind in (("em", "image"), ("labels", "segmentation")):
        source = open_volume(volume / f"{name}.npy")
        write_precomputed(volume / f"{name}.pre", open_levels(source, (10, 10, 10), "nearest"), kind)
    named = {
        name: f"precomputed://file://{volume / file}.pre" for name, file in (("volume", "em"), ("labels", "labels"))
    }
    read = open_labelled(VolumeDataSettings(**named, memory_gb=3e-5), print)
    batches = read.batches(PatchSettings(16, 16, 2, "random", 4), normalisation=Normalisation())
    here, there = (list(batches.loader(0, workers=workers)) for workers in (0, 1))
    held = opened(volume)[0].batches(PatchSettings(16, 16, 2, "random", 4), normalisation=Normalisation())
    assert all(torch.equal(a[0], b[0]) for a, b in zip(here, there, strict=True))
    assert torch.equal(here[0][0], held.batch(0, 0)[0])
