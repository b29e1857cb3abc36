"""Zarr and OME-Zarr, v2 and v3: a multiscale group (level 0 is read) or an array."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.axes import Axes, find_axes
from emlib.volumes.ome_zarr.metadata import EVERY_CHUNK, read_ome
from emlib.volumes.units import nm_per, voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

MARKS = ("zarr.json", ".zarray", ".zgroup")
NOT_CHUNKS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
PACKED, PACKED_EXTRA = 2, 2**16  # a chunk that takes more than twice its voxels and this is no compression
MOST_WAIT_S = 10.0
SMALL_CHUNK, MOST_SMALL_CHUNKS = 512, 20_000  # 20 000 take about ten seconds
NGFF_0_3_AXES = "tczyx"


def is_zarr(path: Path) -> bool:
    """Say whether a path is, or lies in, a Zarr store."""
    return any(part.endswith(".zarr") for part in path.parts) or any((path / mark).is_file() for mark in MARKS)


def open_zarr(
    path: Path,
    *,
    labels: bool = False,
    fill_missing: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> VolumeSource:
    """Open an OME-Zarr image, or an array inside one.

    Axes and voxel size are those of the multiscales metadata (0.4 in the attributes, 0.5 under ``ome``), which is also
    looked for in the groups above when an array is named. A scale without a unit of length is not trusted. A bare
    array may give ``resolution`` and ``offset`` in nm as CREMI does in HDF5.

    A chunk that is not in the store may be one of zeros that nobody wrote, or lost. It is taken as lost in an image,
    and where the store says that it holds all of them; in other labels it is background.

    Parameters
    ----------
    path : Path
    labels : bool
        Whether ids are wanted.
    fill_missing : bool
        Read lost chunks as the fill value of the array; ``note`` is told of the first one.
    note : function of a line

    Raises
    ------
    UserError
        If the group holds no image, or the array has channels, time points or too many axes. ``read`` raises where a
        chunk is lost or damaged.
    """
    import zarr

    if not any((path / mark).is_file() for mark in MARKS):
        raise UserError(f"{path} is no Zarr group or array: it has none of {' '.join(MARKS)}; copy the whole store")
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group):
        location, image, level = _level_0(node, path)
    else:
        location, (image, level) = path, _image_above(path)
    if not location.resolve().is_relative_to(path.resolve()):
        raise UserError(f"{path}: its array {location} lies outside of the store; name that place itself")
    stored = zarr.open_array(str(location), mode="r")
    names, size, place, messages = _describe(image, level, stored.ndim) if image else (None, None, None, [])
    axes = find_axes(stored.shape, names, str(location))
    notes: dict = {"messages": messages} if messages else {}
    if place is not None and any(place):
        notes["offset_nm"] = place
    if size is None and not image:
        size = voxel_size(stored.attrs.get("resolution"))
        if voxel_offset := stored.attrs.get("offset"):
            notes["offset_nm"] = [float(value) for value in voxel_offset]

    whole = dict(stored.attrs.get("emlib") or {}).get(EVERY_CHUNK, False)
    missing = _Missing(location, refuse=(whole or not labels) and not fill_missing, tell=whole or not labels, note=note)

    def read(box: Box) -> np.ndarray:
        stored = zarr.open_array(_store(location, missing), mode="r")
        _check_count(stored, axes, box, location)
        try:
            return axes.read(stored, box)
        except Exception:
            _settle()
            raise

    piece = tuple(int(stored.chunks[at]) for at in axes.zyx)
    return VolumeSource(str(path), axes.shape, stored.dtype, read, size, notes=notes, piece=piece)


def _settle() -> None:
    """Wait for what Zarr reads beside a chunk that failed: it complains at length if the program ends first."""
    from zarr.core.sync import sync

    async def others() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=MOST_WAIT_S)

    with suppress(Exception):
        sync(others())


def checked_store(location: Path, *, refuse_missing: bool = True):
    """Return a store of one array for reading only, which refuses chunks that cannot be right, or are not there."""
    return _store(location, _Missing(location, refuse=refuse_missing, tell=False, note=lambda line: None))


class _Missing:
    """What happens where a chunk is not there."""

    def __init__(self, location: Path, *, refuse: bool, tell: bool, note: Callable[[str], None]) -> None:
        self.location, self.refuse, self.tell, self.note = location, refuse, tell, note

    def __call__(self, key: str) -> None:
        if self.refuse:
            raise UserError(
                f"{self.location}: its chunk {key} is missing; copy the store again, or let "
                "run_pipeline.py --fill_missing take such chunks as empty"
            )
        if self.tell:
            self.tell = False  # once
            self.note(f"{self.location}: chunks are missing, {key} is the first; they are taken as empty")


def _store(location: Path, missing: Callable[[str], None]):
    """A store that refuses chunks which lie elsewhere, or are larger than their voxels: these unpack to gigabytes."""
    import zarr

    stored = zarr.open_array(str(location), mode="r")
    shape = stored.shards or stored.chunks
    most = PACKED * prod(shape) * stored.dtype.itemsize + PACKED_EXTRA
    root = location.resolve()

    class Checked(zarr.storage.LocalStore):
        async def get(self, key, prototype=None, byte_range=None):
            path = root / key
            if not path.resolve().is_relative_to(root):
                raise UserError(f"{path} is a link that leads out of the store; copy the file to its place")
            if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for, for ever
                raise UserError(f"{path} is no file; copy the store again")
            if path.name not in NOT_CHUNKS:
                if not path.is_file():
                    missing(key)
                elif path.stat().st_size > most:
                    raise UserError(f"{path} takes more bytes than its voxels; the store is damaged, copy it again")
            return await super().get(key, prototype, byte_range)

    return Checked(root, read_only=True)


def _check_count(stored, axes: Axes, box: Box, location: Path) -> None:
    """Refuse a box of very many very small chunks, which Zarr reads one by one for hours."""
    sides = [(part, stored.chunks[position]) for position, part in zip(axes.zyx, box, strict=True)]
    count = prod(-(-part.stop // step) - part.start // step for part, step in sides)
    if count > MOST_SMALL_CHUNKS and prod(step for _, step in sides) < SMALL_CHUNK:
        raise UserError(
            f"{location} is stored in {count:,} chunks of {' × '.join(str(step) for _, step in sides)} voxels here; "
            "store it in larger ones, or read less with --cutout X Y Z"
        )


def _level_0(group, path: Path) -> tuple[Path, dict | None, dict | None]:
    """Where the finest level of a group lies, and its metadata; for a plain group its only 3D array."""
    if images := read_ome(group.attrs).get("multiscales"):
        level = images[0]["datasets"][0]
        return path / level["path"], images[0], level
    arrays = {name: array.shape for name, array in group.arrays()}
    stacks = [name for name, shape in arrays.items() if len(shape) == 3]
    if len(stacks) != 1:
        inside = ", ".join([f"{name} {shape}" for name, shape in arrays.items()] + [f"{n}/" for n, _ in group.groups()])
        raise UserError(f"{path} is no OME-Zarr image and holds {inside or 'no arrays'}; name one of them, {path}/NAME")
    return path / stacks[0], None, None


def _image_above(path: Path) -> tuple[dict | None, dict | None]:
    """The multiscales entry that lists the array at ``path``, looked for in the groups above it."""
    import zarr

    for parent in list(path.parents)[:3]:
        if not any((parent / mark).is_file() for mark in MARKS):
            continue
        for image in read_ome(zarr.open_group(str(parent), mode="r").attrs).get("multiscales", []):
            for level in image["datasets"]:
                if parent / level["path"] == path:
                    return image, level
    return None, None


def _describe(image: dict, level: dict, ndim: int) -> tuple[list[str], ZYX | None, tuple[float, ...] | None, list[str]]:
    """Names of the axes; voxel size and place in nm if the scale has units; what to tell the user."""
    declared = image.get("axes") or list(NGFF_0_3_AXES[-ndim:])
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in declared]
    if len(axes) != ndim:
        raise UserError(f"the OME-Zarr metadata names {len(axes)} axes, its array has {ndim}; export the image again")
    names = [str(axis["name"]).lower() for axis in axes]
    scale, place = np.ones(ndim), np.zeros(ndim)
    transformations = [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    for transformation in transformations:
        if transformation.get("type") == "scale":
            factors = np.asarray(transformation["scale"], dtype=float)
            scale, place = scale * factors, place * factors
        elif transformation.get("type") == "translation" and "translation" in transformation:
            place = place + np.asarray(transformation["translation"], dtype=float)
    units = {name: nm_per(axis.get("unit")) for name, axis in zip(names, axes, strict=True)}
    if not transformations or not set("zyx") <= set(units):
        return names, None, None, []
    order = [names.index(axis) for axis in "zyx"]
    if any(units[axis] is None for axis in "zyx"):
        values = " × ".join(f"{scale[position]:g}" for position in order)
        told = f"the scale {values} (z, y, x) in the file has no unit of length and is not used"
        return names, None, None, [told]
    in_nm = np.array([units[axis] for axis in "zyx"])
    return names, voxel_size(in_nm * scale[order]), tuple((in_nm * place[order]).tolist()), []
