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
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    if not len(rows):
        return []
    y, x = rows + corner[0], corner[1]
    runs = shapely.box(starts + x, y, ends + x, y + 1)
    # union_all, not coverage_union_all: runs share parts of an edge, where a coverage must share whole edges
    union = shapely.union_all(runs)
    parts = [shapely.simplify(part, 0) for part in shapely.get_parts(union)]
    return sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0]))
