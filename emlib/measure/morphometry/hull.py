"""Solidity: the part of an object's convex hull that the object fills."""

from __future__ import annotations

import numpy as np

MOST_TESTS = 20_000_000  # rows times facets; larger hulls are measured by their volume, which differs by under 1 %
ROUNDING = 1e-6  # voxels; centres this near to a facet lie on it
LINES = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0)])


def corners(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that may be corners of its convex hull.

    A voxel between two neighbours of the same object is none.

    Parameters
    ----------
    mask : (Z, Y, X) bool array

    Returns
    -------
    (N, 3) int64 array of indices

    Examples
    --------
    >>> corners(np.ones((1, 3, 4), bool)).tolist()
    [[0, 0, 0], [0, 0, 3], [0, 2, 0], [0, 2, 3]]
    """
    padded = np.pad(mask, 1)
    left = mask.copy()
    for line in LINES:
        ahead, behind = (padded[tuple(slice(1 + s, s - 1 or None) for s in step)] for step in (line, -line))
        left &= ~(ahead & behind)
    return np.argwhere(left)


def thin_out(points: np.ndarray) -> np.ndarray:
    """Return those of some points that span their convex hull; all, where they lie in a plane or line.

    Parameters
    ----------
    points : (N, 3) int array
    """
    from scipy.spatial import ConvexHull, QhullError

    if len(points) < 5:
        return points
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points


def solidity(points: np.ndarray, voxels: int) -> float:
    """Return how much of its convex hull an object fills.

    Parameters
    ----------
    points : (N, 3) int array
        All corners of the hull among them.
    voxels : int
        Of the object.

    Returns
    -------
    float in (0, 1]
        Voxels of the object, divided by the voxels whose centre lies in the convex hull of the object's voxel centres.
        An object that lies in one section, row or column is measured there. NaN where the centres lie in an oblique
        plane or line and span no hull.

    Notes
    -----
    The hull of ``skimage.morphology.convex_hull_image`` with ``offset_coordinates=False``, not drawn: its voxels are
    counted row by row between the facets. Voxel size does not matter. Hulls of more than some hundred voxels a side are
    measured by their volume.

    Examples
    --------
    >>> solidity(np.array([[0, 0, 0], [0, 0, 4], [0, 4, 0]]), 9)  # an L of two arms of 5; the triangle holds 15
    0.6
    """
    from scipy.spatial import ConvexHull, QhullError

    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low)[:, high > low]
    if points.shape[1] < 2:
        return voxels / float((high - low).max() + 1)
    try:
        hull = ConvexHull(points)
    except QhullError:
        return float("nan")
    return voxels / max(_centres_inside(hull, (high - low)[high > low]), voxels)


def _centres_inside(hull, extent: np.ndarray) -> float:
    rows = np.stack(np.meshgrid(*[np.arange(n + 1) for n in extent[:-1]], indexing="ij"), axis=-1)
    rows = rows.reshape(-1, len(extent) - 1)
    facets = np.unique(np.round(hull.equations, 10), axis=0)
    if len(rows) * len(facets) > MOST_TESTS:
        return float(hull.volume)
    slope, rest = facets[:, -2], rows @ facets[:, :-2].T + facets[:, -1]  # slope * x + rest <= 0 inside
    flat = np.abs(slope) < ROUNDING
    outside = (rest[:, flat] > ROUNDING).any(axis=1)
    rising, falling = slope >= ROUNDING, slope <= -ROUNDING
    last = np.floor((-rest[:, rising] / slope[rising]).min(axis=1) + ROUNDING)
    first = np.ceil((-rest[:, falling] / slope[falling]).max(axis=1) - ROUNDING)
    return float(np.maximum(last - first + 1, 0)[~outside].sum())
