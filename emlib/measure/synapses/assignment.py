"""Which prediction is which truth: pairs within reach of each other, and the best one-to-one choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emlib.errors import UserError

Voxel = tuple[float, float, float]
MOST_NEAR = 200  # pairs per synapse; neuropil has one synapse per µm³ or so, and a few within 200 nm
SLACK = 1 + 1e-9  # a distance that equals the limit but for rounding counts as within


@dataclass(frozen=True)
class SynapseMatch:
    """Which prediction is which truth.

    Attributes
    ----------
    pairs : DataFrame
        ``pred``, ``truth`` (row positions in the two tables, int64) and ``distance_nm``; sorted by ``pred``.
    n_pred, n_truth : int
        Rows of the two tables.
    """

    pairs: pd.DataFrame
    n_pred: int
    n_truth: int

    @property
    def precision(self) -> float:
        """Matched share of the predictions; NaN without predictions."""
        return len(self.pairs) / self.n_pred if self.n_pred else float("nan")

    @property
    def recall(self) -> float:
        """Matched share of the truth; NaN without truth."""
        return len(self.pairs) / self.n_truth if self.n_truth else float("nan")

    @property
    def f1(self) -> float:
        """2 · matched / (predictions + truth); NaN if both are empty."""
        total = self.n_pred + self.n_truth
        return 2 * len(self.pairs) / total if total else float("nan")


def near_pairs(
    pred: pd.DataFrame, truth: pd.DataFrame, voxel_size_nm: Voxel, max_distance_nm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find every prediction and truth that lie within reach of each other.

    Parameters
    ----------
    pred, truth : DataFrame
        Columns ``z, y, x`` in voxels.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest pair, inclusive.

    Returns
    -------
    pred, truth : (P,) int64 arrays
        Row positions in the two tables, in ascending order.
    distance_nm : (P,) float64 array

    Raises
    ------
    UserError
        If synapses have hundreds of others within reach on average: then any place would be a match.
    """
    a, b = (table[["z", "y", "x"]].to_numpy(np.float64) * voxel_size_nm for table in (pred, truth))
    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    trees, reach = (cKDTree(a), cKDTree(b)), max_distance_nm * SLACK
    crowd = trees[0].count_neighbors(trees[1], reach) / max(len(a), len(b))
    if crowd > MOST_NEAR:
        raise UserError(
            f"a synapse has {crowd:.0f} others within {max_distance_nm:g} nm on average, too many to tell them apart; "
            "are the places in voxels, and are --voxel_size and --max_distance_nm in nm?"
        )
    near = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    order = np.lexsort((near["j"], near["i"]))
    return near["i"][order].astype(np.int64), near["j"][order].astype(np.int64), near["v"][order]


def assign_pairs(
    i: np.ndarray,
    j: np.ndarray,
    distance: np.ndarray,
    n_pred: int,
    n_truth: int,
    max_distance_nm: float,
    preferred: np.ndarray | None = None,
) -> SynapseMatch:
    """Choose the largest, then nearest, one-to-one subset of allowed pairs.

    Parameters
    ----------
    i, j, distance : (P,) arrays
        Row in the predictions, row in the truth and distance in nm of each pair, from `near_pairs`.
    n_pred, n_truth : int
        Rows of the two tables.
    max_distance_nm : float
        No distance is larger.
    preferred : (P,) bool array, optional
        Of equally large subsets those with most preferred pairs are taken, and of these the nearest.

    Returns
    -------
    SynapseMatch
    """
    chosen = []
    preferred = np.ones(len(i), bool) if preferred is None else preferred
    if len(i):
        nodes = n_pred + n_truth
        links = coo_array((np.ones(len(i), bool), (i, n_pred + j)), shape=(nodes, nodes))
        group = connected_components(links, directed=False)[1][i]
        order = np.argsort(group, kind="stable")
        alone = np.bincount(group)[group[order]] == 1
        chosen.append(order[alone])
        order = order[~alone]
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else ():
            chosen.append(rows[_assign_group(i[rows], j[rows], distance[rows], max_distance_nm, preferred[rows])])
    kept = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    pairs = pd.DataFrame({"pred": i[kept], "truth": j[kept], "distance_nm": distance[kept]})
    return SynapseMatch(pairs.sort_values("pred", ignore_index=True), n_pred, n_truth)


def _assign_group(
    i: np.ndarray, j: np.ndarray, distance: np.ndarray, max_distance_nm: float, preferred: np.ndarray
) -> np.ndarray:
    """Positions of the chosen pairs among pairs that compete."""
    pred, p = np.unique(i, return_inverse=True)
    truth, t = np.unique(j, return_inverse=True)
    which = np.full((len(pred), len(truth)), -1)
    which[p, t] = np.arange(len(i))
    # A preferred pair outweighs all distances, one match more all preferences; a pair out of reach costs nothing and
    # counts as no match.
    most = min(which.shape) + 1
    step = 0.0 if preferred.all() else most * max_distance_nm * SLACK + 1
    bonus = most * (max_distance_nm * SLACK + step) + 1
    cost = np.zeros(which.shape)
    cost[p, t] = distance + step * ~preferred - bonus
    picked = which[linear_sum_assignment(cost)]
    return picked[picked >= 0]
