"""Figures of contact models: the curve of splits against mergers over the bias, and the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emlib.publish.page import PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, VERMILLION

SIDE = 3.6  # inches, of a panel
LEFT, GAP, CAPTION, BELOW, LEGEND = 0.7, 0.95, 0.28, 0.5, 3.0
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION)
STEP = 0.25  # bits between lines of equal VOI, or a multiple of it
MOST_LINES = 9


class Curve(NamedTuple):
    """A method over the bias.

    Attributes
    ----------
    name : str
    points : DataFrame
        ``bias, voi_split, voi_merge``, in the order of the bias.
    chosen : int
        Row of the point that was chosen.
    """

    name: str
    points: pd.DataFrame
    chosen: int


def figure_curve(
    curves: Sequence[Curve], title: str, subtitle: str, note: str | None = None, bins: pd.DataFrame | None = None
) -> Figure:
    """Draw VOI split against VOI merge over the bias, each method a line, its chosen point marked.

    Parameters
    ----------
    curves : sequence of Curve
    title, subtitle : str
        Of the page; the curve has a title of its own where something is drawn beside it.
    note : str, optional
        Why the data are not real, if they are not.
    bins : DataFrame, optional
        ``probability, share_same, contacts`` as `emlib.refine.edge_boosting.learn_contacts` gives them; drawn beside.

    Returns
    -------
    Figure

    Examples
    --------
    >>> points = pd.DataFrame({"bias": [0.0, 1.0], "voi_split": [0.4, 0.9], "voi_merge": [0.8, 0.3]})
    >>> len(figure_curve([Curve("multicut", points, 0)], "A curve", "").axes)
    1
    """
    panels = 1 if bins is None else 2
    page = Page(LEFT + panels * SIDE + (panels - 1) * GAP + LEGEND, CAPTION + SIDE + BELOW, title, note, subtitle)
    if bins is not None:
        page.text(LEFT, CAPTION - 4 / 72, "a  Splits against mergers over the bias", size=PANEL_PT, va="bottom")
    axes = _axes(page, LEFT)
    every = pd.concat([curve.points for curve in curves])
    # Where nearly nothing is joined a curve runs off: what matters lies near the chosen points.
    near = max(curve.points.iloc[curve.chosen][["voi_split", "voi_merge"]].max() for curve in curves)
    side = float(min(2.5 * near, every[["voi_split", "voi_merge"]].max().max() * 1.05)) or 1.0
    _equal_lines(axes, side)
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        at = curve.points.iloc[curve.chosen]
        dash = "--" if "gasp" in curve.name else "-"
        axes.plot(curve.points["voi_merge"], curve.points["voi_split"], color=colour, linewidth=1.4, linestyle=dash)
        axes.plot(curve.points["voi_merge"], curve.points["voi_split"], ".", color=colour, markersize=3)
        total = at["voi_split"] + at["voi_merge"]
        label = f"{curve.name}\nbias {at['bias']:+g}: {at['voi_split']:.2f} + {at['voi_merge']:.2f} = {total:.2f} bits"
        mark = {"marker": "o", "markersize": 8, "markeredgecolor": INK, "markeredgewidth": 1.2}
        axes.plot([at["voi_merge"]], [at["voi_split"]], color=colour, linestyle=dash, label=label, **mark)
    axes.set_xlim(0, side)
    axes.set_ylim(0, side)
    axes.set_xlabel("VOI merge, bits", fontsize=TEXT_PT)
    axes.set_ylabel("VOI split, bits", fontsize=TEXT_PT)
    beside = axes if bins is None else _calibration(page, LEFT + SIDE + GAP, bins)
    place = {"loc": "upper left", "bbox_to_anchor": (1.04, 1.0), "borderaxespad": 0}
    handles = axes.get_legend_handles_labels()[0]
    beside.legend(handles=handles, frameon=False, fontsize=TEXT_PT, labelspacing=0.9, **place)
    return page.figure


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _axes(page: Page, left: float) -> Axes:
    axes = page.axes(left, CAPTION, SIDE, SIDE)
    axes.tick_params(labelsize=TEXT_PT, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _equal_lines(axes: Axes, side: float) -> None:
    """Lines along which the sum of both is the same."""
    step = STEP * max(1, int(np.ceil(side / STEP / MOST_LINES)))
    for total in np.arange(step, 2 * side, step):
        axes.plot([0, total], [total, 0], color=PALE, linewidth=0.8, zorder=0)


def _calibration(page: Page, left: float, bins: pd.DataFrame) -> Axes:
    text = "b  Calibration: contacts of held-out blocks, by probability"
    page.text(left, CAPTION - 4 / 72, text, size=PANEL_PT, va="bottom")
    axes = _axes(page, left)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    size = 12 + 160 * bins["contacts"] / bins["contacts"].max()
    axes.scatter(bins["probability"], bins["share_same"], s=size, color=BLUE, edgecolor=INK, linewidth=0.6, zorder=3)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("probability of the same neurite", fontsize=TEXT_PT)
    axes.set_ylabel("share that belongs together", fontsize=TEXT_PT)
    return axes
