"""Organelle masks scored from files: ``evaluate.py masks``.

`score_organelles` measures; here masks are found and read, and what it returns is written and printed. A script that
has its masks in memory calls `save_mask_scores` and `score_lines` with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size
from emlib.evaluation.mask_inputs import pair_masks
from emlib.evaluation.outcome import describe, save_scores, settings_of, table_lines
from emlib.measure.masks.counts import MaskSettings
from emlib.measure.masks.scores import PROTOCOLS, Scores, score_organelles, scores_table
from emlib.runs.artefacts import Outputs
from emlib.volumes.volume import ZYX

SHOWN = {
    "pooled": "dice iou precision recall accuracy vi boundary_f1 object_f1 ap50 ap75".split(),
    "patch_mean": "dice iou precision recall accuracy vi".split(),
}
SHORT = {"boundary_f1": "bound_f1", "object_f1": "obj_f1"}  # for 120 columns
MEANINGS = {
    "vi": "bits, base-2 logarithms",
    "dice": "equals f1",
    "empty": "1 where neither truth nor prediction has a pixel, boundary or object; 0 where one of them has",
    "objects": "8-connected components of each section, matched at IoU 0.5 and 0.75; none for membranes",
    "ap": "TP / (TP + FP + FN)",
    "ci95": "bootstrap over sections, percentiles",
    "average": "mean over the organelles that have the score",
}


@dataclass(frozen=True)
class Settings:
    """How masks are scored; the flags of ``evaluate.py masks``.

    Attributes
    ----------
    organelles : names, optional
        Default: all folders of the truth.
    voxel_size : (z, y, x) in nm, optional
        Default: the file's; without one no boundaries are scored.
    boundary_nm, min_object_nm2, patch, stride, bootstrap, seed
        As in `emlib.measure.masks.counts.MaskSettings`.
    """

    organelles: Sequence[str] | None = None
    voxel_size: Sequence[float] | None = None
    boundary_nm: float = 20.0
    min_object_nm2: float = 0.0
    patch: int = 256
    stride: int = 128
    bootstrap: int = 1000
    seed: int = 0


def evaluate(pred: str, truth: str, outputs: Outputs, settings: Settings = Settings()) -> list[str]:
    """Score predicted organelle masks against truth and chance, and write tables.

    Parameters
    ----------
    pred, truth : str
        As for `emlib.evaluation.mask_inputs.pair_masks`.
    outputs : Outputs
        ``tables/evaluate_masks.json``, ``evaluate_masks.csv`` and ``evaluate_masks_sections.csv`` are written.
    settings : Settings

    Returns
    -------
    list of str
        The scores as tables, then notes.

    Raises
    ------
    UserError
        If masks are missing, differ in size, or are none.
    """
    pairs = pair_masks(pred, truth, settings.organelles)
    voxel_size_nm = known_voxel_size(settings.voxel_size, *(s for pair in pairs for s in (pair.truth, pair.pred)))
    if voxel_size_nm is None and settings.min_object_nm2 > 0:
        raise UserError("--min_object_nm2 needs the size of a pixel; give --voxel_size Z Y X in nm")
    masks, notes = {}, []
    for pair in pairs:
        true, found, lines = pair.read()
        masks[pair.organelle] = true, found
        notes += lines
    how = _how(settings, voxel_size_nm)
    scores, sections = score_organelles(masks, how, {pair.organelle: pair.sections for pair in pairs})
    inputs = {
        pair.organelle: {
            "pred": describe(pair.pred),
            "truth": describe(pair.truth),
            "sections": pair.sections,
        }
        for pair in pairs
    }
    save_mask_scores(
        outputs, scores, sections, {"pred": pred, "truth": truth, "organelles": inputs}, voxel_size_nm, how
    )
    return [*score_lines(scores, how), *notes]


def save_mask_scores(
    outputs: Outputs,
    scores: Scores,
    sections: pd.DataFrame,
    inputs: dict[str, Any],
    voxel_size_nm: ZYX | None,
    settings: MaskSettings,
) -> None:
    """Write the JSON and the two tables of a result of `emlib.measure.masks.scores.score_organelles`.

    Parameters
    ----------
    outputs : Outputs
    scores, sections : from `score_organelles`
    inputs : dict
        What was compared, for the record.
    voxel_size_nm : (z, y, x) in nm, or None
    settings : MaskSettings
    """
    record = {name: value for name, value in vars(settings).items() if name != "pixel_nm"}
    settings_record = settings_of(voxel_size_nm, **record, meanings=MEANINGS)
    what = "organelle masks against truth and chance"
    save_scores(outputs, "masks", scores, inputs, settings_record, what)
    outputs.table("evaluate_masks", scores_table(scores), f"{what}: one row per organelle, protocol and chance line")
    outputs.table("evaluate_masks_sections", sections, f"{what}: each section for itself, with its counts")


def score_lines(scores: Scores, settings: MaskSettings) -> list[str]:
    """Set the result of `emlib.measure.masks.scores.score_organelles` for the shell: one table for each protocol.

    Parameters
    ----------
    scores : dict
    settings : MaskSettings

    Returns
    -------
    list of str
        At most 120 characters each, unless an organelle has a very long name.
    """
    table = scores_table(scores)
    first = next(iter(scores["pooled"]))
    counted = {protocol: scores[protocol][first] for protocol in PROTOCOLS}
    several = len({scores["pooled"][name]["sections"] for name in scores["pooled"] if name != "average"}) > 1
    sections = "whole sections" if several else _count(counted["pooled"]["sections"], "whole section")
    patches = "patches" if several else _count(counted["patch_mean"]["patches"], "patch", "patches")
    lines = [f"pooled over {sections} (the figures to quote)", *_table(table, "pooled"), ""]
    lines += [f"mean over {patches} of {settings.patch} px, stride {settings.stride} (an empty patch counts as 1)"]
    lines += [*_table(table, "patch_mean"), "", "dice: equals F1; vi: bits, 0 is perfect; obj_f1: objects at IoU 0.5"]
    if settings.pixel_nm is None:
        lines.append("bound_f1: give --voxel_size for boundary F1")
    else:
        lines.append(f"bound_f1: boundaries within {settings.boundary_nm:g} nm")
    if counted["pooled"]["ci95"] is None:
        lines.append("no interval: it takes more than one section")
    else:
        lines.append(f"dice_95%: bootstrap over sections, {settings.bootstrap} draws; few sections make it too narrow")
    return lines


def _table(table: pd.DataFrame, protocol: str) -> list[str]:
    """The rows of one protocol; a chance line does not repeat the organelle above it."""
    rows = table[table["protocol"] == protocol]
    if rows["organelle"].nunique() == 2:  # one and an average that repeats it
        rows = rows[rows["organelle"] != "average"]
    rows = rows.reset_index(drop=True)
    own = rows["line"] == "prediction"
    organelle, line = (
        rows["organelle"].where(own, ""),
        rows["line"].where(own, rows["line"].str.replace("_", " ")),
    )
    shown = pd.DataFrame({**_left("organelle", organelle), **_left("", line)})
    shown[[SHORT.get(name, name) for name in SHOWN[protocol]]] = rows[SHOWN[protocol]]
    if protocol == "pooled" and rows["dice_low"].notna().any():
        bounds = zip(rows["dice_low"], rows["dice_high"], strict=True)
        shown["dice_95%"] = ["" if low != low else f"{low:.3f}–{high:.3f}" for low, high in bounds]
    return [text.rstrip() for text in table_lines(shown)]


def _left(name: str, values: pd.Series) -> dict[str, list[str]]:
    """A column set flush left, header included."""
    width = max(len(name), values.str.len().max())
    return {name.ljust(width): [value.ljust(width) for value in values]}


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _how(settings: Settings, voxel_size_nm: ZYX | None) -> MaskSettings:
    names = ("boundary_nm", "min_object_nm2", "patch", "stride", "bootstrap", "seed")
    pixel_nm = None if voxel_size_nm is None else voxel_size_nm[1:]
    return MaskSettings(pixel_nm, **{name: getattr(settings, name) for name in names})
