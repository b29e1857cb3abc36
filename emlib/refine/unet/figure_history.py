"""Figure: how a self-training went, epoch by epoch."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE

PANEL, HEIGHT, LEFT, GAP, CAPTION, BELOW = 3.3, 2.6, 0.65, 0.8, 0.3, 0.5  # inches
MEASURES = {"iou": ("IoU at 0.5", BLUE), "dice": ("Dice at 0.5", GREEN), "auc": ("AUC", ORANGE)}


def figure_history(history: pd.DataFrame, judged_by: str, renewed: list[int], note: str | None = None) -> Figure:
    """Draw the loss and the agreement.

    Parameters
    ----------
    history : DataFrame, one row per epoch
        ``epoch, loss, iou, dice, auc``.
    judged_by : str
        What agreement is measured on.
    renewed : list of int
        Epochs, from 1, that began with new pseudo-labels.
    note : str, optional
        Why the data are not real, if they are not.

    Returns
    -------
    Figure

    Examples
    --------
    >>> table = pd.DataFrame({"epoch": [1, 2], "loss": [1.5, 1.0], "iou": [0.3, 0.5], "dice": [0.4, 0.7], "auc": 0.9})
    >>> len(figure_history(table, "held-out strips", [2]).axes)
    2
    """
    best = history.loc[history["iou"].idxmax()]
    page = Page(
        LEFT + 2 * PANEL + GAP + 0.2,
        CAPTION + HEIGHT + BELOW,
        "Self-training of the boundary network",
        note,
        f"Kept: epoch {best['epoch']:.0f} of {len(history)}, IoU {best['iou']:.3f} on {judged_by}.",
    )
    loss = _panel(page, LEFT, "a  Loss, mean over the steps of an epoch", history, renewed)
    loss.plot(history["epoch"], history["loss"], color=INK, linewidth=1.4, marker="o", markersize=3)
    loss.set_ylim(0, 1.08 * history["loss"].max())
    agreement = _panel(page, LEFT + PANEL + GAP, "b  Agreement, on what is named above", history, renewed)
    for name, (label, colour) in MEASURES.items():
        agreement.plot(history["epoch"], history[name], color=colour, linewidth=1.4, marker="o", markersize=3)
        last = (history["epoch"].iloc[-1], history[name].iloc[-1])
        style = {"textcoords": "offset points", "ha": "right", "fontsize": TEXT_PT, "color": colour}
        agreement.annotate(label, last, (0, 5), **style)
    agreement.axvline(best["epoch"], color=GREY, linewidth=1, zorder=0.5)
    agreement.set_ylim(0, 1.05)
    return page.figure


def _panel(page: Page, left: float, caption: str, history: pd.DataFrame, renewed: list[int]) -> Axes:
    """Axes over epochs with a caption above, and where pseudo-labels were renewed."""
    page.text(left, CAPTION - 4 / 72, caption, size=PANEL_PT, va="bottom")
    axes = page.axes(left, CAPTION, PANEL, HEIGHT)
    last = history["epoch"].max()
    axes.set_xlim(0.5, max(last, 2) + 0.5)
    for epoch in renewed:
        axes.axvline(epoch - 0.5, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))
    axes.set_xlabel(
        "epoch" + ("; dotted: the teacher was asked for pseudo-labels" if renewed else ""), fontsize=TEXT_PT
    )
    axes.tick_params(labelsize=TEXT_PT, colors=INK)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
