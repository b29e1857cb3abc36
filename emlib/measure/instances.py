"""Scores of an instance segmentation against truth: variation of information, adapted Rand error, CREMI score.

All come from one sparse contingency table (see `emlib.measure.contingency`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bioimage_cpp.distance import distance_transform

from emlib.measure.contingency import Contingency, contingency, marginal
from emlib.threads import map_threads

ZERO_CHOICES = ("fill", "background", "singletons", "ignore")
SCORES = ("voi_split", "voi_merge", "voi", "arand", "rand_precision", "rand_recall", "cremi_score")
COUNTS = ("voxels", "true_segments", "pred_segments")


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
        nearest = distance_transform(hole, return_distances=False, return_indices=True)
        at = np.flatnonzero(hole)
        filled = section.copy()
        filled.ravel()[at] = section[tuple(nearest.reshape(2, -1)[:, at])]
        return filled

    return np.stack(map_threads(fill, sections)).reshape(labels.shape)


def score_against_chance(table: Contingency, *, zero: str = "fill") -> dict[str, Any]:
    """Score a contingency table beside chance: what ``scores.json`` and ``evaluate_segmentation.json`` hold.

    Parameters
    ----------
    table : Contingency
    zero : {"fill", "background", "singletons", "ignore"}
        As in `score_table`.

    Returns
    -------
    dict
        Everything of `score_table`, ``zero``, and ``chance``: that of `chance_scores`.
    """
    return {**score_table(table, zero=zero), "zero": zero, "chance": chance_scores(table, zero=zero)}


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
        As `score_table`.

    Raises
    ------
    ValueError
        If the shapes differ, a dtype is not an integer, or ``zero`` is unknown.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 2, 2]]])
    >>> scores = score_instances(truth, np.array([[[1, 1, 1, 1]]]))
    >>> scores["voi_split"], scores["voi_merge"], scores["rand_precision"], scores["rand_recall"]
    (0.0, 1.0, 0.5, 1.0)
    """
    pred = np.asarray(pred)
    return score_table(contingency(truth, fill_zero(pred) if zero == "fill" else pred), zero=zero)


def score_table(table: Contingency, *, zero: str = "fill") -> dict[str, float]:
    """Score an instance segmentation by its contingency table with the truth.

    Parameters
    ----------
    table : Contingency
    zero : {"fill", "background", "singletons", "ignore"}
        As in `score_instances`; for "fill" the prediction was filled before it was counted.

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
        If ``zero`` is unknown.

    Notes
    -----
    Variation of information: Meila 2007, split into its two conditional entropies as in Nunez-Iglesias et al. 2013.
    Adapted Rand error: 1 minus the F-score of the Rand index (Arganda-Carreras et al. 2015). CREMI score: the geometric
    mean of the two (cremi.org).

    Public implementations differ in four ways, and here is which one this follows:

    - Predicted 0. scikit-image counts it as one segment (``background``). The SNEMI3D script means to count each of
      its voxels as a segment of its own for the Rand error (``singletons``), which punishes a drawn membrane. Neither
      suits a prediction with thin gaps between neurites, where the score would be that of the gaps: hence ``fill``.
    - Pairs of a voxel with itself. The SNEMI3D script and CREMI count them, as here; scikit-image leaves them out. The
      difference is of the order of segments per voxel.
    - Which is precision. A merger makes pairs that are together in the prediction alone, which lowers precision =
      Σ n_tp² / Σ n_p²; so here, in SNEMI3D and CREMI. scikit-image 0.26 returns the two names the other way round.
    - The order of VOI. scikit-image returns (split, merge) when the truth comes first, as here.
    """
    table, single = _treated(table, zero)
    total = int(table.voxels.sum())
    if total == 0:
        return {**dict.fromkeys(SCORES, float("nan")), **dict.fromkeys(COUNTS, 0)}
    truth, in_truth = marginal(table.truth, table.voxels)
    named = table.pred != 0 if single else np.ones(len(table.pred), bool)
    pred, in_pred = marginal(table.pred[named], table.voxels[named])
    pair = table.voxels[named]
    # The conditional entropies are summed directly: as differences of entropies a perfect score would not be exactly 0.
    split = (pair * np.log2(truth[in_truth[named]] / pair)).sum() / total
    if single:
        alone = ~named
        split += (table.voxels[alone] * np.log2(truth[in_truth[alone]])).sum() / total
    merge = (pair * np.log2(pred[in_pred] / pair)).sum() / total
    together, same = ((voxels**2).sum() + single for voxels in (pair.astype(float), pred))
    return {
        **_named(split, merge, together / same, together / (truth**2).sum()),
        "voxels": total,
        "true_segments": len(truth),
        "pred_segments": len(pred) + single,
    }


def chance_scores(table: Contingency, *, zero: str = "fill") -> dict[str, dict[str, float]]:
    """Scores of two predictions that know nothing of the image, on the voxels that `score_table` compares.

    Parameters
    ----------
    table : Contingency
    zero : {"fill", "background", "singletons", "ignore"}
        As in `score_table`.

    Returns
    -------
    dict of dict
        ``one_segment``: everything is one neurite. ``same_sizes_at_random``: as many segments as predicted, of the same
        sizes, but each voxel drawn at random; computed as its limit for many voxels, where the two are independent.
    """
    table, single = _treated(table, zero)
    total = float(table.voxels.sum())
    if not total:
        return {name: dict.fromkeys(SCORES, float("nan")) for name in ("one_segment", "same_sizes_at_random")}
    truth = marginal(table.truth, table.voxels)[0] / total
    named = table.pred != 0 if single else slice(None)
    pred = np.append(marginal(table.pred[named], table.voxels[named])[0], np.ones(single)) / total
    return {"one_segment": _independent(truth, np.ones(1)), "same_sizes_at_random": _independent(truth, pred)}


def _treated(table: Contingency, zero: str) -> tuple[Contingency, int]:
    """The table without what is left out, and how many voxels of predicted 0 are segments of their own."""
    if zero not in ZERO_CHOICES:
        raise ValueError(f"zero must be one of {', '.join(ZERO_CHOICES)}, got {zero!r}")
    if zero == "ignore":
        return table.keep(table.pred != 0), 0
    return table, int(table.voxels[table.pred == 0].sum()) if zero == "singletons" else 0


def _independent(truth: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Scores of two independent segmentations from the shares of their segments."""
    split, merge = (float((shares * np.log2(1 / shares)).sum()) for shares in (pred, truth))
    return _named(split, merge, (truth**2).sum(), (pred**2).sum())


def _named(split: float, merge: float, precision: float, recall: float) -> dict[str, float]:
    arand = max(1 - 2 * precision * recall / (precision + recall), 0.0)  # rounding can leave -1e-16
    values = (split, merge, split + merge, arand, precision, recall, np.sqrt(arand * (split + merge)))
    return {name: float(value) for name, value in zip(SCORES, values, strict=True)}
