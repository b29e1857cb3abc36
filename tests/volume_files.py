"""Small volumes in every format that `emlib.volumes` reads, for its tests."""

import numpy as np

from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.mrc import write_mrc
from emlib.volumes.npy import write_npy
from emlib.volumes.ome_zarr import write_ome_zarr
from emlib.volumes.sections import write_sections
from emlib.volumes.tiff import write_tiff

VOXEL_NM = (50.0, 4.2, 3.5)  # unequal, so that a swap of axes shows


def noise(shape=(7, 20, 31), seed=0, dtype="uint8"):
    """Every voxel different from its neighbours, so that any shift shows."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, min(np.iinfo(dtype).max, 40_000), shape, dtype=dtype, endpoint=True)


def write_all(folder, array):
    """Write ``array`` in each format; return {format: path to open}."""
    paths = {
        "npy": folder / "a.npy",
        "tiff": folder / "a.tif",
        "mrc": folder / "a.mrc",
        "sections": folder / "sections",
        "hdf5": folder / "a.h5",
        "ome_zarr": folder / "a.zarr",
    }
    write_npy(paths["npy"], array)
    write_tiff(paths["tiff"], array, VOXEL_NM)
    write_mrc(paths["mrc"], array, VOXEL_NM)
    write_sections(paths["sections"], array)
    write_hdf5(paths["hdf5"], array, VOXEL_NM)
    write_ome_zarr(paths["ome_zarr"], array, VOXEL_NM, chunk=8)
    return paths


def whole(source):
    """Read all of an opened volume, in its stored type."""
    return source.read(tuple(slice(0, length) for length in source.shape))
