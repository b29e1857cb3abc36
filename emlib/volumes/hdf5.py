"""HDF5: ``file.h5:dataset``, with CREMI's attributes ``resolution`` and ``offset`` (nm, z y x)."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import Axes, find_axes
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

PACKED, PACKED_EXTRA = 2, 2**16  # a chunk that takes more than twice its voxels and this is no compression
MOST_CHUNKS = 20_000


def open_hdf5(path: Path, dataset: str | None = None) -> VolumeSource:
    """Open one dataset of an HDF5 file; without a name, the only one that has three axes.

    Honoured attributes: ``resolution`` (nm) or ``element_size_um`` for the voxel size, ``offset`` (nm; kept in the
    notes as ``offset_nm``), and ilastik's ``axistags`` for the order of axes.

    Raises
    ------
    UserError
        If the name is wrong or missing and not obvious: the datasets there are listed; if the voxels lie in another
        file.
    """
    import h5py

    with h5py.File(path, "r") as file:
        name = _choose(file, path, dataset)
        _check_links(file, path, name)
        stored = file[name]
        if not isinstance(stored, h5py.Dataset) or stored.shape is None:
            raise UserError(f"{path}:{name} is no array; the file holds {_listing(_datasets(file))}")
        where = f"{path}:{name}"
        _check_inside(stored, where)
        axes = find_axes(stored.shape, _axis_names(stored), where)
        size = voxel_size(stored.attrs.get("resolution"))
        if size is None and (micrometres := voxel_size(stored.attrs.get("element_size_um"))):
            size = voxel_size(1e3 * value for value in micrometres)
        offset = stored.attrs.get("offset")
        notes = {} if offset is None or np.shape(offset) != (3,) else {"offset_nm": [float(v) for v in offset]}
        dtype = stored.dtype
        piece = tuple(stored.chunks[at] for at in axes.zyx) if stored.chunks else (1, 1, 1)

    def read(box: Box) -> np.ndarray:
        with h5py.File(path, "r") as file:
            _check_chunks(file[name], axes, box, where)
            return axes.read(file[name], box)

    return VolumeSource(where, axes.shape, dtype, read, size, notes=notes, piece=piece)


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
        _check_links(file, path, name)
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


def _check_links(file, path: Path, name: str, depth: int = 0) -> None:
    """Refuse a name that leads into another file, which would be opened unasked; soft links are followed."""
    import h5py

    parts = [part for part in name.split("/") if part not in ("", ".")]
    for i in range(1, len(parts) + 1):
        try:
            link = file.get("/".join(parts[:i]), getlink=True)
        except (KeyError, ValueError):  # no such name: told by whoever opens it
            return
        if isinstance(link, h5py.ExternalLink):
            raise UserError(f"{path}:{name} is a link to another file, {link.filename}; name that file itself")
        if isinstance(link, h5py.SoftLink) and depth < 8:
            target = link.path if link.path.startswith("/") else "/".join([*parts[: i - 1], link.path])
            return _check_links(file, path, "/".join([target, *parts[i:]]), depth + 1)


def _check_inside(stored, where: str) -> None:
    """Refuse voxels that lie in other files: where one is missing HDF5 gives zeros without a word."""
    if stored.external or (stored.is_virtual and any(part.file_name != "." for part in stored.virtual_sources())):
        raise UserError(f"{where} keeps its voxels in other files; export it as one file")


def _check_chunks(stored, axes: Axes, box: Box, where: str) -> None:
    """Refuse compressed chunks that are larger than the voxels they hold: they would unpack to gigabytes."""
    if not stored.chunks or not stored.compression:
        return
    most = PACKED * prod(stored.chunks) * stored.dtype.itemsize + PACKED_EXTRA
    sides = [range(1)] * axes.ndim
    for position, part in zip(axes.zyx, box, strict=True):
        step = stored.chunks[position]
        sides[position] = range(part.start // step * step, part.stop, step)
    if prod(map(len, sides)) > MOST_CHUNKS:  # small ones: looking would take longer than reading
        return
    for corner in product(*sides):
        if (found := stored.id.get_chunk_info_by_coord(corner)).byte_offset is not None and found.size > most:
            raise UserError(f"{where}: a chunk takes {found.size:,} bytes, more than its voxels; the file is damaged")


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
