"""Figure 3: the strongest part of the graph, its adjacency matrix, and the degrees of all neurites."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from emlib.publish.graph_layout import Strongest, edge_table, layout, strongest_part
from emlib.publish.page import MARGIN, PANEL_PT, TEXT_PT, Page
from emlib.publish.style import BLUE, INK, ORANGE, PALE, SKY, VERMILLION, count, plural

WIDTH = 11.5  # inches
GRAPH = (6.9, 6.6)
SIDE = 3.4
MATRIX_NODES = 20
BALANCE = LinearSegmentedColormap.from_list("balance", [SKY, "#FFFFFF", ORANGE])


def figure3(graph: nx.DiGraph | nx.Graph, note: str | None = None) -> Figure:
    """Show the strongest connections between neurites, as a drawing and as a matrix, and the degrees of all neurites.

    Parameters
    ----------
    graph : DiGraph or Graph
        Edges run from pre- to postsynaptic neurite and carry ``weight``; those of an undirected graph leave open who
        sends, and are drawn without arrow heads.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
        At most 60 nodes and 220 edges are drawn; the title says how many of how many.
    """
    edges = edge_table(graph)
    part = strongest_part(edges)
    total = f"{plural(graph.number_of_nodes(), 'neurite')} and {plural(len(edges), 'connection')}"
    title = f"Figure 3. Wiring graph of {total}"
    drawn, neurites = len(part.nodes), graph.number_of_nodes()
    if drawn < neurites or len(part.source) < len(edges):
        title = (
            f"Figure 3. Wiring graph: {count(drawn)} strongest of {plural(neurites, 'neurite')}, "
            f"{count(len(part.source))} of {plural(len(edges), 'connection')} shown"
        )
    subtitle = (
        "Arrows run from pre- to postsynaptic neurite, thicker for more weight. Numbers are neurite ids. "
        "Node size: partners in the whole graph; colour: blue receives, orange sends."
    )
    known = graph.is_directed()
    if not known:
        subtitle = (
            "Direction unknown: lines join neurites, thicker for more weight, and leave open which one sends. Numbers "
            "are neurite ids. Node size: partners in the whole graph."
        )
    loops = int((edges["source"] == edges["target"]).sum())
    if loops:
        subtitle += f" {plural(loops, 'connection')} of a neurite with itself not drawn."
    page = Page(WIDTH, GRAPH[1] + 0.36, title, note, subtitle)
    right = WIDTH - MARGIN - SIDE
    which = "All" if len(part.source) == len(edges) else "Strongest"
    page.text(MARGIN, 0.22, f"a  {which} connections", size=PANEL_PT, va="bottom")
    page.text(right, 0.22, "b  Neurites with at least this many partners", size=PANEL_PT, va="bottom")
    among = min(len(part.nodes), MATRIX_NODES)
    caption = f"c  Weights among the {among} strongest" if among else "c  Weights"
    page.text(right, 3.26, caption, size=PANEL_PT, va="bottom")
    if not len(part.nodes):
        what = "No synapse candidate joined two different neurites, so there is no connection to draw."
        page.message(MARGIN, 0.28, *GRAPH, what if graph.number_of_nodes() else f"The graph is empty. {what}")
    else:
        _draw_graph(page, (MARGIN, 0.28, *GRAPH), part, edges, known)
    if not len(part.nodes):
        page.message(right, 0.28, SIDE, 2.5, "No neurite has a partner.")
        page.message(right, 3.32, SIDE, GRAPH[1] + 0.28 - 3.32, "No weights to show.")
    else:
        _degrees(page, (right + 0.15, 0.3, SIDE - 0.15, 2.3), edges, graph.number_of_nodes(), known)
        _matrix(page, (right + 0.15, 3.36, SIDE - 0.95), part, known)
    return page.figure


def _draw_graph(page: Page, box: tuple, part: Strongest, edges: pd.DataFrame, known: bool) -> None:
    """Draw nodes, curved arrows and ids; data coordinates are points, so that every size is exact.

    Where directions are not ``known``, nodes have no colour and lines no head.
    """
    left, top, width, height = box
    axes = page.axes(left, top, width, height)
    axes.set(xlim=(0, width * 72), ylim=(0, height * 72), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_edgecolor(PALE)
    size = 7.5 if len(part.nodes) <= 30 else 6.5
    longest = max(len(str(node)) for node in part.nodes)
    room = (max(27.0, longest * size * 0.66 + 4), 27.0)
    xy = layout(part.source, part.target, len(part.nodes), width * 72, height * 72, room)

    proper = edges[edges["source"] != edges["target"]]
    partners = proper["source"].value_counts().add(proper["target"].value_counts(), fill_value=0)
    degree = partners.reindex(part.nodes).to_numpy(float)
    sent = edges.groupby("source")["weight"].sum().reindex(part.nodes, fill_value=0).to_numpy(float)
    taken = edges.groupby("target")["weight"].sum().reindex(part.nodes, fill_value=0).to_numpy(float)
    radius = np.clip(longest * size * 0.3, 5, 8) + 7 * np.sqrt(degree / degree.max())  # ids fit the nodes, if short

    curves, heads, widths, shade = _arrows(xy, radius, part, known)
    axes.add_collection(LineCollection(curves, linewidths=widths, colors=shade, capstyle="butt"), autolim=False)
    if known:
        axes.add_collection(PolyCollection(heads, facecolors=shade, edgecolors="none"), autolim=False)
    balance = BALANCE(sent / np.maximum(sent + taken, 1e-9) if known else np.full(len(sent), 0.5))
    axes.scatter(*xy.T, s=(2 * radius) ** 2, c=balance, edgecolors=INK, linewidths=0.7, zorder=3)
    for node, (x, y) in zip(part.nodes, xy, strict=True):
        axes.text(x, y, str(node), fontsize=size, ha="center", va="center_baseline", color="black", zorder=4)


def _arrows(xy: np.ndarray, radius: np.ndarray, part: Strongest, known: bool) -> tuple[np.ndarray, ...]:
    """Return curves (E, 13, 2), arrow heads (E, 3, 2), line widths (E,) and colours (E, 4); all bend to their left.

    The bend keeps the two directions of a mutual connection apart. Where directions are not ``known``, curves go on to
    their ends and leave no room for heads.
    """
    start, end = xy[part.source], xy[part.target]
    along = end - start
    length = np.maximum(np.linalg.norm(along, axis=1), 1e-6)[:, None]
    along = along / length
    left = np.stack([-along[:, 1], along[:, 0]], 1)
    middle = (start + end) / 2 + left * np.minimum(0.13 * length, 22)
    strength = np.sqrt(part.weight / part.weight.max())
    if part.weight.min() == part.weight.max():
        strength *= 0.35  # no connection stands out, so none is drawn thick
    widths, head = 0.4 + 2.8 * strength, 4 + 5 * strength
    # Cut the curve where it enters the target's circle, less the head that fills the rest.
    tip_way = middle - end
    tip_way /= np.linalg.norm(tip_way, axis=1)[:, None]
    tip = end + tip_way * (radius[part.target][:, None] + 0.5)
    base = tip + tip_way * head[:, None]
    across = np.stack([-tip_way[:, 1], tip_way[:, 0]], 1) * (head * 0.45)[:, None]
    heads = np.stack([tip, base + across, base - across], 1)
    t, last = np.linspace(0, 1, 13)[None, :, None], base if known else end
    curves = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * middle[:, None] + t**2 * last[:, None]
    shade = np.zeros((len(widths), 4))
    shade[:, :3] = 0.62 - 0.5 * strength[:, None]
    shade[:, 3] = 0.85
    return curves, heads, widths, shade


def _degrees(page: Page, box: tuple, edges: pd.DataFrame, neurites: int, known: bool) -> None:
    """Draw, for both directions if ``known``, how many neurites have at least k partners, on logarithmic axes."""
    axes = page.axes(*box)
    proper = edges[edges["source"] != edges["target"]]
    lonely = neurites - len(np.union1d(proper["source"], proper["target"]))
    sides = [
        ("presynaptic partners", proper["target"], {"color": BLUE, "marker": "o"}),
        ("postsynaptic partners", proper["source"], {"color": VERMILLION, "marker": "s", "linestyle": "--"}),
    ]
    if not known:
        sides = [("partners", pd.concat([proper["target"], proper["source"]]), {"color": BLUE, "marker": "o"})]
    for name, ends, style in sides:
        values = np.sort(ends.value_counts().to_numpy())
        k, first = np.unique(values, return_index=True)
        axes.plot(k, len(values) - first, label=name, markersize=3, linewidth=1.4, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: count(round(value)) if value >= 1 else "")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_locator(NullLocator())
        axis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0), numticks=6))
    axes.set_xlim(left=0.9)
    axes.set_ylim(bottom=0.8)
    axes.set_xlabel("partners", fontsize=TEXT_PT)
    axes.xaxis.set_label_coords(0.5, -0.1)
    axes.tick_params(labelsize=TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=TEXT_PT - 1, frameon=False, loc="upper right", borderpad=0, borderaxespad=0.1)
    if lonely:
        without = f"{plural(lonely, 'neurite')} without any"
        axes.text(0.02, 0.03, without, fontsize=TEXT_PT - 1, transform=axes.transAxes)


def _matrix(page: Page, box: tuple, part: Strongest, known: bool) -> None:
    """Draw weights as a matrix with a colour bar; rows presynaptic, columns postsynaptic, if that is ``known``."""
    left, top, side = box
    n = min(len(part.nodes), MATRIX_NODES)
    weights = np.full((n, n), np.nan)
    inside = (part.source < n) & (part.target < n)
    weights[part.source[inside], part.target[inside]] = part.weight[inside]
    if not known:
        weights[part.target[inside], part.source[inside]] = part.weight[inside]
    low, high = np.nanmin(part.weight), np.nanmax(part.weight)
    axes = page.axes(left + 0.3, top, side, side)
    norm = LogNorm(low, high) if high > low > 0 else None
    limits = {"norm": norm} if norm else {"vmin": 0, "vmax": high}
    image = axes.imshow(weights, cmap="cividis_r", interpolation="nearest", **limits)
    names = [str(node) for node in part.nodes[:n]]
    size = 7 if n <= 12 else 6
    axes.set_xticks(range(n), names, rotation=90, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.tick_params(length=0, pad=1.5)
    # Placed by arithmetic: with automatic places matplotlib measures every tick's label twice.
    longest = max(map(len, names)) * size * 0.64 / 72 + 0.05
    rows, columns = ("presynaptic", "postsynaptic") if known else ("neurite", "neurite")
    page.text(left + 0.3 - longest, top + side / 2, rows, ha="right", va="center", rotation=90)
    page.text(left + 0.3 + side / 2, top + side + longest, columns, ha="center")
    if norm is None:
        page.text(left + 0.3, top + side + longest + 0.2, f"Every weight is {_weight(low)}.")
        return
    ramp = np.linspace(1, 0, 64)[:, None]
    bar = page.axes(left + 0.3 + side + 0.1, top, 0.1, side)
    bar.imshow(ramp, cmap=image.get_cmap(), aspect="auto", interpolation="bilinear")
    bar.set(xticks=[], yticks=[])
    for y, va, value in ((top, "top", high), (top + side, "bottom", low)):
        page.text(left + side + 0.56, y, _weight(value), size=TEXT_PT - 1, va=va)
    page.text(left + side + 0.56, top + side / 2, "weight", size=TEXT_PT - 1, va="center", rotation=90)


def _weight(value: float) -> str:
    """Write a weight in at most seven characters."""
    return count(value) if float(value).is_integer() and value < 1e5 else f"{value:.3g}"
