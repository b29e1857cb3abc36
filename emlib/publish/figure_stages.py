"""Figure 1: one section through the stages (raw, preprocessed, aligned, segmented) and cuts across the sections."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from emlib.publish.page import DPI, MARGIN, PANEL_PT, Page, scale_bar, set_extent
from emlib.publish.style import BLACK, YELLOW, grey_range, grey_u8, overlay, plural, shrink

WIDTH = 11.5  # inches
GAP = 0.12
CAPTION = 0.26  # inches above each row for the panels' titles
MAX_PIXELS = 800  # of a grey picture's longer side
MIN_CUT = 0.4  # inches: a cut through few sections is stretched in z until it is this tall


def figure1(
    em_u8: np.ndarray,
    preprocessed: np.ndarray | None,
    aligned: np.ndarray,
    labels: np.ndarray,
    voxel_size_nm: tuple[float, float, float],
    z: int | None = None,
    note: str | None = None,
) -> Figure:
    """Show raw EM, preprocessed, aligned and neurites in one section, and x–z and y–z cuts before and after alignment.

    Parameters
    ----------
    em_u8 : (Z, Y, X) array
        As read.
    preprocessed : (Z, Y, X) array or None
    aligned : (Z, Y, X) array
    labels : (Z, Y, X) integer array
        Neurites; 0 is background.
    voxel_size_nm : (z, y, x)
    z : int, optional
        The section; the middle one if not given.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
    """
    depth, height, width = labels.shape
    z = depth // 2 if z is None else z
    vz, vy, vx = voxel_size_nm
    stacks = {"Raw EM": em_u8, "Preprocessed": preprocessed, "Aligned": aligned}
    stacks = {name: stack for name, stack in stacks.items() if stack is not None}
    inner = WIDTH - 2 * MARGIN
    cell = (inner - len(stacks) * GAP) / (len(stacks) + 1)
    tall = min(cell * height * vy / (width * vx), 4.5)
    cuts = _place_cuts(depth * vz, height * vy, width * vx, inner) if depth > 1 else []
    total = CAPTION + tall + max((top + h for _, top, _, h, _ in cuts), default=0.25) + 0.15
    title = f"Figure 1. From raw EM to neurites: section z = {z} ({plural(depth, 'section')} in all)"
    told = _subtitle(labels[z], voxel_size_nm, "raw" if preprocessed is None else "preprocessed")
    page = Page(WIDTH, total, title, note, told)
    letters = iter("abcdefghijklmnop")
    wide = tall * width * vx / (height * vy)  # the section keeps its shape where the height is capped
    sections = {name: stack[z] for name, stack in stacks.items()}
    axes = _draw_sections(page, sections, labels[z], vx, (cell, tall, wide), letters)
    if cuts:
        mark_cuts(axes, height // 2, width // 2)
        before = em_u8 if preprocessed is None else preprocessed
        shown = {"before": (before, grey_range(before[z])), "aligned": (aligned, grey_range(aligned[z]))}
        _draw_cuts(page, CAPTION + tall, cuts, shown, labels, voxel_size_nm, letters)
    else:
        told = "A single section: there is no cut across sections to show."
        page.text(MARGIN, CAPTION + tall + 0.1, told, size=PANEL_PT)
    return page.figure


def _subtitle(section: np.ndarray, voxel_size_nm: tuple[float, float, float], before: str) -> str:
    """What is seen, of the labels of a section (Y, X) and the name of the stack that is called "before"."""
    (height, width), (vz, vy, vx) = section.shape, voxel_size_nm
    neurites = int((pd.unique(section.ravel()) > 0).sum())
    return (
        f"{width} × {height} voxels of {vx:g} × {vy:g} nm, sections {vz:g} nm apart; "
        f"{plural(neurites, 'neurite')} in this section, one colour per id, white lines between ids. "
        f"“Before” is the {before} stack; yellow ticks mark the cuts."
    )


def _draw_sections(
    page: Page,
    stages: dict[str, np.ndarray],
    labels: np.ndarray,
    nm: float,
    place: tuple[float, float, float],
    letters: Iterator[str],
) -> Axes:
    """Draw a section after each stage, and its labels over the last; return the axes of these.

    ``place`` is the width of a column, and the height and width of a section in it.
    """
    cell, tall, wide = place

    def draw(column: int, picture: np.ndarray, title: str) -> Axes:
        left = MARGIN + column * (cell + GAP) + max(0.0, (cell - wide) / 2)
        axes = page.picture(left, CAPTION, min(wide, cell), tall, picture, f"{next(letters)}  {title}")
        set_extent(axes, labels.shape)
        scale_bar(axes, nm)
        return axes

    for column, (name, section) in enumerate(stages.items()):
        low, high = grey_range(section)
        span = f"{low:.0f}–{high:.0f}" if section.dtype.kind in "iu" else f"{low:.2f}–{high:.2f}"
        draw(column, shrink(grey_u8(section, low, high), MAX_PIXELS), f"{name} (grey {span})")
    painted = paint_labels(grey_u8(section, low, high), labels, (tall, min(wide, cell)))
    return draw(len(stages), painted, "Neurites over aligned EM")


def _draw_cuts(
    page: Page,
    top: float,
    cuts: list[tuple],
    shown: dict[str, tuple[np.ndarray, tuple[float, float]]],
    labels: np.ndarray,
    voxel_size_nm: tuple[float, float, float],
    letters: Iterator[str],
) -> None:
    """Draw the cuts that `_place_cuts` gives, below ``top``: ``shown`` before and after alignment, each with its range
    of grey, and the labels over the latter."""
    (depth, height, width), (vz, vy, vx) = labels.shape, voxel_size_nm
    y, x = height // 2, width // 2
    for left, down, w, h, (plane, kind) in cuts:
        along, step, where = (np.s_[:, y, :], vx, f"y = {y}") if plane == "x–z" else (np.s_[:, :, x], vy, f"x = {x}")
        ids = labels[along]
        stretch = h / (w * depth * vz / (ids.shape[1] * step))
        title = f"{next(letters)}  {plane} at {where}, {kind}" + (f", z × {stretch:.1f}" if stretch > 1.01 else "")
        stack, low_high = shown.get(kind, shown["aligned"])
        grey = grey_u8(stack[along], *low_high)
        picture = shrink(grey, MAX_PIXELS) if kind in shown else paint_labels(grey, ids, (h, w))
        axes = page.picture(left, top + down, w, h, picture, title)
        set_extent(axes, ids.shape)
        scale_bar(axes, step)


def paint_labels(grey: np.ndarray, labels: np.ndarray, inches: tuple[float, float]) -> np.ndarray:
    """Return labels over EM (uint8) with 1.3 pixels per printed pixel, so that outlines stay thin and even."""
    return _few_colours(overlay(grey, labels, _pixels(inches)))


def paint_map(
    grey: np.ndarray, values: np.ndarray, colour: np.ndarray, strength: float, inches: tuple[float, float]
) -> np.ndarray:
    """Return values in [0, 1] as a colour (red, green, blue of 255) over EM (uint8), at 1 of the given strength."""
    size = _pixels(inches)[::-1]
    shown = np.clip(np.asarray(values, np.float32), 0, 1) * np.float32(strength)
    weight, em = (
        np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR), np.float32) for part in (shown, grey)
    )
    return _few_colours(
        (em[..., None] + (colour.astype(np.float32) - em[..., None]) * weight[..., None]).astype(np.uint8)
    )


def _pixels(inches: tuple[float, float]) -> tuple[int, int]:
    return tuple(max(2, round(side * DPI * 1.3)) for side in inches)


def _few_colours(picture: np.ndarray) -> np.ndarray:
    """A PDF stores pictures of at most 256 colours by index, a third of the bytes in a fifth of the time."""
    few = Image.fromarray(picture).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return np.asarray(few.convert("RGB"))


def mark_cuts(axes: Axes, y: int, x: int) -> None:
    """Draw ticks at the edges of a section where the x–z cut (row y) and the y–z cut (column x) run."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    w, h = 0.05 * (right - left), 0.05 * (bottom - top)
    ticks = [[(left, y), (left + w, y)], [(right, y), (right - w, y)], [(x, top), (x, top + h)]]
    ticks.append([(x, bottom), (x, bottom - h)])
    for colour, points in ((BLACK, 3.0), (YELLOW, 1.6)):
        axes.add_collection(LineCollection(ticks, colors=colour, linewidths=points), autolim=False)


def _place_cuts(depth: float, height: float, width: float, inner: float) -> list[tuple]:
    """Place x–z and y–z cuts, each before, aligned and labelled, below the sections.

    Flat stacks get two rows of three, so that the cuts are long enough to judge; cubes get one row of six.

    Returns
    -------
    list of (left, top, width, height, (plane, kind)) in inches; top counts from the lower edge of the sections
    """
    kinds = ("before", "aligned", "neurites")
    per_row = 6 if depth / max(height, width) > 0.5 else 3
    cell = (inner - (per_row - 1) * GAP) / per_row
    placed, top = [], CAPTION + 0.12
    for row, (plane, span) in enumerate((("x–z", width), ("y–z", height))):
        w, h = cell, cell * depth / span
        if h > 3.0:  # the physical shape is kept: a taller stack becomes narrower
            w, h = cell * 3.0 / h, 3.0
        h = max(h, MIN_CUT)
        for column, kind in enumerate(kinds):
            first = 3 * row if per_row == 6 else 0
            placed.append((MARGIN + (first + column) * (cell + GAP), top, w, h, (plane, kind)))
        if per_row == 3:
            top += h + CAPTION + 0.08
    return placed
