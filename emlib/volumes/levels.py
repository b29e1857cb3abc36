"""A volume at several resolutions, read block by block: the levels that a store has, or made while they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emlib.volumes.ome_zarr.pyramid import Level, downsample, open_array, plan_levels
from emlib.volumes.volume import ZYX, Box, VolumeSource


@dataclass(frozen=True)
class Levels:
    """A volume and its coarser copies.

    Attributes
    ----------
    levels : list of Level
        Finest first; see `emlib.volumes.ome_zarr.pyramid.plan_levels`.
    voxel_size_nm : (z, y, x) in nm
        Of the finest.
    dtype : numpy dtype
    read : function of a level and of three slices
        Returns that part of the level as a (z, y, x) array.
    """

    levels: list[Level]
    voxel_size_nm: ZYX
    dtype: np.dtype
    read: Callable[[int, Box], np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X) of the finest level."""
        return self.levels[0].shape

    def size_nm(self, level: int) -> ZYX:
        """Return the voxel size (z, y, x) of a level in nm."""
        return tuple(size * factor for size, factor in zip(self.voxel_size_nm, self.levels[level].total, strict=True))

    def map(self, change: Callable[[np.ndarray], np.ndarray], dtype: np.dtype | type) -> Levels:
        """Return the same volume with another type of voxels, changed while it is read."""
        return Levels(
            self.levels, self.voxel_size_nm, np.dtype(dtype), lambda level, box: change(self.read(level, box))
        )


def open_levels(source: VolumeSource, voxel_size_nm: ZYX, method: str) -> Levels:
    """Return a volume with its coarser levels: those in its store if it is an OME-Zarr image that has them.

    Parameters
    ----------
    source : VolumeSource
    voxel_size_nm : (z, y, x) in nm
    method : "mean", "mode" or "nearest"
        How levels that the store has not are made; a block of a coarse level then costs the reading of all that it
        covers.

    Examples
    --------
    >>> array = np.arange(64**2 * 128, dtype=np.uint32).reshape(64, 64, 128)
    >>> source = VolumeSource("a", array.shape, array.dtype, lambda box: array[box])
    >>> found = open_levels(source, (8, 8, 8), "nearest")
    >>> [level.shape for level in found.levels], int(found.read(1, (slice(0, 1), slice(0, 1), slice(1, 2)))[0, 0, 0])
    ([(64, 64, 128), (32, 32, 64)], 2)
    """
    plan = plan_levels(source.shape, voxel_size_nm)
    stored = _stored_levels(Path(source.uri), plan)

    def read(level: int, box: Box) -> np.ndarray:
        if level == 0:
            return source.read(box)
        if level < stored:
            return np.asarray(open_array(source.uri, level)[box])
        return _made(source, plan, level, box, method)

    return Levels(plan, voxel_size_nm, source.dtype, read)


def _stored_levels(path: Path, plan: list[Level]) -> int:
    """How many levels of the plan an OME-Zarr image has; those of other programs may be made otherwise."""
    for number, level in enumerate(plan):
        if not any((path / str(number) / mark).is_file() for mark in ("zarr.json", ".zarray")):
            return number
        array = open_array(path, number)
        if array.shape != level.shape or not array.attrs.get("emlib"):
            return number
    return len(plan)


def _made(source: VolumeSource, plan: list[Level], level: int, box: Box, method: str) -> np.ndarray:
    fine = tuple(
        slice(part.start * factor, min(part.stop * factor, length))
        for part, factor, length in zip(box, plan[level].total, source.shape, strict=True)
    )
    block = source.read(fine)
    for step in plan[1 : level + 1]:
        block = downsample(block, step.factors, method)
    return block
