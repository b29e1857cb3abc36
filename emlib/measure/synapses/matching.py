"""Places of predicted synapses against truth: one-to-one matching, precision and recall, average precision.

Positions are compared in nm. A prediction and a truth may be matched when they lie at most ``max_distance_nm`` apart
(inclusive) and each is matched once. Precision without predictions and recall without truth are undefined: NaN.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from emlib.measure.synapses.assignment import SynapseMatch, Voxel, assign_pairs, near_pairs

MAX_DISTANCE_NM = 200.0


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
    return assign_pairs(
        *near_pairs(pred, truth, voxel_size_nm, max_distance_nm), len(pred), len(truth), max_distance_nm
    )


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
    hits = _greedy_hits(order, *near_pairs(pred, truth, voxel_size_nm, max_distance_nm), len(truth))
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
    return labels_to_table(ndi.label(mask, structure)[0], voxel_size_nm, per_section, min_size)


def labels_to_table(
    labels: np.ndarray, voxel_size_nm: Voxel, per_section: bool = False, min_size: float = 0.0
) -> pd.DataFrame:
    """Centroids of synapses that each have an id of their own, in one piece or in several.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        0 is background.
    voxel_size_nm : (z, y, x) in nm
    per_section : bool
        An id counts once in each section that it reaches.
    min_size : float
        Smaller ones are ignored; in nm² with ``per_section``, else in nm³.

    Returns
    -------
    DataFrame
        As `components_to_table`.

    Examples
    --------
    >>> labels_to_table(np.array([[[7, 7, 7, 0, 2]]]), (10, 10, 10))
         z    y    x    size
    0  0.0  0.0  1.0  3000.0
    1  0.0  0.0  4.0  1000.0
    """
    labels = np.asarray(labels)
    places = np.nonzero(labels)
    which, _ = pd.factorize(labels[places])
    if per_section:
        which, _ = pd.factorize(which * np.int64(labels.shape[0]) + places[0])
    voxels = np.bincount(which)
    centres = {axis: np.bincount(which, weights=place) / voxels for axis, place in zip("zyx", places, strict=True)}
    size = voxels * float(np.prod(voxel_size_nm[1:] if per_section else voxel_size_nm))
    table = pd.DataFrame(centres).astype(float).assign(size=size)
    return table[table["size"] >= min_size].reset_index(drop=True)


def _greedy_hits(order: np.ndarray, i: np.ndarray, j: np.ndarray, distance: np.ndarray, n_truth: int) -> np.ndarray:
    """Whether each prediction, taken in this order, finds a free truth."""
    sort = np.lexsort((j, distance, i))
    i, j = i[sort], j[sort]
    start, stop = np.searchsorted(i, order), np.searchsorted(i, order, side="right")
    free = np.ones(n_truth, bool)
    hits = np.zeros(len(order), bool)
    for rank in np.flatnonzero(start < stop):  # most predictions have no truth within reach
        near = j[start[rank] : stop[rank]]
        open_ = near[free[near]]
        if len(open_):
            free[open_[0]] = False
            hits[rank] = True
    return hits
