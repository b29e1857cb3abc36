"""Figures of a channel analysis: importance as heat maps, sets against random sets, deletion curves.

The overlap of sets is drawn in `emlib.publish.figure_overlap`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, SCORES, VERMILLION

WIDTH = 10.5  # inches
NAMES = {"gradient": "gradient", "gradient_x_activation": "gradient × activation", "ablation": "ablation, exact"}
COLOURS = {"gradient": BLUE, "gradient_x_activation": ORANGE, "ablation": GREEN}
LEFT = 1.15  # inches for the names of experts
ROW = 0.24


def importance_figure(importance: pd.DataFrame, ranked_by: str, top_k: int, note: str | None = None) -> Figure:
    """Show the importance of every channel for every expert, level by level, as strips of colour.

    Parameters
    ----------
    importance : DataFrame
        Columns level, channel, expert, one per measure (NaN where it was not computed), and ``top`` (bool).
    ranked_by : str
        The measure that the channels of a level are ordered by.
    top_k : int
        Size of the top sets at the deepest level.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        Channels run from those most important to all experts together to the least; ticks below a strip mark the top
        set of each expert.
    """
    experts = list(dict.fromkeys(importance["expert"]))
    deepest = importance["level"].max()
    strips = []
    for level in sorted(importance["level"].unique(), reverse=True):
        rows = importance[importance["level"] == level]
        by = ranked_by if rows[ranked_by].notna().any() else "gradient"
        order = np.argsort(-_relative(rows, by, experts).mean(axis=0), kind="stable")
        for measure in NAMES:
            if rows[measure].notna().any() and (level == deepest or measure == by):
                top = rows.pivot(index="expert", columns="channel", values="top").loc[experts].to_numpy(bool)
                marks = top[:, order] if level == deepest and measure == by else None
                strips.append((level, measure, _relative(rows, measure, experts)[:, order], marks))
    tall = len(experts) * ROW
    heights = [tall + (0.5 if marks is None else 0.5 + 0.09 * len(experts)) for *_, marks in strips]
    subtitle = (
        "Each row is scaled to its largest value. All strips of a level have one order of channels: by "
        f"{NAMES[ranked_by]} over all experts. Dots: the {top_k} channels of each expert's top set, rows in order."
    )
    page = Page(WIDTH, sum(heights) + 0.75, "Channel importance per expert and encoder level", note, subtitle)
    top_edge = 0.3
    for (level, measure, values, marks), height in zip(strips, heights, strict=True):
        kind = "deepest level" if level == deepest else "level"
        title = f"{kind} {level}, {values.shape[1]} channels: {NAMES[measure]}"
        _strip(page, top_edge, tall, values, experts, title, marks)
        top_edge += height
    bar = page.axes(LEFT, top_edge - 0.02, 2.4, 0.1)
    bar.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap=SCORES, extent=(0, 1, 0, 1))
    bar.set_yticks([])
    bar.tick_params(labelsize=TEXT_PT)
    page.text(LEFT + 2.5, top_edge - 0.06, "importance / largest of the expert")
    return page.figure


def ablation_figure(effects: pd.DataFrame, random_sets: int, note: str | None = None) -> Figure:
    """Show what taking sets of channels away costs each expert, against random sets of the same size.

    Parameters
    ----------
    effects : DataFrame
        From the ablation of sets: set, of, size, ablation, expert, quantity, value, random_low, random_mean,
        random_high, p.
    random_sets : int
        How many random sets stand behind each grey bar.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        One column of panels per expert, one row per kind of ablation.
    """
    drops = effects[effects["quantity"] == "drop"]
    experts, kinds = list(dict.fromkeys(drops["expert"])), list(dict.fromkeys(drops["ablation"]))
    sets = drops.drop_duplicates(["set", "of"])
    labels = [_set_name(one) for one in sets.itertuples()]
    left, gap, tall = 1.9, 0.25, 0.3 * len(labels) + 0.25
    across = min(len(experts), 4)
    wide = (WIDTH - left - MARGIN - gap * (across - 1)) / across
    lines = -(-len(experts) // across)
    subtitle = (
        f"Grey: 95 % of {random_sets} random sets of the same size, line at their mean. Right of it: worse than chance."
    )
    page = Page(WIDTH, lines * len(kinds) * (tall + 0.75) + 0.35, "Sets of channels taken away", note, subtitle)
    for i, (kind, (e, expert)) in enumerate((k, x) for k in kinds for x in enumerate(experts)):
        line, column = (i // len(experts)) * lines + e // across, e % across
        axes = page.axes(left + column * (wide + gap), 0.3 + line * (tall + 0.75), wide, tall)
        rows = drops[(drops["expert"] == expert) & (drops["ablation"] == kind)]
        _against_random(axes, rows, expert)
        axes.set_yticks(range(len(labels)), labels if column == 0 else [""] * len(labels), fontsize=TEXT_PT)
        axes.set_title(
            f"{expert}: channels set to {'zero' if kind == 'zero' else 'their mean'}", fontsize=PANEL_PT, loc="left"
        )
        axes.set_xlabel("drop of pooled Dice", fontsize=TEXT_PT)
    dot = {"linestyle": "none", "marker": "o", "markersize": 6}
    keys = [
        Line2D([], [], color=VERMILLION, label="worse than random, p ≤ 0.05", **dot),
        Line2D([], [], color=BLUE, label="not told from random", **dot),
        Line2D([], [], color="white", markeredgecolor=INK, label="ring: the set is this expert's", **dot),
        Patch(facecolor=GREY, alpha=0.45, label="random sets"),
    ]
    page.figure.legend(handles=keys, loc="lower left", ncols=4, fontsize=TEXT_PT, frameon=False)
    return page.figure


def deletion_figure(curves: pd.DataFrame, areas: pd.DataFrame, note: str | None = None) -> Figure:
    """Show what is left of each expert while channels are removed by importance, in reverse, and at random.

    Parameters
    ----------
    curves : DataFrame
        expert, measure, direction, removed, dice.
    areas : DataFrame
        expert, measure, area, random_mean, p.
    note : str, optional
        Goes first into the title.
    """
    experts = list(dict.fromkeys(curves["expert"]))
    across = min(len(experts), 3)
    lines = -(-len(experts) // across)
    gap, tall = 0.55, 2.6
    wide = (WIDTH - 0.75 - MARGIN - gap * (across - 1)) / across
    subtitle = (
        "Solid: most important first; dashed: least important first. Grey: mean and 95 % of random orders. "
        "Area: mean Dice along a curve. Scales differ."
    )
    page = Page(WIDTH, lines * (tall + 1.3) + 0.35, "Deletion curves at the deepest level", note, subtitle)
    for i, expert in enumerate(experts):
        axes = page.axes(0.75 + i % across * (wide + gap), 0.3 + i // across * (tall + 1.3), wide, tall)
        _deletion_panel(axes, curves[curves["expert"] == expert], areas[areas["expert"] == expert])
        axes.set_title(expert, fontsize=PANEL_PT, loc="left")
        axes.set_xlabel("channels set to zero", fontsize=TEXT_PT)
        if i % across == 0:
            axes.set_ylabel("pooled Dice", fontsize=TEXT_PT)
    keys = [Line2D([], [], color=COLOURS[m], label=NAMES[m]) for m in NAMES if m in set(curves["measure"])]
    keys += [
        Line2D([], [], color=INK, linestyle="--", label="reversed"),
        Patch(facecolor=GREY, alpha=0.4, label="random"),
    ]
    page.figure.legend(handles=keys, loc="lower left", ncols=6, fontsize=TEXT_PT, frameon=False)
    return page.figure


def _relative(rows: pd.DataFrame, measure: str, experts: list[str]) -> np.ndarray:
    """(E, C) importance over the expert's largest."""
    values = rows.pivot(index="expert", columns="channel", values=measure).loc[experts].to_numpy(float)
    return values / np.maximum(values.max(axis=1, keepdims=True), 1e-30)


def _strip(
    page: Page, top: float, tall: float, values: np.ndarray, experts: list[str], title: str, marks: np.ndarray | None
) -> None:
    axes = page.axes(LEFT, top, WIDTH - LEFT - MARGIN, tall)
    axes.imshow(values, aspect="auto", cmap=SCORES, vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(experts)), experts, fontsize=TEXT_PT)
    axes.set_xticks([])
    axes.tick_params(length=0)
    page.text(LEFT, top - 3 / 72, title, size=PANEL_PT, va="bottom")
    if marks is not None:
        below = page.axes(LEFT, top + tall + 0.02, WIDTH - LEFT - MARGIN, 0.09 * len(experts))
        e, c = np.nonzero(marks)
        below.scatter(c, e, s=3, color=INK, linewidths=0)
        below.set_xlim(-0.5, values.shape[1] - 0.5)
        below.set_ylim(len(experts) - 0.5, -0.5)
        below.set_axis_off()


def _set_name(row) -> str:
    name = {"top": f"top of {row.of}", "shared": "shared by all", "specific": f"only {row.of}"}[row.set]
    return f"{name} ({row.size})"


def _against_random(axes: Axes, rows: pd.DataFrame, expert: str) -> None:
    axes.axvline(0, color=PALE, linewidth=0.8, zorder=0)
    for y, row in enumerate(rows.itertuples()):
        axes.barh(y, row.random_high - row.random_low, left=row.random_low, height=0.5, color=GREY, alpha=0.45)
        axes.plot([row.random_mean] * 2, [y - 0.25, y + 0.25], color=INK, linewidth=1)
        ring = {"markeredgecolor": INK, "markeredgewidth": 1.2} if row.of == expert else {"markeredgewidth": 0}
        axes.plot(row.value, y, "o", color=VERMILLION if row.p <= 0.05 else BLUE, markersize=6, **ring)
    axes.use_sticky_edges = False  # bars would end at the frame
    axes.margins(x=0.06)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)


def _deletion_panel(axes: Axes, curves: pd.DataFrame, areas: pd.DataFrame) -> None:
    random = curves[curves["measure"] == "random"].pivot(index="removed", columns="direction", values="dice")
    low, high = np.percentile(random, (2.5, 97.5), axis=1)
    axes.fill_between(random.index, low, high, color=GREY, alpha=0.4, linewidth=0)
    axes.plot(random.index, random.mean(axis=1), color=INK, linewidth=1)
    words = [f"area at random: {areas['random_mean'].iloc[0]:.3f}"]
    for row in areas.itertuples():
        for direction, line in (("forward", "-"), ("reversed", "--")):
            one = curves[(curves["measure"] == row.measure) & (curves["direction"] == direction)]
            axes.plot(one["removed"], one["dice"], line, color=COLOURS.get(row.measure, PURPLE), linewidth=1.4)
        words.append(
            f"{NAMES.get(row.measure, row.measure)}: {row.area:.3f}, p = {row.p:.3f}; reversed {row.area_reversed:.3f}"
        )
    low, high = curves["dice"].min(), curves["dice"].max()
    slack = max(0.05 * (high - low), 0.02)
    axes.set_ylim(low - slack, high + slack)
    axes.margins(x=0.01)
    style = {"ha": "left", "va": "top", "fontsize": TEXT_PT - 0.5, "color": INK}
    axes.text(0, -0.19, "\n".join(words), transform=axes.transAxes, **style)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
