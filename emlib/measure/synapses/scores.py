"""All scores of predicted synapses in one call: detection, the curve, partners, direction, and chance beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emlib.measure.synapses.assignment import SynapseMatch, Voxel
from emlib.measure.synapses.chance import MEASURES, chance_partners, chance_places
from emlib.measure.synapses.matching import MAX_DISTANCE_NM, average_precision, match_synapses, pr_curve
from emlib.measure.synapses.partners import score_partners

DIRECTION_CHANCE = 0.5
DRAWS = 100


@dataclass(frozen=True)
class SynapseScores:
    """Scores of predicted synapses, and what they were read from.

    Attributes
    ----------
    scores : dict
        ``precision``, ``recall``, ``f1`` of detection; ``average_precision`` and ``best`` (the point of best F1 on the
        curve), NaN and None without scores; ``predicted`` and ``truth``, how many there were; ``min_score``,
        ``max_distance_nm``; with an id map ``partners``, ``partners_unordered`` and ``direction_accuracy``
        (``accuracy``, ``pairs``, ``chance``); ``chance``, the same measures for random places and shuffled partners.
    matches : DataFrame
        From `match_table`.
    curve : DataFrame or None
        From ``pr_curve``.
    """

    scores: dict[str, Any]
    matches: pd.DataFrame
    curve: pd.DataFrame | None


def score_synapses(
    pred: pd.DataFrame,
    truth: pd.DataFrame,
    voxel_size_nm: Voxel,
    *,
    max_distance_nm: float = MAX_DISTANCE_NM,
    min_score: float | None = None,
    per_section: bool = False,
    id_map: dict[int, int] | None = None,
    shape: tuple[int, int, int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> SynapseScores:
    """Score predicted synapses for place, and with an id map for partners and direction.

    Parameters
    ----------
    pred : DataFrame
        ``z, y, x`` in voxels; optional ``score``; ``pre_id, post_id`` with an ``id_map``.
    truth : DataFrame
        ``z, y, x`` in voxels; ``pre_id, post_id`` with an ``id_map``.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.
    min_score : float, optional
        Predictions below count for the curve alone.
    per_section : bool
        Only what lies in the same section, by rounded z, is matched.
    id_map : dict, optional
        True id of each predicted id, from ``map_ids_by_overlap``.
    shape : (Z, Y, X), optional
        Of the volume in which truth is known: where chance draws its places. Without it they are drawn from the box
        around both tables.
    draws : int
        Of chance.
    seed : int
        Of chance.

    Returns
    -------
    SynapseScores

    Notes
    -----
    ``best`` is chosen on this very truth and is therefore optimistic: a threshold has to be tried on other data.

    Examples
    --------
    >>> truth = pd.DataFrame({"z": [0, 0], "y": [0, 0], "x": [0, 100]})
    >>> pred = pd.DataFrame({"z": [0, 0, 0], "y": [0, 0, 0], "x": [2, 50, 101], "score": [0.9, 0.5, 0.1]})
    >>> result = score_synapses(pred, truth, (10, 10, 10), min_score=0.4)
    >>> result.scores["precision"], result.scores["recall"], result.scores["best"]["threshold"]
    (0.5, 0.5, 0.1)
    >>> result.matches["status"].tolist()
    ['hit', 'false', 'missed']
    """
    bounds = _bounds(shape, pred, truth)
    as_given = truth
    if per_section:
        pred, truth = (table.assign(z=table["z"].round()) for table in (pred, truth))
        voxel_size_nm = (2 * max_distance_nm, *voxel_size_nm[1:])  # nothing reaches from one section to the next
    ranked = "score" in pred
    kept = pred if min_score is None else pred[pred["score"] >= min_score]
    reach = voxel_size_nm, max_distance_nm
    match = match_synapses(kept, truth, *reach)
    curve = pr_curve(pred, truth, *reach) if ranked else None
    scores: dict[str, Any] = {
        **_measures(match),
        "average_precision": average_precision(curve) if ranked else float("nan"),
        "best": best_point(curve) if ranked else None,
        "predicted": len(kept),
        "truth": len(truth),
        "min_score": min_score,
        "max_distance_nm": max_distance_nm,
    }
    rng = np.random.default_rng(seed)
    every = len(pred) if ranked else None
    chance: dict[str, Any] = chance_places(
        len(kept), truth, bounds, *reach, draws, rng, ranked=every, per_section=per_section
    )
    if id_map is not None:
        scores |= _partner_scores(kept, truth, *reach, id_map)
        chance |= chance_partners(kept, truth, *reach, id_map, draws, rng)
    scores["chance"] = {**chance, "draws": draws}
    return SynapseScores(scores, match_table(kept, as_given, match), curve)


def best_point(curve: pd.DataFrame) -> dict[str, Any] | None:
    """Point of best F1 on a precision-recall curve; of equal ones that of the highest threshold; None if empty."""
    if not len(curve):
        return None
    point = curve.iloc[int(curve["f1"].argmax())]
    return {**point.astype(float).to_dict(), "chosen_on_this_truth": True}


def match_table(pred: pd.DataFrame, truth: pd.DataFrame, match: SynapseMatch) -> pd.DataFrame:
    """One row per prediction and per missed truth: where it is and what became of it.

    Parameters
    ----------
    pred, truth : DataFrame
        The tables that were matched.
    match : SynapseMatch

    Returns
    -------
    DataFrame
        ``z, y, x`` in voxels; ``status``: "hit", "false" or "missed"; ``distance_nm`` of a hit from its truth;
        ``score`` of a prediction; ``pred_row`` and ``truth_row``, the labels of the rows in the two tables.
    """
    found = match.pairs.set_index("pred").reindex(range(len(pred)))
    hit = found["truth"].notna().to_numpy()
    partner = pd.array([pd.NA] * len(pred), dtype="Int64")
    partner[hit] = truth.index[found["truth"][hit].astype(np.int64)]
    predicted = pred[["z", "y", "x"]].assign(
        status=np.where(hit, "hit", "false"),
        distance_nm=found["distance_nm"].to_numpy(),
        score=pred["score"] if "score" in pred else np.nan,
        pred_row=pd.array(pred.index, dtype="Int64"),
        truth_row=partner,
    )
    free = np.ones(len(truth), bool)
    free[match.pairs["truth"]] = False
    rest = truth[free]
    missed = rest[["z", "y", "x"]].assign(status="missed", truth_row=pd.array(rest.index, dtype="Int64"))
    parts = [part for part in (predicted, missed) if len(part)] or [predicted]
    return pd.concat(parts, ignore_index=True).reindex(columns=predicted.columns)


def _measures(match: SynapseMatch) -> dict[str, float]:
    return {name: getattr(match, name) for name in MEASURES}


def _partner_scores(
    pred: pd.DataFrame, truth: pd.DataFrame, voxel_size_nm: Voxel, max_distance_nm: float, id_map: dict[int, int]
) -> dict[str, Any]:
    partners = score_partners(pred, truth, voxel_size_nm, max_distance_nm, id_map)
    direction = {"accuracy": partners.direction_accuracy, "pairs": partners.direction_pairs}
    return {
        "partners": _measures(partners.ordered),
        "partners_unordered": _measures(partners.unordered),
        "direction_accuracy": {**direction, "chance": DIRECTION_CHANCE},
    }


def _bounds(
    shape: tuple[int, int, int] | None, pred: pd.DataFrame, truth: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box in which chance draws: the volume's outer faces, or around all rows."""
    if shape is not None:
        return np.full(3, -0.5), np.array(shape, float) - 0.5
    places = np.concatenate([table[["z", "y", "x"]].to_numpy(np.float64) for table in (pred, truth)])
    return (places.min(axis=0), places.max(axis=0)) if len(places) else (np.zeros(3), np.zeros(3))
