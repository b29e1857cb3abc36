"""From counts to scores: the pooled and the patch-mean protocol, intervals, averages over organelles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emlib.measure.masks.counts import MaskCounts
from emlib.measure.masks.objects import OBJECT_SCORES, object_scores
from emlib.measure.masks.outlines import BOUNDARY_SCORES, boundary_scores
from emlib.measure.masks.pixels import PIXEL_SCORES, pixel_scores

POOLED_SCORES = (*PIXEL_SCORES, *BOUNDARY_SCORES, *OBJECT_SCORES)
INTERVAL = (0.025, 0.975)


def pooled_scores(counts: MaskCounts, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Score sums of sections.

    Parameters
    ----------
    counts : MaskCounts
    weights : (..., Z) float array, optional
        How often each section enters a sum (default: each once).

    Returns
    -------
    dict of (...) float64 arrays
        Every name of ``POOLED_SCORES``; NaN for boundaries or objects that were not counted.

    Examples
    --------
    >>> counts = MaskCounts(np.array([[1, 0, 0, 3], [0, 2, 2, 0]]), np.zeros((0, 4)), None, None)
    >>> float(pooled_scores(counts)["accuracy"]), pooled_scores(counts, np.eye(2))["accuracy"].tolist()
    (0.5, [1.0, 0.0])
    """
    if weights is None:
        weights = np.ones(len(counts.pixels))
    missing = np.full(weights.shape[:-1], np.nan)
    scores = pixel_scores(weights @ counts.pixels)
    for names, function, part in (
        (BOUNDARY_SCORES, boundary_scores, counts.boundary),
        (OBJECT_SCORES, object_scores, counts.objects),
    ):
        scores |= dict.fromkeys(names, missing) if part is None else function(weights @ part)
    return scores


def patch_mean_scores(counts: MaskCounts) -> dict[str, np.ndarray]:
    """Score each patch for itself and return the means, by every name of ``PIXEL_SCORES``."""
    return {name: values.mean() for name, values in pixel_scores(counts.patches).items()}


def mean_scores(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Average each score over the rows that have it; NaN if none has.

    Parameters
    ----------
    rows : sequence of dicts of arrays of one shape
        NaN for what a row does not have.

    Returns
    -------
    dict of arrays

    Examples
    --------
    >>> float(mean_scores([{"ap50": 0.4}, {"ap50": np.nan}, {"ap50": 0.8}])["ap50"].round(3))
    0.6
    """
    mean = {}
    for name in rows[0]:
        known = [row[name] for row in rows if not np.isnan(row[name]).all()]
        mean[name] = np.mean(known, axis=0) if known else rows[0][name]
    return mean


def intervals(organelles: Sequence[MaskCounts], draws: int, seed: int) -> dict[str, list[float] | None] | None:
    """Bootstrap 95 % intervals of pooled scores over sections.

    Parameters
    ----------
    organelles : sequence of MaskCounts
        Of the same sections. The scores of several are averaged in each draw, which takes the same sections of all.
    draws : int
    seed : int

    Returns
    -------
    dict of [low, high], or None with a single section
        By ``POOLED_SCORES``; None for a score that was not measured.

    Notes
    -----
    Percentiles of the scores of as many sections drawn with replacement (Efron and Tibshirani 1993). A draw is kept as
    how often it holds each section, so that all of them are one matrix product. Draws without a true pixel are left
    out.
    """
    sections = len(organelles[0].pixels)
    if sections < 2:
        return None
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(sections, np.full(sections, 1 / sections), size=draws).astype(np.float64)
    drawn = []
    for counts in organelles:
        empty = weights @ (counts.pixels[:, 0] + counts.pixels[:, 2]) == 0  # no true pixel, nothing to be right about
        drawn.append({name: np.where(empty, np.nan, values) for name, values in pooled_scores(counts, weights).items()})
    scores = mean_scores(drawn)
    return {
        name: None if np.isnan(values).all() else np.nanquantile(values, INTERVAL).tolist()
        for name, values in ((name, scores[name]) for name in POOLED_SCORES)
    }
