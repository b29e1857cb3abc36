"""Learn from a labelled crop which fragments belong together: gradient boosting, cross-validated and calibrated.

1. Features of all contacts; the labels decide most of them.
2. Block by block, a model that has seen neither the block nor its fragments says how likely contacts are to join.
3. Those probabilities are calibrated by a logistic curve: of the contacts with 0.8, four in five join.
4. The model itself learns from the whole crop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.measure.contingency import Contingency
from emlib.refine.edge_blocks import LabelledContacts, blocks_of, folds, labelled_contacts
from emlib.refine.edge_contacts import CONTACT_NAMES, contact_features
from emlib.refine.edge_forest import LEAST_OF_EACH, log_odds, platt
from emlib.refine.edge_geometry import contact_shapes
from emlib.refine.forest import Forest, ForestSettings, grow_forest
from emlib.refine.validation import auc, brier, permutation_importance
from emlib.stages.learned_edges import Cut

BINS = 10  # of the table of calibration
_IMPORTANCE_ROWS = 4000


@dataclass(frozen=True)
class ContactSettings:
    """How contacts are learnt; chosen on fib25-medulla z 0-119."""

    forest: ForestSettings = field(
        default_factory=lambda: ForestSettings("hgb", trees=200, min_leaf=20, learning_rate=0.08, max_leaves=31)
    )
    purity: float = 0.7  # share of a fragment that one neurite must have, for its contacts to be learnt from
    blocks: tuple[int, int, int] = (1, 2, 2)  # of the cross-validation, along z, y, x


class Learned(NamedTuple):
    """What a labelled crop taught.

    Attributes
    ----------
    forest : Forest
        Probability of "the same neurite", not calibrated.
    slope, intercept : float
        Calibrated log-odds = slope · log-odds of the forest + intercept.
    held_out : (E,) float array
        Calibrated probability of each contact by a model that had not seen its block; for tuning on the crop.
    validation : dict
        ``contacts``, ``share_same``; on held-out blocks ``auc``, ``brier`` (mean squared error of the probability),
        ``brier_uncalibrated``, ``brier_of_the_mean``, that of always saying the share, ``calibration_error`` (mean
        difference of probability and share in ten bins), and the calibration.
    bins : DataFrame
        ``low, high, contacts, probability, share_same``, of held-out contacts by their probability.
    importance : (F,) float array
        Fall of the AUC on a held-out block when the feature's values are exchanged.
    """

    forest: Forest
    slope: float
    intercept: float
    held_out: np.ndarray
    validation: dict[str, float]
    bins: pd.DataFrame
    importance: np.ndarray


def learn_contacts(cut: Cut, table: Contingency, settings: ContactSettings, seed: int = 0) -> Learned:
    """Learn from a labelled crop.

    Parameters
    ----------
    cut : Cut
        Its boundary probability should come from something that has not learnt from this crop, or it is too sure.
    table : Contingency
        Of the true labels and the fragments, from `emlib.refine.edge_blocks.label_table`.
    settings : ContactSettings
    seed : int

    Returns
    -------
    Learned
        The same whatever the number of threads.

    Raises
    ------
    UserError
        If too few contacts are decided, or nearly all in the same way.

    Notes
    -----
    Gradient boosting on histograms (Friedman 2001, Ke et al. 2017) as scikit-learn has it, calibration as in Platt
    1999. The calibration is monotone and has no plateaus, so that a bias on its log-odds moves without jumps.
    """
    known = labelled_contacts(cut.graph, cut.fragments, table, settings.purity)
    _check(known, "the crop")
    features = contact_features(cut)
    ends, count = cut.graph.rag.uv_ids(), cut.graph.rag.number_of_nodes
    contact, _ = contact_shapes(cut.graph, cut.fragments, cut.voxel_size_nm)
    blocks = blocks_of(contact.centre, cut.fragments.shape, cut.voxel_size_nm, settings.blocks)
    answer = np.full(len(ends), -1)
    answer[known.index] = known.same
    raw, fall = np.full(len(ends), np.nan), np.full(len(CONTACT_NAMES), np.nan)
    for learnt, tested in folds(blocks, ends, count):
        rows = np.flatnonzero(learnt & (answer >= 0))
        if len(np.unique(answer[rows])) < 2:
            continue
        forest = _grown(features[rows], answer[rows] == 1, settings.forest, seed)
        raw[tested] = forest.probability(features[tested])
        if np.isnan(fall).all():
            fall = _importance(forest, features, answer, np.flatnonzero(tested & (answer >= 0)), seed)
    scored = np.flatnonzero(np.isfinite(raw) & (answer >= 0))
    _check(LabelledContacts(scored, answer[scored] == 1), "held-out blocks")
    slope, intercept = platt(log_odds(raw[scored]), answer[scored] == 1)
    held_out = calibrated(raw, slope, intercept)
    # A block whose other blocks taught nothing is left to chance.
    held_out[np.isnan(held_out)] = (answer[scored] == 1).mean()
    forest = _grown(features[known.index], known.same, settings.forest, seed)
    validation, bins = _validation(held_out[scored], raw[scored], answer[scored] == 1)
    validation |= {"contacts": len(known.index), "calibration_slope": slope, "calibration_intercept": intercept}
    return Learned(forest, slope, intercept, held_out, validation, bins, fall)


def calibrated(probability: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Return the probability that a logistic curve makes of another, in log-odds."""
    return 1 / (1 + np.exp(-slope * log_odds(probability) - intercept))


def _check(known: LabelledContacts, where: str) -> None:
    same = int(known.same.sum())
    if min(same, len(known.same) - same) < LEAST_OF_EACH:
        raise UserError(
            f"--edges: the labels of {where} decide {same} contacts that belong together and {len(known.same) - same} "
            f"that do not; at least {LEAST_OF_EACH} of each are needed: give a larger crop, or check that the labels "
            "belong to the volume"
        )


def _grown(features: np.ndarray, same: np.ndarray, settings: ForestSettings, seed: int) -> Forest:
    return grow_forest(features, same, CONTACT_NAMES, settings, seed)[0]


def _importance(forest: Forest, features: np.ndarray, answer: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    if len(rows) > _IMPORTANCE_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _IMPORTANCE_ROWS, replace=False)
    return permutation_importance(forest, features, answer == 1, rows, seed)


def _validation(said: np.ndarray, raw: np.ndarray, same: np.ndarray) -> tuple[dict[str, float], pd.DataFrame]:
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip((said * BINS).astype(int), 0, BINS - 1)
    number = np.bincount(place, minlength=BINS)
    mean, share = (np.bincount(place, values, BINS) / np.maximum(number, 1) for values in (said, same))
    bins = pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "contacts": number, "probability": mean, "share_same": share}
    )
    told = {
        "share_same": float(same.mean()),
        "auc": auc(same, said),
        "brier": brier(same, said),
        "brier_uncalibrated": brier(same, raw),
        "brier_of_the_mean": brier(same, np.full(len(same), same.mean())),
        "calibration_error": float((number * np.abs(mean - share)).sum() / len(same)),
    }
    return told, bins[bins["contacts"] > 0].reset_index(drop=True)
