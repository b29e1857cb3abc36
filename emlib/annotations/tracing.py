"""Pixels turned back into polygons that run along pixel edges, so that drawing them gives the same pixels."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry


def trace(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> list[BaseGeometry]:
    """Return the outlines of a mask, one polygon (perhaps with holes) for each piece that hangs together by edges.

    Parameters
    ----------
    mask : (h, w) bool array
    corner : (row, column)
        Of its first pixel in the image.

    Returns
    -------
    list of shapely Polygon, corner coordinates, the uppermost first

    Examples
    --------
    >>> [part.area for part in trace(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool))]
    [4.0, 1.0]
    """
    mask = np.asarray(mask, bool)
    outside = np.pad(mask, 1)
    y, x = np.nonzero(outside[1:-1, 1:] != outside[1:-1, :-1])  # unit edges that run down, then those that run right
    v, u = np.nonzero(outside[1:, 1:-1] != outside[:-1, 1:-1])
    starts = np.concatenate([np.stack([x, y], axis=1), np.stack([u, v], axis=1)])
    ends = np.concatenate([np.stack([x, y + 1], axis=1), np.stack([u + 1, v], axis=1)])
    lines = shapely.linestrings(np.stack([starts, ends], axis=1).astype(float))
    # what the edges enclose, holes too; far faster than the union of the pixels' runs where a mask is a net
    faces = shapely.get_parts(shapely.polygonize(lines))
    x, y = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(int).T
    inside = shapely.simplify(faces[mask[y, x]], 0)
    parts = shapely.transform(inside, lambda points: np.add(points, (corner[1], corner[0])))
    return sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0]))
