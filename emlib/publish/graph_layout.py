"""Which part of a graph to draw, and where to put its nodes: deterministic and fast whatever the graph's size.

1. Take the strongest edges until enough nodes are reached, then all edges between those nodes.
2. Place each connected part by stress majorisation (Gansner, Koren & North 2005): distances follow path lengths.
3. Pack the parts beside each other, largest first.
4. Push apart nodes whose labels would overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, shortest_path

ROUNDS = 120  # of majorisation; a part of 60 nodes stops moving after about 60


@dataclass(frozen=True)
class Strongest:
    """The part of a graph that is drawn.

    Attributes
    ----------
    nodes : list
        Strongest first.
    source, target : (E,) int arrays
        Positions in ``nodes``; no edge from a node to itself.
    weight : (E,) float array
    loops : int
        Edges from a shown node to itself, which are left out.
    """

    nodes: list
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    loops: int


def edge_table(graph: nx.DiGraph) -> pd.DataFrame:
    """Return columns source, target, weight; an edge without a weight counts as 1."""
    rows = [(u, v, float(w)) for u, v, w in graph.edges(data="weight", default=1.0)]
    return pd.DataFrame(rows, columns=["source", "target", "weight"])


def strongest_part(edges: pd.DataFrame, max_nodes: int = 60, max_edges: int = 220) -> Strongest:
    """Choose the nodes at the ends of the strongest edges and the edges between them.

    Parameters
    ----------
    edges : DataFrame
        As from ``edge_table``.
    max_nodes, max_edges : int
        How much can be read on one page.

    Returns
    -------
    Strongest
        Ties in weight go to the edges between stronger nodes, then to smaller ids.
    """
    strength = edges.groupby("source")["weight"].sum().add(edges.groupby("target")["weight"].sum(), fill_value=0)
    proper = edges[edges["source"] != edges["target"]]
    ends = proper["source"].map(strength).to_numpy(float) + proper["target"].map(strength).to_numpy(float)
    ranked = proper.assign(ends=ends).sort_values(
        ["weight", "ends", "source", "target"], ascending=[False, False, True, True], kind="stable"
    )
    chosen: dict = {}
    for u, v in zip(ranked["source"], ranked["target"], strict=True):
        if len(chosen.keys() | {u, v}) > max_nodes:
            break
        chosen[u] = chosen[v] = None
    nodes = sorted(chosen, key=lambda node: (-strength[node], node))
    place = {node: i for i, node in enumerate(nodes)}
    inside = ranked[ranked["source"].isin(chosen) & ranked["target"].isin(chosen)].head(max_edges)
    loops = int((edges["source"].isin(chosen) & (edges["source"] == edges["target"])).sum())
    source = np.array([place[u] for u in inside["source"]], int)
    target = np.array([place[v] for v in inside["target"]], int)
    return Strongest(nodes, source, target, inside["weight"].to_numpy(float), loops)


def layout(
    source: np.ndarray, target: np.ndarray, n_nodes: int, width: float, height: float, label: tuple[float, float]
) -> np.ndarray:
    """Place nodes in a box.

    Parameters
    ----------
    source, target : (E,) int arrays
        Edges between nodes 0 … n_nodes - 1; meant for up to about 100 nodes.
    n_nodes : int
    width, height : float
        Of the box.
    label : (width, height)
        Room that each node needs around its centre.

    Returns
    -------
    (n_nodes, 2) float array
        x in 0…width, y in 0…height.

    Examples
    --------
    >>> layout(np.array([0]), np.array([1]), 2, 100, 50, (10, 5)).shape
    (2, 2)
    """
    if n_nodes == 0:
        return np.zeros((0, 2))
    adjacency = coo_matrix((np.ones(len(source)), (source, target)), (n_nodes, n_nodes)).tocsr()
    parts, part = connected_components(adjacency, directed=False)
    hops = shortest_path(adjacency, method="D", directed=False, unweighted=True)
    members = sorted((np.flatnonzero(part == p) for p in range(parts)), key=lambda m: (-len(m), m[0]))
    placed = [_majorise(hops[np.ix_(m, m)]) for m in members]
    xy = np.zeros((n_nodes, 2))
    for member, points, corner in zip(members, placed, _pack(placed, width / height), strict=True):
        xy[member] = points + corner
    xy = _fit(xy, width, height, label)
    return _separate(xy, width, height, label)


def _majorise(hops: np.ndarray) -> np.ndarray:
    """Place one connected part so that distances approach numbers of hops; its lower left corner is at 0.5, 0.5."""
    n = len(hops)
    if n == 1:
        return np.array([[0.5, 0.5]])
    angle = np.pi * (3 - 5**0.5) * np.arange(n)  # start on a sunflower: even, and the same in every run
    xy = np.sqrt(np.arange(n) + 0.5)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    far = hops + np.eye(n)
    weight = far**-2.0
    np.fill_diagonal(weight, 0)
    laplacian = np.diag(weight.sum(1)) - weight
    inverse = np.linalg.inv(laplacian + 1 / n)
    for _ in range(ROUNDS):
        between = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        pull = -weight * hops / np.maximum(between, 1e-6)
        np.fill_diagonal(pull, 0)
        np.fill_diagonal(pull, -pull.sum(1))
        xy = inverse @ (pull @ xy)
    _, axes = np.linalg.eigh(np.cov(xy.T))
    xy = (xy - xy.mean(0)) @ axes[:, ::-1]  # the long direction lies flat
    return xy - xy.min(0) + 0.5


def _pack(placed: list[np.ndarray], aspect: float) -> list[np.ndarray]:
    """Return a lower left corner per part: shelves, tallest parts first, about as wide as ``aspect`` asks."""
    sizes = np.array([points.max(0) + 0.5 for points in placed])
    shelf_width = max(sizes[:, 0].max(), np.sqrt(sizes.prod(1).sum() * aspect))
    corners, x, y, tall = [np.zeros(2)] * len(placed), 0.0, 0.0, 0.0
    for i in sorted(range(len(placed)), key=lambda i: -sizes[i, 1]):
        if x + sizes[i, 0] > shelf_width + 1e-9:
            x, y, tall = 0.0, y + tall, 0.0
        corners[i] = np.array([x, y])
        x, tall = x + sizes[i, 0], max(tall, sizes[i, 1])
    return corners


def _fit(xy: np.ndarray, width: float, height: float, label: tuple[float, float]) -> np.ndarray:
    """Scale both axes to the box less the room for labels, but one hop to no more than 0.3 of the box; centre it."""
    size = np.array([width, height])
    span = np.ptp(xy, axis=0)
    scale = np.minimum((size - np.array(label)) / np.maximum(span, 1e-9), 0.3 * size.min())
    return size / 2 + (xy - xy.min(0) - span / 2) * scale


def _separate(xy: np.ndarray, width: float, height: float, label: tuple[float, float], rounds: int = 200) -> np.ndarray:
    """Push nodes apart until no two label boxes overlap, as far as the box has room."""
    room, xy = np.array(label), xy.copy()
    for _ in range(rounds):
        delta = xy[:, None] - xy[None]
        overlap = room - np.abs(delta)
        clash = (overlap > 0).all(2)
        np.fill_diagonal(clash, False)
        if not clash.any():
            break
        # Move along the axis that needs the smaller move; equal places are told apart by their order.
        axis = np.argmin(overlap / room, axis=2)
        order = np.sign(np.arange(len(xy))[:, None] - np.arange(len(xy))[None])
        for a in (0, 1):
            side = np.where(delta[..., a] == 0, order, np.sign(delta[..., a]))
            xy[:, a] += (np.where(clash & (axis == a), overlap[..., a], 0) * side).sum(1) * 0.3
        xy = np.clip(xy, room / 2, np.array([width, height]) - room / 2)
    return xy
