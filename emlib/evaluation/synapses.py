"""Score predicted synapses against true ones: place, certainty, partners, direction, and chance.

1. Read the two tables, or the components of a true mask.
2. With labels, name predicted neurites after the true ones that they overlap most.
3. Match one to one, score, and list what was hit, invented and missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size
from emlib.evaluation.label_pass import LabelPair
from emlib.evaluation.neurite_ids import NamedTable, map_neurites, open_neurites
from emlib.evaluation.outcome import describe, save_scores, settings_of, table_lines
from emlib.evaluation.synapse_tables import PARTNERS, has_partners, is_table, mask_synapses, open_mask, read_synapses
from emlib.measure.synapses.chance import MEASURES
from emlib.measure.synapses.matching import MAX_DISTANCE_NM
from emlib.measure.synapses.scores import SynapseScores, score_synapses
from emlib.runs.artefacts import Outputs
from emlib.volumes.volume import ZYX, VolumeSource


@dataclass(frozen=True)
class Settings:
    """Everything that decides the figures; named as the flags of ``evaluate.py synapses``."""

    voxel_size: tuple[float, float, float] | None = None
    pred_labels: str | None = None
    truth_labels: str | None = None
    max_distance_nm: float = MAX_DISTANCE_NM
    min_score: float | None = None
    per_section: bool = False
    min_size: float = 0.0
    draws: int = 100
    seed: int = 0


@dataclass(frozen=True)
class _Truth:
    """True synapses, the volume they come from if it is a mask, and what was taken for one."""

    table: pd.DataFrame
    mask: VolumeSource | None
    read_as: str


def evaluate(pred: str, truth: str, outputs: Outputs, settings: Settings) -> list[str]:
    """Score a table of synapses; write ``tables/evaluate_synapses*``.

    Parameters
    ----------
    pred : str
        CSV with ``z, y, x`` in voxels, optionally ``score`` and ``pre_id, post_id``.
    truth : str
        CSV likewise, or a mask or label volume of any input format.
    outputs : Outputs
    settings : Settings

    Returns
    -------
    list of str
        Lines for the shell.

    Raises
    ------
    UserError
        If a table or volume cannot be used, the truth is empty, the voxel size is unknown, or the tables do not belong
        to the labels.
    """
    predicted = read_synapses(pred, scored=True)
    if settings.min_score is not None and "score" not in predicted:
        raise UserError(f"--min_score needs the column score, which {pred} lacks")
    neurites = open_neurites(settings.pred_labels, settings.truth_labels, settings.voxel_size)
    known, size = _read_truth(truth, neurites, settings)
    id_map, lines = _partners(neurites, pred, predicted, truth, known)
    shape = _shape(known, neurites)
    result = score_synapses(
        predicted,
        known.table,
        size,
        max_distance_nm=settings.max_distance_nm,
        min_score=settings.min_score,
        per_section=settings.per_section,
        id_map=id_map,
        shape=shape,
        draws=settings.draws,
        seed=settings.seed,
    )
    table = scores_table(result.scores)
    inputs = {"pred": {"uri": pred, "rows": len(predicted)}, "truth": _described(truth, known), **_labels(neurites)}
    names = ("max_distance_nm", "min_score", "per_section", "min_size", "draws", "seed")
    chosen = {name: getattr(settings, name) for name in names}
    save_scores(outputs, "synapses", result.scores, inputs, settings_of(size, **chosen), "Scores of predicted synapses")
    outputs.table("evaluate_synapses", table, "Scores of predicted synapses beside chance")
    outputs.table("evaluate_synapses_matches", result.matches, "Each prediction and each missed synapse")
    if result.curve is not None:
        outputs.table("evaluate_synapses_curve", result.curve, "Precision and recall by threshold")
    outside = [_outside(path, rows, shape) for path, rows in ((pred, predicted), (truth, known.table))]
    return [*_table_lines(table), *_remarks(pred, known, result), *lines, *filter(None, outside)]


def scores_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Set scores and chance side by side: one row for the prediction, one for chance.

    Parameters
    ----------
    scores : dict
        From `score_synapses`.

    Returns
    -------
    DataFrame
        ``what, predicted, truth, precision, recall, f1, average_precision``, and where partners were scored
        ``partners_…``, ``partners_unordered_…`` and ``direction_accuracy``.
    """
    rows = []
    for what, values in (("prediction", scores), ("chance", scores["chance"])):
        row = {"what": what, "predicted": scores["predicted"], "truth": scores["truth"]}
        row |= {name: values[name] for name in (*MEASURES, "average_precision")}
        for kind in ("partners", "partners_unordered"):
            row |= {f"{kind}_{name}": value for name, value in values.get(kind, {}).items()}
        if "direction_accuracy" in scores:
            row["direction_accuracy"] = scores["direction_accuracy"]["accuracy" if what == "prediction" else "chance"]
        rows.append(row)
    return pd.DataFrame(rows)


def _read_truth(truth: str, neurites: LabelPair | None, settings: Settings) -> tuple[_Truth, ZYX]:
    """The true synapses and the voxel size."""
    sources = [] if neurites is None else [neurites.pred, neurites.truth]
    if is_table(truth):
        if settings.min_size:
            raise UserError(f"--min_size is for a mask; {truth} is a table: drop its small rows yourself")
        table = read_synapses(truth)
        if not len(table):
            raise UserError(f"{truth} holds no synapse: there is no truth to score against")
        return _Truth(table, None, "rows of a table"), _size(settings, sources)
    mask = open_mask(truth)
    size = _size(settings, [mask, *sources])
    if neurites is not None:
        raise UserError(
            f"{truth} is a mask and names no partners; leave out --pred_labels and --truth_labels, or give a CSV table "
            f"with {' and '.join(PARTNERS)}"
        )
    found = mask_synapses(mask, size, settings.per_section, settings.min_size)
    return _Truth(found.table, mask, found.read_as), size


def _size(settings: Settings, sources: list[VolumeSource]) -> ZYX:
    size = known_voxel_size(settings.voxel_size, *sources)
    if size is None:
        raise UserError("the voxel size is unknown, and distances are in nm: give --voxel_size Z Y X")
    return size


def _partners(
    neurites: LabelPair | None, pred: str, predicted: pd.DataFrame, truth: str, known: _Truth
) -> tuple[dict[int, int] | None, list[str]]:
    """The id map, and lines about what could not be compared."""
    if neurites is None:
        if has_partners(predicted) and has_partners(known.table):
            return None, ["partners not compared: the ids are of two segmentations; give --pred_labels --truth_labels"]
        return None, []
    for path, table in ((pred, predicted), (truth, known.table)):
        if not has_partners(table):
            raise UserError(f"{path} lacks the columns {', '.join(PARTNERS)}, which partners are scored by; see --help")
    return map_neurites(neurites, NamedTable.of(pred, predicted, PARTNERS), NamedTable.of(truth, known.table, PARTNERS))


def _shape(known: _Truth, neurites: LabelPair | None) -> tuple[int, int, int] | None:
    """Shape of the volume in which the truth is known, if a file tells."""
    if known.mask is not None:
        return known.mask.shape
    return None if neurites is None else neurites.truth.shape


def _described(truth: str, known: _Truth) -> dict[str, Any]:
    volume = {"uri": truth} if known.mask is None else describe(known.mask)
    return {**volume, "rows": len(known.table), "read_as": known.read_as}


def _labels(neurites: LabelPair | None) -> dict[str, Any]:
    return (
        {} if neurites is None else {f"{side}_labels": describe(getattr(neurites, side)) for side in ("pred", "truth")}
    )


def _outside(path: str, table: pd.DataFrame, shape: tuple[int, int, int] | None) -> str | None:
    """A line if places lie outside of the volume: the table may be of another cutout."""
    if shape is None:
        return None
    places = table[["z", "y", "x"]].to_numpy()
    count = int(((places < -0.5) | (places > np.array(shape) - 0.5)).any(axis=1).sum())
    return (
        f"warning: {count} of {len(table)} places of {path} lie outside of {shape} voxels (z, y, x)" if count else None
    )


def _table_lines(table: pd.DataFrame) -> list[str]:
    """What of the table fits a shell."""
    short = table.drop(columns=[name for name in table if name.startswith("partners_") and not name.endswith("_f1")])
    return table_lines(short)


def _remarks(pred: str, known: _Truth, result: SynapseScores) -> list[str]:
    scores = result.scores
    lines = [f"truth: {len(known.table)} synapses ({known.read_as}); farthest match {scores['max_distance_nm']:g} nm"]
    if not scores["predicted"]:
        none = "of {} reaches --min_score" if result.curve is not None and len(result.curve) else "is in {}"
        lines.append(f"warning: no prediction {none.format(pred)}: precision is undefined, recall 0")
    for line in known.mask.notes.get("messages", []) if known.mask is not None else []:
        lines.append(f"warning: {line}; --per_section keeps them apart")
    if result.curve is None:
        lines.append(f"no average precision: {pred} has no column score")
    elif scores["best"] and scores["best"]["f1"]:
        best = scores["best"]
        lines.append(
            f"best F1 of the curve: {best['f1']:.3f} at score {best['threshold']:.4g} and above; chosen on this very "
            "truth, so optimistic"
        )
    if "direction_accuracy" in scores and scores["direction_accuracy"]["pairs"]:
        direction = scores["direction_accuracy"]
        lines.append(
            f"direction right in {round(direction['accuracy'] * direction['pairs'])} of {direction['pairs']} synapses "
            f"between the right neurites (chance {direction['chance']:g})"
        )
    return lines
