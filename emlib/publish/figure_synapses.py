"""Figure 2: synapse candidates over a section, their scores, and close views of strong and weak ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from emlib.publish.candidate_arrows import UNKNOWN, directions, draw_arrows, window_around
from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import (
    INK,
    POST,
    PRE,
    SCORES,
    VERMILLION,
    YELLOW,
    count,
    grey_range,
    grey_u8,
    outline,
    plural,
    shrink,
)

WIDTH = 11.5  # inches
MAIN = 6.2  # inches: the longer side of the section
PER_ROW = 3  # close views
CLOSE, ROW, GAP = 2.1, 0.5, 0.12  # inches: where close views begin, what a row has above them, and between them
CROWD = 60  # candidates in one picture above which their marks get smaller
CROP_NM = 600.0
MEMBRANE_NM, MEETING_NM = 15.0, 150.0  # on either side of a contact, and how far from a candidate it is outlined


class Clefts(NamedTuple):
    """What a network takes for synapse.

    Attributes
    ----------
    probability : (Z, Y, X) float array in [0, 1]
    threshold : float
    """

    probability: np.ndarray
    threshold: float


def figure2(
    aligned: np.ndarray,
    labels: np.ndarray,
    candidates: pd.DataFrame,
    voxel_size_nm: tuple[float, float, float],
    min_score: float | None,
    truth_synapses: pd.DataFrame | None = None,
    note: str | None = None,
    clefts: Clefts | None = None,
) -> Figure:
    """Show the section with most synapse candidates, the histogram of scores, and strong, middling and weak candidates.

    Parameters
    ----------
    aligned : (Z, Y, X) array
    labels : (Z, Y, X) integer array
    candidates : DataFrame
        Columns z, y, x (voxels), pre_id, post_id, score. Arrows point from the presynaptic to the postsynaptic side:
        from pre_z, pre_y, pre_x to post_z, post_y, post_x if there are such columns, else as the two neurites lie; none
        where a column ``direction`` says "unknown".
    voxel_size_nm : (z, y, x)
    min_score : float or None
        The threshold, drawn into the histogram.
    truth_synapses : DataFrame, optional
        Columns z, y, x of the true synapses.
    note : str, optional
        Goes first into the title.
    clefts : Clefts, optional
        What a network takes for synapse, outlined in the close views; where it is not given, the place at which the two
        neurites meet.

    Returns
    -------
    Figure
    """
    depth, height, width = labels.shape
    _, vy, vx = voxel_size_nm
    z, shown = _busiest_section(candidates, depth)
    size_nm = max(height * vy, width * vx)
    w, h = MAIN * width * vx / size_nm, MAIN * height * vy / size_nm
    right = MARGIN + w + 0.75
    side = WIDTH - MARGIN - right
    rows = close_views(candidates, min_score)
    cell = (side - (PER_ROW - 1) * GAP) / PER_ROW
    total = max(h + 0.7, CLOSE + 0.3 + max(1, len(rows)) * (cell + ROW) + 0.05)

    title = f"{plural(len(candidates), 'synapse candidate')}; sections z = {z} ± 1 have most ({count(len(shown))})"
    if not len(candidates):
        title = f"No synapse candidates were found; section z = {z} is the middle one"
    page = Page(WIDTH, total, f"Figure 2. {title}", note)

    low, high = grey_range(aligned[z])
    picture = shrink(grey_u8(aligned[z], low, high), 1000)
    axes = page.picture(MARGIN, 0.26, w, h, picture, f"a  Aligned EM, z = {z} (candidates of z ± 1)")
    set_extent(axes, (height, width))
    colours = Normalize(*_score_range(candidates, min_score))
    handles = _draw_candidates(axes, shown, directions(shown, labels, (vy, vx)), colours)
    if truth_synapses is not None:
        near = truth_synapses[(truth_synapses["z"] - z).abs() <= 1]
        axes.scatter(near["x"], near["y"], s=110, marker="s", facecolors="none", edgecolors="white", linewidths=2.2)
        axes.scatter(near["x"], near["y"], s=110, marker="s", facecolors="none", edgecolors=VERMILLION, linewidths=1.2)
        style = {"marker": "s", "linestyle": "none", "markerfacecolor": "none", "markeredgecolor": VERMILLION}
        handles.append(Line2D([], [], label=f"true synapse ({count(len(near))} in z ± 1)", markersize=8, **style))
    scale_bar(axes, vx)
    if handles:
        _legend(page, handles, MARGIN, 0.26 + h + 0.08)

    _histogram(page, (right, 0.26, side, 1.3), candidates, min_score, colours)
    if not rows:
        page.text(right, CLOSE, "c  Close views", size=PANEL_PT)
        page.message(right, CLOSE + 0.3, side, 1.0, "There is no candidate to enlarge.")
    else:
        _legend(page, _partner_legend(candidates, clefts), right, CLOSE)
    for row, (words, chosen) in enumerate(rows):
        top = CLOSE + 0.3 + row * (cell + ROW)
        page.text(right, top, f"{'cdefgh'[row]}  {words}", size=PANEL_PT)
        ways = directions(chosen, labels, (vy, vx))
        for i, candidate in enumerate(chosen.itertuples(index=False)):
            box = (right + i * (cell + GAP), top + 0.4, cell)
            axes = _crop(page, box, aligned, labels, candidate, ways[i], (vy, vx), clefts)
            if i == row == 0:  # the others have the same size
                scale_bar(axes, vx)
    return page.figure


def close_views(candidates: pd.DataFrame, min_score: float | None) -> list[tuple[str, pd.DataFrame]]:
    """Choose the candidates that are enlarged: of those that count the best, middling and last ones, three of each.

    Returns
    -------
    list of (words, DataFrame)
        Without rows for which there are too few candidates.
    """
    if not len(candidates):
        return []
    best = candidates.sort_values("score", ascending=False, kind="stable")
    kept = best if min_score is None else best[best["score"] >= min_score]
    if not len(kept):
        return [("The highest scores; none reaches the minimum", best.head(PER_ROW))]
    rows = [("The highest scores", kept.head(PER_ROW))]
    rest = kept.iloc[PER_ROW:]
    if len(rest) > PER_ROW:
        first = max(0, min(len(kept) // 2 - PER_ROW - 1, len(rest) - 2 * PER_ROW))
        rows.append(
            ("From the middle of those that count", rest.iloc[first : first + min(PER_ROW, len(rest) - PER_ROW)])
        )
        rest = rest.iloc[-PER_ROW:]
    if len(rest):
        rows.append(("The lowest scores that count" if min_score is not None else "The lowest scores", rest))
    return rows


def _partner_legend(candidates: pd.DataFrame, clefts: Clefts | None) -> list[Line2D]:
    open_way = "direction" in candidates and (candidates["direction"] == UNKNOWN).all()
    names = ("one partner", "the other") if open_way else ("presynaptic", "postsynaptic")
    last = "where the two meet" if clefts is None else "synapse, as the network sees it"
    return [Line2D([], [], color=c, label=name) for c, name in zip((PRE, POST, YELLOW), (*names, last), strict=True)]


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
    scores = candidates["score"].to_numpy(float) if len(candidates) else np.zeros(0)
    low = min([*scores, *([] if min_score is None else [min_score])], default=0.0)
    high = scores.max() if len(scores) else 1.0
    return float(low), float(high if high > low else low + 1)


def _colours(scores: np.ndarray, norm: Normalize) -> np.ndarray:
    """Return a colour per score; the darkest part of the map, unseen on membranes, is left out."""
    return colormaps[SCORES](0.15 + 0.85 * np.asarray(norm(scores)))


def _draw_candidates(axes: Axes, shown: pd.DataFrame, way: np.ndarray, norm: Normalize) -> list[Line2D]:
    """Draw an arrow per candidate, a ring where the direction is unknown, coloured by score; return legend entries."""
    colours = _colours(shown["score"].to_numpy(float), norm) if len(shown) else np.zeros((0, 4))
    colour, few, handles = colormaps[SCORES](0.65), len(shown) <= CROWD, []
    known = np.isfinite(way).all(1)
    if known.any():
        x, y = shown["x"].to_numpy(float), shown["y"].to_numpy(float)
        draw_arrows(axes, x, y, way, colours, 0.27 if few else 0.17)
        arrow = {"marker": ">", "markersize": 6, "linewidth": 2}
        handles.append(
            Line2D([0, 1], [0, 0], label="candidate, from pre to post; colour: score", color=colour, **arrow)
        )
    if not known.all():
        unknown = shown[~known]
        rings = {"s": 70 if few else 25, "facecolors": "none"}
        axes.scatter(unknown["x"], unknown["y"], edgecolors="black", linewidths=3.2, **rings)
        axes.scatter(unknown["x"], unknown["y"], edgecolors=colours[~known], linewidths=1.8, **rings)
        ring = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.8}
        handles.append(Line2D([], [], label="candidate; colour: score", markersize=8, color=colour, **ring))
    return handles


def _legend(page: Page, handles: list[Line2D], left: float, top: float) -> None:
    """Put a legend on one line of the page, where it hides nothing."""
    anchor = (left / page.width, page.from_top(top))
    style = {"ncols": len(handles), "frameon": False, "fontsize": TEXT_PT, "borderpad": 0, "borderaxespad": 0}
    page.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, handletextpad=0.6, **style)


def _histogram(page: Page, box: tuple, candidates: pd.DataFrame, min_score: float | None, norm: Normalize) -> None:
    """Draw the histogram of scores, each bar in the colour that its score has in the section."""
    left, top, width, height = box
    title = "b  Scores"
    if len(candidates) and min_score is not None:
        title += f": {count((candidates['score'] >= min_score).sum())} of {count(len(candidates))} reach the minimum"
    page.text(left, top - 4 / 72, title, size=PANEL_PT, va="bottom")
    if not len(candidates):
        page.message(left, top, width, height, "No synapse candidates were found in this volume.")
        return
    axes = page.axes(left, top, width, height)
    counts, edges = np.histogram(candidates["score"].to_numpy(float), bins=24, range=(norm.vmin, norm.vmax))
    middles = (edges[1:] + edges[:-1]) / 2
    axes.bar(middles, counts, width=np.diff(edges), color=_colours(middles, norm), edgecolor=INK, linewidth=0.4)
    if min_score is not None:
        axes.axvline(min_score, color=VERMILLION, linewidth=1.5, linestyle="--")
        late = min_score > (norm.vmin + norm.vmax) / 2
        place = {"xytext": (-4 if late else 4, 0), "textcoords": "offset points", "ha": "right" if late else "left"}
        style = {"color": VERMILLION, "fontsize": TEXT_PT, "va": "center"}
        axes.annotate(f"minimum {min_score:g}", (min_score, counts.max() * 1.1), **place, **style)
    axes.set_ylim(0, counts.max() * 1.22)
    axes.set_xlabel("score", fontsize=TEXT_PT, labelpad=1)
    axes.set_ylabel("candidates", fontsize=TEXT_PT)
    axes.xaxis.set_label_coords(0.5, -0.17)
    axes.yaxis.set_label_coords(-0.09, 0.5)
    axes.tick_params(labelsize=TEXT_PT)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right"]].set_visible(False)


def _crop(
    page: Page,
    box: tuple,
    aligned: np.ndarray,
    labels: np.ndarray,
    candidate,
    way: np.ndarray,
    pixel_nm: tuple,
    clefts: Clefts | None,
) -> Axes:
    """Draw the surroundings of one candidate with the outlines of its two neurites and of the cleft between them."""
    left, top, side = box
    window = window_around(candidate, labels, CROP_NM, pixel_nm)
    em, ids = aligned[window], labels[window]
    real = [ids.shape[0] * pixel_nm[0], ids.shape[1] * pixel_nm[1]]
    h, w = side * real[0] / max(real), side * real[1] / max(real)
    known = np.isfinite(way).all()
    title = f"{int(candidate.pre_id)} {'→' if known else '–'} {int(candidate.post_id)},  {candidate.score:.2f}"
    axes = page.picture(left, top, w, h, grey_u8(em, *grey_range(em)), "")
    page.text(left, top - 4 / 72, title, size=TEXT_PT, va="bottom")
    set_extent(axes, ids.shape)
    pre, post = ids == candidate.pre_id, ids == candidate.post_id
    x, y = np.array([candidate.x - window[2].start]), np.array([candidate.y - window[1].start])
    if clefts is None:
        cleft = _meeting(pre, post, (y[0], x[0]), pixel_nm)
    else:
        cleft = np.asarray(clefts.probability[window], np.float32) >= clefts.threshold
    for mask, colour, points in ((post, POST, 1.4), (pre, PRE, 1.4), (cleft, YELLOW, 1.1)):
        line = PathPatch(outline(mask), fill=False, edgecolor=colour, linewidth=points, capstyle="round")
        axes.add_artist(line)  # add_patch would measure each of the many pieces
    if known:
        draw_arrows(axes, x, y, way[None], "white", 0.24)
    else:
        axes.scatter(x, y, s=40, marker="+", color="white", linewidths=1.5)
    return axes


def _meeting(pre: np.ndarray, post: np.ndarray, at: tuple[float, float], pixel_nm: tuple) -> np.ndarray:
    """Where two neurites lie within a membrane's thickness of each other, not far from a place."""
    steps = max(1, round(MEMBRANE_NM / float(np.mean(pixel_nm))))
    both = ndimage.binary_dilation(pre, iterations=steps) & ndimage.binary_dilation(post, iterations=steps)
    y, x = np.ogrid[: pre.shape[0], : pre.shape[1]]
    return both & (np.hypot((y - at[0]) * pixel_nm[0], (x - at[1]) * pixel_nm[1]) <= MEETING_NM)
