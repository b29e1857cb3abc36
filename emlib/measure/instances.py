"""Scores of an instance segmentation against truth: variation of information, adapted Rand error, CREMI score.

All come from one sparse contingency table, the number of voxels that each pair (true id, predicted id) shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emlib.threads import map_threads

ZERO_CHOICES = ("fill", "background", "singletons", "ignore")


@dataclass(frozen=True)
class Contingency:
    """Voxels shared by each pair of ids that occurs, sorted by (truth, pred).

    Attributes
    ----------
    truth, pred : (P,) int64 or uint64 arrays
        The ids of each pair.
    voxels : (P,) int64 array
        How many voxels carry the pair.
    """

    truth: np.ndarray
    pred: np.ndarray
    voxels: np.ndarray


def contingency(truth: np.ndarray, pred: np.ndarray) -> Contingency:
    """Count the voxels of each (true id, predicted id) pair where truth is not 0.

    Parameters
    ----------
    truth, pred : integer arrays of one shape
        Any integer dtype; ids of any size. ``truth == 0`` is unlabelled and left out; ``pred == 0`` is an id like any
        other (see ``fill_zero`` for what else can be done with it).

    Returns
    -------
    Contingency

    Raises
    ------
    ValueError
        If the shapes differ or a dtype is not an integer.
    """
    truth, pred = np.asarray(truth), np.asarray(pred)
    if truth.shape != pred.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {pred.shape}: they must be equal")
    for name, array in (("truth", truth), ("prediction", pred)):
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} has dtype {array.dtype}: labels must be integers")
    truth, pred = truth.ravel(), pred.ravel()
    if truth.size == 0:
        return Contingency(truth[:0].astype(np.int64), pred[:0].astype(np.int64), np.zeros(0, np.int64))
    # Labels are constant over long runs along x, so counting runs instead of voxels makes the sort ten times shorter.
    starts = np.flatnonzero((truth[1:] != truth[:-1]) | (pred[1:] != pred[:-1])) + 1
    starts = np.concatenate([[0], starts])
    lengths = np.diff(starts, append=truth.size)
    known = truth[starts] != 0
    starts, lengths = starts[known], lengths[known]
    truth_ids, t = np.unique(truth[starts], return_inverse=True)
    pred_ids, p = np.unique(pred[starts], return_inverse=True)
    pairs, which = np.unique(t * np.int64(max(len(pred_ids), 1)) + p, return_inverse=True)
    voxels = np.bincount(which, weights=lengths, minlength=len(pairs)).astype(np.int64)
    return Contingency(truth_ids[pairs // max(len(pred_ids), 1)], pred_ids[pairs % max(len(pred_ids), 1)], voxels)


def fill_zero(labels: np.ndarray) -> np.ndarray:
    """Give each 0 voxel the nearest label of its own section; a section without any label stays 0.

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) integer array

    Returns
    -------
    array of the same shape and dtype
    """
    if labels.all():
        return labels
    sections = labels.reshape((-1, *labels.shape[-2:]))

    def fill(section: np.ndarray) -> np.ndarray:
        hole = section == 0
        if not hole.any() or hole.all():
            return section
        index = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
        return section[tuple(index)]

    return np.stack(map_threads(fill, sections)).reshape(labels.shape)


def score_instances(truth: np.ndarray, pred: np.ndarray, *, zero: str = "fill") -> dict[str, float]:
    """Score an instance segmentation against truth.

    Parameters
    ----------
    truth : (Z, Y, X) integer array
        0 is unlabelled and ignored.
    pred : (Z, Y, X) integer array
    zero : {"fill", "background", "singletons", "ignore"}
        What becomes of voxels that the prediction leaves 0: the nearest label of the same section, one segment of its
        own, one segment per voxel, or left out.

    Returns
    -------
    dict
        ``voi_split`` = H(pred | truth) and ``voi_merge`` = H(truth | pred) in bits, their sum ``voi``, ``arand``
        (adapted Rand error, 0 is perfect) with ``rand_precision`` (low when neurites are merged) and ``rand_recall``
        (low when they are split), ``cremi_score`` = sqrt(arand · voi), ``voxels`` compared, ``true_segments``,
        ``pred_segments``. All scores are NaN when no labelled voxel is left.

    Raises
    ------
    ValueError
        If the shapes differ, a dtype is not an integer, or ``zero`` is unknown.

    Notes
    -----
    Variation of information: Meila 2007, split into its two conditional entropies as in Nunez-Iglesias et al. 2013.
    Adapted Rand error: 1 minus the F-score of the Rand index (Arganda-Carreras et al. 2015), here over all labelled
    voxels in the CREMI manner: pairs of a voxel with itself are counted, which vanishes for large volumes.
    scikit-image 0.26's ``adapted_rand_error`` returns precision and recall the other way round.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 2, 2]]])
    >>> scores = score_instances(truth, np.array([[[1, 1, 1, 1]]]))
    >>> scores["voi_split"], scores["voi_merge"], scores["rand_precision"], scores["rand_recall"]
    (0.0, 1.0, 0.5, 1.0)
    """
    if zero not in ZERO_CHOICES:
        raise ValueError(f"zero must be one of {', '.join(ZERO_CHOICES)}, got {zero!r}")
    if zero == "fill":
        pred = fill_zero(np.asarray(pred))
    table = contingency(truth, pred)
    if zero == "ignore":
        keep = table.pred != 0
        table = Contingency(table.truth[keep], table.pred[keep], table.voxels[keep])
    elif zero == "singletons":
        table = _singletons(table)
    return _scores(table)


def _singletons(table: Contingency) -> Contingency:
    """Make each voxel with predicted 0 a segment of its own."""
    zero = table.pred == 0
    counts = table.voxels[zero]
    # New ids only need to differ from each other and from those in use: renumber what is there first.
    pred = np.unique(table.pred[~zero], return_inverse=True)[1]
    single = np.arange(counts.sum(), dtype=np.int64) + (pred.max() + 1 if len(pred) else 0)
    return Contingency(
        np.concatenate([table.truth[~zero], np.repeat(table.truth[zero], counts)]),
        np.concatenate([pred, single]),
        np.concatenate([table.voxels[~zero], np.ones(len(single), np.int64)]),
    )


def _marginal(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum the weights of each id; one entry per distinct id."""
    return np.bincount(np.unique(ids, return_inverse=True)[1], weights=weights)


def _entropy_bits(p: np.ndarray) -> float:
    return float(-(p * np.log2(p)).sum())


def _scores(table: Contingency) -> dict[str, float]:
    """Scores from the contingency table alone."""
    total = table.voxels.sum()
    names = ("voi_split", "voi_merge", "voi", "arand", "rand_precision", "rand_recall", "cremi_score")
    if total == 0:
        return {**dict.fromkeys(names, float("nan")), "voxels": 0, "true_segments": 0, "pred_segments": 0}
    pair = table.voxels / total
    truth, pred = _marginal(table.truth, pair), _marginal(table.pred, pair)
    joint = _entropy_bits(pair)
    split = max(joint - _entropy_bits(truth), 0.0)  # rounding can leave -1e-16
    merge = max(joint - _entropy_bits(pred), 0.0)
    together = (pair**2).sum()
    precision, recall = together / (pred**2).sum(), together / (truth**2).sum()
    arand = max(1 - 2 * precision * recall / (precision + recall), 0.0)
    values = (split, merge, split + merge, arand, precision, recall, np.sqrt(arand * (split + merge)))
    return {
        **{name: float(value) for name, value in zip(names, values, strict=True)},
        "voxels": int(total),
        "true_segments": len(truth),
        "pred_segments": len(pred),
    }
