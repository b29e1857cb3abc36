"""Curves of a training: the loss, and the validation IoU of every organelle, epoch by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION

PANEL, HEIGHT = 3.53, 3.1  # inches, a panel's width and the height of both
LEFT, GAP, BELOW = 0.65, 0.75, 0.55
CAPTION = 0.28
HANDLE, CHARACTER, ENTRY = 0.52, 0.066, 0.166  # inches in the legend: line and gap, a letter, a row
BROWN = "#7A4A1E"
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, VERMILLION, BROWN)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MEAN = {"color": INK, "linewidth": 2.2}
BEST = {"color": GREY, "linewidth": 1, "linestyle": (0, (2, 2))}
MARKED_EPOCHS = 40  # more than these are drawn without a mark for each; marks hide the kinds of many lines
MARKED_LINES = 4


def figure_training(history: pd.DataFrame, title: str) -> Figure:
    """Draw the loss of the training and the IoU of the validation.

    Parameters
    ----------
    history : DataFrame, one row per epoch
        Columns ``epoch``, ``loss``, ``iou`` (the mean over organelles) and ``iou/NAME`` for each, or for several data
        sets ``iou/DOMAIN/NAME``.
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
    styles, entries = _styles([name for name in history if name.startswith("iou/")])
    widest = max(len(label) for label, _ in entries)
    height = max(HEIGHT, ENTRY * len(entries) + BELOW)
    page = Page(
        LEFT + 2 * PANEL + GAP + 0.1 + HANDLE + CHARACTER * widest,
        height + CAPTION + 0.02,
        f"Training of {title}",
        subtitle=f"Best epoch {best['epoch']:.0f} of {len(history)} so far: mean validation IoU {best['iou']:.3f}.",
    )
    loss = _panel(page, LEFT, height, "a  Loss, mean over the steps of an epoch", history)
    marks = {"marker": "o", "markersize": 3} if len(history) <= MARKED_EPOCHS else {}
    loss.plot(history["epoch"], history["loss"], color=INK, linewidth=1.4, **marks)
    loss.set_ylim(bottom=min(0.0, np.nanmin(history["loss"], initial=0.0)))
    iou = _panel(page, LEFT + PANEL + GAP, height, "b  IoU on whole validation sections, pooled", history)
    marks = marks if len(styles) <= MARKED_LINES or len(history) == 1 else {}
    for name, style in styles.items():
        iou.plot(history["epoch"], history[name], label=name[4:], linewidth=1.4, **style, **marks)
    if len(styles) != 1:
        iou.plot(history["epoch"], history["iou"], label="mean", **MEAN)
    iou.axvline(best["epoch"], label="best epoch", zorder=0.5, **BEST)
    iou.set_ylim(0, 1)
    lines = [Line2D([], [], label=label, **style) for label, style in entries]
    place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0}
    iou.legend(handles=lines, frameon=False, fontsize=TEXT_PT, handlelength=3.2, labelspacing=0.35, **place)
    return page.figure


def _styles(columns: list[str]) -> tuple[dict[str, dict], list[tuple[str, dict]]]:
    """How each column is drawn, and the entries of the legend.

    With ``iou/DOMAIN/NAME`` in all columns an organelle has one colour and a data set one kind of line, and the legend
    names the two apart; else each column differs from the others in colour, or in the kind of line.
    """
    parts = [name.split("/")[1:] for name in columns]
    if columns and all(len(part) == 2 for part in parts):
        domains, names = (list(dict.fromkeys(part[i] for part in parts)) for i in (0, 1))
        hues = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
        dashes = {domain: DASHES[i % len(DASHES)] for i, domain in enumerate(domains)}
        styles = {
            column: {"color": hues[name], "linestyle": dashes[domain]}
            for column, (domain, name) in zip(columns, parts, strict=True)
        }
        entries = [(name, {"color": hue, "linewidth": 4}) for name, hue in hues.items()]
        entries += [(domain, {"color": GREY, "linewidth": 1.4, "linestyle": dash}) for domain, dash in dashes.items()]
    else:
        styles = {
            column: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
            for i, column in enumerate(columns)
        }
        entries = [(column[4:], {"linewidth": 1.4, **style}) for column, style in styles.items()]
    mean = [("mean", MEAN)] if len(columns) != 1 else []
    return styles, [*entries, *mean, ("best epoch", BEST)]


def _panel(page: Page, left: float, height: float, caption: str, history: pd.DataFrame) -> Axes:
    """Axes over epochs, with a caption above."""
    page.text(left, CAPTION - 4 / 72, caption, size=PANEL_PT, va="bottom")
    axes = page.axes(left, CAPTION, PANEL, height - BELOW)
    first, last = history["epoch"].min(), history["epoch"].max()
    axes.set_xlim(first - 0.5, max(last, first + 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))
    axes.set_xlabel("epoch", fontsize=TEXT_PT)
    axes.tick_params(labelsize=TEXT_PT, colors=INK)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
