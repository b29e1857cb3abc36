"""What chance would score: as many synapses at random places, and the predicted partners dealt out anew."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emlib.measure.synapses.assignment import Voxel, assign_pairs, near_pairs
from emlib.measure.synapses.matching import average_precision, match_synapses, pr_curve
from emlib.measure.synapses.partners import mapped_ids

Bounds = tuple[np.ndarray, np.ndarray]
MEASURES = ("precision", "recall", "f1")


def chance_places(
    count: int,
    truth: pd.DataFrame,
    bounds: Bounds,
    voxel_size_nm: Voxel,
    max_distance_nm: float,
    draws: int,
    rng: np.random.Generator,
    *,
    ranked: int | None = None,
    per_section: bool = False,
) -> dict[str, float]:
    """Mean scores of as many random places as were predicted.

    Parameters
    ----------
    count : int
        Places that count as predicted.
    truth : DataFrame
        Columns ``z, y, x`` in voxels.
    bounds : (low, high), (3,) arrays in voxels (z, y, x)
        Places are drawn uniformly between the two.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.
    draws : int
    rng : numpy Generator
    ranked : int, optional
        Places in random order from which a precision-recall curve is made; the first ``count`` of them are the
        predicted ones.
    per_section : bool
        Draw whole sections.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``f1`` (NaN where undefined), and ``average_precision`` (NaN without ``ranked``).

    Examples
    --------
    >>> truth = pd.DataFrame({"z": [0], "y": [0], "x": [50]})
    >>> bounds = np.zeros(3), np.array([0, 0, 100])
    >>> means = chance_places(1, truth, bounds, (1, 1, 1), 10, 1000, np.random.default_rng(0))
    >>> round(means["recall"], 1)  # a place within 10 of the truth, in a line of 100
    0.2
    """
    low, high = bounds
    total = count if ranked is None else max(ranked, count)
    results = np.full((draws, 4), np.nan)
    for row in results:
        table = pd.DataFrame(rng.uniform(low, high, (total, 3)), columns=["z", "y", "x"])
        if per_section:
            table["z"] = table["z"].round()
        match = match_synapses(table.iloc[:count], truth, voxel_size_nm, max_distance_nm)
        row[:3] = match.precision, match.recall, match.f1
        if ranked is not None:
            ranks = table.assign(score=-np.arange(total))
            row[3] = average_precision(pr_curve(ranks, truth, voxel_size_nm, max_distance_nm))
    return dict(zip((*MEASURES, "average_precision"), results.mean(axis=0).tolist(), strict=True))


def chance_partners(
    pred: pd.DataFrame,
    truth: pd.DataFrame,
    voxel_size_nm: Voxel,
    max_distance_nm: float,
    id_map: dict[int, int] | None,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, dict[str, float]]:
    """Mean partner scores when the predicted (pre, post) pairs are shuffled among the predicted places.

    Parameters
    ----------
    pred, truth : DataFrame
        Columns ``z, y, x`` in voxels, ``pre_id``, ``post_id``.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.
    id_map : dict, optional
        True id of each predicted id; None: both tables use the same ids.
    draws : int
    rng : numpy Generator

    Returns
    -------
    dict
        ``partners`` and ``partners_unordered``, each with ``precision``, ``recall``, ``f1``; see `score_partners`.
    """
    i, j, distance = near_pairs(pred, truth, voxel_size_nm, max_distance_nm)
    pre, post = (mapped_ids(pred[name], id_map) for name in ("pre_id", "post_id"))
    true_pre, true_post = (truth[name].to_numpy(np.int64)[j] for name in ("pre_id", "post_id"))
    results = np.zeros((draws, 2, 3))
    for row in results:
        dealt = rng.permutation(len(pred))[i]
        ordered = (pre[dealt] == true_pre) & (post[dealt] == true_post)
        either = ordered | ((pre[dealt] == true_post) & (post[dealt] == true_pre))
        for kind, right in enumerate((ordered, either)):
            match = assign_pairs(i[right], j[right], distance[right], len(pred), len(truth), max_distance_nm)
            row[kind] = match.precision, match.recall, match.f1
    ordered, either = (dict(zip(MEASURES, row, strict=True)) for row in results.mean(axis=0).tolist())
    return {"partners": ordered, "partners_unordered": either}
