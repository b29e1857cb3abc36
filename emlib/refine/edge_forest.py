"""The edge forest: whether two fragments belong together, learnt from the contacts that corrected sections decide.

1. Grow a forest on the features of the known contacts.
2. Cross-validate it by section, and fit the logistic curve that turns its probabilities into calibrated ones.
3. Their log-odds, weighted by the size of the contact, are the costs of the multicut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from emlib.errors import UserError
from emlib.refine.edge_features import EDGE_NAMES, KnownEdges
from emlib.refine.forest import Forest, ForestSettings, grow_forest
from emlib.refine.validation import auc, brier

_SURE = 0.001  # probabilities are kept this far from 0 and 1
LEAST_OF_EACH = 10  # contacts that belong together, and that do not


@dataclass(frozen=True)
class EdgeSettings:
    """How contacts are learnt and how readily they are joined."""

    forest: ForestSettings = field(default_factory=lambda: ForestSettings(trees=100, min_leaf=3))
    bias: float = 0.5  # log-odds added to "these two are different"
    size_power: float = 1.0  # a contact of n voxels weighs n ** size_power
    folds: int = 3  # of the cross-validation


@dataclass(frozen=True)
class EdgeForest:
    """A forest with its calibration: log-odds = slope · log-odds of the forest + intercept."""

    forest: Forest
    slope: float
    intercept: float

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """Return the calibrated log-odds, (E,), that the two fragments of each contact are different neurites."""
        return self.slope * log_odds(self.forest.probability(features)) + self.intercept


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), bounded where the probability is nearly 0 or 1."""
    bounded = np.clip(probability, _SURE, 1 - _SURE)
    return np.log(bounded / (1 - bounded))


def learn_edges(
    features: np.ndarray, known: KnownEdges, settings: EdgeSettings, seed: int
) -> tuple[EdgeForest, dict[str, float], np.ndarray]:
    """Learn from known contacts.

    Parameters
    ----------
    features : (E, F) float32 array
        Of all contacts, columns ``EDGE_NAMES``.
    known : KnownEdges
    settings : EdgeSettings
    seed : int

    Returns
    -------
    edges : EdgeForest
    validation : dict
        ``edges``, ``share_different``; on folds that the forest did not learn from ``auc`` and ``brier`` (mean squared
        error of the probability), ``brier_uncalibrated`` and ``brier_of_the_mean``, that of always saying the share.
    importance : (F,) float array

    Raises
    ------
    UserError
        If too few contacts are known, or nearly all have the same answer.

    Notes
    -----
    Calibration as in Platt 1999, on the probabilities of the cross-validation. Contacts are folded by the section that
    decides them; with a single corrected section at random, where neighbours leak.
    """
    same, different = int((~known.different).sum()), int(known.different.sum())
    if min(same, different) < LEAST_OF_EACH:
        raise UserError(
            f"--edges: the corrected sections decide {same} contacts that belong together and {different} that do not; "
            f"at least {LEAST_OF_EACH} of each are needed: correct more sections, or leave --edges out"
        )
    rows = features[known.index]
    folds = _folds(known, settings.folds, seed)
    held = np.full(len(rows), np.nan)
    for fold in np.unique(folds):
        inside = folds != fold
        if len(np.unique(known.different[inside])) == 2:
            forest, _ = grow_forest(rows[inside], known.different[inside], EDGE_NAMES, settings.forest, seed)
            held[~inside] = forest.probability(rows[~inside])
    tested = np.isfinite(held)
    slope, intercept = platt(log_odds(held[tested]), known.different[tested])
    calibrated = 1 / (1 + np.exp(-slope * log_odds(held[tested]) - intercept))
    truth = known.different[tested]
    forest, importance = grow_forest(rows, known.different, EDGE_NAMES, settings.forest, seed)
    validation = {
        "edges": len(rows),
        "share_different": different / len(rows),
        "auc": auc(truth, held[tested]),
        "brier": brier(truth, calibrated),
        "brier_uncalibrated": brier(truth, held[tested]),
        "brier_of_the_mean": brier(truth, np.full(len(truth), truth.mean())),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }
    return EdgeForest(forest, slope, intercept), validation, importance


def _folds(known: KnownEdges, count: int, seed: int) -> np.ndarray:
    if len(np.unique(known.section)) > 1:
        return known.section % count
    return np.random.default_rng(seed).permutation(len(known.index)) % count


def platt(odds: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve that turns log-odds into calibrated ones (Platt 1999).

    The slope is kept above 0, since more evidence must not say less.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1.0).fit(odds[:, None], truth)
    return max(float(fitted.coef_[0, 0]), 0.05), float(fitted.intercept_[0])
