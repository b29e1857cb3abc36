"""How well probabilities tell two classes apart, and how much of that each feature contributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emlib.refine.forest import Forest


def auc(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the area under the receiver operating characteristic.

    Parameters
    ----------
    truth : (N,) bool array
    probability : (N,) float array

    Returns
    -------
    float in [0, 1]
        The probability that a positive example has the higher value, ties counted half; NaN without both classes.

    Notes
    -----
    From ranks: Mann and Whitney 1947, Hanley and McNeil 1982.

    Examples
    --------
    >>> auc(np.array([False, True, True]), np.array([0.1, 0.9, 0.1]))
    0.75
    """
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return float("nan")
    _, place, times = np.unique(probability, return_inverse=True, return_counts=True)
    rank = np.cumsum(times) - (times - 1) / 2  # mean rank of equal values
    above = rank[place][truth].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def brier(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean squared difference of probability and outcome (Brier 1950)."""
    return float(np.mean((probability - truth) ** 2))


def permutation_importance(
    forest: Forest, features: np.ndarray, truth: np.ndarray, rows: Sequence[int] | np.ndarray, seed: int
) -> np.ndarray:
    """Return by how much the AUC falls when a feature's values are exchanged between examples.

    Parameters
    ----------
    forest : Forest
    features : (N, F) float32 array
        Not learnt from.
    truth : (N,) bool array
    rows : (M,) int array
        Examples that are used.
    seed : int

    Returns
    -------
    (F,) float array

    Notes
    -----
    Breiman 2001. Features that say the same share their importance: each seems dispensable while the other is there.
    """
    features, truth = features[rows].copy(), truth[rows]
    whole, order = auc(truth, forest.probability(features)), np.random.default_rng(seed).permutation(len(truth))
    falls = []
    for column in range(features.shape[1]):
        kept = features[:, column].copy()
        features[:, column] = kept[order]
        falls.append(whole - auc(truth, forest.probability(features)))
        features[:, column] = kept
    return np.array(falls)
