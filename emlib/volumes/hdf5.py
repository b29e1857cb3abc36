"""HDF5: ``file.h5:dataset``, with CREMI's attributes ``resolution`` and ``offset`` (nm, z y x)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import find_axes
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource


def open_hdf5(path: Path, dataset: str | None = None) -> VolumeSource:
    """Open one dataset of an HDF5 file; without a name, the only one that has three axes.

    Honoured attributes: ``resolution`` (nm) or ``element_size_um`` for the voxel size, ``offset`` (nm; kept in the
    notes as ``offset_nm``), and ilastik's ``axistags`` for the order of axes.

    Raises
    ------
    UserError
        If the name is wrong or missing and not obvious: the datasets there are listed.
    """
    import h5py

    with h5py.File(path, "r") as file:
        name = _choose(file, path, dataset)
        stored = file[name]
        if not isinstance(stored, h5py.Dataset) or stored.shape is None:
            raise UserError(f"{path}:{name} is no array; the file holds {_listing(_datasets(file))}")
        where = f"{path}:{name}"
        axes = find_axes(stored.shape, _axis_names(stored), where)
        size = voxel_size(stored.attrs.get("resolution"))
        if size is None and (micrometres := voxel_size(stored.attrs.get("element_size_um"))):
            size = voxel_size(1e3 * value for value in micrometres)
        offset = stored.attrs.get("offset")
        notes = {} if offset is None or np.shape(offset) != (3,) else {"offset_nm": [float(v) for v in offset]}
        dtype = stored.dtype

    def read(box: Box) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return axes.read(file[name], box)

    return VolumeSource(where, axes.shape, dtype, read, size, notes=notes)


def write_hdf5(
    path: Path, array: np.ndarray, voxel_size_nm: ZYX, dataset: str = "volumes/raw", offset_nm: ZYX = (0, 0, 0)
) -> None:
    """Write a volume as one dataset of a new file, in chunks, compressed, with CREMI's attributes."""
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        stored = file.create_dataset(dataset, data=array, chunks=True, compression="gzip", compression_opts=1)
        stored.attrs["resolution"] = np.asarray(voxel_size_nm, dtype=float)
        stored.attrs["offset"] = np.asarray(offset_nm, dtype=float)


def _choose(file, path: Path, dataset: str | None) -> str:
    found = _datasets(file)
    if dataset:
        name = dataset.strip("/")
        if name not in file:
            raise UserError(f"{path} has no dataset {name}; it holds {_listing(found)}")
        return name
    stacks = [name for name, shape in found.items() if len(shape) == 3]
    if not stacks and len(found) == 1:  # ilastik's (Z, Y, X, 1)
        stacks = list(found)
    if len(stacks) != 1:
        what = f"{len(stacks)} 3D datasets" if stacks else "no 3D dataset"
        raise UserError(f"{path} holds {what}: {_listing(found)}; name one as {path.name}:DATASET")
    return stacks[0]


def _datasets(file) -> dict[str, tuple[int, ...]]:
    import h5py

    found = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            found[name] = item.shape

    file.visititems(visit)
    return found


def _listing(datasets: dict[str, tuple[int, ...]], most: int = 12) -> str:
    names = [f"{name} {shape}" for name, shape in list(datasets.items())[:most]]
    more = len(datasets) - len(names)
    return ", ".join([*names, *([f"and {more} more"] if more else [])]) or "no datasets"


def _axis_names(stored) -> list[str] | None:
    """One letter per axis from ilastik's ``axistags``, if they fit the shape."""
    try:
        names = [axis["key"] for axis in json.loads(stored.attrs["axistags"])["axes"]]
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(names) == stored.ndim else None
