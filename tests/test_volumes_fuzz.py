"""Damaged files of every format end in a volume or in a `UserError`, never in anything else."""

import shutil
import warnings

import numpy as np
import pytest
import tifffile
from volume_files import noise, write_all

from emlib.errors import UserError
from emlib.volumes.cutout import read_cutout
from emlib.volumes.open import open_volume

CASES = 16


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    paths = write_all(folder, noise((4, 16, 18)))
    paths["compressed"] = folder / "compressed.tif"
    tifffile.imwrite(paths["compressed"], noise((4, 16, 18)), compression="zlib", photometric="minisblack")
    return paths


def damage(path, rng):
    """Cut off the end of one file, or flip some bits of it; headers more often than voxels."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    if rng.random() < 0.3:
        content = content[: rng.integers(len(content))]
    else:
        for _ in range(rng.integers(1, 6)):
            reach = min(len(content), 512) if rng.random() < 0.7 else len(content)
            content[rng.integers(reach)] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["npy", "tiff", "compressed", "mrc", "sections", "hdf5", "ome_zarr"])
def test_damaged_files(tmp_path, originals, name):
    failed = 0
    for seed in range(CASES):
        original = originals[name]
        path = tmp_path / str(seed) / original.name
        path.parent.mkdir()
        (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
        damage(path, np.random.default_rng([seed, len(name)]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                volume = read_cutout(open_volume(path))
        except UserError as error:
            failed += 1
            assert "\n" not in str(error)
        else:
            assert volume.array.ndim == 3
            assert volume.array.dtype == np.uint8
    assert failed, "damage this strong must show in some case"
