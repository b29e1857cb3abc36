"""The figure of predicted organelle masks over EM: what was found, what was not, what is not there; a row each.

At the left the whole section, painted; at the right the place with the most wrong pixels, in outlines alone, so that
the eye can judge by the EM who is right.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emlib.measure.masks import outlines
from emlib.measure.masks.pixels import patch_counts, pixel_counts, pixel_scores
from emlib.publish.page import LINE, MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import BLACK, GREEN, ORANGE, SKY, count, grey_range, grey_u8

WIDTH = 11.5  # inches
GAP = 0.2
CELL = (WIDTH - 2 * MARGIN - GAP) / 2
HEADING, CAPTION, BELOW = 0.24, 0.26, 0.2  # inches above a row, above a panel, below a row
LEGEND = 2.2 * TEXT_PT * LINE
LIMIT = 1600  # pixels: a longer side is thinned out in the picture of the whole section
ZOOM = 256  # side of the detail in pixels
ALPHA = 0.35  # of the paint within outlines
# true positive, false positive, false negative, in the order of `_classes`
KINDS = ((GREEN, "true positive: found and true"), (ORANGE, "false positive: found, not true"))
KINDS += ((SKY, "false negative: true, not found"),)


def figure_masks(
    em: np.ndarray,
    masks: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str,
    *,
    pixel_nm: tuple[float, float] | None = None,
    subtitle: str = "",
    note: str | None = None,
) -> Figure:
    """Outline true positives, false positives and false negatives of each organelle over the EM of one section.

    Parameters
    ----------
    em : (Y, X) array
    masks : dict of (truth, pred), (Y, X) bool arrays
        By organelle, one row each.
    title : str
        What the figure shows.
    pixel_nm : (y, x) in nm, optional
        Draws scale bars, and pixels in their proportion.
    subtitle : str
        Smaller text below the title.
    note : str, optional
        Printed first: that the data are synthetic.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is no organelle, or a mask has not the shape of the EM.

    Examples
    --------
    >>> truth = np.zeros((64, 64), bool)
    >>> truth[10:30, 10:30] = True
    >>> figure = figure_masks(np.zeros((64, 64), np.uint8), {"synapses": (truth, np.roll(truth, 5))}, "Synapses")
    >>> len(figure.axes)
    2
    """
    shapes = {mask.shape for pair in masks.values() for mask in pair}
    if shapes != {em.shape}:
        raise ValueError(f"masks and EM must have one shape (Y, X), got {sorted(shapes)} and {em.shape}")
    high, wide = pixel_nm or (1.0, 1.0)
    grey = grey_u8(em, *grey_range(em))
    windows = {name: worst_window(*pair) for name, pair in masks.items()}
    boxes = {name: [_inches(shape, high / wide) for shape in (em.shape, _shape(box))] for name, box in windows.items()}
    heights = [HEADING + CAPTION + max(box[1] for box in pair) + BELOW for pair in boxes.values()]
    page = Page(WIDTH, LEGEND + sum(heights), title, note, subtitle)
    _draw_legend(page)
    top = LEGEND
    for (name, pair), height in zip(masks.items(), heights, strict=True):
        window, classes = windows[name], _classes(*pair)
        page.text(MARGIN, top + 0.03, f"{name}: {_facts(*pair)}", size=PANEL_PT + 1, fontweight="bold")
        down = top + HEADING + CAPTION
        step = max(1, -(-max(em.shape) // LIMIT))
        whole = _painted(grey[::step, ::step], classes[::step, ::step], ALPHA)
        axes = page.picture(MARGIN, down, *boxes[name][0], whole, "whole section")
        set_extent(axes, em.shape)
        _frame(axes, window)
        detail = _painted(grey[window], classes[window], 0.0)
        y, x = (span.start for span in window)
        caption = f"most wrong pixels: rows from {y}, columns from {x}, {' × '.join(map(str, detail.shape[:2]))}"
        zoom = page.picture(MARGIN + CELL + GAP, down, *boxes[name][1], detail, caption)
        set_extent(zoom, detail.shape[:2])
        if pixel_nm:
            for one in (axes, zoom):
                scale_bar(one, wide)
        top += height
    return page.figure


def worst_window(truth: np.ndarray, pred: np.ndarray, side: int = ZOOM) -> tuple[slice, slice]:
    """Return the window with the most wrong pixels; where none is wrong, with the most foreground.

    Parameters
    ----------
    truth, pred : (Y, X) bool arrays
    side : int
        Of the window in pixels; a shorter section is taken whole. Windows begin at multiples of a quarter of it.

    Examples
    --------
    >>> truth = np.zeros((64, 64), bool)
    >>> truth[40, 50] = True
    >>> worst_window(truth, ~truth & False, 16)
    (slice(28, 44, None), slice(36, 52, None))
    """
    stride = max(1, side // 4)
    counts = patch_counts(truth, pred, side, stride)
    wrong = counts[:, 1] + counts[:, 2]
    best = int((wrong if wrong.any() else counts[:, 0]).argmax())
    sides = [min(side, length) for length in truth.shape]
    columns = (truth.shape[1] - sides[1]) // stride + 1
    y, x = best // columns * stride, best % columns * stride
    return slice(y, y + sides[0]), slice(x, x + sides[1])


def _classes(truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """0 neither, 1 both, 2 predicted alone, 3 true alone; (Y, X) uint8."""
    return np.where(truth, np.where(pred, 1, 3), np.where(pred, 2, 0)).astype(np.uint8)


def _painted(grey: np.ndarray, classes: np.ndarray, alpha: float) -> np.ndarray:
    """EM with the three kinds of pixels painted, and their inner outlines in full colour; (Y, X, 3) uint8."""
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for kind, (colour, _) in enumerate(KINDS, start=1):
        region, paint = classes == kind, 255 * np.float32(to_rgb(colour))
        picture[region] += (paint - picture[region]) * np.float32(alpha)
        picture[outlines.outline(region)] = paint
    return picture.astype(np.uint8)


def _facts(truth: np.ndarray, pred: np.ndarray) -> str:
    """The scores of this section in words."""
    counts = pixel_counts(truth, pred)
    if not counts[:3].any():
        return "none in truth or prediction"
    scores = pixel_scores(counts)
    figures = ", ".join(f"{name} {float(scores[name]):.3f}" for name in ("dice", "precision", "recall"))
    return f"{figures} in this section; {count(counts[1])} pixels false positive, {count(counts[2])} false negative"


def _draw_legend(page: Page) -> None:
    side, left = 0.11, MARGIN
    for colour, text in KINDS:
        corner = left / page.width, page.from_top(0.028 + side)
        square = Rectangle(corner, side / page.width, side / page.height, color=colour)
        square.set_transform(page.figure.transFigure)
        page.figure.add_artist(square)
        page.text(left + 0.18, 0.02, text)
        left += 2.3
    page.text(left, 0.02, "white frame: the detail at the right")


def _frame(axes: Axes, window: tuple[slice, slice]) -> None:
    """Mark the window of the detail."""
    rows, columns = window
    size = columns.stop - columns.start, rows.stop - rows.start
    for colour, width in ((BLACK, 2.6), ("white", 1.2)):
        corner = columns.start - 0.5, rows.start - 0.5
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=width))


def _shape(box: tuple[slice, slice]) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _inches(shape: tuple[int, int], tall: float) -> tuple[float, float]:
    """Width and height of a panel within a square cell; ``tall`` is a pixel's height over its width."""
    height, width = shape[0] * tall, shape[1]
    return min(CELL, CELL * width / height), min(CELL, CELL * height / width)
