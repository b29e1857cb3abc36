"""Whether measures of importance, and experts, put channels into the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd


def spearman(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return Spearman's rank correlation and its p-value; equal values share their mean rank.

    Parameters
    ----------
    first, second : (C,) arrays

    Returns
    -------
    rho : float
        In [-1, 1]; NaN if there are fewer than three channels or one array is constant.
    p : float
        Two-sided, by Student's t.

    Examples
    --------
    >>> round(spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 8.0]))[0], 3)
    0.8
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    from scipy.stats import spearmanr

    result = spearmanr(first, second)
    return float(result.statistic), float(result.pvalue)


def agreement_table(importance: Mapping[str, np.ndarray], level: int, organelles: Sequence[str]) -> pd.DataFrame:
    """Correlate the measures with each other for each expert, and the experts with each other for each measure.

    Parameters
    ----------
    importance : dict of (E, C) arrays
        By measure.
    level : int
        Its name in the table.
    organelles : names of the experts

    Returns
    -------
    DataFrame
        ``level``, ``between`` (measures, experts), ``within`` (the expert, or the measure), ``first``, ``second``,
        ``channels``, ``spearman``, ``p``.
    """
    rows = []
    for e, name in enumerate(organelles):
        for first, second in combinations(importance, 2):
            rows.append(("measures", name, first, second, importance[first][e], importance[second][e]))
    for measure, values in importance.items():
        for i, j in combinations(range(len(organelles)), 2):
            rows.append(("experts", measure, organelles[i], organelles[j], values[i], values[j]))
    return pd.DataFrame(
        [(level, *row[:4], len(row[4]), *spearman(*row[4:])) for row in rows],
        columns="level between within first second channels spearman p".split(),
    )
