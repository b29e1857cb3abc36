"""Edges of wiring graphs: summed, named after true neurites, compared with true ones, and rewired at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MEASURES = ("precision", "recall", "f1")
ENDS = ["source", "target"]
INTERVAL = (2.5, 97.5)  # percentiles of the draws of chance


def sum_edges(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Sum the weights of repeated rows, without edges from a neurite to itself and those that name an id below 1.

    Parameters
    ----------
    table : DataFrame
        ``source``, ``target`` and optionally ``weight``.

    Returns
    -------
    edges : DataFrame
        ``source``, ``target`` (int64), ``weight``; distinct, sorted by source and target.
    background : int
        Rows left out because they name an id below 1.
    """
    weight = table["weight"].to_numpy() if "weight" in table else np.ones(len(table), np.int64)
    edges = table[["source", "target"]].astype(np.int64).assign(weight=weight)
    real = (edges["source"] > 0) & (edges["target"] > 0)
    return add_up(edges[real & (edges["source"] != edges["target"])]), int((~real).sum())


def add_up(edges: pd.DataFrame) -> pd.DataFrame:
    """Make rows with the same ``source`` and ``target`` one, with the sum of their ``weight``; sorted by both."""
    return edges.groupby(ENDS, as_index=False, sort=True)["weight"].sum()


def map_edges(table: pd.DataFrame, id_map: dict[int, int] | None) -> tuple[pd.DataFrame, int]:
    """Name predicted edges after true neurites; an end without one is named by minus its own id.

    Parameters
    ----------
    table : DataFrame
        ``source``, ``target`` and optionally ``weight``.
    id_map : dict or None

    Returns
    -------
    edges : DataFrame
        As `sum_edges`; edges that join the same two true neurites are one.
    background : int
        Rows left out.

    Examples
    --------
    >>> table = pd.DataFrame({"source": [5, 6, 7], "target": [8, 8, 8]})
    >>> map_edges(table, {5: 1, 6: 1, 8: 2})[0].to_numpy().tolist()
    [[-7, 2, 1], [1, 2, 2]]
    """
    edges, background = sum_edges(table)
    if id_map is None:
        return edges, background
    for end in ENDS:
        edges[end] = np.array([id_map.get(name, -name) for name in edges[end].tolist()], np.int64)
    return add_up(edges), background


def compare_edges(pred: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any]:
    """Precision, recall and F1 of distinct edges, of weights, and of unordered pairs.

    Parameters
    ----------
    pred, truth : DataFrame
        Distinct edges as `sum_edges` and `map_edges` give them.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``f1``, and the same in ``weighted`` and ``undirected``.
    """
    nodes, (p, t) = coded_ends(pred, truth)
    return _named(_ratio_rows(p, pred["weight"].to_numpy(), _Known.of(t, truth["weight"].to_numpy(), len(nodes))))


def rewiring(pred: pd.DataFrame, truth: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """Scores of predicted edges whose targets are permuted among them.

    Parameters
    ----------
    pred, truth : DataFrame
        Distinct edges as `sum_edges` and `map_edges` give them.
    draws : int
    rng : numpy Generator

    Returns
    -------
    dict
        The means in the form of `compare_edges`; ``interval_95`` in the same form, each [2.5 %, 97.5 %] of the draws;
        ``draws``.
    """
    nodes, (p, t) = coded_ends(pred, truth)
    known, weight = _Known.of(t, truth["weight"].to_numpy(), len(nodes)), pred["weight"].to_numpy()
    rows = np.array([_ratio_rows(np.stack([p[0], rng.permutation(p[1])]), weight, known) for _ in range(draws)])
    ranges = np.percentile(rows, INTERVAL, axis=0).transpose(1, 2, 0)
    return {**_named(rows.mean(axis=0)), "interval_95": _named(ranges), "draws": draws}


def coded_ends(*tables: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
    """Number the neurites that any of the tables joins.

    Parameters
    ----------
    *tables : DataFrame
        ``source``, ``target``.

    Returns
    -------
    nodes : (N,) int64 array
        All ids, ascending.
    ends : list of (2, E) arrays, one per table
        Positions of source and target among the nodes.
    """
    nodes = np.unique(np.concatenate([table[end].to_numpy(np.int64) for table in tables for end in ENDS]))
    return nodes, [np.stack([np.searchsorted(nodes, table[end]) for end in ENDS]) for table in tables]


@dataclass(frozen=True)
class _Known:
    """True edges as sorted numbers source · nodes + target, with their weights, and the unordered pairs likewise."""

    edges: np.ndarray
    weight: np.ndarray
    pairs: np.ndarray
    nodes: int

    @classmethod
    def of(cls, ends: np.ndarray, weight: np.ndarray, nodes: int) -> _Known:
        edges, which = np.unique(ends[0] * nodes + ends[1], return_inverse=True)
        return cls(edges, np.bincount(which, weight, len(edges)), np.unique(_unordered(ends, nodes)), nodes)


def _unordered(ends: np.ndarray, nodes: int) -> np.ndarray:
    return ends.min(axis=0) * nodes + ends.max(axis=0)


def _ratio_rows(ends: np.ndarray, weight: np.ndarray, known: _Known) -> np.ndarray:
    """Precision, recall, F1 (columns) of edges, weights and pairs (rows); edges that coincide are one."""
    edges, which = np.unique(ends[0] * known.nodes + ends[1], return_inverse=True)
    summed = np.bincount(which, weight, len(edges))
    _, p, t = np.intersect1d(edges, known.edges, assume_unique=True, return_indices=True)
    pairs = np.unique(_unordered(ends, known.nodes))
    shared = np.minimum(summed[p], known.weight[t]).sum()
    return np.array(
        [
            _ratios(len(p), len(edges), len(known.edges)),
            _ratios(shared, summed.sum(), known.weight.sum()),
            _ratios(len(np.intersect1d(pairs, known.pairs, assume_unique=True)), len(pairs), len(known.pairs)),
        ]
    )


def _named(rows: np.ndarray) -> dict[str, Any]:
    edges, weights, pairs = (dict(zip(MEASURES, row, strict=True)) for row in rows.tolist())
    return {**edges, "weighted": weights, "undirected": pairs}


def _ratios(shared: float, predicted: float, true: float) -> list[float]:
    """Precision, recall and F1 (van Rijsbergen 1979); NaN where nothing is divided by."""
    parts = ((shared, predicted), (shared, true), (2 * shared, predicted + true))
    return [float(a / b) if b else float("nan") for a, b in parts]
