"""Rooted trees in arrays: their preorder, sums over subtrees, and what crosses a tree's edge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree


class Forest(NamedTuple):
    """A spanning forest whose trees hang on one root, node 0, which is none of theirs.

    Attributes
    ----------
    parent : (N,) int array
        0 for the root of a tree; -1 for node 0.
    place : (N,) int array
        Position in preorder: a subtree takes up ``size`` positions from that of its root.
    size : (N,) int array
    depth : (N,) int array
    """

    parent: np.ndarray
    place: np.ndarray
    size: np.ndarray
    depth: np.ndarray

    def below(self, values: np.ndarray) -> np.ndarray:
        """Return the sums over each subtree of values (N, K) of its nodes."""
        running = np.zeros((len(values) + 1, values.shape[1]))
        running[self.place + 1] = values
        running = np.cumsum(running, axis=0)
        return running[self.place + self.size] - running[self.place]

    def meeting(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the lowest node that has both nodes of each pair below it or is one of them.

        Notes
        -----
        Of the nodes after one and up to the other in preorder, the highest hangs on it (Bender and Farach-Colton 2000,
        with a sparse table).
        """
        low, high = np.minimum(self.place[first], self.place[second]), np.maximum(self.place[first], self.place[second])
        node = np.empty(len(self.place), np.int64)
        node[self.place] = np.arange(len(self.place))
        table = [node]
        while 2 * (step := 2 ** (len(table) - 1)) <= len(node):
            left, right = table[-1][:-step], table[-1][step:]
            table.append(np.where(self.depth[left] <= self.depth[right], left, right))
        span = high - low
        level = np.zeros(len(span), np.int64)
        for power in range(1, len(table)):
            level[span >= 2**power] = power
        best = node[low]
        for power, row in enumerate(table):
            here = np.flatnonzero((level == power) & (span > 0))
            left, right = row[low[here] + 1], row[high[here] + 1 - 2**power]
            best[here] = self.parent[np.where(self.depth[left] <= self.depth[right], left, right)]
        return best

    def crossing(self, first: np.ndarray, second: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return for each subtree the sums of what lies between it and the rest.

        Parameters
        ----------
        first, second : (E,) int arrays
            Nodes of one tree each.
        values : (E, K) array
        """
        meeting = self.meeting(first, second)
        total = []
        for column in values.T:
            one, other, inside = (np.bincount(end, column, len(self.place)) for end in (first, second, meeting))
            total.append(one + other - 2 * inside)
        return self.below(np.stack(total, axis=1))


def spanning_forest(count: int, first: np.ndarray, second: np.ndarray, strength: np.ndarray) -> Forest:
    """Join nodes by their strongest edges.

    Parameters
    ----------
    count : int
        Nodes; node 0 has no edge.
    first, second : (E,) int arrays
    strength : (E,) array

    Examples
    --------
    >>> forest = spanning_forest(4, np.array([1, 2, 1]), np.array([2, 3, 3]), np.array([9.0, 1.0, 5.0]))
    >>> forest.parent.tolist(), forest.size.tolist()
    ([-1, 0, 1, 1], [4, 3, 1, 1])
    """
    rank = np.empty(len(strength))
    rank[np.argsort(-strength, kind="stable")] = np.arange(1, len(strength) + 1)
    tree = minimum_spanning_tree(coo_array((rank, (first, second)), (count, count)).tocsr()).tocoo()
    group = connected_components(tree, directed=False)[1]
    roots = np.unique(group, return_index=True)[1][1:]  # node 0 is the first of its own group
    rows = np.concatenate([tree.row, np.zeros(len(roots), np.int64)])
    columns = np.concatenate([tree.col, roots])
    whole = coo_array((np.ones(len(rows)), (rows, columns)), (count, count)).tocsr()
    order, parent = breadth_first_order(whole, 0, directed=False)
    parent = np.where(parent < 0, -1, parent)
    return _preorder(order, parent)


def _preorder(order: np.ndarray, parent: np.ndarray) -> Forest:
    """Positions, sizes and depths from parents and an order in which they come before their children."""
    above, nodes = parent.tolist(), order.tolist()
    size, place, depth = [1] * len(above), [0] * len(above), [0] * len(above)
    for node in reversed(nodes[1:]):
        size[above[node]] += size[node]
    free = [1] * len(above)  # the next free position below a node, from its own
    for node in nodes[1:]:
        up = above[node]
        place[node], depth[node] = place[up] + free[up], depth[up] + 1
        free[up] += size[node]
    return Forest(parent, *(np.array(values, np.int64) for values in (place, size, depth)))
