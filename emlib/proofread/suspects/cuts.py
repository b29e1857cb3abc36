"""Neurites that may be two: the places where they hang together by little.

The strongest contacts between the fragments of a neurite form a tree. Each edge of it cuts the neurite in two, and no
other cut has its strongest contact as weak; all contacts between the two sides are added up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.proofread.suspects.contacts import Contacts
from emlib.proofread.suspects.evidence import Sides
from emlib.proofread.suspects.trees import Forest, spanning_forest


class Cuts(NamedTuple):
    """Ways to cut neurites in two.

    Attributes
    ----------
    ids : (P,) int array
        Of the neurite.
    edge : (P,) int array
        The contact to look at: the strongest between the two sides.
    node : (P,) int array
        The fragment below which one side lies.
    span : (P, 2) int array
        The positions of that side's fragments in the preorder of the forest; ends are exclusive.
    tree : (P,) int array
        The root of its tree; a neurite of several pieces has several.
    below : (P,) array
        Volume of that side in nm³.
    sides : Sides
    forest : Forest
        Of all fragments.
    """

    ids: np.ndarray
    edge: np.ndarray
    node: np.ndarray
    span: np.ndarray
    tree: np.ndarray
    below: np.ndarray
    sides: Sides
    forest: Forest

    def members(self, row: int) -> np.ndarray:
        """Return the fragments of one side."""
        start, end = self.span[row]
        return np.flatnonzero((self.forest.place >= start) & (self.forest.place < end))


def find_cuts(contacts: Contacts, voxel_nm3: float, least_nm3: float) -> Cuts:
    """Find where neurites hang together by little.

    Parameters
    ----------
    contacts : Contacts
    voxel_nm3 : float
        Volume of a voxel.
    least_nm3 : float
        Both sides are at least as large.
    """
    count = len(contacts.neurite)
    first, second = contacts.ends.T
    same = contacts.neurite[first] == contacts.neurite[second]
    edges = np.flatnonzero(same & (contacts.neurite[first] > 0))
    forest = spanning_forest(count, first[edges], second[edges], contacts.cost[edges])
    other = np.zeros(count)
    for end in (first, second):
        other += np.bincount(end[~same], contacts.area[~same], count)
    own = np.stack([contacts.voxels * voxel_nm3, contacts.border + other, *contacts.faces.T], axis=1)
    below = forest.below(own)
    crossing = forest.crossing(first[edges], second[edges], np.c_[contacts.sums[edges], contacts.area[edges]])
    top = _tops(forest)
    above = below[top] - below
    nodes = np.flatnonzero((forest.parent > 0) & (np.minimum(below[:, 0], above[:, 0]) >= least_nm3))
    edge = _edge_of(forest, edges, first, second)[nodes]
    parts = np.stack([below[nodes], above[nodes]], axis=1)
    parts[:, :, 1] += crossing[nodes, -1:]
    order = np.argsort(parts[:, :, 0], axis=1, kind="stable")
    parts = np.take_along_axis(parts, order[:, :, None], axis=1)
    strongest = contacts.strength[edge]
    sides = Sides(crossing[nodes, :-1], strongest, parts[:, :, 0], parts[:, :, 1], parts[:, :, 2:] > 0.5)
    span = np.stack([forest.place[nodes], forest.place[nodes] + forest.size[nodes]], axis=1)
    return Cuts(contacts.neurite[nodes], edge, nodes, span, top[nodes], below[nodes, 0], sides, forest)


def _tops(forest: Forest) -> np.ndarray:
    """The root of each node's tree; 0 for node 0."""
    order = np.argsort(forest.place)
    starts = np.flatnonzero(forest.parent[order] == 0)
    top = np.zeros(len(order), np.int64)
    which = np.searchsorted(starts, np.arange(len(order)), "right") - 1
    top[order[1:]] = order[starts[which[1:]]]
    return top


def _edge_of(forest: Forest, edges: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The contact between each node and its parent."""
    edge = np.zeros(len(forest.parent), np.int64)
    for child, up in ((first, second), (second, first)):
        here = edges[forest.parent[child[edges]] == up[edges]]
        edge[child[here]] = here
    return edge


def distinct(cuts: Cuts, score: np.ndarray, each: int) -> np.ndarray:
    """Leave out cuts that part a neurite nearly as a better one does.

    Parameters
    ----------
    cuts : Cuts
    score : (P,) array
        Higher is better.
    each : int
        At most so many of a neurite.

    Returns
    -------
    (K,) int array
        Rows, the best first. Of two cuts of a neurite whose smaller sides are the same for the most part (their
        intersection is more than half of their union) only the better stays.
    """
    kept: list[int] = []
    order = np.lexsort((-score, cuts.ids))
    for rows in np.split(order, np.flatnonzero(np.diff(cuts.ids[order])) + 1):
        for _ in range(each):
            if len(rows):
                kept.append(int(rows[0]))
                rows = rows[1:][_overlap(cuts, rows[0], rows[1:]) <= 0.5]
    found = np.array(kept, np.int64)
    return found[np.argsort(-score[found], kind="stable")]


def _overlap(cuts: Cuts, one: int, others: np.ndarray) -> np.ndarray:
    """Intersection over union of the smaller sides of a cut and of others, by volume."""
    start, end = cuts.span[one]
    starts, ends = cuts.span[others].T
    within, around = (start <= starts) & (starts < end), (starts <= start) & (start < ends)
    mine, theirs, whole = cuts.below[one], cuts.below[others], cuts.sides.volume[one].sum()
    shared = np.where(within, theirs, np.where(around, mine, 0.0))  # subtrees lie in each other or apart
    turned, their_turn = 2 * mine > whole, 2 * theirs > whole
    both = whole - mine - theirs + shared
    shared = np.select([their_turn & turned, their_turn, turned], [both, mine - shared, theirs - shared], shared)
    union = np.minimum(mine, whole - mine) + np.minimum(theirs, whole - theirs) - shared
    return np.where(cuts.tree[others] == cuts.tree[one], shared / np.maximum(union, 1e-9), 0.0)
