"""The wiring graph: neurites joined by the synapses found between them.

1. Keep candidates that score at least ``min_score`` and join two different neurites.
2. One directed edge per (pre, post) pair, or where candidates leave open who sends, one undirected edge per pair; its
   weight is the number of candidates.
3. One row per neurite and one per connection, in an order that does not depend on the order of the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd

from emlib.stages.synapse_direction import UNKNOWN, direction_is_open, leave_direction_open

NODE_COLUMNS = {
    "node": "int64",
    "in_degree": "int64",
    "out_degree": "int64",
    "in_weight": "int64",
    "out_weight": "int64",
    "reciprocal": "int64",
    "pagerank": "float64",
    "component": "int64",
    "component_size": "int64",
    "volume_um3": "float64",
}
EDGE_COLUMNS = {
    "source": "int64",
    "target": "int64",
    "weight": "int64",
    "mean_score": "float64",
    "max_score": "float64",
    "sum_score": "float64",
}
# Where nobody knows who sends: degree and weight in place of those of either direction.
OPEN_NODE_COLUMNS = {
    "node": "int64",
    "degree": "int64",
    "weight": "int64",
    "pagerank": "float64",
    "component": "int64",
    "component_size": "int64",
    "volume_um3": "float64",
    "direction": "str",
}
OPEN_EDGE_COLUMNS = {**EDGE_COLUMNS, "direction": "str"}


@dataclass(frozen=True)
class GraphSettings:
    """Which candidates become connections."""

    min_score: float = 0.10  # candidates below are left out; the threshold itself is kept


def build_graph(
    candidates: pd.DataFrame,
    labels: np.ndarray | None = None,
    settings: GraphSettings = GraphSettings(),
    voxel_size_nm: tuple[float, float, float] | None = None,
) -> nx.DiGraph | nx.Graph:
    """Sum synapse candidates into a graph of neurites, directed unless the candidates leave open who sends.

    Parameters
    ----------
    candidates : DataFrame
        Columns ``pre_id``, ``post_id`` (integers) and ``score``; rows in any order. With a column ``direction``, as
        `emlib.stages.synapse_direction.leave_direction_open` gives them, nobody knows who sends.
    labels : (Z, Y, X) integer array, optional
        Neurite labels, for the volume of each node.
    settings : GraphSettings
    voxel_size_nm : (z, y, x) in nm
        Needed with ``labels``.

    Returns
    -------
    networkx.DiGraph, or networkx.Graph where nobody knows who sends
        Nodes are the ids of neurites with at least one kept candidate, with the attribute ``volume_um3`` where labels
        are given. Edges carry ``weight`` (number of candidates), ``mean_score``, ``max_score`` and ``sum_score``. A
        neurite is never joined to itself, nor to background (ids below 1); the two directions of a pair stay apart.
        Attributes are plain Python numbers, nodes and edges are in ascending order. An undirected graph says
        ``direction: unknown``; its edges run from the smaller id to the larger.

    Raises
    ------
    ValueError
        If a column is missing, or labels come without a voxel size.

    Examples
    --------
    >>> rows = pd.DataFrame({"pre_id": [1, 1, 2, 3], "post_id": [2, 2, 1, 3], "score": [0.5, 0.75, 0.1, 0.9]})
    >>> list(build_graph(rows).edges(data="weight"))
    [(1, 2, 2), (2, 1, 1)]
    """
    missing = {"pre_id", "post_id", "score"} - set(candidates.columns)
    if missing:
        raise ValueError(f"candidates lack the columns {sorted(missing)}")
    if labels is not None and voxel_size_nm is None:
        raise ValueError("labels need voxel_size_nm: a volume in µm³ cannot be told without it")
    undirected = direction_is_open(candidates)
    if undirected:
        candidates = leave_direction_open(candidates)
    pre, post = (candidates[name].to_numpy(np.int64) for name in ("pre_id", "post_id"))
    score = candidates["score"].to_numpy(np.float64)
    keep = (score >= settings.min_score) & (pre != post) & (pre > 0) & (post > 0)
    kept = pd.DataFrame({"pre": pre[keep], "post": post[keep], "score": score[keep]})
    # Sorted by score as well, so that a sum rounds the same way whatever the order of the rows.
    sums = kept.sort_values(["pre", "post", "score"]).groupby(["pre", "post"])["score"].agg(["size", "sum", "max"])

    graph = nx.Graph(direction=UNKNOWN) if undirected else nx.DiGraph()
    graph.add_nodes_from(sorted(set(pre[keep].tolist()) | set(post[keep].tolist())))
    for (source, target), count, total, top in zip(
        sums.index.tolist(), sums["size"].tolist(), sums["sum"].tolist(), sums["max"].tolist(), strict=True
    ):
        graph.add_edge(source, target, weight=count, mean_score=total / count, max_score=top, sum_score=total)
    if labels is not None and len(graph):
        nx.set_node_attributes(graph, _volumes_um3(labels, list(graph), voxel_size_nm), "volume_um3")
    return graph


def node_table(graph: nx.DiGraph | nx.Graph) -> pd.DataFrame:
    """One row per neurite: degrees, weights, PageRank, component, volume.

    Parameters
    ----------
    graph : networkx.DiGraph or networkx.Graph
        From ``build_graph``.

    Returns
    -------
    DataFrame
        ``node``; ``in_degree``, ``out_degree`` (partners); ``in_weight``, ``out_weight`` (candidates); ``reciprocal``
        (partners joined both ways); ``pagerank`` (damping 0.85, edges weighted); ``component`` (weakly connected, 1 is
        the largest) and ``component_size``; ``volume_um3`` (NaN where unknown). Sorted by total weight, largest first,
        then by ``node``. An empty graph gives an empty table with the same columns and dtypes. Where nobody knows who
        sends, ``degree`` and ``weight`` stand in place of those of either direction, and ``direction`` says "unknown".

    Notes
    -----
    PageRank after Page, Brin, Motwani & Winograd 1999, as implemented in networkx.
    """
    nodes = list(graph)
    parts = nx.weakly_connected_components(graph) if graph.is_directed() else nx.connected_components(graph)
    components = sorted(parts, key=lambda members: (-len(members), min(members)))
    component = {node: number for number, members in enumerate(components, start=1) for node in members}
    volume = nx.get_node_attributes(graph, "volume_um3")
    pagerank = nx.pagerank(graph, alpha=0.85, weight="weight") if nodes else {}
    weight = dict(graph.degree(weight="weight"))  # both directions
    rows = {
        "node": nodes,
        **_degrees(graph, nodes),
        "pagerank": [pagerank[n] for n in nodes],
        "component": [component[n] for n in nodes],
        "component_size": [len(components[component[n] - 1]) for n in nodes],
        "volume_um3": [volume.get(n, np.nan) for n in nodes],
    }
    if not graph.is_directed():
        rows["direction"] = [UNKNOWN] * len(nodes)
    table = pd.DataFrame(rows).astype(NODE_COLUMNS if graph.is_directed() else OPEN_NODE_COLUMNS)
    order = np.lexsort((table["node"], [-weight[n] for n in nodes]))
    return table.iloc[order].reset_index(drop=True)


def _degrees(graph: nx.DiGraph | nx.Graph, nodes: list[int]) -> dict[str, list[int]]:
    """Partners and candidates of each node, by direction where it is known."""
    if not graph.is_directed():
        weight = dict(graph.degree(weight="weight"))
        return {"degree": [graph.degree(n) for n in nodes], "weight": [weight[n] for n in nodes]}
    in_weight, out_weight = dict(graph.in_degree(weight="weight")), dict(graph.out_degree(weight="weight"))
    return {
        "in_degree": [graph.in_degree(n) for n in nodes],
        "out_degree": [graph.out_degree(n) for n in nodes],
        "in_weight": [in_weight[n] for n in nodes],
        "out_weight": [out_weight[n] for n in nodes],
        "reciprocal": [sum(graph.has_edge(m, n) for m in graph.successors(n)) for n in nodes],
    }


def edge_table(graph: nx.DiGraph | nx.Graph) -> pd.DataFrame:
    """One row per connection: who, to whom, how often, how sure.

    Parameters
    ----------
    graph : networkx.DiGraph or networkx.Graph
        From ``build_graph``.

    Returns
    -------
    DataFrame
        ``source`` (pre), ``target`` (post), ``weight``, ``mean_score``, ``max_score``, ``sum_score``; sorted by weight,
        largest first, then by ``source`` and ``target``. An empty graph gives an empty table with the same columns and
        dtypes. Where nobody knows who sends, ``source`` is the smaller id and ``direction`` says "unknown".
    """
    rows = [
        (*_ends(graph, s, t), *(data[name] for name in list(EDGE_COLUMNS)[2:])) for s, t, data in graph.edges.data()
    ]
    table = pd.DataFrame(rows, columns=list(EDGE_COLUMNS)).astype(EDGE_COLUMNS)
    if not graph.is_directed():
        table = table.assign(direction=UNKNOWN).astype(OPEN_EDGE_COLUMNS)
    order = np.lexsort((table["target"], table["source"], -table["weight"]))
    return table.iloc[order].reset_index(drop=True)


def _ends(graph: nx.DiGraph | nx.Graph, source: int, target: int) -> tuple[int, int]:
    """The two ends of an edge; of an undirected one the smaller id first."""
    return (source, target) if graph.is_directed() else (min(source, target), max(source, target))


def to_graphml(graph: nx.DiGraph | nx.Graph) -> str:
    """Return the graph as GraphML text, directed or not as the graph is; equal graphs give equal text.

    Notes
    -----
    GraphML after Brandes et al. 2002; Cytoscape, Gephi and igraph read it. Nodes and edges come in ascending order.
    """
    ordered = type(graph)(**graph.graph)
    ordered.add_nodes_from(sorted(graph.nodes(data=True), key=lambda item: item[0]))
    edges = [(*_ends(graph, source, target), data) for source, target, data in graph.edges(data=True)]
    ordered.add_edges_from(sorted(edges, key=lambda item: item[:2]))
    return "\n".join(nx.generate_graphml(ordered)) + "\n"


def _volumes_um3(labels: np.ndarray, nodes: list[int], voxel_size_nm: tuple[float, float, float]) -> dict[int, float]:
    """Volume of each node in µm³; 0 for an id that does not occur."""
    ids = np.asarray(nodes, np.int64)  # ascending, as build_graph adds them
    counts = np.zeros(len(ids), np.int64)
    for section in labels:  # one section at a time keeps the temporary arrays small
        found, voxels = np.unique(section, return_counts=True)
        at = np.searchsorted(ids, found)
        known = (at < len(ids)) & (ids[np.minimum(at, len(ids) - 1)] == found)
        counts[at[known]] += voxels[known]
    um3 = counts * (float(np.prod(voxel_size_nm)) * 1e-9)
    return dict(zip(nodes, um3.tolist(), strict=True))
