"""Which way a synapse candidate points, and the arrow that shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from emlib.publish.style import BLACK

UNKNOWN = "unknown"  # in the column ``direction``
AROUND_NM = 160.0  # square around a candidate in which the sides of its two neurites are looked up
ENDS = ["pre_z", "pre_y", "pre_x", "post_z", "post_y", "post_x"]


def directions(candidates: pd.DataFrame, labels: np.ndarray, pixel_nm: tuple[float, float]) -> np.ndarray:
    """Return a unit vector (y, x) per candidate from its presynaptic to its postsynaptic side; NaN if unknown.

    Taken from the columns pre_z … post_x if they are there, else from where the two neurites lie around the candidate.
    """
    if set(ENDS) <= set(candidates.columns):
        way = candidates[["post_y", "post_x"]].to_numpy(float) - candidates[["pre_y", "pre_x"]].to_numpy(float)
    else:
        way = np.full((len(candidates), 2), np.nan)
        for i, candidate in enumerate(candidates.itertuples(index=False)):
            window = window_around(candidate, labels, AROUND_NM, pixel_nm)
            around = labels[window]
            pre, post = (np.argwhere(around == neurite) for neurite in (candidate.pre_id, candidate.post_id))
            if len(pre) and len(post):
                way[i] = post.mean(0) - pre.mean(0)
    if "direction" in candidates:
        way[(candidates["direction"] == UNKNOWN).to_numpy()] = np.nan
    way = way * pixel_nm
    length = np.linalg.norm(way, axis=1, keepdims=True)
    return way / np.where(length > 0, length, np.nan)


def window_around(candidate, labels: np.ndarray, nm: float, pixel_nm: tuple[float, float]) -> tuple[int, slice, slice]:
    """Return the section and the square of ``nm`` a side around a candidate, moved inwards at the border."""
    spans = []
    for centre, size, step in zip((candidate.y, candidate.x), labels.shape[1:], pixel_nm, strict=True):
        length = min(size, max(2, round(nm / step)))
        start = int(np.clip(round(centre) - length // 2, 0, size - length))
        spans.append(slice(start, start + length))
    return int(np.clip(round(candidate.z), 0, len(labels) - 1)), *spans


def draw_arrows(
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
