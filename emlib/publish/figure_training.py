"""Curves of a training: the loss, and the validation IoU of every organelle, epoch by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

WIDTH, HEIGHT = 10.0, 3.1  # inches
LEFT, GAP, BELOW = 0.65, 0.75, 0.55
LEGEND = 1.55  # inches at the right
PANEL = (WIDTH - LEFT - GAP - LEGEND) / 2
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, VERMILLION)
DASHES = ("-", "--", "-.", ":")
MARKED_EPOCHS = 40  # more than these are drawn without a mark for each


def figure_training(history: pd.DataFrame, title: str) -> Figure:
    """Draw the loss of the training and the IoU of the validation.

    Parameters
    ----------
    history : DataFrame, one row per epoch
        Columns ``epoch``, ``loss``, ``iou`` (the mean over organelles), ``iou/NAME`` for each.
    title : str
        What was trained.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = [{"epoch": 1, "loss": 2.0, "iou": 0.3, "iou/membranes": 0.3}]
    >>> len(figure_training(pd.DataFrame(rows), "experts").axes)
    2
    """
    best = history.loc[history["iou"].idxmax()] if history["iou"].notna().any() else history.iloc[-1]
    page = Page(
        WIDTH,
        HEIGHT + 0.3,
        f"Training of {title}",
        subtitle=f"Best epoch {best['epoch']:.0f} of {len(history)} so far: mean validation IoU {best['iou']:.3f}.",
    )
    loss = _panel(page, LEFT, "a  Loss, mean over the steps of an epoch", history)
    marks = {"marker": "o", "markersize": 3} if len(history) <= MARKED_EPOCHS else {}
    loss.plot(history["epoch"], history["loss"], color=INK, linewidth=1.4, **marks)
    loss.set_ylim(bottom=min(0.0, np.nanmin(history["loss"], initial=0.0)))
    iou = _panel(page, LEFT + PANEL + GAP, "b  IoU on whole validation sections, pooled", history)
    names = [name for name in history if name.startswith("iou/")]
    for i, name in enumerate(names):
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
        iou.plot(history["epoch"], history[name], label=name[4:], linewidth=1.4, **style, **marks)
    if len(names) != 1:
        iou.plot(history["epoch"], history["iou"], label="mean", color=INK, linewidth=2.2)
    iou.axvline(best["epoch"], color=GREY, linewidth=1, linestyle=(0, (2, 2)), label="best epoch", zorder=0.5)
    iou.set_ylim(0, 1)
    style = {"frameon": False, "fontsize": TEXT_PT, "borderaxespad": 0, "handlelength": 3.2}
    iou.legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), **style)
    return page.figure


def _panel(page: Page, left: float, caption: str, history: pd.DataFrame) -> Axes:
    """Axes over epochs, with a caption above."""
    page.text(left, 0.28 - 4 / 72, caption, size=PANEL_PT, va="bottom")
    axes = page.axes(left, 0.28, PANEL, HEIGHT - BELOW)
    first, last = history["epoch"].min(), history["epoch"].max()
    axes.set_xlim(first - 0.5, max(last, first + 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))
    axes.set_xlabel("epoch", fontsize=TEXT_PT)
    axes.tick_params(labelsize=TEXT_PT, colors=INK)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
