"""A regular grid in nm: what the phantom's geometry is drawn on, whatever the voxel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """Voxels of a given pitch whose outer corner lies at ``origin``.

    Attributes
    ----------
    shape : (Z, Y, X) in voxels
    pitch : (z, y, x) in nm
    origin : (z, y, x) in nm, the outer corner of voxel (0, 0, 0)
    """

    shape: tuple[int, int, int]
    pitch: Triple
    origin: Triple

    @property
    def extent(self) -> np.ndarray:
        """Size (z, y, x) in nm."""
        return np.multiply(self.shape, self.pitch)

    @property
    def voxel_nm3(self) -> float:
        """Volume of a voxel in nm³."""
        return float(np.prod(self.pitch))

    def centres(self, axis: int, part: slice = slice(None)) -> np.ndarray:
        """Voxel centres along one axis in nm, float32."""
        index = np.arange(self.shape[axis], dtype=np.float32)[part]
        return (index + np.float32(0.5)) * np.float32(self.pitch[axis]) + np.float32(self.origin[axis])

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """Fractional voxel index of (N, 3) points in nm; a voxel's centre has an integer index."""
        return (points - self.origin) / self.pitch - 0.5

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat index of the voxel that holds each (N, 3) point, clipped to the grid, and whether it is inside."""
        index = np.floor((points - self.origin) / self.pitch).astype(np.int64)
        inside = ((index >= 0) & (index < self.shape)).all(axis=1)
        return np.ravel_multi_index(tuple(index.T), self.shape, mode="clip"), inside

    def window(self, low: np.ndarray, high: np.ndarray) -> Box:
        """Slices of the voxels between two corners in nm; empty where the box lies outside."""
        first = np.clip(np.floor((low - self.origin) / self.pitch).astype(int), 0, self.shape)
        last = np.clip(np.ceil((high - self.origin) / self.pitch).astype(int), 0, self.shape)
        return tuple(slice(a, max(a, b)) for a, b in zip(first.tolist(), last.tolist(), strict=True))


def covering(low: np.ndarray, high: np.ndarray, pitch: float) -> Grid:
    """Smallest isotropic grid that covers the box between two corners in nm."""
    shape = np.ceil((np.asarray(high) - low) / pitch).astype(int)
    return Grid(tuple(shape.tolist()), (pitch,) * 3, tuple(np.asarray(low, float).tolist()))
