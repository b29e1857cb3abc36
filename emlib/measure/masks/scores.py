"""Scores of organelle masks against truth and against chance, in two protocols that are always named.

*Pooled*: pixels, boundary pixels and objects are counted over whole sections and the sums are scored; the one to quote.
*Patch-mean*: pixels of each patch (256 px, stride 128) are scored for themselves and the scores are averaged; a patch
without a pixel in truth and prediction counts as 1. The code of MExConn reports this. It flatters what is rare: where
69 of 147 patches hold no synapse, predicting nothing at all has a patch-mean IoU of 0.47, and a pooled IoU of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from emlib.measure.masks.chance import CHANCE
from emlib.measure.masks.counts import DEFAULTS, LINES, MaskCounts, MaskSettings, Sections, count_masks
from emlib.measure.masks.objects import OBJECT_COUNTS
from emlib.measure.masks.outlines import BOUNDARY_COUNTS
from emlib.measure.masks.pixels import PIXEL_COUNTS
from emlib.measure.masks.protocols import POOLED_SCORES, intervals, mean_scores, patch_mean_scores, pooled_scores

PROTOCOLS = ("pooled", "patch_mean")
AVERAGE = "average"
NO_OBJECTS = ("membranes", "membrane", "background")  # a net over the whole section, not things to be counted

Scores = dict[str, Any]


def score_masks(truth: Sections, pred: Sections, settings: MaskSettings = DEFAULTS, *, objects: bool = True) -> Scores:
    """Score the predicted masks of one organelle.

    Parameters
    ----------
    truth, pred : (Z, Y, X) bool arrays, or sequences of (Y, X) bool arrays
        Sections may differ in size from each other, not from their truth.
    settings : MaskSettings
    objects : bool
        Whether components are matched as objects; False for membranes.

    Returns
    -------
    dict
        ``pooled``: every name of ``masks.protocols.POOLED_SCORES``, ``ci95`` (the interval [low, high] of each; None
        with one section), ``sections``, and with objects ``objects_true``, ``objects_predicted``, ``objects_matched``
        (at IoU 0.5). ``patch_mean``: every name of ``masks.pixels.PIXEL_SCORES``, ``patches``,
        ``patches_without_truth``. ``chance``: for both protocols the scores of ``all_background``, ``all_foreground``
        and ``random``, by the same functions. NaN stands for what was not measured: boundaries without a pixel size,
        objects of membranes.

    Raises
    ------
    ValueError
        As `emlib.measure.masks.counts.count_masks`.

    Notes
    -----
    Intervals are bootstrapped over sections (see `emlib.measure.masks.protocols.intervals`). Sections of one stack are
    alike, and few of them cannot show how much others would differ: with three, the true uncertainty is larger.

    Examples
    --------
    >>> truth = np.zeros((2, 64, 64), bool)
    >>> truth[:, 10:30, 10:30] = True
    >>> scores = score_masks(truth, np.roll(truth, 5, axis=2), MaskSettings(pixel_nm=(5, 5)))
    >>> [float(round(scores["pooled"][name], 3)) for name in ("dice", "iou", "vi", "boundary_f1", "ap50", "ap75")]
    [0.75, 0.6, 0.482, 0.605, 1.0, 0.0]
    >>> scores["chance"]["pooled"]["all_background"]["dice"], scores["patch_mean"]["patches"]
    (0.0, 2)
    """
    return _assemble(count_masks(truth, pred, settings, objects=objects), settings)


def score_organelles(
    masks: Mapping[str, tuple[Sections, ...]],
    settings: MaskSettings = DEFAULTS,
    names: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Scores, pd.DataFrame]:
    """Score the predicted masks of several organelles and average over them.

    Parameters
    ----------
    masks : dict of (truth, pred) or (truth, pred, ignored)
        By organelle, each as in `score_masks`; ``ignored`` as in `emlib.measure.masks.counts.count_masks`. Objects are
        matched in all but ``membranes`` and ``background``.
    settings : MaskSettings
    names : dict of sequences of str, optional
        What the sections of each organelle are called (default: their number).

    Returns
    -------
    scores : dict
        ``{"pooled": {organelle: …, "average": …}, "patch_mean": {…}, "chance": {"pooled": {organelle: {line: …}}, …}}``
        with the entries of `score_masks`. An average is the mean over the organelles that have the score; its interval
        draws the same sections of all organelles and is None where they were not scored on the same sections.
    sections : DataFrame
        ``organelle``, ``section``, its scores and counts, one row for each section of each organelle.

    Raises
    ------
    ValueError
        If there is no organelle, one is called "average", or as `score_masks`.

    Examples
    --------
    >>> stack = np.eye(64, dtype=bool)[None]
    >>> scores, sections = score_organelles({"membranes": (stack, stack), "synapses": (stack, ~stack)})
    >>> [scores["pooled"][name]["dice"] for name in ("membranes", "synapses", "average")]
    [1.0, 0.0, 0.5]
    """
    if not masks or AVERAGE in masks:
        raise ValueError(f"needs at least one organelle and none called {AVERAGE}, got {', '.join(masks) or 'none'}")
    counts = {
        name: count_masks(truth, pred, settings, objects=has_objects(name), ignored=ignored[0] if ignored else None)
        for name, (truth, pred, *ignored) in masks.items()
    }
    called = {name: list((names or {}).get(name) or map(str, range(len(pair[0])))) for name, pair in masks.items()}
    each = {name: _assemble(lines, settings) for name, lines in counts.items()}
    average = _average(list(each.values()))
    predictions = {name: lines["prediction"] for name, lines in counts.items()}
    same = len(set(map(tuple, called.values()))) == 1
    average["pooled"]["ci95"] = (
        intervals(list(predictions.values()), settings.bootstrap, settings.seed) if same else None
    )
    each[AVERAGE] = average
    scores = {protocol: {name: one[protocol] for name, one in each.items()} for protocol in PROTOCOLS}
    scores["chance"] = {
        protocol: {name: one["chance"][protocol] for name, one in each.items()} for protocol in PROTOCOLS
    }
    tables = [_section_table(name, called[name], prediction) for name, prediction in predictions.items()]
    return scores, pd.concat(tables, ignore_index=True)


def has_objects(organelle: str) -> bool:
    """Say whether components of this organelle are things to be counted: all but membranes and background."""
    return organelle.lower() not in NO_OBJECTS


def scores_table(scores: Scores) -> pd.DataFrame:
    """Set the result of `score_organelles` as a table.

    Returns
    -------
    DataFrame
        ``protocol``, ``organelle``, ``line`` (prediction, then the chance lines), the scores, and ``dice_low``,
        ``dice_high``, the 95 % interval of the pooled Dice.
    """
    rows = []
    for protocol in PROTOCOLS:
        for organelle, prediction in scores[protocol].items():
            lines = {"prediction": prediction, **scores["chance"][protocol][organelle]}
            low, high = (prediction.get("ci95") or {}).get("dice") or (np.nan, np.nan)
            for line in LINES:
                row = {"protocol": protocol, "organelle": organelle, "line": line}
                row |= {name: lines[line].get(name, np.nan) for name in POOLED_SCORES}
                own = line == "prediction"
                rows.append(row | {"dice_low": low if own else np.nan, "dice_high": high if own else np.nan})
    return pd.DataFrame(rows)


def _assemble(lines: Mapping[str, MaskCounts], settings: MaskSettings) -> Scores:
    """The scores of one organelle from the counts of its prediction and chance lines."""
    prediction = lines["prediction"]
    extras: Scores = {"ci95": intervals([prediction], settings.bootstrap, settings.seed)}
    extras["sections"] = len(prediction.pixels)
    if prediction.objects is not None:
        total = dict(zip(OBJECT_COUNTS, prediction.objects.sum(axis=0).tolist(), strict=True))
        extras |= {name: total[name] for name in ("objects_true", "objects_predicted")}
        extras["objects_matched"] = total["objects_matched_50"]
    without = int((prediction.patches[:, [0, 2]].sum(axis=1) == 0).sum())  # no true positive, no false negative
    patches = {"patches": len(prediction.patches), "patches_without_truth": without}
    return {
        "pooled": _floats(pooled_scores(prediction)) | extras,
        "patch_mean": _floats(patch_mean_scores(prediction)) | patches,
        "chance": {
            "pooled": {name: _floats(pooled_scores(lines[name])) for name in CHANCE},
            "patch_mean": {name: _floats(patch_mean_scores(lines[name])) for name in CHANCE},
        },
    }


def _average(organelles: Sequence[Scores]) -> Scores:
    """The mean over organelles of every score, prediction and chance, in the shape of one organelle."""

    def mean(rows: list[Scores]) -> dict[str, float]:
        return _floats(mean_scores([{name: row[name] for name in POOLED_SCORES if name in row} for row in rows]))

    chance = {
        protocol: {name: mean([one["chance"][protocol][name] for one in organelles]) for name in CHANCE}
        for protocol in PROTOCOLS
    }
    return {protocol: mean([one[protocol] for one in organelles]) for protocol in PROTOCOLS} | {"chance": chance}


def _floats(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}


def _section_table(organelle: str, names: Sequence[str], counts: MaskCounts) -> pd.DataFrame:
    """Scores of each section for itself, then its counts."""
    scores = pooled_scores(counts, np.eye(len(names)))
    columns: dict[str, Any] = {"organelle": organelle, "section": names, **scores}
    for kinds, part in (
        (PIXEL_COUNTS, counts.pixels),
        (BOUNDARY_COUNTS, counts.boundary),
        (OBJECT_COUNTS, counts.objects),
    ):
        for i, kind in enumerate(kinds):
            values = pd.array([pd.NA] * len(names), dtype="Int64") if part is None else part[:, i]
            columns[kind] = pd.array(values, dtype="Int64")
    return pd.DataFrame(columns)
