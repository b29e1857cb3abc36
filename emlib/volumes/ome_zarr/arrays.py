"""Make OME-Zarr images that are filled block by block; several of them lie in one store.

The layout of a store ``volume.zarr``::

    zarr.json             names em/ as its image, so that a viewer that is given volume.zarr shows it, with its labels
    em/0 em/1 …           an image of its own: its levels, finest first
    boundaries/0 …        the same
    labels/neurites/0 …   a label image, listed in labels/ as OME-Zarr has it
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.ome_zarr.metadata import EVERY_CHUNK, VERSIONS, image_entry, level_entry, read_ome, write_ome
from emlib.volumes.ome_zarr.reading import checked_store
from emlib.volumes.volume import ZYX

if TYPE_CHECKING:
    import zarr

Shape = tuple[int, int, int]
CHUNK = 64  # cubic: a viewer wants all three planes
LABELS = "labels"
LEVEL = 1  # higher ones take longer and save little on EM


def create_array(
    path: str | Path,
    shape: Shape,
    dtype: np.dtype | str | type,
    chunks: Shape = (CHUNK, CHUNK, CHUNK),
    shards: Shape | None = None,
    voxel_size_nm: ZYX | None = None,
    translation_nm: ZYX = (0.0, 0.0, 0.0),
    version: str = "0.5",
) -> zarr.Array:
    """Make an OME-Zarr image with an empty level 0, and return that array; what stood at ``path`` is replaced.

    Blocks that begin and end where chunks do (shards, where there are any) may be written by several processes at once.
    Chunks carry a checksum, so that a damaged one is an error and not a picture: that of zstd, and in Zarr v2, where
    other libraries refuse it, that of gzip. All chunks are written, also those of zeros, so that one that is not there
    is known to be lost. `build_pyramid` adds the levels.

    Parameters
    ----------
    path : path
        Of the image, ``volume.zarr/em`` or ``volume.zarr/labels/neurites`` or ``image.zarr``. The groups above are
        made; below ``labels`` it becomes a label image. The first image of a store becomes that of the whole store,
        and ``em`` does in any case.
    shape : (Z, Y, X) in voxels
    dtype : numpy dtype
    chunks : (z, y, x) in voxels
        The unit of reading; without shards it is cut to ``shape``.
    shards : (z, y, x) in voxels, optional
        The unit of writing, a multiple of ``chunks``: many chunks in one file. For 0.5 only.
    voxel_size_nm : (z, y, x) in nm, optional
        Without it the scale is written as 1 without a unit, and readers take it for unknown.
    translation_nm : (z, y, x) in nm
        Where the centre of the first voxel lies.
    version : "0.5" or "0.4"
        Of OME-Zarr, on Zarr v3 or v2; all images of a store have the same.

    Returns
    -------
    zarr.Array
        Zeros, open for reading and writing.

    Raises
    ------
    UserError
        If there is no such version, shards do not fit chunks or the version, the store is of another version, or
        cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> store = Path(tempfile.mkdtemp()) / "volume.zarr"
    >>> em = create_array(store / "em", (4, 8, 8), "uint8", (2, 4, 4), (4, 8, 8), voxel_size_nm=(40, 8, 8))
    >>> em[:2] = 7
    >>> int(em[:].sum()), em.shards
    (896, (4, 8, 8))
    """
    path = Path(path)
    _check(shape, chunks, shards, version, path)
    with _writing(path):
        _open_groups_above(path, VERSIONS[version])
        shutil.rmtree(path, ignore_errors=True)
        array = _make_image(
            path, path.stem, shape, np.dtype(dtype), chunks, shards, voxel_size_nm, translation_nm, version
        )
        list_image(path)
    return array


def open_array(path: str | Path, level: int = 0, mode: str = "r", *, fill_missing: bool = False) -> zarr.Array:
    """Open a level of an image that `create_array` made.

    Parameters
    ----------
    path : path
        Of the image.
    level : int
    mode : "r" or "r+"
        Opened for reading, a chunk that is not there is an error, unless ``fill_missing``.
    fill_missing : bool
        Read such chunks as zeros.
    """
    import zarr

    location = Path(path) / str(level)
    if mode == "r":
        return zarr.open_array(checked_store(location, refuse_missing=not fill_missing), mode="r")
    return zarr.open_array(str(location), mode=mode).with_config({"write_empty_chunks": True})


def write_ome_zarr(
    path: Path,
    array: np.ndarray,
    voxel_size_nm: ZYX | None,
    chunk: int = CHUNK,
    translation_nm: ZYX = (0.0, 0.0, 0.0),
    version: str = "0.5",
) -> None:
    """Write a volume that is in memory as an OME-Zarr image with one level, whole or not at all."""
    chunks = (chunk,) * 3
    _check(array.shape, chunks, None, version, path)
    with _writing(path):
        _open_groups_above(path, VERSIONS[version])
        with atomic_path(path) as temporary:
            made = _make_image(
                temporary, path.stem, array.shape, array.dtype, chunks, None, voxel_size_nm, translation_nm, version
            )
            made[...] = array
        list_image(path)


def list_image(path: Path) -> None:
    """Make the groups above an image name it: ``labels/`` its labels, the store its first image, or its ``em``."""
    import zarr

    parent = _group_above(path)
    if parent is None:
        return
    if path.parent.name == LABELS:
        there = read_ome(parent.attrs).get("labels", [])
        write_ome(parent, {"labels": sorted({*there, path.name})})
        return
    image = read_ome(zarr.open_group(str(path), mode="r").attrs)["multiscales"][0]
    shown = read_ome(parent.attrs).get("multiscales")
    if shown and shown[0]["name"] != path.stem and path.name != "em":
        return
    levels = [level | {"path": f"{path.name}/{level['path']}"} for level in image["datasets"]]
    write_ome(parent, {"multiscales": [image | {"datasets": levels}]})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; free space there or choose another place") from error


def _make_image(
    path: Path,
    name: str,
    shape: Shape,
    dtype: np.dtype,
    chunks: Shape,
    shards: Shape | None,
    voxel_size_nm: ZYX | None,
    translation_nm: ZYX,
    version: str,
) -> zarr.Array:
    """The group of an image with its metadata, and its level 0."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=VERSIONS[version])
    array = group.create_array("0", shape=shape, dtype=dtype, **storage(shape, chunks, shards, VERSIONS[version]))
    levels = [level_entry("0", voxel_size_nm or (1.0, 1.0, 1.0), translation_nm)]
    unit = None if voxel_size_nm is None else "nanometer"
    content: dict[str, Any] = {"multiscales": [image_entry(name, levels, version, unit)]}
    if path.parent.name == LABELS:
        content["image-label"] = {"version": version, "source": {"image": "../../"}}
    write_ome(group, content)
    return array


def _check(shape: Shape, chunks: Shape, shards: Shape | None, version: str, path: Path) -> None:
    if version not in VERSIONS:
        raise UserError(f"OME-Zarr {version} is not known; write {' or '.join(VERSIONS)}")
    for what, sides in (("shape", shape), ("chunks", chunks), ("shards", shards or (1, 1, 1))):
        if len(sides) != 3 or min(sides) < 1:
            raise UserError(f"{path}: {what} {tuple(sides)} is not three sides (z, y, x) of at least 1 voxel")
    if shards is None:
        return
    if version == "0.4":
        raise UserError(f"{path}: OME-Zarr 0.4 has no shards; write 0.5, or without shards")
    if any(shard % chunk for shard, chunk in zip(shards, chunks, strict=True)):
        raise UserError(f"{path}: shards {tuple(shards)} are no multiple of the chunks {tuple(chunks)} (z, y, x)")


def storage(shape: Shape, chunks: Shape, shards: Shape | None, file_format: int) -> dict[str, Any]:
    """Return how an array lies in files, in the words of Zarr: what all levels of an image share."""
    if shards is None:
        chunks = tuple(min(chunk, length) for chunk, length in zip(chunks, shape, strict=True))
    common = {"chunks": chunks, "shards": shards, "fill_value": 0, "config": {"write_empty_chunks": True}}
    common["attributes"] = {"emlib": {EVERY_CHUNK: True}}
    if file_format == 2:
        from numcodecs import GZip

        return common | {
            "compressors": GZip(level=LEVEL),
            "chunk_key_encoding": {"name": "v2", "separator": "/"},  # OME-Zarr 0.4 wants folders
        }
    from zarr.codecs import ZstdCodec

    return common | {"compressors": ZstdCodec(level=LEVEL, checksum=True), "dimension_names": list("zyx")}


def _group_above(path: Path) -> zarr.Group | None:
    """The group that holds an image, if it lies in a store and is not one itself."""
    import zarr

    if path.suffix == ".zarr" or not any(parent.suffix == ".zarr" for parent in path.parents):
        return None
    return zarr.open_group(str(path.parent), mode="r+")


def _open_groups_above(path: Path, file_format: int) -> None:
    """Make the groups from the store down to the one above an image; those that are there must be of its format."""
    import zarr

    if path.suffix == ".zarr":
        return
    above = [parent for parent in path.parents]
    stores = [number for number, parent in enumerate(above) if parent.suffix == ".zarr"]
    for parent in reversed(above[: stores[0] + 1] if stores else []):
        if (parent / "zarr.json").is_file() or (parent / ".zgroup").is_file():
            there = zarr.open_group(str(parent), mode="r").metadata.zarr_format
            if there != file_format:
                raise UserError(f"{parent} is Zarr v{there}; write all its images with one OME-Zarr version")
        else:
            zarr.open_group(str(parent), mode="a", zarr_format=file_format)
