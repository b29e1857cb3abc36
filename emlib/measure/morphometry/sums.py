"""What is added up over an object, part by part: everything that its row of the table needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlib.measure.morphometry.crofton import Directions, pairs_inside
from emlib.measure.morphometry.hull import corners, thin_out


@dataclass(frozen=True)
class Moments:
    """Number, mean and scatter of some values or places; those of two sets make those of both.

    Attributes
    ----------
    count : int
    mean : (D,) float array
    scatter : (D, D) float array
        Sum of the outer products of deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        """Join two sets (Chan, Golub & LeVeque 1983: no large numbers are subtracted from each other)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count),
        )


@dataclass(frozen=True)
class ObjectSums:
    """One object, or that part of it that lies in some sections.

    Attributes
    ----------
    places : Moments
        Of the voxel indices (z, y, x).
    first, last : (3,) int array
        Box, both ends inside.
    sections : int
        That hold a voxel.
    pairs : (D,) int array
        See ``crofton.pairs_inside``.
    corners : (N, 3) int array
        Voxels that span the convex hull.
    grey : Moments or None
    """

    places: Moments
    first: np.ndarray
    last: np.ndarray
    sections: int
    pairs: np.ndarray
    corners: np.ndarray
    grey: Moments | None

    def __add__(self, other: ObjectSums) -> ObjectSums:
        """Join two parts in different sections."""
        return ObjectSums(
            self.places + other.places,
            np.minimum(self.first, other.first),
            np.maximum(self.last, other.last),
            self.sections + other.sections,
            self.pairs + other.pairs,
            thin_out(np.concatenate([self.corners, other.corners])),
            None if self.grey is None or other.grey is None else self.grey + other.grey,
        )


def add_up(
    mask: np.ndarray, sections: int, at: tuple[int, int, int], image: np.ndarray | None, lines: Directions
) -> ObjectSums:
    """Add up what one object has in the first sections of a box.

    Parameters
    ----------
    mask : (Z, Y, X) bool array
        The object, with a voxel in the first ``sections``. Later sections serve only to see where the object goes on.
    sections : int
    at : (z, y, x)
        Place of the box in the volume.
    image : (Z, Y, X) array or None
        Grey values of the first ``sections`` of the box.
    lines : Directions
    """
    core = mask[:sections]
    places = _places(core, at)
    points = corners(core)
    held = np.flatnonzero(core.any(axis=(1, 2)))
    return ObjectSums(
        places,
        points.min(axis=0) + at,
        points.max(axis=0) + at,
        len(held),
        pairs_inside(mask, sections, lines.steps),
        points + at,
        None if image is None else _grey(image[core]),
    )


def _places(mask: np.ndarray, at: tuple[int, int, int]) -> Moments:
    """Moments of the indices, from the three projections: memory stays that of the mask."""
    ones = mask.view(np.uint8)
    zy, yx = ones.sum(axis=2, dtype=np.float64), ones.sum(axis=0, dtype=np.float64)
    zx = ones.sum(axis=1, dtype=np.float64)
    z, y, x = (np.arange(n, dtype=np.float64) for n in mask.shape)
    count = int(yx.sum())
    mean = np.array([zy.sum(axis=1) @ z, yx.sum(axis=1) @ y, yx.sum(axis=0) @ x]) / count
    z, y, x = z - mean[0], y - mean[1], x - mean[2]
    scatter = np.diag([zy.sum(axis=1) @ z**2, yx.sum(axis=1) @ y**2, yx.sum(axis=0) @ x**2])
    scatter[0, 1] = scatter[1, 0] = z @ zy @ y
    scatter[0, 2] = scatter[2, 0] = z @ zx @ x
    scatter[1, 2] = scatter[2, 1] = y @ yx @ x
    return Moments(count, mean + at, scatter)


def _grey(values: np.ndarray) -> Moments:
    values = values.astype(np.float64)
    mean = values.mean()
    return Moments(len(values), np.array([mean]), np.array([[np.square(values - mean).sum()]]))
