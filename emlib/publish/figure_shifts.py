"""Figure 4: how far each section was moved, how far that can be trusted, and what misalignment is left."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, GREY, INK, ORANGE, PURPLE, VERMILLION, plural

WIDTH = 10.0  # inches
LEFT = 0.75  # inches for tick labels
RIGHT = 0.7
TALL = 1.25
STEP = 1.62  # inches from one panel's top to the next


def figure4(
    shifts: pd.DataFrame | None,
    voxel_size_nm: tuple[float, float, float],
    reason: str | None = None,
    note: str | None = None,
    added: pd.DataFrame | None = None,
) -> Figure:
    """Show the shift, its reliability and the misalignment before and after, section by section.

    Parameters
    ----------
    shifts : DataFrame or None
        Columns z, dy, dx (pixels, positive moves content down and right), reliability, residual_before_px,
        residual_after_px, used (bool); those after dx may be missing. None if alignment was skipped.
    voxel_size_nm : (z, y, x)
    reason : str, optional
        Why alignment was skipped, or any remark on it.
    note : str, optional
        Goes first into the title.
    added : DataFrame, optional
        Columns z, dy, dx: known displacements of the sections, as in a phantom. Perfect shifts are their negatives,
        but for a constant; these are drawn.

    Returns
    -------
    Figure
    """
    if shifts is None or not len(shifts):
        page = Page(WIDTH, 2.2, "Figure 4. Alignment was skipped", note)
        why = reason or "No shifts were estimated: the sections were used as read."
        page.message(MARGIN, 0.2, WIDTH - 2 * MARGIN, 1.8, why)
        return page.figure
    shifts = shifts.sort_values("z")
    z = shifts["z"].to_numpy(float)
    used = shifts["used"].to_numpy(bool) if "used" in shifts else np.ones(len(z), bool)
    panels = [("dy", "a  Shift along y: positive moves the section down")]
    panels.append(("dx", "b  Shift along x: positive moves the section right"))
    if "reliability" in shifts:
        panels.append(("reliability", "c  Reliability of the estimate: 1 is certain"))
    if {"residual_before_px", "residual_after_px"} <= set(shifts):
        panels.append(("residual", "d  Misalignment against the neighbouring sections"))
    title = f"Figure 4. Alignment of {plural(len(z), 'section')}: shifts per section"
    page = Page(WIDTH, len(panels) * STEP + 0.45, title, note, _summary(shifts, used, voxel_size_nm, reason))
    for i, (name, caption) in enumerate(panels):
        top = 0.28 + i * STEP
        page.text(LEFT, top - 4 / 72, caption, size=PANEL_PT, va="bottom")
        axes = page.axes(LEFT, top, WIDTH - LEFT - RIGHT, TALL)
        beside = 0.7 if len(z) > 4 else 2.5
        axes.set_xlim(z[0] - beside, z[-1] + beside)
        if name in ("dy", "dx"):
            _draw_shift(axes, shifts, name, used, added)
            _nm_axis(page, axes, voxel_size_nm[1 if name == "dy" else 2])
        elif name == "reliability":
            axes.plot(z, shifts[name], color=PURPLE, **_marks(len(z), "o"))
            axes.set_ylim(0, 1.05)
        else:
            _draw_residuals(axes, shifts)
            nm = {voxel_size_nm[1], voxel_size_nm[2]}
            if len(nm) == 1:  # a residual is a length in the plane; with two pixel sizes there is no one scale in nm
                _nm_axis(page, axes, nm.pop())
        _shade_unused(axes, z[~used])
        _finish(axes, "px" if name != "reliability" else "", last=i == len(panels) - 1)
    return page.figure


def _summary(shifts: pd.DataFrame, used: np.ndarray, voxel_size_nm: tuple, reason: str | None) -> str:
    """Say in words what the curves show."""
    parts = []
    if {"residual_before_px", "residual_after_px"} <= set(shifts):
        before, after = shifts["residual_before_px"].median(), shifts["residual_after_px"].median()
        if np.isfinite(before) and np.isfinite(after):
            nm = (voxel_size_nm[1] + voxel_size_nm[2]) / 2
            words = [f"{px:.2f} px ({px * nm:.1f} nm)" for px in (before, after)]
            parts.append(f"Median misalignment {words[0]} before, {words[1]} after.")
    if used.all():
        parts.append("Every section had a reliable estimate.")
    else:
        names = [f"{z:g}" for z in shifts["z"][~used]]
        listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        parts.append(f"Shaded: {plural(len(names), 'section')} damaged or without a reliable estimate (z = {listed}).")
    return " ".join([*parts, *([reason] if reason else [])])


def _marks(sections: int, marker: str) -> dict:
    """Return the style of a curve: a mark per section while marks stay apart."""
    return {"linewidth": 1.2, **({"marker": marker, "markersize": 3.2} if sections <= 150 else {})}


def _draw_shift(axes: Axes, shifts: pd.DataFrame, name: str, used: np.ndarray, added: pd.DataFrame | None) -> None:
    """Draw one component of the shifts, the unreliable ones as crosses, and the perfect shifts if known."""
    z, values = shifts["z"].to_numpy(float), shifts[name].to_numpy(float)
    axes.axhline(0, color=GREY, linewidth=0.6)
    if added is not None and len(added):
        known = -added.set_index("z")[name].reindex(shifts["z"]).to_numpy(float)
        offset = np.nanmedian(values - known) if np.isfinite(values - known).any() else 0.0
        style = {"linewidth": 4, "alpha": 0.55, "solid_capstyle": "round"}
        axes.plot(z, known + offset, color=ORANGE, label="known displacement, undone", **style)
    axes.plot(z, values, color=BLUE, label="shift applied", **_marks(len(z), "o"))
    if not used.all():
        cross = {"linestyle": "none", "marker": "x", "markersize": 6, "markeredgewidth": 1.5}
        axes.plot(z[~used], values[~used], color=VERMILLION, label="not reliable", **cross)
    if name == "dy":  # the same signs serve both components
        _legend(axes)


def _draw_residuals(axes: Axes, shifts: pd.DataFrame) -> None:
    """Draw the misalignment before and after; dashes and marks tell them apart without colour."""
    z = shifts["z"].to_numpy(float)
    before, after = _marks(len(z), "s"), _marks(len(z), "o")
    axes.plot(z, shifts["residual_before_px"], color=VERMILLION, linestyle="--", label="before", **before)
    axes.plot(z, shifts["residual_after_px"], color=BLUE, label="after", **after)
    axes.set_ylim(bottom=0)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Put the legend above the panel at the right, level with its title, where no curve can be."""
    style = {"frameon": False, "borderpad": 0, "borderaxespad": 0.2, "ncols": 3, "handlelength": 1.8}
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=TEXT_PT, **style)


def _nm_axis(page: Page, axes: Axes, nm_per_px: float) -> None:
    """Repeat the axis in nm on the right."""
    low, high = axes.get_ylim()
    if high - low < 1:  # shifts of hundredths of a pixel should look small
        low, high = low - (1 - high + low) / 2, high + (1 - high + low) / 2
        axes.set_ylim(low, high)
    twin = page.figure.add_axes(axes.get_position(), frameon=False)
    twin.set_ylim(low * nm_per_px, high * nm_per_px)
    twin.set_xticks([])
    twin.yaxis.tick_right()
    twin.yaxis.set_label_position("right")
    twin.set_ylabel("nm", fontsize=TEXT_PT)
    twin.yaxis.set_label_coords(1.055, 0.5)
    twin.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    twin.tick_params(labelsize=TEXT_PT)


def _shade_unused(axes: Axes, z: np.ndarray) -> None:
    """Shade the sections without a reliable shift over the whole height."""
    if not len(z):
        return
    low, high = axes.get_ylim()
    boxes = [[(s - 0.5, low), (s - 0.5, high), (s + 0.5, high), (s + 0.5, low)] for s in z]
    shade = PolyCollection(boxes, facecolors=GREY, alpha=0.3, linewidths=0, zorder=0.5)
    axes.add_collection(shade, autolim=False)
    axes.set_ylim(low, high)


def _finish(axes: Axes, unit: str, last: bool) -> None:
    """Set ticks and labels; only the lowest panel names the sections."""
    axes.set_ylabel(unit, fontsize=TEXT_PT)
    axes.yaxis.set_label_coords(-0.055, 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=(1, 2, 5, 10)))
    axes.tick_params(labelsize=TEXT_PT, labelbottom=last, colors=INK)
    axes.spines[["top", "right"] if not unit else ["top"]].set_visible(False)
    if last:
        axes.set_xlabel("section z", fontsize=TEXT_PT)
        axes.xaxis.set_label_coords(0.5, -0.16)
