"""Scores of predicted synapses against truth: one-to-one matching, precision and recall, average precision, partners.

Positions are compared in nm. A prediction and a truth may be matched when they lie at most ``max_distance_nm`` apart
(inclusive) and each is matched once. Precision without predictions and recall without truth are undefined: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emlib.measure.instances import contingency

Voxel = tuple[float, float, float]
Partners = Literal["any", "unordered", "ordered"]
MAX_DISTANCE_NM = 200.0
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


@dataclass(frozen=True)
class PartnerScores:
    """Synapses that are right in place and in both partners.

    Attributes
    ----------
    ordered : SynapseMatch
        Matching in which place, pre and post all have to agree.
    unordered : SynapseMatch
        Matching in which place and the two neurites have to agree, whichever is pre.
    direction_accuracy : float
        Share of the pairs of ``unordered`` whose pre side is right; chance is 0.5; NaN without pairs.
    """

    ordered: SynapseMatch
    unordered: SynapseMatch
    direction_accuracy: float


def match_synapses(
    pred: pd.DataFrame, truth: pd.DataFrame, voxel_size_nm: Voxel, max_distance_nm: float = MAX_DISTANCE_NM
) -> SynapseMatch:
    """Match predicted to true synapses one to one: as many as possible, then as near as possible.

    Parameters
    ----------
    pred, truth : DataFrame
        Columns ``z, y, x`` in voxels; other columns are not looked at.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.

    Returns
    -------
    SynapseMatch

    Notes
    -----
    The assignment problem (Kuhn 1955) is solved exactly, per group of synapses that compete with each other, with
    ``scipy.optimize.linear_sum_assignment``.

    Examples
    --------
    >>> truth = pd.DataFrame({"z": [0, 0], "y": [0, 0], "x": [0, 30]})
    >>> pred = pd.DataFrame({"z": [0, 0, 5], "y": [1, 0, 50], "x": [14, 12, 90]})
    >>> result = match_synapses(pred, truth, (10, 10, 10))
    >>> result.pairs["truth"].tolist(), round(result.precision, 2), result.recall
    ([1, 0], 0.67, 1.0)
    """
    return _assign(*_near_pairs(pred, truth, voxel_size_nm, max_distance_nm), len(pred), len(truth), max_distance_nm)


def score_partners(
    pred: pd.DataFrame,
    truth: pd.DataFrame,
    voxel_size_nm: Voxel,
    max_distance_nm: float = MAX_DISTANCE_NM,
    id_map: dict[int, int] | None = None,
) -> PartnerScores:
    """Match synapses whose partners are right as well.

    Parameters
    ----------
    pred, truth : DataFrame
        Columns ``z, y, x`` in voxels, ``pre_id``, ``post_id``. A synapse with several receivers has a row for each.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.
    id_map : dict, optional
        True id of each predicted id, from ``map_ids_by_overlap``; an id that is not in it matches nothing. None: both
        tables use the same ids.

    Returns
    -------
    PartnerScores
    """
    i, j, distance = _near_pairs(pred, truth, voxel_size_nm, max_distance_nm)
    pre, post = (_mapped(pred[name], id_map)[i] for name in ("pre_id", "post_id"))
    true_pre, true_post = (truth[name].to_numpy(np.int64)[j] for name in ("pre_id", "post_id"))
    ordered = (pre == true_pre) & (post == true_post)
    either = ordered | ((pre == true_post) & (post == true_pre))
    sizes = len(pred), len(truth), max_distance_nm
    directed = _assign(i[ordered], j[ordered], distance[ordered], *sizes)
    undirected = _assign(i[either], j[either], distance[either], *sizes)
    p, t = (undirected.pairs[name].to_numpy() for name in ("pred", "truth"))
    right = _mapped(pred["pre_id"], id_map)[p] == truth["pre_id"].to_numpy(np.int64)[t]
    return PartnerScores(directed, undirected, float(right.mean()) if len(right) else float("nan"))


def pr_curve(
    pred: pd.DataFrame, truth: pd.DataFrame, voxel_size_nm: Voxel, max_distance_nm: float = MAX_DISTANCE_NM
) -> pd.DataFrame:
    """Precision and recall when predictions are accepted from the best score down.

    Parameters
    ----------
    pred : DataFrame
        Columns ``z, y, x`` in voxels and ``score``; higher is surer.
    truth : DataFrame
        Columns ``z, y, x`` in voxels.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.

    Returns
    -------
    DataFrame
        ``threshold`` (descending, one row per distinct score), ``precision``, ``recall``, ``f1`` of the predictions
        that score at least as much. Without predictions there are no rows; without truth ``recall`` is NaN.

    Notes
    -----
    Greedy: in the order of the scores (equal ones in the order z, y, x), each prediction takes the nearest truth within
    reach that is still free, as in COCO (Lin et al. 2014). A curve needs matches that never change as the threshold
    falls, which the exact assignment of ``match_synapses`` does not give; the two may differ by a few matches.
    """
    score = pred["score"].to_numpy(np.float64)
    order = np.lexsort((pred["x"], pred["y"], pred["z"], -score))
    hits = _greedy_hits(order, *_near_pairs(pred, truth, voxel_size_nm, max_distance_nm), len(truth))
    score = score[order]
    matched, accepted = np.cumsum(hits), np.arange(1, len(score) + 1)
    last = np.diff(score, append=-np.inf) != 0 if len(score) else np.zeros(0, bool)
    matched, accepted = matched[last], accepted[last]
    recall = matched / len(truth) if len(truth) else np.full(len(matched), np.nan)
    columns = {"threshold": score[last], "precision": matched / accepted, "recall": recall}
    return pd.DataFrame(columns | {"f1": 2 * matched / (accepted + len(truth))}).astype(float)


def average_precision(curve: pd.DataFrame) -> float:
    """Area under a precision-recall curve as the plain sum Σ (Rₙ − Rₙ₋₁) Pₙ, without interpolation.

    Parameters
    ----------
    curve : DataFrame
        From ``pr_curve``.

    Returns
    -------
    float in [0, 1]
        0 without predictions; NaN without truth.

    Notes
    -----
    The definition of ``sklearn.metrics.average_precision_score``; truth that no prediction finds adds nothing.
    """
    steps = np.diff(curve["recall"].to_numpy(), prepend=0.0)
    return float(steps @ curve["precision"].to_numpy())


def map_ids_by_overlap(pred_labels: np.ndarray, truth_labels: np.ndarray) -> dict[int, int]:
    """True id that each predicted id overlaps most.

    Parameters
    ----------
    pred_labels, truth_labels : integer arrays of one shape
        0 is background, in both; a voxel that is 0 in either is not counted.

    Returns
    -------
    dict of int to int
        Predicted ids that overlap no true id are left out; of equal overlaps the smaller true id wins.

    Raises
    ------
    ValueError
        If the shapes differ or a dtype is not an integer.
    """
    table = contingency(truth_labels, pred_labels)
    order = np.lexsort((table.truth, -table.voxels, table.pred))
    pred, truth = table.pred[order], table.truth[order]
    best = (pred != 0) & np.concatenate([[True], pred[1:] != pred[:-1]])[: len(pred)]
    return dict(zip(pred[best].tolist(), truth[best].tolist(), strict=True))


def components_to_table(
    mask: np.ndarray, voxel_size_nm: Voxel, per_section: bool = False, min_size: float = 0.0
) -> pd.DataFrame:
    """Centroids of the connected components of a synapse mask.

    Parameters
    ----------
    mask : (Z, Y, X) array
        Synapses where not 0.
    voxel_size_nm : (z, y, x) in nm
    per_section : bool
        Components within each section for itself, for sections that are not neighbours; else in 3D.
    min_size : float
        Smaller components are ignored; in nm² with ``per_section``, else in nm³.

    Returns
    -------
    DataFrame
        ``z, y, x`` (float64, voxels) and ``size`` (nm² or nm³), in the order of the components' first voxels. Voxels
        that touch by a corner belong together.
    """
    mask = np.asarray(mask) != 0
    if mask.ndim != 3:
        raise ValueError(f"the mask must be (Z, Y, X), got shape {mask.shape}")
    structure = np.ones((3, 3, 3), bool)
    if per_section:
        structure[[0, 2]] = False
    labels, count = ndi.label(mask, structure)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    size = voxels * float(np.prod(voxel_size_nm[1:] if per_section else voxel_size_nm))
    centres = np.asarray(ndi.center_of_mass(mask, labels, np.arange(1, count + 1)), float).reshape(count, 3)
    table = pd.DataFrame(centres, columns=["z", "y", "x"]).assign(size=size)
    return table[table["size"] >= min_size].reset_index(drop=True)


def _near_pairs(
    pred: pd.DataFrame, truth: pd.DataFrame, voxel_size_nm: Voxel, max_distance_nm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of pred, rows of truth and the distance of every pair within reach."""
    a, b = (table[["z", "y", "x"]].to_numpy(np.float64) * voxel_size_nm for table in (pred, truth))
    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), max_distance_nm * SLACK, output_type="ndarray")
    order = np.lexsort((near["j"], near["i"]))
    return near["i"][order].astype(np.int64), near["j"][order].astype(np.int64), near["v"][order]


def _assign(
    i: np.ndarray, j: np.ndarray, distance: np.ndarray, n_pred: int, n_truth: int, max_distance_nm: float
) -> SynapseMatch:
    """Largest, then nearest, one-to-one subset of the allowed pairs (i, j)."""
    chosen = []
    if len(i):
        nodes = n_pred + n_truth
        links = coo_array((np.ones(len(i), bool), (i, n_pred + j)), shape=(nodes, nodes))
        group = connected_components(links, directed=False)[1][i]
        order = np.argsort(group, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            chosen.append(rows[_assign_group(i[rows], j[rows], distance[rows], max_distance_nm)])
    kept = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    pairs = pd.DataFrame({"pred": i[kept], "truth": j[kept], "distance_nm": distance[kept]})
    return SynapseMatch(pairs.sort_values("pred", ignore_index=True), n_pred, n_truth)


def _assign_group(i: np.ndarray, j: np.ndarray, distance: np.ndarray, max_distance_nm: float) -> np.ndarray:
    """Positions of the chosen pairs among pairs that compete."""
    pred, p = np.unique(i, return_inverse=True)
    truth, t = np.unique(j, return_inverse=True)
    which = np.full((len(pred), len(truth)), -1)
    which[p, t] = np.arange(len(i))
    # One match more outweighs every distance; a pair out of reach costs nothing and counts as no match.
    bonus = (min(which.shape) + 1) * max_distance_nm * SLACK + 1
    cost = np.zeros(which.shape)
    cost[p, t] = distance - bonus
    picked = which[linear_sum_assignment(cost)]
    return picked[picked >= 0]


def _greedy_hits(order: np.ndarray, i: np.ndarray, j: np.ndarray, distance: np.ndarray, n_truth: int) -> np.ndarray:
    """Whether each prediction, taken in this order, finds a free truth."""
    sort = np.lexsort((j, distance, i))
    i, j = i[sort], j[sort]
    start, stop = np.searchsorted(i, order), np.searchsorted(i, order, side="right")
    free = np.ones(n_truth, bool)
    hits = np.zeros(len(order), bool)
    for rank, (a, b) in enumerate(zip(start, stop, strict=True)):
        open_ = j[a:b][free[j[a:b]]]
        if len(open_):
            free[open_[0]] = False
            hits[rank] = True
    return hits


def _mapped(ids: pd.Series, id_map: dict[int, int] | None) -> np.ndarray:
    """True ids of predicted ids; −1 where there is none."""
    values = ids.to_numpy(np.int64)
    return values if id_map is None else np.array([id_map.get(value, -1) for value in values.tolist()], np.int64)
