"""What a run is scored on when its truth is known: segmentation, synapses, partners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emlib.measure.instances import score_instances
from emlib.measure.synapses import (
    MAX_DISTANCE_NM,
    average_precision,
    map_ids_by_overlap,
    match_synapses,
    pr_curve,
    score_partners,
)
from emlib.volumes.volume import ZYX


def score_segmentation(truth: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Score neurite labels; predicted 0 takes the nearest label of its section.

    Parameters
    ----------
    truth, labels : (Z, Y, X) integer arrays
        Truth 0 is ignored.

    Returns
    -------
    dict
        As ``score_instances``, and ``zero``, the choice made for predicted 0.
    """
    return {**score_instances(truth, labels, zero="fill"), "zero": "fill"}


def score_candidates(
    candidates: pd.DataFrame,
    truth: pd.DataFrame,
    voxel_size_nm: ZYX,
    min_score: float,
    labels: np.ndarray | None = None,
    true_labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score synapse candidates of at least ``min_score`` for detection, and with labels for partners and direction.

    Parameters
    ----------
    candidates : DataFrame
        ``z, y, x, pre_id, post_id, score``.
    truth : DataFrame
        ``z, y, x, pre_id, post_id``.
    voxel_size_nm : (z, y, x) in nm
    min_score : float
        Candidates below count only for the average precision.
    labels, true_labels : (Z, Y, X) integer arrays, optional
        Map predicted to true ids by largest overlap.

    Returns
    -------
    dict
        ``precision, recall, f1`` of detection within ``max_distance_nm``, ``average_precision``, ``candidates``,
        ``truth``; with labels ``partners`` (the same with both partners on their right side) and
        ``direction_accuracy`` (chance 0.5).
    """
    kept = candidates[candidates["score"] >= min_score]
    match = match_synapses(kept, truth, voxel_size_nm)
    scores: dict[str, Any] = {
        "precision": match.precision,
        "recall": match.recall,
        "f1": match.f1,
        "average_precision": average_precision(pr_curve(candidates, truth, voxel_size_nm)),
        "candidates": len(kept),
        "truth": len(truth),
        "min_score": min_score,
        "max_distance_nm": MAX_DISTANCE_NM,
    }
    if labels is not None and true_labels is not None:
        partners = score_partners(kept, truth, voxel_size_nm, id_map=map_ids_by_overlap(labels, true_labels))
        right = partners.ordered
        scores["partners"] = {"precision": right.precision, "recall": right.recall, "f1": right.f1}
        scores["direction_accuracy"] = partners.direction_accuracy
    return scores
