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
    outline,
    plural,
    shrink,
)

WIDTH = 11.5  # inches
MAIN = 5.7  # inches: the longer side of the section
CROPS = 6
CROWD = 60  # candidates in one picture above which their marks get smaller
CROP_NM = 600.0
AROUND_NM = 160.0  # square around a candidate in which the sides of its two neurites are looked up
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
    handles = _draw_candidates(axes, shown, _directions(shown, labels, (vy, vx)), colours)
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
    ways = _directions(best, labels, (vy, vx))
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


def _directions(candidates: pd.DataFrame, labels: np.ndarray, pixel_nm: tuple[float, float]) -> np.ndarray:
    """Return a unit vector (y, x) per candidate from its presynaptic to its postsynaptic side; NaN if unknown.

    Taken from the columns pre_z … post_x if they are there, else from where the two neurites lie around the candidate.
    """
    if set(ENDS) <= set(candidates.columns):
        way = candidates[["post_y", "post_x"]].to_numpy(float) - candidates[["pre_y", "pre_x"]].to_numpy(float)
    else:
        way = np.full((len(candidates), 2), np.nan)
        for i, candidate in enumerate(candidates.itertuples(index=False)):
            window = _window(candidate, labels, AROUND_NM, pixel_nm)
            around = labels[window]
            pre, post = (np.argwhere(around == neurite) for neurite in (candidate.pre_id, candidate.post_id))
            if len(pre) and len(post):
                way[i] = post.mean(0) - pre.mean(0)
    way = way * pixel_nm
    length = np.linalg.norm(way, axis=1, keepdims=True)
    return way / np.where(length > 0, length, np.nan)


def _window(candidate, labels: np.ndarray, nm: float, pixel_nm: tuple[float, float]) -> tuple[int, slice, slice]:
    """Return the section and the square of ``nm`` a side around a candidate, moved inwards at the border."""
    spans = []
    for centre, size, step in zip((candidate.y, candidate.x), labels.shape[1:], pixel_nm, strict=True):
        length = min(size, max(2, round(nm / step)))
        start = int(np.clip(round(centre) - length // 2, 0, size - length))
        spans.append(slice(start, start + length))
    return int(np.clip(round(candidate.z), 0, len(labels) - 1)), *spans


def _arrows(
    axes: Axes, x: np.ndarray, y: np.ndarray, way: np.ndarray, colours: np.ndarray | str, inches: float
) -> None:
    """Draw arrows of one printed length, centred on x, y; ``way`` holds unit vectors (y, x), y pointing down."""
    known = np.isfinite(way).all(1)
    if not known.any():
        return
    colours = colours if isinstance(colours, str) else colours[known]
    style = {"angles": "uv", "scale_units": "inches", "scale": 1 / inches, "pivot": "mid", "units": "inches"}
    style.update(width=inches * 0.13, headwidth=3.4, headlength=3.6, headaxislength=3.4, minlength=0, minshaft=1)
    v, u = -way[known, 0], way[known, 1]  # up is positive on paper
    axes.quiver(x[known], y[known], u, v, color=colours, edgecolor=BLACK, linewidth=0.5, zorder=4, **style)


def _draw_candidates(axes: Axes, shown: pd.DataFrame, way: np.ndarray, norm: Normalize) -> list[Line2D]:
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
    if np.isfinite(way).any():
        x, y = shown["x"].to_numpy(float), shown["y"].to_numpy(float)
        _arrows(axes, x, y, way, colours, 0.25 if len(shown) <= CROWD else 0.15)
        arrow = {"marker": ">", "markersize": 5, "linewidth": 2}
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
    window = _window(candidate, labels, CROP_NM, pixel_nm)
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
        _arrows(axes, x, y, way[None], "white", 0.24)
    else:
        axes.scatter(x, y, s=40, marker="+", color="white", linewidths=1.5)
    return axes
