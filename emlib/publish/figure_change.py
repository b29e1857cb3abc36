"""Before and after a change of labels: one section with the neurites that changed in colour, and the two graphs.

The section is the one with most changed voxels, cut to where they are. Of a family of linked neurites two that
share most voxels have one colour before and after: what is merged shows several colours before and one after.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.patheffects import withStroke
from scipy import ndimage as ndi

from emlib.publish.graph_layout import Strongest, layout, strongest_part
from emlib.publish.page import DPI, MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    PALETTE,
    VERMILLION,
    count,
    grey_range,
    grey_u8,
    outline,
    overlay,
    plural,
)

WIDTH = 11.5  # inches
GAP = 0.2
CELL = (WIDTH - 2 * MARGIN - GAP) / 2
CAPTION = 0.26  # inches above each panel for its title
MOST_FAMILIES, MOST_PARTS = 6, 4  # that are painted, and parts of one family
LEAST_NM, CONTEXT = 600.0, 0.6  # smallest side of the picture, and how much of the change is shown around it
ALPHA = 0.5  # of the paint
NODES, EDGES = 36, 90  # that can be told apart in a panel
COLOURS = {"kept": GREY, "reweighted": ORANGE, "gained": BLUE, "lost": VERMILLION, "inside": VERMILLION}


def figure_labels(
    em: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    pairs: pd.DataFrame,
    voxel_size_nm: tuple[float, float, float],
    names: tuple[str, str] = ("before", "after"),
    note: str | None = None,
) -> Figure:
    """Show the section with most changed voxels, before and after, with the neurites that changed there in colour.

    Parameters
    ----------
    em : (Z, Y, X) array
    before, after : (Z, Y, X) integer arrays
    pairs : DataFrame
        ``family, change, before, after, shared_voxels``, as `emlib.measure.graph_change.compare_labels` makes them.
    voxel_size_nm : (z, y, x)
    names : two str
        What the labels are called.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        At most 6 families are painted, those with most changed voxels in the section; the subtitle says of how many.
    """
    changed = pairs[pairs["change"] != "same"]
    title = "Figure 5. Neurites before and after"
    if not len(changed):
        page = Page(WIDTH, 1.0, title, note)
        page.message(MARGIN, 0.1, WIDTH - 2 * MARGIN, 0.7, "No neurite has changed: both label volumes agree.")
        return page.figure
    main = _main_parts(pairs)
    z = int(np.argmax([_moved(b, a, main).sum() for b, a in zip(before, after, strict=True)]))
    moved = _moved(before[z], after[z], main)
    families = _families_here(changed, before[z], after[z], moved)
    painted = families[:MOST_FAMILIES]
    box = _box(moved, painted, changed, (before[z], after[z]), voxel_size_nm[1:])
    old, new, grey = before[z][box], after[z][box], grey_u8(em[z][box], *grey_range(em[z]))
    colours = _colours(changed[changed["family"].isin(painted)])
    shape = [side * size for side, size in zip(old.shape, voxel_size_nm[1:], strict=True)]
    width, height = min(CELL, 6.2 * shape[1] / shape[0]), min(CELL * shape[0] / shape[1], 6.2)
    facts = [_fact(changed[changed["family"] == family]) for family in painted]
    everywhere = changed["family"].nunique()
    page = Page(
        WIDTH,
        CAPTION + height + 0.12 + 0.19 * len(facts),
        f"{title}: section z = {z}, where most voxels changed ({count(int(moved.sum()))} of {count(moved.size)})",
        note,
        f"In colour: {len(painted)} of {plural(len(families), 'group')} of neurites that changed in this section, "
        f"{count(everywhere)} in the volume. Equal colours share most voxels before and after; white lines are borders "
        "of all neurites. "
        f"Shown: y {box[0].start}–{box[0].stop}, x {box[1].start}–{box[1].stop}.",
    )
    for column, (ids, name, side) in enumerate(((old, names[0], "before"), (new, names[1], "after"))):
        picture = _painted(grey, ids, colours[side], (height, width))
        left = MARGIN + column * (CELL + GAP)
        axes = page.picture(left, CAPTION, width, height, picture, f"{'ab'[column]}  {side.capitalize()}: {name}")
        set_extent(axes, ids.shape)
        scale_bar(axes, voxel_size_nm[2])
        _write_ids(axes, ids, colours[side])
    for line, fact in enumerate(facts):
        page.text(MARGIN, CAPTION + height + 0.1 + 0.19 * line, fact, size=TEXT_PT + 0.5)
    return page.figure


def _main_parts(pairs: pd.DataFrame) -> dict[int, int]:
    """The id after of each id before, for the largest pair of each family."""
    real = pairs[(pairs["before"] > 0) & (pairs["after"] > 0)]
    best = real.sort_values("shared_voxels", ascending=False, kind="stable").drop_duplicates("family")
    return dict(zip(best["before"].tolist(), best["after"].tolist(), strict=True))


def _moved(before: np.ndarray, after: np.ndarray, main: dict[int, int]) -> np.ndarray:
    """Where a section does not belong to the main part of the same neurite before and after."""
    ids, at = np.unique(before, return_inverse=True)
    named = np.array([main.get(one, -1) if one else 0 for one in ids.tolist()], np.int64)[at.reshape(before.shape)]
    return named != after


def _families_here(changed: pd.DataFrame, before: np.ndarray, after: np.ndarray, moved: np.ndarray) -> list[int]:
    """Families of changed neurites in a section, those with most changed voxels first."""
    voxels: dict[int, int] = {}
    for side, ids in (("before", before), ("after", after)):
        family = dict(zip(changed[side].tolist(), changed["family"].tolist(), strict=True))
        for one, number in zip(*np.unique(ids[moved], return_counts=True), strict=True):
            if one and (known := family.get(int(one))) is not None:
                voxels[known] = voxels.get(known, 0) + int(number)
    return sorted(voxels, key=lambda family: (-voxels[family], family))


def _box(
    moved: np.ndarray, painted: list[int], changed: pd.DataFrame, sections: tuple, size: tuple[float, float]
) -> tuple[slice, slice]:
    """Cut a section to the neurites that are painted, or to what moved of them where they fill most of it."""
    own = changed[changed["family"].isin(painted)]
    mask = np.zeros(moved.shape, bool)
    for side, ids in zip(("before", "after"), sections, strict=True):
        mask |= np.isin(ids, own.loc[own[side] > 0, side].to_numpy())
    if (mask & moved).any() and mask.mean() > 0.25:
        mask &= moved
    sides = []
    least = max(LEAST_NM / size[0], LEAST_NM / size[1])
    spans = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    widest = max(max(span[-1] - span[0] + 1 for span in spans) * (1 + CONTEXT), least)
    for span, length in zip(spans, mask.shape, strict=True):
        half = int(np.ceil(widest / 2))
        middle = int(span[0] + span[-1]) // 2
        first = max(0, min(middle - half, length - 2 * half))
        sides.append(slice(first, min(length, first + 2 * half)))
    return tuple(sides)


def _colours(changed: pd.DataFrame) -> dict[str, dict[int, tuple]]:
    """A colour for each id before and after: two that share most voxels have the same, each is paired but once."""
    found: dict[str, dict[int, tuple]] = {"before": {}, "after": {}}
    unused = iter(np.tile(PALETTE / 255, (4, 1)).tolist())
    ranked = changed.sort_values("shared_voxels", ascending=False, kind="stable")
    main = ~ranked.duplicated("family")  # these first, so that families differ in hue
    parts = {side: set() for side in found}
    for _, rows in ranked.groupby("family", sort=False):
        for side, chosen in parts.items():
            chosen |= set(rows[side].drop_duplicates().head(MOST_PARTS)) - {0}
    for row in pd.concat([ranked[main], ranked[~main]])[["before", "after"]].to_dict("records"):
        bare = [side for side, one in row.items() if one in parts[side] and one not in found[side]]
        shared = tuple(next(unused)) if bare else ()
        for side in bare:
            found[side][row[side]] = shared
    return found


def _painted(grey: np.ndarray, ids: np.ndarray, colours: dict[int, tuple], inches: tuple[float, float]) -> np.ndarray:
    """Borders of all ids over EM, and the ids of ``colours`` painted; 1.3 pixels per printed pixel."""
    rows, columns = (max(2, round(side * DPI * 1.3)) for side in inches)
    picture = overlay(grey, ids, (rows, columns), alpha=0)
    nearest = np.ix_(np.arange(rows) * ids.shape[0] // rows, np.arange(columns) * ids.shape[1] // columns)
    for one, colour in colours.items():
        here = ids[nearest] == one
        picture[here] = picture[here] * (1 - ALPHA) + np.float32(255 * ALPHA) * np.float32(to_rgb(colour))
    return picture


def _write_ids(axes: Axes, ids: np.ndarray, colours: dict[int, tuple]) -> None:
    """Write each painted id where its piece is thickest, and outline it."""
    for one, colour in colours.items():
        here = ids == one
        if not here.any():
            continue
        deep = ndi.distance_transform_edt(np.pad(here, 1))[1:-1, 1:-1]
        axes.add_artist(PathPatch(outline(here), fill=False, edgecolor=colour, linewidth=1.5))
        deep[int(0.92 * len(here)) :, : int(0.32 * here.shape[1])] = 0  # the scale bar stands there
        if not deep.any():
            continue
        y, x = np.unravel_index(int(deep.argmax()), deep.shape)
        halo = [withStroke(linewidth=2.2, foreground="black")]
        axes.text(
            x, y, str(one), color="white", fontsize=TEXT_PT + 1, ha="center", va="center", path_effects=halo, zorder=8
        )


def _fact(rows: pd.DataFrame) -> str:
    """What became of one family, as "merged: 5 + 8 → 5"."""
    sides = []
    for side in ("before", "after"):
        ids = [str(one) for one in rows.sort_values("shared_voxels", ascending=False)[side].drop_duplicates() if one]
        more = f" + {len(ids) - MOST_PARTS} more" if len(ids) > MOST_PARTS else ""
        sides.append((" + ".join(ids[:MOST_PARTS]) + more) or "background")
    return f"{rows['change'].iloc[0]}: {sides[0]} → {sides[1]}"


def figure_graphs(edges: pd.DataFrame, names: tuple[str, str] = ("before", "after"), note: str | None = None) -> Figure:
    """Draw the graph before and after side by side, each neurite in the same place, with the connections that changed.

    Parameters
    ----------
    edges : DataFrame
        ``source, target, change, weight_before, weight_after``, from `emlib.measure.graph_change.compare_edges`.
    names : two str
        What the graphs were built from.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        Both graphs carry the ids after. At most 36 neurites are drawn, those with most change first.
    """
    counts = edges["change"].value_counts()
    said = [f"{count(int(counts[name]))} {name}" for name in ("gained", "lost", "reweighted") if name in counts]
    if "inside" in counts:
        said.append(f"{count(int(counts['inside']))} now inside one neurite")
    title = f"Figure 6. Graph before and after, connections: {', '.join(said) or 'every one kept'}"
    if not len(edges):
        page = Page(WIDTH, 1.0, "Figure 6. Graph before and after", note)
        page.message(MARGIN, 0.1, WIDTH - 2 * MARGIN, 0.7, "Neither graph has a connection.")
        return page.figure
    proper = edges[edges["source"] != edges["target"]]
    delta = (proper["weight_after"] - proper["weight_before"]).abs()
    most = 1 + edges[["weight_before", "weight_after"]].to_numpy().max()
    weight = delta * most + proper[["weight_before", "weight_after"]].max(axis=1)  # change first, then strength
    part = strongest_part(proper[["source", "target"]].assign(weight=weight), NODES, EDGES)
    nodes = len(np.union1d(proper["source"], proper["target"]))
    page = Page(
        WIDTH,
        CAPTION + CELL + 0.4,
        title,
        note,
        f"{count(len(part.nodes))} of {plural(nodes, 'neurite')} and {count(len(part.source))} of "
        f"{plural(len(proper), 'connection')} drawn, what changed first. Both panels name neurites by their ids after, "
        "what was merged is one before as well; a minus marks the old id of one that is gone. Numbers on arrows: "
        "synapses, where they changed.",
    )
    shown = edges.set_index(["source", "target"])
    size = CELL * 72
    xy = layout(part.source, part.target, len(part.nodes), size, size, (30.0, 26.0))
    for column, (side, name) in enumerate(zip(("before", "after"), names, strict=True)):
        left = MARGIN + column * (CELL + GAP)
        page.text(left, CAPTION - 4 / 72, f"{'ab'[column]}  {side.capitalize()}: {name}", size=PANEL_PT, va="bottom")
        axes = page.axes(left, CAPTION, CELL, CELL)
        axes.set(xlim=(0, size), ylim=(0, size), xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_edgecolor(PALE)
        _draw(axes, xy, part, shown, f"weight_{side}")
    handles = [
        Line2D([], [], color=COLOURS[kind], linewidth=2.5, label=label)
        for kind, label in (("gained", "gained"), ("lost", "lost"), ("reweighted", "reweighted"), ("kept", "kept"))
    ]
    anchor = (MARGIN / page.width, page.from_top(CAPTION + CELL + 0.12))
    style = {"ncols": 4, "frameon": False, "fontsize": TEXT_PT + 1, "borderpad": 0, "borderaxespad": 0}
    page.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, **style)
    return page.figure


def _draw(axes: Axes, xy: np.ndarray, part: Strongest, edges: pd.DataFrame, column: str) -> None:
    """Draw the connections that have a weight in this column; data coordinates are points."""
    most = edges[["weight_before", "weight_after"]].to_numpy().max()
    joined = set()
    for source, target in zip(part.source.tolist(), part.target.tolist(), strict=True):
        row = edges.loc[(part.nodes[source], part.nodes[target])]
        weight, kind = int(row[column]), str(row["change"])
        if not weight:
            continue
        joined |= {source, target}
        colour, start, end = COLOURS[kind], xy[source], xy[target]
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=9,
                shrinkA=10,
                shrinkB=10.5,
                linewidth=0.8 + 2.2 * (weight / most) ** 0.5,
                color=colour,
                connectionstyle="arc3,rad=0.14",
                zorder=2 if kind == "kept" else 3,
            )
        )
        if kind != "kept":
            along = end - start
            at = (start + end) / 2 + np.array([along[1], -along[0]]) * 0.07
            halo = [withStroke(linewidth=2.5, foreground="white")]
            axes.text(
                *at, str(weight), fontsize=TEXT_PT, color=colour, ha="center", va="center", path_effects=halo, zorder=5
            )
    face = ["white" if at in joined else PALE for at in range(len(part.nodes))]
    axes.scatter(*xy.T, s=19**2, c=face, edgecolors=INK, linewidths=0.8, zorder=4)
    for at, (node, (x, y)) in enumerate(zip(part.nodes, xy, strict=True)):
        tone = INK if at in joined else GREY
        axes.text(
            x,
            y,
            str(int(node)),
            fontsize=6.5 if len(str(int(node))) < 5 else 5.5,
            ha="center",
            va="center_baseline",
            color=tone,
            zorder=6,
        )
