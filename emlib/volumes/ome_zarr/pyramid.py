"""Coarser levels of an OME-Zarr image, made block by block from the level before.

1. Plan: an axis is halved while its voxels are less than twice as large as the smallest ones, so that the coarse levels
   become isotropic; it ends where a level fits into one chunk.
2. A voxel of a coarse level is the mean of those that it covers, or for labels the most frequent one among them.
3. Blocks of a level cover whole chunks or shards and do not depend on each other: any order, any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.ome_zarr.arrays import LABELS, Shape, list_image, open_array, storage
from emlib.volumes.ome_zarr.metadata import level_entry, read_ome, write_ome
from emlib.volumes.volume import ZYX, Box

ENOUGH = 64  # voxels along the longest side: a level of this size is drawn at once
BLOCK_VOXELS = 2**24  # read at a time, unless a shard is larger; means of it need five times as many bytes
METHODS = ("mean", "mode", "nearest")


@dataclass(frozen=True)
class Level:
    """A level of a pyramid.

    Attributes
    ----------
    shape : (Z, Y, X) in voxels
    factors : (z, y, x)
        By how much the level before is larger: 1 or 2.
    total : (z, y, x)
        By how much level 0 is larger.
    """

    shape: Shape
    factors: Shape
    total: Shape


def plan_levels(shape: Shape, voxel_size_nm: ZYX, enough: int = ENOUGH) -> list[Level]:
    """Return the levels of a volume, finest first, level 0 included.

    Examples
    --------
    >>> [level.total for level in plan_levels((100, 600, 600), (40, 8, 8))]
    [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16)]
    """
    levels = [Level(tuple(map(int, shape)), (1, 1, 1), (1, 1, 1))]
    while max(levels[-1].shape) > enough:
        last = levels[-1]
        sizes = [size * factor for size, factor in zip(voxel_size_nm, last.total, strict=True)]
        finest = min(size for size, length in zip(sizes, last.shape, strict=True) if length > 1)
        halved = [length > 1 and size < 2 * finest for size, length in zip(sizes, last.shape, strict=True)]
        factors = tuple(2 if half else 1 for half in halved)
        smaller = tuple(-(-length // factor) for length, factor in zip(last.shape, factors, strict=True))
        total = tuple(a * b for a, b in zip(last.total, factors, strict=True))
        levels.append(Level(smaller, factors, total))
    return levels


def build_pyramid(
    path: str | Path, method: str | None = None, tick: Callable[[], None] = lambda: None, enough: int = ENOUGH
) -> list[Shape]:
    """Make all coarse levels of an image, with memory for one block, and return the shapes of all levels.

    Parameters
    ----------
    path : path
        Of the image: ``volume.zarr/em``.
    method : "mean", "mode" or "nearest", optional
        By default the mean, and the mode below ``labels/``.
    tick : function
        Called after each block.
    enough : int
        The last level has no longer side than this.

    Raises
    ------
    UserError
        If there is no image at ``path``, or it cannot be read or written.
    """
    shapes = add_levels(path, enough)
    for level in range(1, len(shapes)):
        for box in level_boxes(path, level):
            fill_level(path, level, box, method)
            tick()
    return shapes


def add_levels(path: str | Path, enough: int = ENOUGH) -> list[Shape]:
    """Make the coarse levels of an image, still empty, with their entries; `fill_level` fills them.

    Returns
    -------
    list of (Z, Y, X)
        Shapes of all levels, level 0 first.
    """
    import zarr

    path = Path(path)
    group = zarr.open_group(str(path), mode="r+")
    image = _image(group, path)
    told = {step["type"]: step[step["type"]] for step in image["datasets"][0]["coordinateTransformations"]}
    scale, place = told["scale"], told.get("translation", (0.0, 0.0, 0.0))
    finest = open_array(path)
    plan = plan_levels(finest.shape, scale, enough)
    entries = []
    for number, level in enumerate(plan):
        if number:
            how = storage(level.shape, finest.chunks, finest.shards, finest.metadata.zarr_format)
            group.create_array(str(number), shape=level.shape, dtype=finest.dtype, overwrite=True, **how)
        size = [value * factor for value, factor in zip(scale, level.total, strict=True)]
        centre = [p + value * (factor - 1) / 2 for p, value, factor in zip(place, scale, level.total, strict=True)]
        entries.append(level_entry(str(number), size, centre))
    write_ome(group, {"multiscales": [image | {"datasets": entries}]})
    list_image(path)
    return [level.shape for level in plan]


def level_boxes(path: str | Path, level: int, most_voxels: int = BLOCK_VOXELS) -> Iterator[Box]:
    """Yield the boxes of a level in which it is filled: whole chunks (shards), from at most so many finer voxels."""
    array = open_array(path, level)
    unit = list(array.shards or array.chunks)
    while True:  # more of the same at a time, x first
        grown = [u for u in range(3) if unit[u] < array.shape[u] and prod(unit) * 2 * 8 <= most_voxels]
        if not grown:
            break
        unit[grown[-1]] *= 2
    spans = [range(0, length, step) for length, step in zip(array.shape, unit, strict=True)]
    for corner in product(*spans):
        yield tuple(
            slice(first, min(first + step, length))
            for first, step, length in zip(corner, unit, array.shape, strict=True)
        )


def fill_level(path: str | Path, level: int, box: Box, method: str | None = None) -> None:
    """Fill a box of a coarse level from the level before.

    Parameters
    ----------
    path : path
        Of the image.
    level : int
        From 1 on.
    box : three slices of ``level``
        From `level_boxes`, or any that begins and ends where chunks (shards) do.
    method : "mean", "mode" or "nearest", optional
        As for `build_pyramid`.
    """
    path = Path(path)
    finer, coarse = open_array(path, level - 1), open_array(path, level, "r+")
    factors = tuple(1 if a == b else 2 for a, b in zip(finer.shape, coarse.shape, strict=True))
    source = tuple(
        slice(part.start * factor, min(part.stop * factor, length))
        for part, factor, length in zip(box, factors, finer.shape, strict=True)
    )
    coarse[box] = downsample(np.asarray(finer[source]), factors, method or default_method(path))


def default_method(path: Path) -> str:
    """Return how an image is made coarser: labels by their mode, others by the mean."""
    return "mode" if Path(path).parent.name == LABELS else "mean"


def downsample(array: np.ndarray, factors: Shape, method: str) -> np.ndarray:
    """Make an array coarser by whole factors; a last, incomplete voxel is made of what is there.

    Parameters
    ----------
    array : (Z, Y, X) array
    factors : (z, y, x), each 1 or 2
    method : "mean", "mode" or "nearest"
        Means of integers are rounded, halves up. Where several labels are as frequent, the first in the order of
        (z, y, x) is taken. Nearest is the first voxel.

    Returns
    -------
    array of the same dtype

    Examples
    --------
    >>> downsample(np.array([[[1, 2, 5], [2, 2, 5]]], np.uint8), (1, 2, 2), "mean")
    array([[[2, 5]]], dtype=uint8)
    >>> downsample(np.array([[[1, 2, 5], [2, 2, 5]]], np.uint8), (1, 2, 2), "mode")
    array([[[2, 5]]], dtype=uint8)
    """
    if method not in METHODS:
        raise UserError(f"{method} is no way to make a level; choose {', '.join(METHODS)}")
    steps = [range(factor) for factor in factors]
    if method == "nearest":
        return np.ascontiguousarray(array[tuple(slice(None, None, factor) for factor in factors)])
    odd = [(0, -length % factor) for length, factor in zip(array.shape, factors, strict=True)]
    padded = np.pad(array, odd, mode="edge") if any(pad for _, pad in odd) else array
    corners = [
        padded[tuple(slice(first, None, factor) for first, factor in zip(corner, factors, strict=True))]
        for corner in product(*steps)
    ]
    return _mean(corners) if method == "mean" else _mode(corners)


def _mean(corners: list[np.ndarray]) -> np.ndarray:
    dtype, count = corners[0].dtype, len(corners)
    if dtype.kind == "f":
        total = np.zeros(corners[0].shape, np.float64 if dtype == np.float64 else np.float32)
        for corner in corners:
            total += corner
        return (total / count).astype(dtype)
    total = np.zeros(corners[0].shape, np.int64 if dtype.itemsize > 2 else np.int32)
    for corner in corners:
        total += corner
    return ((total + count // 2) // count).astype(dtype)


def _mode(corners: list[np.ndarray]) -> np.ndarray:
    """The most frequent of up to eight values at each place; a value is counted where it stands first."""
    best, most = corners[0].copy(), np.ones(corners[0].shape, np.uint8)
    for number, corner in enumerate(corners):
        frequency = np.ones(corner.shape, np.uint8)
        for other in corners[number + 1 :]:
            frequency += corner == other
        better = frequency > most
        np.copyto(best, corner, where=better)
        np.copyto(most, frequency, where=better)
    return best


def _image(group, path: Path) -> dict:
    images = read_ome(group.attrs).get("multiscales")
    if not images:
        raise UserError(f"{path} is no OME-Zarr image; name the group that holds its levels")
    return images[0]
