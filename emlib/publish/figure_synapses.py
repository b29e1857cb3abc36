"""Figure 2: synapse candidates over a section, their scores, and close views of the best."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import (
    BLACK,
    INK,
    POST,
    PRE,
    SCORES,
    VERMILLION,
    count,
    grey_range,
    grey_u8,
    outline_segments,
    plural,
    shrink,
)

WIDTH = 11.5  # inches
MAIN = 5.7  # inches: the longer side of the section
CROPS = 6
CROWD = 60  # candidates in one picture above which their marks get smaller
CROP_NM = 600.0
ENDS = ["pre_z", "pre_y", "pre_x", "post_z", "post_y", "post_x"]


def figure2(
    aligned: np.ndarray,
    labels: np.ndarray,
    candidates: pd.DataFrame,
    voxel_size_nm: tuple[float, float, float],
    min_score: float | None,
    truth_synapses: pd.DataFrame | None = None,
    note: str | None = None,
) -> Figure:
    """Show the section with most synapse candidates, the histogram of scores, and the six best candidates enlarged.

    Parameters
    ----------
    aligned : (Z, Y, X) array
    labels : (Z, Y, X) integer array
    candidates : DataFrame
        Columns z, y, x (voxels), pre_id, post_id, score; with the columns pre_z … post_x, arrows run from the
        presynaptic to the postsynaptic side.
    voxel_size_nm : (z, y, x)
    min_score : float or None
        The threshold, drawn into the histogram.
    truth_synapses : DataFrame, optional
        Columns z, y, x of the true synapses.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
    """
    depth, height, width = labels.shape
    _, vy, vx = voxel_size_nm
    z, shown = _busiest_section(candidates, depth)
    best = candidates.sort_values("score", ascending=False, kind="stable").head(CROPS)

    size_nm = max(height * vy, width * vx)
    w, h = MAIN * width * vx / size_nm, MAIN * height * vy / size_nm
    right = MARGIN + w + 0.75
    side = WIDTH - MARGIN - right
    cell = (side - 2 * 0.12) / 3
    crops_top = 2.55
    total = max(h + 0.7, crops_top + 2 * (cell + 0.36) + 0.1)

    title = f"{plural(len(candidates), 'synapse candidate')}; {count(len(shown))} in section z = {z} ± 1, the richest"
    if not len(candidates):
        title = f"No synapse candidates were found; section z = {z} is the middle one"
    page = Page(WIDTH, total, f"Figure 2. {title}", note)

    low, high = grey_range(aligned[z])
    picture = shrink(grey_u8(aligned[z], low, high), 1000)
    axes = page.picture(MARGIN, 0.26, w, h, picture, f"a  Aligned EM, z = {z} (candidates of z ± 1)")
    set_extent(axes, (height, width))
    colours = Normalize(*_score_range(candidates, min_score))
    handles = _draw_candidates(axes, shown, colours)
    if truth_synapses is not None:
        near = truth_synapses[(truth_synapses["z"] - z).abs() <= 1]
        axes.scatter(near["x"], near["y"], s=110, marker="s", facecolors="none", edgecolors="white", linewidths=2.2)
        axes.scatter(near["x"], near["y"], s=110, marker="s", facecolors="none", edgecolors=VERMILLION, linewidths=1.2)
        style = {"marker": "s", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": VERMILLION}
        handles.append(Line2D([], [], label=f"true synapse ({count(len(near))} in z ± 1)", markersize=8, **style))
    scale_bar(axes, vx)
    if handles:
        _legend(page, handles, MARGIN, 0.26 + h + 0.08)

    _histogram(page, (right, 0.26, side, 1.5), candidates, min_score, colours)
    caption = f"c  The {len(best)} highest scores (ids of pre → post, score)" if len(best) else "c  Highest scores"
    page.text(right, crops_top - 0.36, caption, size=PANEL_PT)
    if len(best):
        pair = [Line2D([], [], color=PRE, label="presynaptic"), Line2D([], [], color=POST, label="postsynaptic")]
        _legend(page, pair, right, crops_top - 0.16)
    else:
        page.message(right, crops_top, side, 1.0, "There is no candidate to enlarge.")
    for i, candidate in enumerate(best.itertuples(index=False)):
        left, top = right + (i % 3) * (cell + 0.12), crops_top + 0.24 + (i // 3) * (cell + 0.3)
        axes = _crop(page, (left, top, cell), aligned, labels, candidate, (vy, vx))
        if i == 0:  # the others have the same size
            scale_bar(axes, vx)
    return page.figure


def _busiest_section(candidates: pd.DataFrame, depth: int) -> tuple[int, pd.DataFrame]:
    """Return the section with most candidates within ±1 (nearest the middle if several) and those candidates."""
    if not len(candidates):
        return depth // 2, candidates
    section = np.clip(np.rint(candidates["z"].to_numpy(float)).astype(int), 0, depth - 1)
    around = np.convolve(np.bincount(section, minlength=depth), (1, 1, 1))[1:-1]
    most = np.flatnonzero(around == around.max())
    z = int(most[np.argmin(np.abs(most - depth // 2))])
    return z, candidates[np.abs(section - z) <= 1]


def _score_range(candidates: pd.DataFrame, min_score: float | None) -> tuple[float, float]:
    """Return the scores at the ends of the colour map."""
    scores = candidates["score"].to_numpy(float)
    low = min([*scores, *([] if min_score is None else [min_score])], default=0.0)
    high = scores.max() if len(scores) else 1.0
    return float(low), float(high if high > low else low + 1)


def _colours(scores: np.ndarray, norm: Normalize) -> np.ndarray:
    """Return a colour per score; the darkest part of the map, unseen on membranes, is left out."""
    return colormaps[SCORES](0.15 + 0.85 * np.asarray(norm(scores)))


def _arrows(axes: Axes, rows: pd.DataFrame, colours: list | np.ndarray | str, points: float) -> None:
    """Draw arrows from the pre- to the postsynaptic end of each row."""
    x, y = rows["pre_x"].to_numpy(float), rows["pre_y"].to_numpy(float)
    u, v = rows["post_x"].to_numpy(float) - x, rows["post_y"].to_numpy(float) - y
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "dots", "minlength": 0, "minshaft": 1}
    width = points / 72 * axes.figure.dpi
    axes.quiver(x, y, u, v, color=colours, width=width, edgecolor=BLACK, linewidth=0.5, zorder=4, **style)


def _draw_candidates(axes: Axes, shown: pd.DataFrame, norm: Normalize) -> list[Line2D]:
    """Draw a ring per candidate, coloured by score, and its arrow; return the entries of the legend."""
    if not len(shown):
        return []
    colours = _colours(shown["score"].to_numpy(float), norm)
    rings = {"s": 70 if len(shown) <= CROWD else 25, "facecolors": "none"}
    axes.scatter(shown["x"], shown["y"], edgecolors="black", linewidths=3.2, **rings)
    axes.scatter(shown["x"], shown["y"], edgecolors=colours, linewidths=1.8, **rings)
    colour = colormaps[SCORES](0.65)
    ring = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.8}
    handles = [Line2D([], [], label="candidate, coloured by score as in b", markersize=8, color=colour, **ring)]
    if set(ENDS) <= set(shown.columns):
        _arrows(axes, shown, colours, 2.2 if len(shown) <= CROWD else 1.3)
        arrow = {"marker": r">", "linestyle": "-", "markersize": 5, "linewidth": 2}
        handles.append(Line2D([0, 1], [0, 0], label="from pre to post", color=colour, **arrow))
    return handles


def _legend(page: Page, handles: list[Line2D], left: float, top: float) -> None:
    """Put a legend on one line of the page, where it hides nothing."""
    anchor = (left / page.width, page.from_top(top))
    style = {"ncols": len(handles), "frameon": False, "fontsize": TEXT_PT, "borderpad": 0, "borderaxespad": 0}
    page.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, handletextpad=0.6, **style)


def _histogram(page: Page, box: tuple, candidates: pd.DataFrame, min_score: float | None, norm: Normalize) -> None:
    """Draw the histogram of scores, each bar in the colour that its score has in the section."""
    left, top, width, height = box
    page.text(left, top - 4 / 72, "b  Scores of all candidates", size=PANEL_PT, va="bottom")
    if not len(candidates):
        asked = "" if min_score is None else f" with a score of {min_score:g} or more"
        page.message(left, top, width, height, f"No synapse candidates{asked}. A lower minimum score may find some.")
        return
    axes = page.axes(left, top, width, height)
    counts, edges = np.histogram(candidates["score"].to_numpy(float), bins=24, range=(norm.vmin, norm.vmax))
    middles = (edges[1:] + edges[:-1]) / 2
    axes.bar(middles, counts, width=np.diff(edges), color=_colours(middles, norm), edgecolor=INK, linewidth=0.4)
    if min_score is not None:
        axes.axvline(min_score, color=VERMILLION, linewidth=1.5, linestyle="--")
        label = f" minimum {min_score:g} "
        late = min_score > (norm.vmin + norm.vmax) / 2
        axes.text(
            min_score,
            counts.max() * 1.1,
            label,
            color=VERMILLION,
            fontsize=TEXT_PT,
            ha="right" if late else "left",
            va="center",
        )
    axes.set_ylim(0, counts.max() * 1.22)
    axes.set_xlabel("score", fontsize=TEXT_PT, labelpad=1)
    axes.set_ylabel("candidates", fontsize=TEXT_PT)
    axes.tick_params(labelsize=TEXT_PT)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right"]].set_visible(False)


def _crop(page: Page, box: tuple, aligned: np.ndarray, labels: np.ndarray, candidate, pixel_nm: tuple) -> Axes:
    """Draw the surroundings of one candidate with the outlines of its two neurites."""
    left, top, side = box
    _, height, width = labels.shape
    z = int(np.clip(round(candidate.z), 0, len(labels) - 1))
    spans = []
    for centre, size, nm in ((candidate.y, height, pixel_nm[0]), (candidate.x, width, pixel_nm[1])):
        length = min(size, max(2, round(CROP_NM / nm)))
        start = int(np.clip(round(centre) - length // 2, 0, size - length))
        spans.append(slice(start, start + length))
    em, ids = aligned[z][tuple(spans)], labels[z][tuple(spans)]
    real = [ids.shape[0] * pixel_nm[0], ids.shape[1] * pixel_nm[1]]
    h, w = side * real[0] / max(real), side * real[1] / max(real)
    title = f"{int(candidate.pre_id)} → {int(candidate.post_id)},  {candidate.score:.2f}"
    axes = page.picture(left, top, w, h, grey_u8(em, *grey_range(em)), "")
    page.text(left, top - 4 / 72, title, size=TEXT_PT, va="bottom")
    set_extent(axes, ids.shape)
    for neurite, colour in ((candidate.post_id, POST), (candidate.pre_id, PRE)):
        lines = outline_segments(ids == neurite)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.4, capstyle="round"), autolim=False)
    origin = np.array([spans[1].start, spans[0].start])
    if all(hasattr(candidate, name) for name in ENDS):
        start = np.array([candidate.pre_x, candidate.pre_y]) - origin
        end = np.array([candidate.post_x, candidate.post_y]) - origin
        row = pd.DataFrame([[*start, *end]], columns=["pre_x", "pre_y", "post_x", "post_y"])
        _arrows(axes, row, "white", 2.0)
    else:
        x, y = np.array([candidate.x, candidate.y]) - origin
        axes.scatter(x, y, s=40, marker="+", color="white", linewidths=1.5)
    return axes
