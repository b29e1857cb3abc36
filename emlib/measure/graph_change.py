"""What lies between two label volumes of one place and their graphs: which neurite became which, edges, degrees.

1. Two contingency tables, one from each side, so that voxels which only one side labels count as well.
2. Each neurite is named after the one that it shares most voxels with, in both directions. Neurites that are linked so
   form a family: merged, split, regrouped, or one that stayed one.
3. The edges before are named after the new neurites, added up, and compared with those after.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.measure.contingency import Contingency, contingency, marginal
from emlib.measure.edges import ENDS, map_edges, sum_edges
from emlib.measure.instances import score_table
from emlib.measure.synapses.partners import largest_overlap

NODE_CHANGES = ("merged", "split", "regrouped", "gone", "new", "reshaped", "same")
EDGE_CHANGES = ("gained", "lost", "reweighted", "inside", "kept")
DEGREES = ("in_degree", "out_degree", "in_weight", "out_weight")


@dataclass(frozen=True)
class LabelChange:
    """Which neurite became which.

    Attributes
    ----------
    pairs : DataFrame
        A row for each neurite before with the one it shares most voxels with after, and for each after likewise; the
        largest families of changed neurites first. ``family``: number of the group of linked neurites, 1, 2, …;
        ``change``: "merged" (several became one), "split", "regrouped" (several became several), "gone", "new",
        "reshaped" (one stayed one, with other voxels) or "same"; ``before``, ``after``: ids, 0 where there is none;
        ``before_voxels``, ``after_voxels``, ``shared_voxels``.
    new_ids : dict of int to int
        The id after of each id before; those that are gone are left out.
    scores : dict
        ``voi_split``: bits by which neurites before are cut apart after; ``voi_merge``: bits by which they are joined;
        ``voi``, their sum; ``neurites_before``, ``neurites_after``; ``voxels_unlabelled``, which became background,
        and ``voxels_labelled``, which were; ``voxels_changed``, with these all that do not belong to the main part of
        the same neurite, and ``share_changed`` of all that are labelled before or after.
    """

    pairs: pd.DataFrame
    new_ids: dict[int, int]
    scores: dict[str, Any]

    def families(self) -> dict[str, int]:
        """Return how many families changed in which way; those that did not are left out."""
        counts = Counter(self.pairs.drop_duplicates("family")["change"])
        return {name: counts[name] for name in NODE_CHANGES[:-1] if counts[name]}


def compare_labels(before: np.ndarray, after: np.ndarray) -> LabelChange:
    """Find which neurite became which, and how far two label volumes are apart.

    Parameters
    ----------
    before, after : (Z, Y, X) integer arrays of one shape
        0 is background.

    Returns
    -------
    LabelChange
        VOI is over the voxels that both label, so that gaps between neurites, which one side has and the other has
        not, do not drown it; 0 and 0 for equal volumes, whatever their ids.

    Raises
    ------
    ValueError
        If the shapes differ or a dtype is not an integer.

    Examples
    --------
    >>> change = compare_labels(np.array([[[1, 1, 2, 3, 3]]]), np.array([[[1, 1, 1, 3, 4]]]))
    >>> change.pairs[["change", "before", "after", "shared_voxels"]].to_numpy().tolist()
    [['merged', 1, 1, 2], ['merged', 2, 1, 1], ['split', 3, 3, 1], ['split', 3, 4, 1]]
    >>> change.new_ids, change.scores["voi_split"], change.scores["voxels_changed"]
    ({1: 1, 2: 1, 3: 3}, 0.4, 2)
    """
    there, back = contingency(before, after), contingency(after, before)
    shared = there.keep(there.pred != 0)
    new_ids, old_ids = largest_overlap(back.keep(back.pred != 0)), largest_overlap(shared)
    sizes = {"before": _sizes(there), "after": _sizes(back)}
    links = {(old, new) for old, new in new_ids.items()} | {(old, new) for new, old in old_ids.items()}
    links |= {(old, 0) for old in sizes["before"] if old not in new_ids}
    links |= {(0, new) for new in sizes["after"] if new not in old_ids}
    overlap = dict(zip(zip(shared.truth.tolist(), shared.pred.tolist(), strict=True), shared.voxels, strict=True))
    pairs = pd.DataFrame(sorted(links), columns=["before", "after"], dtype=np.int64)
    for side, known in sizes.items():
        pairs[f"{side}_voxels"] = [known.get(one, 0) for one in pairs[side].tolist()]
    rows = zip(pairs["before"].tolist(), pairs["after"].tolist(), strict=True)
    pairs["shared_voxels"] = np.array([int(overlap.get(row, 0)) for row in rows], np.int64)
    labelled = sum(int(table.voxels.sum()) for table in (there, back)) - int(shared.voxels.sum())
    stayed = sum(int(overlap[old, new]) for old, new in new_ids.items() if old_ids.get(new) == old)
    voi = score_table(shared, zero="ignore")
    scores = {
        **{name: voi[name] if len(shared.voxels) else 0.0 for name in ("voi_split", "voi_merge", "voi")},
        **{f"neurites_{side}": len(known) for side, known in sizes.items()},
        "voxels_unlabelled": int(there.voxels[there.pred == 0].sum()),
        "voxels_labelled": int(back.voxels[back.pred == 0].sum()),
        "voxels_changed": labelled - stayed,
        "share_changed": (labelled - stayed) / max(labelled, 1),
    }
    return LabelChange(_with_families(pairs), new_ids, scores)


def _sizes(table: Contingency) -> dict[int, int]:
    """Voxels of each id of the first side of a table."""
    voxels = marginal(table.truth, table.voxels)[0].astype(np.int64)
    return dict(zip(np.unique(table.truth).tolist(), voxels.tolist(), strict=True))


def _with_families(pairs: pd.DataFrame) -> pd.DataFrame:
    """Number the groups of linked neurites, say what became of each, and sort: changed ones first, large ones first."""
    old, new = (pd.factorize(pairs[side])[0] for side in ("before", "after"))
    # Background links nobody: each id without a partner is a group of its own.
    own = len(pairs) + np.arange(len(pairs))
    old, new = np.where(pairs["before"] == 0, own, old), np.where(pairs["after"] == 0, own, new)
    links = coo_array((np.ones(len(pairs)), (old, 2 * len(pairs) + new)), shape=(4 * len(pairs) + 1,) * 2)
    pairs["group"] = connected_components(links, directed=False)[1][old]
    group = pairs.groupby("group")
    olds, news = (group[side].transform("nunique") for side in ("before", "after"))
    equal = (pairs["before_voxels"] == pairs["shared_voxels"]) & (pairs["after_voxels"] == pairs["shared_voxels"])
    cases = [pairs["after"] == 0, pairs["before"] == 0, (olds > 1) & (news > 1), olds > 1, news > 1, equal]
    pairs["change"] = np.select(cases, ["gone", "new", "regrouped", "merged", "split", "same"], "reshaped")
    # A family is as large as what is not its main part; a single neurite, as what it lost and gained.
    shared = pairs["shared_voxels"].groupby(pairs["group"])
    alone = pairs["before_voxels"] + pairs["after_voxels"] - 2 * pairs["shared_voxels"]
    voxels = (shared.transform("sum") - shared.transform("max")).where(shared.transform("size") > 1, alone)
    rank = pairs["change"].map({"reshaped": 1, "same": 2}).fillna(0)
    order = np.lexsort((pairs["after"], pairs["before"], pairs["group"], -voxels, rank))
    pairs = pairs.iloc[order].reset_index(drop=True)
    pairs.insert(0, "family", pd.factorize(pairs["group"])[0] + 1)
    pairs.insert(1, "change", pairs.pop("change"))
    return pairs.drop(columns="group")


def compare_edges(before: pd.DataFrame, after: pd.DataFrame, change: LabelChange) -> pd.DataFrame:
    """Compare the edges of two graphs by the names of the new neurites.

    Parameters
    ----------
    before, after : DataFrame
        ``source``, ``target``, ``weight``, each with the ids of its own labels.
    change : LabelChange

    Returns
    -------
    DataFrame, what changed first and most
        ``source``, ``target``: ids after; minus the id before of a neurite that is gone. ``change``: "gained", "lost",
        "reweighted", "inside" (both ends are one neurite now) or "kept". ``weight_before``, ``weight_after``: 0 where
        there is no such edge; edges before that join the same two neurites now are added up. ``edges_before``: what
        they were, as "5>8 6>8" by the ids before. ``source_change``, ``target_change``: what became of the neurites.

    Examples
    --------
    >>> change = compare_labels(np.array([[[1, 1, 2, 3, 3]]]), np.array([[[1, 1, 1, 3, 3]]]))
    >>> edges = pd.DataFrame({"source": [1, 2, 1], "target": [3, 3, 2], "weight": [2, 1, 1]})
    >>> after = pd.DataFrame({"source": [1], "target": [3], "weight": [4]})
    >>> found = compare_edges(edges, after, change)
    >>> found[["source", "target", "change", "weight_before", "weight_after", "edges_before"]].to_numpy().tolist()
    [[1, 3, 'reweighted', 3, 4, '1>3 2>3'], [1, 1, 'inside', 1, 0, '1>2']]
    """
    named, now = map_edges(before, change.new_ids)[0], sum_edges(after)[0]
    edges = named.merge(now, on=ENDS, how="outer", suffixes=("_before", "_after"), sort=True)
    for side in ("before", "after"):
        edges[f"weight_{side}"] = edges[f"weight_{side}"].fillna(0).astype(np.int64)
    was, is_now = edges["weight_before"], edges["weight_after"]
    cases = [edges["source"] == edges["target"], was == 0, is_now == 0, was != is_now]
    edges["change"] = np.select(cases, ["inside", "gained", "lost", "reweighted"], "kept")
    origins: dict[tuple[int, int], list[str]] = {}
    for source, target in sorted(sum_edges(before)[0][ENDS].itertuples(index=False, name=None)):
        ends = tuple(change.new_ids.get(one, -one) for one in (source, target))
        origins.setdefault(ends, []).append(f"{source}>{target}")
    ends = list(edges[ENDS].itertuples(index=False, name=None))
    edges["edges_before"] = [" ".join(origins.get(pair, [])) for pair in ends]
    became = dict(zip(change.pairs["after"].tolist(), change.pairs["change"], strict=True))
    for end in ENDS:
        edges[f"{end}_change"] = [became.get(one, "") if one > 0 else "gone" for one in edges[end].tolist()]
    rank = edges["change"].map({name: at for at, name in enumerate(EDGE_CHANGES)})
    order = np.lexsort((edges["target"], edges["source"], -(is_now - was).abs(), rank))
    columns = [*ENDS, "change", "weight_before", "weight_after", "edges_before", "source_change", "target_change"]
    return edges.iloc[order].reset_index(drop=True)[columns]


def node_changes(change: LabelChange, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of neurites with their degrees in the two graphs.

    Parameters
    ----------
    change : LabelChange
    before, after : DataFrame
        Edges as for `compare_edges`.

    Returns
    -------
    DataFrame
        The columns of ``LabelChange.pairs``, and ``in_degree``, ``out_degree`` (partners), ``in_weight``,
        ``out_weight`` (synapses), each with ``_before`` and ``_after``: of the two ids, each in the graph of its time.
    """
    table = change.pairs.copy()
    for side, edges in (("before", before), ("after", after)):
        found = degrees(edges).reindex(table[side], fill_value=0)
        for name in DEGREES:
            table[f"{name}_{side}"] = found[name].to_numpy()
    return table


def degree_changes(edges: pd.DataFrame) -> pd.DataFrame:
    """Return the neurites whose number of partners changed, by the names after, the largest change first.

    Parameters
    ----------
    edges : DataFrame
        From `compare_edges`.

    Returns
    -------
    DataFrame
        ``neurite_id``, ``in_before``, ``in_after``, ``out_before``, ``out_after``: partners; what was merged counts as
        one before, too.
    """
    sides = {}
    for side in ("before", "after"):
        there = edges[(edges[f"weight_{side}"] > 0) & (edges["change"] != "inside")]
        sides[side] = degrees(there[ENDS].assign(weight=there[f"weight_{side}"]))
    ids = sorted(one for one in set(sides["before"].index) | set(sides["after"].index) if one > 0)
    table = pd.DataFrame({"neurite_id": np.array(ids, np.int64)})
    for name, column in (("in", "in_degree"), ("out", "out_degree")):
        for side, known in sides.items():
            table[f"{name}_{side}"] = known[column].reindex(ids, fill_value=0).to_numpy(np.int64)
    size = sum((table[f"{name}_after"] - table[f"{name}_before"]).abs() for name in ("in", "out"))
    order = np.lexsort((table["neurite_id"], -size))
    return table.iloc[order][size.iloc[order] > 0].reset_index(drop=True)


def degrees(edges: pd.DataFrame) -> pd.DataFrame:
    """Return ``in_degree, out_degree, in_weight, out_weight`` of each neurite that an edge names, indexed by id."""
    ids = np.unique(edges[ENDS].to_numpy(np.int64))
    found = {}
    for side, end in (("in", "target"), ("out", "source")):
        grouped = edges.groupby(end)["weight"]
        found[f"{side}_degree"] = grouped.size().reindex(ids, fill_value=0)
        found[f"{side}_weight"] = grouped.sum().reindex(ids, fill_value=0)
    return pd.DataFrame(found, index=ids)[list(DEGREES)].astype(np.int64)


def graph_summary(edges: pd.DataFrame, change: LabelChange) -> dict[str, int]:
    """Count what became of nodes and edges.

    Parameters
    ----------
    edges : DataFrame
        From `compare_edges`.
    change : LabelChange

    Returns
    -------
    dict
        ``nodes_before``, ``nodes_after``, ``nodes_gained`` (connected now, and nothing that they were made of was),
        ``nodes_lost`` (connected before, and what they became is not), ``edges_before``, ``edges_after``, ``gained``,
        ``lost``, ``reweighted``, ``inside``, ``kept``, ``weight_before``, ``weight_after``, ``degrees_changed``.
    """
    names = [name for cell in edges["edges_before"] for pair in cell.split() for name in pair.split(">")]
    before, now = {int(name) for name in names}, set(edges.loc[edges["weight_after"] > 0, ENDS].to_numpy().ravel())
    family = {
        side: dict(zip(change.pairs[side].tolist(), change.pairs["family"].tolist(), strict=True))
        for side in ("before", "after")
    }
    was, is_now = {family["before"].get(n) for n in before}, {family["after"].get(n) for n in now}
    counts = Counter(edges["change"])
    return {
        "nodes_before": len(before),
        "nodes_after": len(now),
        "nodes_gained": sum(family["after"].get(n) not in was for n in now),
        "nodes_lost": sum(family["before"].get(n) not in is_now for n in before),
        "edges_before": sum(len(cell.split()) for cell in edges["edges_before"]),
        "edges_after": int((edges["weight_after"] > 0).sum()),
        **{name: counts[name] for name in EDGE_CHANGES},
        "weight_before": int(edges["weight_before"].sum()),
        "weight_after": int(edges["weight_after"].sum()),
        "degrees_changed": len(degree_changes(edges)),
    }
