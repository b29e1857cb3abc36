"""Points of annotation files turned into shapely geometries, in corner coordinates (see `emlib.annotations.shapes`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import shapely
from shapely import LineString, MultiPoint, Point, Polygon
from shapely.geometry.base import BaseGeometry

FARTHEST = 1e9  # pixels; GEOS overflows long after
QUARTER = 64  # chords per quarter of a circle: the area is short by 0.01 %


def polygon(points: Sequence[Sequence[float]], holes: Sequence[Sequence[Sequence[float]]] = ()) -> BaseGeometry:
    """Return a polygon, which may cross itself; fewer than three points give an empty one.

    Parameters
    ----------
    points : sequence of (x, y)
        Closed or not.
    holes : sequence of such sequences, optional

    Examples
    --------
    >>> polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (2, 1), (2, 2), (1, 2)]]).area
    15.0
    """
    ring = numbers(points)
    if len(np.unique(ring, axis=0)) < 3:
        return Polygon()
    return Polygon(ring, [hole for hole in map(numbers, holes) if len(np.unique(hole, axis=0)) >= 3])


def even_odd(rings: Sequence[Sequence[Sequence[float]]]) -> BaseGeometry:
    """Return what lies inside an odd number of rings, so that a ring inside another is a hole.

    Examples
    --------
    >>> even_odd([[(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (2, 1), (2, 2), (1, 2)]]).area
    15.0
    """
    parts = [shapely.make_valid(part, method="structure") for part in map(polygon, rings) if not part.is_empty]
    return reduce(shapely.symmetric_difference, parts, Polygon())


def rectangle(x0: float, y0: float, x1: float, y1: float) -> BaseGeometry:
    """Return the rectangle between two opposite corners, in either order; empty if they share a side.

    Examples
    --------
    >>> rectangle(5, 7, 1, 2).bounds
    (1.0, 2.0, 5.0, 7.0)
    """
    return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) if x0 != x1 and y0 != y1 else Polygon()


def ellipse(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> BaseGeometry:
    """Return an ellipse.

    Parameters
    ----------
    centre : (x, y)
    radii : (along x, along y) before turning, pixels
    degrees : float
        Turned clockwise as seen on screen, where y points down.

    Examples
    --------
    >>> round(ellipse((10, 10), (4, 2), 30).area, 1)
    25.1
    """
    from shapely import affinity

    (x, y), (rx, ry) = numbers([centre])[0], numbers([radii])[0]
    if not (rx > 0 and ry > 0):
        return Polygon()
    unit = Point(0, 0).buffer(1, quad_segs=QUARTER)
    turned = affinity.rotate(affinity.scale(unit, rx, ry), degrees, origin=(0, 0))  # y down: this is clockwise
    return affinity.translate(turned, x, y)


def line(points: Sequence[Sequence[float]]) -> BaseGeometry:
    """Return an open line through the points; one point alone gives a point.

    Examples
    --------
    >>> line([(0, 0), (3, 4)]).length
    5.0
    """
    track = numbers(points)
    return LineString(track) if len(np.unique(track, axis=0)) > 1 else MultiPoint(track[:1])


def points(places: Sequence[Sequence[float]]) -> BaseGeometry:
    """Return a point or several."""
    return MultiPoint(numbers(places))


def widened(geometry: BaseGeometry, line_width: float, point_radius: float) -> BaseGeometry:
    """Return the area of a geometry: lines get a width with round ends, points become discs, areas stay.

    Examples
    --------
    >>> round(widened(line([(0, 0), (10, 0)]), 2, 1).area - np.pi, 2)  # the round ends are one disc
    20.0
    """
    kind = geometry.geom_type
    if kind in ("LineString", "MultiLineString", "LinearRing"):
        return geometry.buffer(line_width / 2, quad_segs=QUARTER)
    if kind in ("Point", "MultiPoint"):
        return geometry.buffer(point_radius, quad_segs=QUARTER)
    if kind == "GeometryCollection":
        return shapely.union_all([widened(part, line_width, point_radius) for part in geometry.geoms])
    return geometry


def numbers(points: Sequence[Sequence[float]]) -> np.ndarray:
    """Return (N, 2) float64 points.

    Raises
    ------
    ValueError
        If there are not two numbers each, or one is not finite or farther away than any image is wide.
    """
    array = np.asarray(points, np.float64).reshape(len(points), -1)[:, :2] if len(points) else np.empty((0, 2))
    if array.shape[1] != 2 or not (np.abs(array) < FARTHEST).all():
        raise ValueError("a point is not two finite numbers of pixels")
    return array
