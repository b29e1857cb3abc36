"""Score neurite labels against true ones: VOI, adapted Rand error, CREMI score, run length, and where they are wrong.

1. Read both volumes once: count pairs of ids, look up the nodes of skeletons.
2. Score, beside two predictions by chance.
3. List the worst merges and splits with a place to look at; draw the worst of each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.error_views import error_view, locate
from emlib.evaluation.inputs import read_whole
from emlib.evaluation.label_pass import LabelPair, Preparation, count_pairs, open_pair
from emlib.evaluation.outcome import describe, save_scores, settings_of, table_lines
from emlib.measure.contingency import Contingency
from emlib.measure.errors import worst_errors
from emlib.measure.instances import COUNTS, SCORES, score_against_chance
from emlib.measure.skeletonize import make_skeletons
from emlib.measure.skeletons import NodeLabels, expected_run_length
from emlib.publish.figure_errors import figure_errors
from emlib.publish.page import put_figure
from emlib.runs.artefacts import Outputs
from emlib.volumes.swc import Skeleton, read_skeletons

SHOWN_ROWS = 5
FIGURE = "evaluate_segmentation_worst"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the figures; named as the flags of ``evaluate.py segmentation``."""

    voxel_size: tuple[float, float, float] | None = None
    em: str | None = None
    zero: str = "fill"
    border_nm: float = 0.0
    relabel: str | None = None  # "3d" or "2d"
    per_section: bool = False
    skeletons: str | None = None  # SWC file or folder, or "make"
    skeleton_unit: str = "nm"
    skeleton_offset: tuple[float, float, float] | None = None  # nm (z, y, x) of the volume's first voxel
    worst: int = 20

    @property
    def preparation(self) -> Preparation:
        """What is done to labels before they are counted."""
        return Preparation(self.zero, self.border_nm, self.relabel, self.per_section)


def evaluate(pred: str, truth: str, outputs: Outputs, settings: Settings) -> list[str]:
    """Score labels; write ``tables/evaluate_segmentation*`` and the figure of the worst errors.

    Parameters
    ----------
    pred, truth : str
        Label volumes of one shape, any input format.
    outputs : Outputs
    settings : Settings

    Returns
    -------
    list of str
        Lines for the shell.

    Raises
    ------
    UserError
        If the volumes cannot be compared, nothing is labelled, or a setting needs a voxel size that is not known.
    """
    pair = open_pair(pred, truth, settings.em, settings.voxel_size)
    skeletons = _skeletons(pair, settings)
    nodes = None if skeletons is None else NodeLabels(skeletons, pair.truth.shape)
    tables, names = count_pairs(pair, settings.preparation, nodes and nodes.add)
    if not any(table.voxels.size for table in tables):
        raise UserError(f"{truth} holds no labelled voxel{' away from borders' * (settings.border_nm > 0)} to score on")
    result, sections = _scored(tables, settings.zero)
    if nodes is not None:
        result["skeletons"] = _run_length(skeletons, nodes, pair, settings)
    errors = {kind: _worst(tables, names, kind, pair, settings) for kind in ("merge", "split")}
    worst = pd.concat([table.assign(kind=kind) for kind, table in errors.items()])
    _draw(outputs, pair, errors, settings)
    _write(outputs, pair, result, worst, sections, settings)
    return [*_lines(result, errors, 0 if sections is None else len(sections)), *_remarks(pair, result)]


def _skeletons(pair: LabelPair, settings: Settings) -> list[Skeleton] | None:
    needing = ["--border_nm"] * (settings.border_nm > 0) + ["--skeletons"] * (settings.skeletons is not None)
    if needing and pair.voxel_size_nm is None:
        raise UserError(
            f"{needing[0]} needs the voxel size, which the files do not tell; give --voxel_size Z Y X in nm"
        )
    if settings.skeletons is None:
        return None
    if settings.skeletons == "make":
        return make_skeletons(read_whole(pair.truth), pair.voxel_size_nm)
    offset = settings.skeleton_offset or pair.truth.notes.get("offset_nm", (0, 0, 0))
    return read_skeletons(settings.skeletons, pair.voxel_size_nm, settings.skeleton_unit, tuple(offset))


def _run_length(skeletons: list[Skeleton], nodes: NodeLabels, pair: LabelPair, settings: Settings) -> dict[str, Any]:
    run = expected_run_length(skeletons, nodes.ids, pair.voxel_size_nm)
    if run["path_nm"] > 0:
        return run
    if settings.skeletons == "make":
        raise UserError(f"{pair.truth.uri}: no true neurite is long enough for a skeleton; leave out --skeletons make")
    raise UserError(
        f"{settings.skeletons}: no edge of the {len(skeletons)} skeletons lies in the volume; mind --skeleton_unit and "
        "--skeleton_offset Z Y X"
    )


def _scored(tables: list[Contingency], zero: str) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Scores beside chance; with a table per section their means (of counts, the sums), and the scores of each."""
    if len(tables) == 1:
        return score_against_chance(tables[0], zero=zero), None
    filled = {z: score_against_chance(table, zero=zero) for z, table in enumerate(tables) if table.voxels.size}
    each = pd.DataFrame([{"z": z, **scores} for z, scores in filled.items()]).drop(columns=["zero", "chance"])
    mean = {**each[list(SCORES)].mean().to_dict(), **each[list(COUNTS)].sum().to_dict(), "zero": zero}
    chance = [scores["chance"] for scores in filled.values()]
    return {**mean, "chance": {n: pd.DataFrame([one[n] for one in chance]).mean().to_dict() for n in chance[0]}}, each


def _worst(
    tables: list[Contingency], names: np.ndarray | None, kind: str, pair: LabelPair, settings: Settings
) -> pd.DataFrame:
    """The worst errors of one kind, each with the voxel to look at; ids are those of the files."""
    if settings.zero in ("singletons", "ignore"):
        tables = [table.keep(table.pred != 0) for table in tables]
    found = pd.concat([worst_errors(table, kind, settings.worst) for table in tables])
    found = found.sort_values("bits", ascending=False, kind="stable").head(settings.worst).reset_index(drop=True)
    if names is not None:
        for column in ["id"] if kind == "split" else ["first", "second"]:
            found[column] = names[found[column].to_numpy(np.int64)]
    for column in ("id", "first", "second"):  # as Python's: pandas has no type for ids of two dtypes but float
        found[column] = found[column].astype(object)
    return locate(found, kind, pair, settings.zero == "fill")


def _write(
    outputs: Outputs, pair: LabelPair, result: dict, worst: pd.DataFrame, sections: pd.DataFrame | None, how: Settings
) -> None:
    rows = {"prediction": {name: value for name, value in result.items() if np.isscalar(value)}, **result["chance"]}
    table = pd.DataFrame([{"row": name, **values} for name, values in rows.items()])
    table = table.astype(dict.fromkeys(COUNTS, "Int64"))  # whole numbers, though chance has none
    outputs.table("evaluate_segmentation", table, "Segmentation scores, and those of chance")
    columns = ["kind", "id", "bits", "voxels", "parts", "first", "second", "first_voxels", "second_voxels", *"zyx"]
    outputs.table("evaluate_segmentation_worst", worst[columns], "The worst merges and splits")
    if sections is not None:
        outputs.table("evaluate_segmentation_sections", sections, "Segmentation scores of each section")
    inputs = {"pred": describe(pair.pred), "truth": describe(pair.truth)}
    content = {**result, "worst": worst[columns].to_dict("records"), "synthetic": pair.synthetic}
    used = settings_of(pair.voxel_size_nm, **{n: v for n, v in asdict(how).items() if n != "voxel_size"})
    save_scores(outputs, "segmentation", content, inputs, used, "Segmentation scores")


def _draw(outputs: Outputs, pair: LabelPair, errors: dict[str, pd.DataFrame], settings: Settings) -> None:
    fill = settings.zero == "fill"
    views = []
    for kind, table in errors.items():
        shown = table[table["first"] != table["second"]]  # two pieces of one neurite cannot be told apart in a picture
        views += [error_view(shown.iloc[0], kind, pair, fill)] if len(shown) else []
    figure = figure_errors(views, pair.voxel_size_nm, pair.synthetic)
    put_figure(outputs, figure, FIGURE, "The worst merge and the worst split")


def _remarks(pair: LabelPair, result: dict[str, Any]) -> list[str]:
    """What a person must know about what was compared."""
    lines = [f"warning: {line}" for source in (pair.pred, pair.truth) for line in source.notes.get("messages", [])]
    for name, source in (("pred_segments", pair.pred), ("true_segments", pair.truth)):
        if result[name] == 1:
            lines.append(f"warning: {source.uri} is a single segment: is it a segmentation?")
    return [*lines, pair.synthetic] if pair.synthetic else lines


def _lines(result: dict[str, Any], errors: dict[str, pd.DataFrame], sections: int) -> list[str]:
    rows = {"prediction": result, **result["chance"]}
    table = pd.DataFrame([{"": name, **{score: values[score] for score in SCORES}} for name, values in rows.items()])
    lines = table_lines(table)
    counts = (f"{result[name]:,}" for name in ("voxels", "true_segments", "pred_segments"))
    if sections:
        lines.append(f"means over {sections} sections, each scored for itself")
    lines.append("VOI in bits; {} labelled voxels, {} true and {} predicted segments".format(*counts))
    if "skeletons" in result:
        run = result["skeletons"]
        lines.append(
            f"ERL {run['erl_nm'] / 1000:.2f} of {run['erl_max_nm'] / 1000:.2f} µm possible ({run['erl_ratio']:.3f}); "
            f"{run['skeletons']} skeletons, {run['path_nm'] / 1000:.0f} µm of path"
        )
    for kind, found in errors.items():
        if len(found):
            parts = "true" if kind == "merge" else "predicted"
            lines += ["", f"worst {kind}s: bits of VOI, the two largest {parts} parts, and where they meet"]
            lines += table_lines(found.head(SHOWN_ROWS), digits=4)
    return lines
