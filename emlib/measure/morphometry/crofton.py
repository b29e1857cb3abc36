"""Perimeter and surface area by Crofton's formula: count how often lines enter and leave an object.

A mesh around a mask of voxels is a staircase: the marching cubes are 8 % too large on a ball of any size, and 27 % on
voxels of 50 x 4.6 x 4.6 nm. Lines through the voxel centres know no stairs: how often those of one direction cross the
outline gives the size of the shadow in that direction, and the mean shadow of all directions is the perimeter or the
surface but for a constant. For voxels that are not cubes the directions are chosen in nm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd, pi

import numpy as np

TOLERANCE_DEGREES = 4.0  # a lattice direction this near to the one wanted will do
ORIENTATIONS = 1500  # of edges or faces over which the weights are fitted


@dataclass(frozen=True)
class Directions:
    """Lines that are laid through an object.

    Attributes
    ----------
    steps : (D, 3) int array
        From a voxel to the next of the same line, as (z, y, x), with z at least 0.
    factors : (D,) float array
        What one crossing of a line of each direction adds to the perimeter in nm or the surface in nm².
    """

    steps: np.ndarray
    factors: np.ndarray

    @property
    def reach(self) -> int:
        """Sections between a voxel and the farthest next one of a line."""
        return int(self.steps[:, 0].max())


def directions(voxel_size_nm: tuple[float, ...]) -> Directions:
    """Choose directions and weigh them for a voxel size.

    Parameters
    ----------
    voxel_size_nm : (y, x) or (z, y, x) in nm

    Returns
    -------
    Directions
        About 4 directions in the plane, 13 in space, nearly those from a square or cube to its neighbours.

    Notes
    -----
    Crofton's formula on a lattice: Serra 1982, "Image Analysis and Mathematical Morphology"; for voxels that are no
    cubes Lehmann & Legland 2012 (Insight Journal 852), who weigh a direction by its part of the sphere. Here weights
    are fitted by non-negative least squares so that a straight edge or flat face of any orientation is as near to its
    true size as these directions allow, and exact in the mean over all orientations. On square pixels this is
    ``skimage.measure.perimeter_crofton``.

    Examples
    --------
    >>> directions((4.0, 4.0)).steps.tolist()
    [[0, 0, 1], [0, 1, -1], [0, 1, 0], [0, 1, 1]]
    >>> len(directions((50.0, 4.6, 4.6)).steps)
    13
    """
    size = np.asarray(voxel_size_nm, np.float64)
    wanted = [v for v in product((-1, 0, 1), repeat=len(size)) if v > (0,) * len(size)]
    steps = np.array(sorted({_lattice_step(np.array(v, float), size) for v in wanted}))
    along = steps * size
    length = np.linalg.norm(along, axis=1)
    mean_shadow = pi / 2 if len(size) == 2 else 2.0  # one over the mean of |cos| over the circle, the sphere
    weights = _weights(mean_shadow * np.abs(_orientations(len(size)) @ (along / length[:, None]).T))
    full = np.zeros((len(steps), 3), np.int64)
    full[:, 3 - len(size) :] = steps
    return Directions(full, mean_shadow * weights * np.prod(size) / length)


def _lattice_step(wanted: np.ndarray, size: np.ndarray) -> tuple[int, ...]:
    """Return the shortest step between voxels that points nearly in a direction, its first part not negative."""
    wanted = wanted / np.linalg.norm(wanted)
    best, best_angle = None, np.inf
    for length in np.arange(0.5 * size.min(), 4 * size.max(), 0.1 * size.min()):
        step = np.round(length * wanted / size)
        if not step.any():
            continue
        along = step * size
        angle = np.degrees(np.arccos(min(1.0, along @ wanted / np.linalg.norm(along))))
        if angle < best_angle:
            best, best_angle = step, angle
        if angle < TOLERANCE_DEGREES:
            break
    parts = [int(part) for part in best]
    parts = tuple(part // gcd(*parts) for part in parts)
    return parts if parts > (0,) * len(parts) else tuple(-part for part in parts)


def _orientations(dimensions: int) -> np.ndarray:
    """Spread unit normals evenly over the half circle or (by the golden angle) the sphere."""
    number = np.arange(ORIENTATIONS) + 0.5
    if dimensions == 2:
        angle = pi * number / ORIENTATIONS
        return np.stack([np.sin(angle), np.cos(angle)], axis=1)
    height = 1 - 2 * number / ORIENTATIONS
    radius, angle = np.sqrt(1 - height**2), pi * (1 + 5**0.5) * number
    return np.stack([height, radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def _weights(shadows: np.ndarray) -> np.ndarray:
    """Fit weights that sum to 1 and bring the weighted shadow of each orientation near to 1."""
    from scipy.optimize import nnls

    total = 1e3 * np.ones((1, shadows.shape[1]))  # a heavy row: the weights sum to 1
    weights, _ = nnls(np.concatenate([shadows, total]), np.append(np.ones(len(shadows)), total[0, 0]))
    return weights / weights.sum()


def pairs_inside(mask: np.ndarray, sections: int, steps: np.ndarray) -> np.ndarray:
    """Count the voxels whose next one on a line lies inside too.

    A line that leaves an object must have entered it: the crossings of a direction are 2 (voxels - pairs). Pairs add up
    over the parts of a volume.

    Parameters
    ----------
    mask : (Z, Y, X) bool array
    sections : int
        Only voxels of the first so many sections are counted; the next voxel may lie in a later one.
    steps : (D, 3) int array

    Returns
    -------
    (D,) int64 array

    Examples
    --------
    >>> pairs_inside(np.ones((1, 2, 3), bool), 1, np.array([[0, 0, 1], [0, 1, 0], [0, 1, 1]])).tolist()
    [4, 3, 2]
    """
    return np.array([_pairs(mask, sections, step) for step in steps.tolist()], np.int64)


def _pairs(mask: np.ndarray, sections: int, step: list[int]) -> int:
    dz, dy, dx = step
    depth, height, width = mask.shape
    if dz >= depth or abs(dy) >= height or abs(dx) >= width:
        return 0
    last = min(sections, depth - dz)
    here = mask[:last, max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
    there = mask[dz : dz + last, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    return int(np.count_nonzero(here & there))
