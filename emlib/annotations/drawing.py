"""Shapes drawn into pixels: a pixel belongs to a shape if its centre lies inside.

1. Polygons that cross themselves are mended.
2. Lines get their width, points their radius.
3. What reaches outside the image is cut off.
4. Centres are tested with shapely; a centre exactly on an edge belongs to what lies right of it or below, so that
   shapes side by side share no pixel and leave none out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from emlib.annotations.geometry import widened
from emlib.annotations.shapes import Annotation, Shape

NUDGE_XY = (1e-7 * 2**0.5, 1e-7)  # pixels: which side of an edge a centre on it belongs to; no edge has this slope
POINTS_AT_ONCE = 2**20
OUTSIDE_PX = 0.5  # a shape may touch the border this far beyond it, as a hand does, without being reported


@dataclass(frozen=True)
class DrawSettings:
    """How shapes without an area are drawn, in pixels."""

    line_width: float = 3.0  # of lines whose file does not say
    point_radius: float = 3.0


@dataclass(frozen=True)
class Region:
    """The pixels of a shape.

    Attributes
    ----------
    shape : Shape
        With its geometry mended.
    mask : (h, w) bool array
    corner : (row, column)
        Of the first pixel of ``mask``; inside the image.
    """

    shape: Shape
    mask: np.ndarray
    corner: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that ``mask`` covers."""
        (row, column), (height, width) = self.corner, self.mask.shape
        return slice(row, row + height), slice(column, column + width)


def draw(shape: Shape, size: tuple[int, int], settings: DrawSettings) -> tuple[Region | None, list[str]]:
    """Return the pixels of a shape in an image of ``size`` (height, width), and what was wrong with it.

    Returns
    -------
    region : Region or None
        None if no pixel is covered.
    findings : list of str
        Among ``mended``, ``degenerate``, ``clipped``, ``outside`` and ``no pixel``.
    """
    if shape.mask is not None:
        return _cut(shape, size)
    mended, findings = mend(shape)
    if mended.geometry.is_empty:
        return None, ["degenerate"]
    width = settings.line_width if shape.width is None else shape.width
    area = widened(mended.geometry, width, settings.point_radius)
    x0, y0, x1, y1 = area.bounds
    if min(x1, y1) <= 0 or x0 >= size[1] or y0 >= size[0]:
        return None, [*findings, "outside"]
    if min(x0, y0) < -OUTSIDE_PX or x1 > size[1] + OUTSIDE_PX or y1 > size[0] + OUTSIDE_PX:
        findings.append("clipped")
    mask, corner = rasterise(area, size)
    return (Region(mended, mask, corner), findings) if mask.any() else (None, [*findings, "no pixel"])


def mend(shape: Shape) -> tuple[Shape, list[str]]:
    """Return the shape with a valid geometry, and ``["mended"]`` if it was none.

    A polygon that crosses itself becomes the union of what its loops enclose (GEOS ``MakeValid``, method structure):
    a figure of eight becomes its two loops, and where a hand drew over its own start nothing is lost.
    """
    if shape.geometry.is_valid:
        return shape, []
    valid = shapely.make_valid(shape.geometry, method="structure", keep_collapsed=False)
    return replace(shape, geometry=valid), ["mended"]


def rasterise(area: BaseGeometry, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels of an image whose centres lie in an area, cropped to its bounds.

    Parameters
    ----------
    area : polygon or several, valid, corner coordinates
    size : (height, width) of the image

    Returns
    -------
    mask : (h, w) bool array
    corner : (row, column) of its first pixel

    Examples
    --------
    >>> mask, corner = rasterise(shapely.box(10, 2, 20, 4), (30, 30))
    >>> mask.shape, corner, int(mask.sum())  # x from 10 to 20 covers columns 10 to 19
    ((2, 10), (2, 10), 20)
    """
    x0, y0, x1, y1 = area.bounds
    top, left = max(0, int(np.floor(y0))), max(0, int(np.floor(x0)))
    bottom, right = min(size[0], int(np.ceil(y1))), min(size[1], int(np.ceil(x1)))
    mask = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    for part in shapely.get_parts(area):  # small parts are tested in their own bounds only
        px0, py0, px1, py1 = part.bounds
        rows = max(top, int(np.floor(py0))), min(bottom, int(np.ceil(py1)))
        columns = max(left, int(np.floor(px0))), min(right, int(np.ceil(px1)))
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            continue
        shapely.prepare(part)
        x = np.arange(*columns) + (0.5 + NUDGE_XY[0])
        step = max(1, POINTS_AT_ONCE // len(x))
        for start in range(rows[0], rows[1], step):
            y = np.arange(start, min(start + step, rows[1])) + (0.5 + NUDGE_XY[1])
            window = slice(start - top, start - top + len(y)), slice(columns[0] - left, columns[1] - left)
            mask[window] |= shapely.contains_xy(part, *np.meshgrid(x, y))
    return mask, (top, left)


def scaled(annotation: Annotation, size: tuple[int, int]) -> Annotation:
    """Return the annotation in pixels, if it is in fractions of the image's (height, width)."""
    if not annotation.relative:
        return annotation

    def scale(shape: Shape) -> Shape:
        geometry = shapely.transform(shape.geometry, lambda xy: xy * (size[1], size[0]))
        return replace(shape, geometry=geometry)

    return replace(annotation, shapes=tuple(map(scale, annotation.shapes)), relative=False)


def _cut(shape: Shape, size: tuple[int, int]) -> tuple[Region | None, list[str]]:
    """The part of a mask that lies inside the image."""
    if not shape.mask.any():
        return None, ["degenerate"]
    row, column = shape.corner
    top, left = max(0, -row), max(0, -column)
    inside = shape.mask[top : max(0, size[0] - row), left : max(0, size[1] - column)]
    if not inside.any():
        return None, ["outside"]
    findings = ["clipped"] if np.count_nonzero(inside) < np.count_nonzero(shape.mask) else []
    return Region(shape, inside, (row + top, column + left)), findings
