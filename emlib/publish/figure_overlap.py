"""What the top sets of experts share: a Venn diagram of up to three, bars of every combination, against chance."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, SKY, VERMILLION

WIDTH = 10.5  # inches
VENN = 4.0
BAR_ROW = 0.3
SIGNIFICANT = 0.05


def overlap_figure(tops: Mapping[str, frozenset[int]], overlaps: pd.DataFrame, note: str | None = None) -> Figure:
    """Show how many channels the top sets of the experts share, and how many random sets would.

    Parameters
    ----------
    tops : dict of sets of channels
        By expert.
    overlaps : DataFrame
        Columns kind, experts, k, channels, observed, expected, sd, p_more, p_less.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        With two or three experts a Venn diagram beside the bars; with more an UpSet plot of the regions (Lex et al.
        2014) above them; with one a sentence.
    """
    title = "What the experts' most important channels have in common"
    if len(tops) < 2:
        page = Page(WIDTH, 1.4, title, note)
        page.message(MARGIN, 0.2, WIDTH - 2 * MARGIN, 1.0, "One expert alone shares channels with none.")
        return page.figure
    subtitle = (
        f"Top sets of {overlaps['k'].iloc[0]} of {overlaps['channels'].iloc[0]} channels. Grey: what random sets of "
        "that size share, mean ± 2 sd (exact)."
    )
    tall = len(overlaps) * BAR_ROW
    few = len(tops) <= 3
    above = 0.0 if few else 2.9 + 0.22 * len(tops)
    height = max(VENN, tall + 0.9) if few else above + tall + 1.1
    page = Page(WIDTH, height + 0.35, title, note, subtitle)
    if few:
        _venn(page.axes(MARGIN, 0.2, VENN, VENN), tops)
        _bars(page.axes(VENN + 2.3, 0.3, WIDTH - VENN - 2.5, tall), overlaps)
    else:
        _upset(page, tops, above)
        _bars(page.axes(3.2, above + 0.4, WIDTH - 3.4, tall), overlaps)
    keys = [
        Patch(facecolor=GREY, alpha=0.45, label="random sets"),
        *(
            Line2D([], [], linestyle="none", marker="o", color=colour, label=text)
            for colour, text in (
                (VERMILLION, "more than chance, p ≤ 0.05"),
                (SKY, "fewer than chance, p ≤ 0.05"),
                (BLUE, "as chance"),
            )
        ),
    ]
    page.figure.legend(handles=keys, loc="lower right", ncols=4, fontsize=TEXT_PT, frameon=False)
    return page.figure


def regions(tops: Mapping[str, frozenset[int]]) -> dict[tuple[str, ...], int]:
    """Count the channels that are in the sets of exactly these experts and no others.

    Examples
    --------
    >>> regions({"a": frozenset({0, 1}), "b": frozenset({1, 2})})
    {('a',): 1, ('b',): 1, ('a', 'b'): 1}
    """
    found = {}
    for inside in sorted(product((False, True), repeat=len(tops)), key=lambda f: (sum(f), [not flag for flag in f])):
        if any(inside):
            shared = frozenset.intersection(*(s for s, flag in zip(tops.values(), inside, strict=True) if flag))
            others = frozenset().union(*(s for s, flag in zip(tops.values(), inside, strict=True) if not flag))
            found[tuple(n for n, flag in zip(tops, inside, strict=True) if flag)] = len(shared - others)
    return found


def _venn(axes: Axes, tops: Mapping[str, frozenset[int]]) -> None:
    """Circles of one size, as the sets have; the numbers count, not the areas."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(3) / 3 if len(tops) == 3 else np.array([np.pi, 0.0])
    centres = dict(zip(tops, 0.62 * np.stack([np.cos(angles), np.sin(angles)], axis=1), strict=True))
    for (name, centre), colour in zip(centres.items(), (ORANGE, SKY, GREEN), strict=False):
        axes.add_patch(Circle(centre, 1.0, facecolor=colour, alpha=0.35, edgecolor=INK, linewidth=1))
        above = len(tops) == 2 or centre[1] > 0
        axes.text(
            *(centre + np.array([0, 1.13 if above else -1.13])),
            name,
            ha="center",
            va="center",
            fontsize=PANEL_PT,
            fontweight="bold",
            color=INK,
        )
    for names, number in regions(tops).items():
        middle = np.mean([centres[name] for name in names], axis=0)
        reach = {1: 1.75, 2: 1.65 if len(tops) == 3 else 0.0, 3: 0.0}[len(names)]
        axes.text(*(middle * reach), str(number), ha="center", va="center", fontsize=PANEL_PT + 3, color=INK)
    axes.set_xlim(-1.9, 1.9)
    axes.set_ylim(-1.75, 2.05)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _upset(page: Page, tops: Mapping[str, frozenset[int]], above: float) -> None:
    """Bars of the regions over a matrix of which experts they belong to."""
    found = sorted(regions(tops).items(), key=lambda item: (-item[1], len(item[0])))
    found = [item for item in found if item[1]][:40]
    rows = 0.22 * len(tops)
    bars = page.axes(1.6, 0.15, WIDTH - 1.8, above - rows - 0.5)
    grid = page.axes(1.6, above - rows - 0.3, WIDTH - 1.8, rows)
    bars.bar(range(len(found)), [number for _, number in found], color=BLUE, width=0.6)
    for x, (_, number) in enumerate(found):
        bars.text(x, number, str(number), ha="center", va="bottom", fontsize=TEXT_PT)
    bars.set_ylabel("channels in exactly these", fontsize=TEXT_PT)
    bars.set_xticks([])
    bars.tick_params(labelsize=TEXT_PT)
    bars.spines[["top", "right"]].set_visible(False)
    for x, (names, _) in enumerate(found):
        inside = [y for y, name in enumerate(tops) if name in names]
        grid.scatter([x] * len(tops), range(len(tops)), s=26, color=PALE)
        grid.plot([x, x], [inside[0], inside[-1]], color=INK, linewidth=1.4)
        grid.scatter([x] * len(inside), inside, s=26, color=INK, zorder=3)
    for axes in (bars, grid):
        axes.set_xlim(-0.6, len(found) - 0.4)
    grid.set_ylim(len(tops) - 0.5, -0.5)
    grid.set_yticks(range(len(tops)), list(tops), fontsize=TEXT_PT)
    grid.set_xticks([])
    grid.tick_params(length=0)
    grid.spines[:].set_visible(False)


def _bars(axes: Axes, overlaps: pd.DataFrame) -> None:
    """Observed numbers as dots on what chance gives, with both p-values' smaller one in words."""
    names = []
    for y, row in enumerate(overlaps.itertuples()):
        axes.barh(y, 4 * row.sd, left=row.expected - 2 * row.sd, height=0.5, color=GREY, alpha=0.45)
        axes.plot([row.expected] * 2, [y - 0.25, y + 0.25], color=INK, linewidth=1)
        colour = VERMILLION if row.p_more <= SIGNIFICANT else SKY if row.p_less <= SIGNIFICANT else BLUE
        axes.plot(row.observed, y, "o", color=colour, markersize=6, clip_on=False)
        more = row.p_more <= row.p_less
        p = row.p_more if more else row.p_less
        text = f"{row.observed} vs {row.expected:.1f} ± {row.sd:.1f}, P({'≥' if more else '≤'}) = {p:.2g}"
        axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT_PT - 1)
        names.append(f"only {row.experts}" if row.kind == "specific" else row.experts)
    box = axes.get_position()
    axes.set_position([box.x0, box.y0, box.width - 0.19, box.height])  # room for the figures at the right
    axes.set_xlim(0, 1.06 * max(overlaps["observed"].max(), (overlaps["expected"] + 2 * overlaps["sd"]).max()))
    axes.set_ylim(len(overlaps) - 0.5, -0.5)
    short = [name if len(name) < 42 else f"{name[:40]} …" for name in names]
    axes.set_yticks(range(len(short)), short, fontsize=TEXT_PT)
    axes.set_xlabel("channels", fontsize=TEXT_PT)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
