"""Scores of a wiring graph against the true one: edges, weights, degrees, and a random rewiring as chance.

Edges are directed, from pre to post. Predicted neurites are first named after the true neurite that they overlap most;
edges that then join the same two neurites become one, and their weights add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emlib.measure.edges import coded_ends, compare_edges, map_edges, rewiring, sum_edges

DRAWS = 100
FEWEST_NODES = 3  # for a correlation: through two points there is always a line


@dataclass(frozen=True)
class GraphScores:
    """Scores of a graph, and what became of each edge.

    Attributes
    ----------
    scores : dict
        As `score_graph` says.
    edges : DataFrame
        ``source``, ``target``: true ids, or minus the predicted id of a neurite that overlaps no true one;
        ``weight_true``, ``weight_pred``: 0 where the edge is absent; ``status``: "hit", "missed", "false", "unmapped"
        (an end overlaps no true neurite) or "within" (both ends in one true neurite). Sorted by source and target.
    """

    scores: dict[str, Any]
    edges: pd.DataFrame


def score_graph(
    pred: pd.DataFrame,
    truth: pd.DataFrame,
    id_map: dict[int, int] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> GraphScores:
    """Score predicted edges against true ones.

    Parameters
    ----------
    pred, truth : DataFrame
        ``source``, ``target`` (integers) and optionally ``weight`` (above 0; 1 where there is no such column). Repeated
        rows add up. Rows that name an id below 1 (background) are left out, and so are edges from a neurite to
        itself; two predicted neurites that are pieces of one true neurite are not the same, and wrong if joined.
    id_map : dict, optional
        True id of each predicted id, from ``map_ids_by_overlap``. An end that is not in it stays a neurite of its own,
        which no true edge can have. None: both tables use the same ids.
    draws : int
        Rewirings.
    seed : int

    Returns
    -------
    GraphScores
        ``scores`` holds

        - ``precision``, ``recall``, ``f1`` over distinct directed edges; ``predicted``, ``truth``, their numbers;
        - ``unmapped``, ``within_one_neurite``: predicted edges that are false for that reason;
          ``background``: rows left out, of the two tables;
        - ``weighted``: precision Σ min(wₚ, wₜ) / Σ wₚ, recall Σ min(wₚ, wₜ) / Σ wₜ and f1;
        - ``undirected``: precision, recall, f1 over distinct unordered pairs;
        - ``degree_correlation``: for ``in``, ``out`` and ``total`` degree (numbers of edges) over the true neurites
          that either graph joins, ``pearson`` and ``spearman``; NaN below three or where all are equal; ``neurites``;
        - ``chance``: means of the same precision, recall and f1 over ``draws`` rewirings, and ``interval_95``.

        Precision without predicted and recall without true edges are NaN.

    Notes
    -----
    F1 of weights is 1 minus the dissimilarity of Bray & Curtis 1957 of the two adjacency matrices. Rank correlation
    with mean ranks of ties: Spearman 1904; graphs that share few neurites correlate negatively, as each joins some that
    the other leaves alone. Chance permutes the targets of the predicted edges among them, which keeps
    every in- and out-degree, counted with multiplicity: the configuration model of directed graphs (Newman, Strogatz
    & Watts 2001); edges that coincide are then one, and one may lead from a neurite to itself.

    Examples
    --------
    >>> truth = pd.DataFrame({"source": [1, 2], "target": [2, 3]})
    >>> pred = pd.DataFrame({"source": [10, 11, 30], "target": [20, 20, 20]})
    >>> result = score_graph(pred, truth, {10: 1, 11: 1, 20: 2, 30: 3})
    >>> result.scores["precision"], result.scores["undirected"]["recall"]
    (0.5, 1.0)
    >>> result.edges.to_numpy().tolist()
    [[1, 2, 1, 2, 'hit'], [2, 3, 1, 0, 'missed'], [3, 2, 0, 1, 'false']]
    """
    true_edges, true_background = sum_edges(truth)
    named, background = map_edges(pred, id_map)
    edges = _joined(true_edges, named)
    status = edges["status"]
    scores: dict[str, Any] = {
        **compare_edges(named, true_edges),
        "predicted": len(named),
        "truth": len(true_edges),
        "unmapped": int((status == "unmapped").sum()),
        "within_one_neurite": int((status == "within").sum()),
        "background": {"predicted": background, "truth": true_background},
        "degree_correlation": degree_correlation(named, true_edges),
        "chance": rewiring(named, true_edges, draws, np.random.default_rng(seed)),
    }
    return GraphScores(scores, edges)


def degree_correlation(pred: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Correlate the degrees of the true neurites in two graphs.

    Parameters
    ----------
    pred, truth : DataFrame
        Distinct edges as `sum_edges` and `map_edges` give them; every edge counts, also a false one.

    Returns
    -------
    dict
        ``in``, ``out``, ``total``: {``pearson``, ``spearman``}; ``neurites``, over how many.
    """
    nodes, _ = coded_ends(pred, truth)
    neurites = nodes[nodes > 0]
    degrees = []
    for table in (pred, truth):
        ends = {"in": table["target"], "out": table["source"]}
        counts = {side: ids.value_counts().reindex(neurites, fill_value=0).to_numpy() for side, ids in ends.items()}
        degrees.append(counts | {"total": counts["in"] + counts["out"]})
    found: dict[str, Any] = {}
    for side in ("in", "out", "total"):
        a, b = (each[side] for each in degrees)
        ranks = (pd.Series(each).rank().to_numpy() for each in (a, b))
        found[side] = {"pearson": _correlation(a, b), "spearman": _correlation(*ranks)}
    return {**found, "neurites": len(neurites)}


def _joined(truth: pd.DataFrame, pred: pd.DataFrame) -> pd.DataFrame:
    """Every edge of either graph with its two weights and what it is."""
    edges = truth.merge(pred, on=["source", "target"], how="outer", suffixes=("_true", "_pred"), sort=True)
    for name, table in (("weight_true", truth), ("weight_pred", pred)):
        edges[name] = edges[name].fillna(0).astype(table["weight"].dtype)
    source, target = edges["source"], edges["target"]
    cases = [
        (edges["weight_true"] > 0) & (edges["weight_pred"] > 0),
        edges["weight_true"] > 0,
        (source < 0) | (target < 0),
        source == target,
    ]
    status = np.select(cases, ["hit", "missed", "unmapped", "within"], "false")
    return edges.assign(status=status)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < FEWEST_NODES or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
