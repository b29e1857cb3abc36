"""Figure 6: the largest neurites in 3D, together from two sides and each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from emlib.publish.page import DPI, MARGIN, TEXT_PT, Page, scale_bar
from emlib.publish.style import GREY, INK, label_colours, plural
from emlib.publish.surface_view import Cloud, Picture, View, box_corners, draw_clouds, grid_nm, surface_clouds

WIDTH = 11.5  # inches
GAP, CAPTION = 0.12, 0.26
TOGETHER, ALONE = 4.6, 2.1  # inches: heights of the two large views and of the small ones
PER_ROW = 5
SHOWN = 10
SIDES = (View(30, 25), View(120, 25))


def figure6(
    labels: np.ndarray,
    ids: Sequence[int],
    voxels: Sequence[int],
    voxel_size_nm: tuple[float, float, float],
    note: str | None = None,
) -> Figure:
    """Show the surfaces of the largest neurites.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
    ids : sequence of int
        Largest first; ten are shown.
    voxels : sequence of int
        Of each.
    voxel_size_nm : (z, y, x)
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
    """
    ids, voxels = list(ids)[:SHOWN], list(voxels)[:SHOWN]
    extent = tuple(float(n * size) for n, size in zip(labels.shape, voxel_size_nm, strict=True))
    side = grid_nm(labels.shape, voxel_size_nm)
    rows = -(-len(ids) // PER_ROW)
    title = f"Figure 6. The {plural(len(ids), 'largest neurite')} in 3D" if len(ids) > 1 else "Figure 6. Neurites in 3D"
    if not ids:
        page = Page(WIDTH, 1.3, title, note)
        page.message(MARGIN, 0.1, WIDTH - 2 * MARGIN, 1.0, "There is no neurite to show.")
        return page.figure
    frame = " × ".join(f"{side / 1000:.3g}" for side in reversed(extent))
    page = Page(
        WIDTH,
        CAPTION + TOGETHER + rows * (CAPTION + ALONE) + 0.15,
        title,
        note,
        f"Surfaces on a grid of {side:.3g} nm, seen along parallel rays, each in its colour of the other figures. The "
        f"frame is the cutout, {frame} µm (x × y × z), its first section on top. A neurite that fills the frame or "
        "branches at right angles is probably several, merged; one that ends inside the frame is probably split.",
    )
    clouds, colours = surface_clouds(labels, ids, voxel_size_nm, side), label_colours(np.array(ids))
    wide = (WIDTH - 2 * MARGIN - GAP) / 2
    for at, view in enumerate(SIDES):
        box = (MARGIN + at * (wide + GAP), CAPTION, wide, TOGETHER)
        name = f"{'ab'[at]}  All, from {('one side', 'another')[at]}"
        axes, picture = _panel(page, box, clouds, colours, extent, side, view, name)
        scale_bar(axes, picture.nm_per_pixel)
    cell = (WIDTH - 2 * MARGIN - (PER_ROW - 1) * GAP) / PER_ROW
    for at, (one, count) in enumerate(zip(ids, voxels, strict=True)):
        left = MARGIN + at % PER_ROW * (cell + GAP)
        top = CAPTION + TOGETHER + (at // PER_ROW) * (CAPTION + ALONE) + CAPTION
        um3 = count * float(np.prod(voxel_size_nm)) * 1e-9
        title = f"{one}:  {um3:.3g} µm³, {100 * count / labels.size:.1f} %"
        _panel(page, (left, top, cell, ALONE), clouds[at : at + 1], colours[at : at + 1], extent, side, SIDES[0], title)
    return page.figure


def _panel(
    page: Page,
    box: tuple[float, float, float, float],
    clouds: Sequence[Cloud],
    colours: np.ndarray,
    extent: tuple[float, float, float],
    side: float,
    view: View,
    title: str,
) -> tuple[Axes, Picture]:
    """Draw surfaces inside the frame of the volume."""
    left, top, width, height = box
    pixels = round(height * DPI), round(width * DPI)
    picture = draw_clouds(clouds, colours, extent, side, view, pixels)
    axes = page.picture(left, top, width, height, picture.rgba, title)
    axes.images[0].set_zorder(2)
    _frame(axes, picture, extent)
    return axes, picture


def _frame(axes: Axes, picture: Picture, extent: tuple[float, float, float]) -> None:
    """Draw the edges of the volume, those behind it under the picture, and name its axes."""
    corners = box_corners(extent)
    place = picture.place(corners)
    farthest = int(place[:, 2].argmin())
    behind, before, named = [], [], {}
    for a, b in combinations(range(8), 2):
        along = np.flatnonzero(corners[a] != corners[b])
        if len(along) != 1:
            continue
        line = place[[a, b], :2]
        (behind if farthest in (a, b) else before).append(line)
        middle = line.mean(axis=0)
        axis = int(along[0])
        # Named are the lowest edges along x and y, and the leftmost along z.
        rank = middle[0] if axis == 0 else -middle[1]
        if axis not in named or rank < named[axis][0]:
            named[axis] = rank, middle
    axes.add_collection(
        LineCollection(behind, colors=GREY, linewidths=0.7, linestyles="dotted", zorder=1), autolim=False
    )
    axes.add_collection(LineCollection(before, colors=INK, linewidths=0.7, alpha=0.6, zorder=3), autolim=False)
    centre = place[:, :2].mean(axis=0)
    for axis, (_, at) in named.items():
        away = at - centre
        at = at + away / max(np.linalg.norm(away), 1e-9) * 9 * DPI / 72
        axes.text(*at, "zyx"[axis], fontsize=TEXT_PT, ha="center", va="center", color=INK, zorder=4)
