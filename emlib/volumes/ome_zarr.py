"""Zarr and OME-Zarr, v2 and v3: a multiscale group (level 0 is read) or an array."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import Axes, find_axes
from emlib.volumes.units import nm_per, voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

MARKS = ("zarr.json", ".zarray", ".zgroup")
NOT_CHUNKS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
PACKED, PACKED_EXTRA = 2, 2**16  # a chunk that takes more than twice its voxels and this is no compression
SMALL_CHUNK, MOST_SMALL_CHUNKS = 512, 20_000  # 20 000 take about ten seconds
NGFF_0_3_AXES = "tczyx"


def is_zarr(path: Path) -> bool:
    """Say whether a path is, or lies in, a Zarr store."""
    return any(part.endswith(".zarr") for part in path.parts) or any((path / mark).is_file() for mark in MARKS)


def open_zarr(path: Path) -> VolumeSource:
    """Open an OME-Zarr image, or an array inside one.

    Axes and voxel size are those of the multiscales metadata (0.4 in the attributes, 0.5 under ``ome``), which is also
    looked for in the groups above when an array is named. A scale without a unit of length is not trusted. A bare
    array may give ``resolution`` and ``offset`` in nm as CREMI does in HDF5.

    Raises
    ------
    UserError
        If the group holds no image, or the array has channels, time points or too many axes.
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
    names, size, messages = _describe(image, level, stored.ndim) if image else (None, None, [])
    axes = find_axes(stored.shape, names, str(location))
    notes: dict = {"messages": messages} if messages else {}
    if size is None and not image:
        size = voxel_size(stored.attrs.get("resolution"))
        if voxel_offset := stored.attrs.get("offset"):
            notes["offset_nm"] = [float(value) for value in voxel_offset]

    def read(box: Box) -> np.ndarray:
        stored = zarr.open_array(_store(location), mode="r")
        _check_count(stored, axes, box, location)
        return axes.read(stored, box)

    return VolumeSource(str(path), axes.shape, stored.dtype, read, size, notes=notes)


def write_ome_zarr(path: Path, array: np.ndarray, voxel_size_nm: ZYX, chunk: int = 64) -> None:
    """Write a volume as OME-Zarr 0.5 (Zarr v3) with one resolution level and cubic chunks."""
    import zarr

    with atomic_path(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        chunks = tuple(min(chunk, length) for length in array.shape)
        group.create_array("0", data=array, chunks=chunks, dimension_names=list("zyx"))
        scale = {"type": "scale", "scale": [float(size) for size in voxel_size_nm]}
        image = {
            "name": path.stem,
            "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


def _store(location: Path):
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
            if path.name not in NOT_CHUNKS and path.is_file() and path.stat().st_size > most:
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


def _multiscales(attributes) -> list[dict]:
    attributes = dict(attributes)
    return dict(attributes.get("ome", {})).get("multiscales") or attributes.get("multiscales") or []


def _level_0(group, path: Path) -> tuple[Path, dict | None, dict | None]:
    """Where the finest level of a group lies, and its metadata; for a plain group its only 3D array."""
    if images := _multiscales(group.attrs):
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
        for image in _multiscales(zarr.open_group(str(parent), mode="r").attrs):
            for level in image["datasets"]:
                if parent / level["path"] == path:
                    return image, level
    return None, None


def _describe(image: dict, level: dict, ndim: int) -> tuple[list[str], ZYX | None, list[str]]:
    """Names of the axes, the voxel size in nm if the scale has units, and what to tell the user."""
    declared = image.get("axes") or list(NGFF_0_3_AXES[-ndim:])
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in declared]
    if len(axes) != ndim:
        raise UserError(f"the OME-Zarr metadata names {len(axes)} axes, its array has {ndim}; export the image again")
    names = [str(axis["name"]).lower() for axis in axes]
    scale = np.ones(ndim)
    transformations = [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    for transformation in transformations:
        if transformation.get("type") == "scale":
            scale = scale * np.asarray(transformation["scale"], dtype=float)
    space = {name: (nm_per(axis.get("unit")), factor) for name, axis, factor in zip(names, axes, scale, strict=True)}
    if not transformations or not set("zyx") <= set(space):
        return names, None, []
    if any(unit is None for unit, _ in (space[axis] for axis in "zyx")):
        values = " × ".join(f"{space[axis][1]:g}" for axis in "zyx")
        return names, None, [f"the scale {values} (z, y, x) in the file has no unit of length and is not used"]
    return names, voxel_size(space[axis][0] * space[axis][1] for axis in "zyx"), []
