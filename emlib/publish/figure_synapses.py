"""Figure 2: synapse candidates over a section, their scores, and close views of the best."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.ticker import MaxNLocator

from emlib.publish.candidate_arrows import directions, draw_arrows, window_around
from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import (
    INK,
    POST,
    PRE,
    SCORES,
    VERMILLION,
    count,
    grey_range,
    grey_u8,
    outline,
    plural,
    shrink,
)

WIDTH = 11.5  # inches
MAIN = 5.7  # inches: the longer side of the section
CROPS = 6
CROWD = 60  # candidates in one picture above which their marks get smaller
CROP_NM = 600.0


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
        Columns z, y, x (voxels), pre_id, post_id, score. Arrows point from the presynaptic to the postsynaptic side:
        from pre_z, pre_y, pre_x to post_z, post_y, post_x if there are such columns, else as the two neurites lie.
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
    best = (
        candidates.sort_values("score", ascending=False, kind="stable").head(CROPS) if len(candidates) else candidates
    )

    size_nm = max(height * vy, width * vx)
    w, h = MAIN * width * vx / size_nm, MAIN * height * vy / size_nm
    right = MARGIN + w + 0.75
    side = WIDTH - MARGIN - right
    cell = (side - 2 * 0.12) / 3
    crops_top = 2.55
    total = max(h + 0.7, crops_top + 2 * (cell + 0.36) + 0.1)

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

    _histogram(page, (right, 0.26, side, 1.5), candidates, min_score, colours)
    caption = f"c  The {len(best)} highest scores (ids of pre → post, score)" if len(best) else "c  Highest scores"
    page.text(right, crops_top - 0.36, caption, size=PANEL_PT)
    if len(best):
        pair = [Line2D([], [], color=PRE, label="presynaptic"), Line2D([], [], color=POST, label="postsynaptic")]
        _legend(page, pair, right, crops_top - 0.16)
    else:
        page.message(right, crops_top, side, 1.0, "There is no candidate to enlarge.")
    ways = directions(best, labels, (vy, vx))
    for i, candidate in enumerate(best.itertuples(index=False)):
        left, top = right + (i % 3) * (cell + 0.12), crops_top + 0.24 + (i // 3) * (cell + 0.3)
        axes = _crop(page, (left, top, cell), aligned, labels, candidate, ways[i], (vy, vx))
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
    page: Page, box: tuple, aligned: np.ndarray, labels: np.ndarray, candidate, way: np.ndarray, pixel_nm: tuple
) -> Axes:
    """Draw the surroundings of one candidate with the outlines of its two neurites."""
    left, top, side = box
    window = window_around(candidate, labels, CROP_NM, pixel_nm)
    em, ids = aligned[window], labels[window]
    real = [ids.shape[0] * pixel_nm[0], ids.shape[1] * pixel_nm[1]]
    h, w = side * real[0] / max(real), side * real[1] / max(real)
    title = f"{int(candidate.pre_id)} → {int(candidate.post_id)},  {candidate.score:.2f}"
    axes = page.picture(left, top, w, h, grey_u8(em, *grey_range(em)), "")
    page.text(left, top - 4 / 72, title, size=TEXT_PT, va="bottom")
    set_extent(axes, ids.shape)
    for neurite, colour in ((candidate.post_id, POST), (candidate.pre_id, PRE)):
        line = PathPatch(outline(ids == neurite), fill=False, edgecolor=colour, linewidth=1.4, capstyle="round")
        axes.add_artist(line)  # add_patch would measure each of the many pieces
    x, y = np.array([candidate.x - window[2].start]), np.array([candidate.y - window[1].start])
    if np.isfinite(way).all():
        draw_arrows(axes, x, y, way[None], "white", 0.24)
    else:
        axes.scatter(x, y, s=40, marker="+", color="white", linewidths=1.5)
    return axes
