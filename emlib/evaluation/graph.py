"""Score a predicted wiring graph against the true one: edges, weights, degrees, and a random rewiring as chance.

1. Read the two tables of edges.
2. With labels, name predicted neurites after the true ones that they overlap most.
3. Compare, and list what became of each edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_table
from emlib.evaluation.neurite_ids import NamedTable, map_neurites, open_neurites
from emlib.evaluation.outcome import describe, save_scores, table_lines
from emlib.measure.edges import ENDS, MEASURES
from emlib.measure.graphs import score_graph
from emlib.runs.artefacts import Outputs

HEAVIEST = 1e12  # of an edge: sums stay exact
KINDS = ("weighted", "undirected")
ALIASES = {  # of the pipeline's synapses, of CAVE and of neuPrint
    "source": ("pre_id", "pre_pt_root_id", "bodyId_pre", "pre"),
    "target": ("post_id", "post_pt_root_id", "bodyId_post", "post"),
}
SHOWN = ["what", "predicted", "truth", *MEASURES, "weighted_f1", "undirected_f1"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides the figures; named as the flags of ``evaluate.py graph``."""

    pred_labels: str | None = None
    truth_labels: str | None = None
    draws: int = 100
    seed: int = 0


def evaluate(pred: str, truth: str, outputs: Outputs, settings: Settings) -> list[str]:
    """Score a table of edges; write ``tables/evaluate_graph*``.

    Parameters
    ----------
    pred, truth : str
        CSV with ``source``, ``target`` and optionally ``weight``.
    outputs : Outputs
    settings : Settings

    Returns
    -------
    list of str
        Lines for the shell.

    Raises
    ------
    UserError
        If a table or volume cannot be used, the truth is empty, or the ids of the two tables have nothing in common.
    """
    predicted, true = read_edges(pred), read_edges(truth)
    if not _connects(true).any():
        raise UserError(f"{truth} holds no connection between two neurites: there is no truth to score against")
    tables = NamedTable.of(pred, predicted, ENDS), NamedTable.of(truth, true, ENDS)
    neurites = open_neurites(settings.pred_labels, settings.truth_labels, None)
    if neurites is None:
        id_map, lines = None, _same_ids(*tables)
    else:
        id_map, lines = map_neurites(neurites, *tables)
    result = score_graph(predicted, true, id_map, draws=settings.draws, seed=settings.seed)
    table = scores_table(result.scores)
    inputs: dict[str, Any] = {
        side: {"uri": path, "rows": len(rows)}
        for side, path, rows in (("pred", pred, predicted), ("truth", truth, true))
    }
    if neurites is not None:
        inputs |= {f"{side}_labels": describe(getattr(neurites, side)) for side in ("pred", "truth")}
    chosen = {"draws": settings.draws, "seed": settings.seed}
    save_scores(outputs, "graph", result.scores, inputs, chosen, "Scores of a predicted graph")
    outputs.table("evaluate_graph", table, "Scores of a predicted graph beside chance")
    outputs.table("evaluate_graph_edges", result.edges, "Each predicted and each true connection, by true ids")
    return [*table_lines(table[SHOWN]), *_remarks(pred, result.scores), *lines]


def read_edges(path: str) -> pd.DataFrame:
    """Read a table of edges: ``source``, ``target`` (or the names of ``ALIASES``) and, if it is there, ``weight``.

    Raises
    ------
    UserError
        As `read_table`, or if a weight is not above 0.
    """
    table = read_table(path, ["weight"], ENDS, optional=["weight"], aliases=ALIASES)
    if "weight" in table:
        wrong = ~table["weight"].between(0, HEAVIEST, inclusive="right").to_numpy()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            value = table["weight"].iloc[row]
            raise UserError(
                f"{path}, line {row + 2}: weight is {value:g}, not in 0 … {HEAVIEST:g}; mend or drop the row"
            )
        if (table["weight"] == table["weight"].round()).all() and (table["weight"] < 2**53).all():
            table["weight"] = table["weight"].astype(np.int64)
    return table[[name for name in (*ENDS, "weight") if name in table]]


def scores_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Set scores and chance side by side: one row for the prediction, one for the mean of the rewirings.

    Parameters
    ----------
    scores : dict
        From `score_graph`.

    Returns
    -------
    DataFrame
        ``what, predicted, truth, precision, recall, f1``, then the same as ``weighted_…`` and ``undirected_…``.
    """
    rows = []
    for what, values in (("prediction", scores), ("chance", scores["chance"])):
        row = {"what": what, "predicted": scores["predicted"], "truth": scores["truth"]}
        row |= {name: values[name] for name in MEASURES}
        rows.append(row | {f"{kind}_{name}": values[kind][name] for kind in KINDS for name in MEASURES})
    return pd.DataFrame(rows)


def _connects(edges: pd.DataFrame) -> pd.Series:
    source, target = (edges[end] for end in ENDS)
    return (source != target) & (source > 0) & (target > 0)


def _same_ids(pred: NamedTable, truth: NamedTable) -> list[str]:
    """A line on how far two tables share their ids, which without labels are taken for the same."""
    if not pred.ids:
        return []
    common = len(pred.ids & truth.ids)
    if not common:
        raise UserError(
            f"non-overlapping ids: no neurite of {pred.path} is in {truth.path}; give --pred_labels --truth_labels to "
            "map them"
        )
    return [f"ids taken as the same in both tables: {common} of {len(pred.ids)} predicted neurites are in the truth"]


def _remarks(pred: str, scores: dict[str, Any]) -> list[str]:
    chance, draws = scores["chance"], scores["chance"]["draws"]
    low, high = chance["interval_95"]["f1"]
    lines = [f"F1 by chance {chance['f1']:.3f}, 95 % of {draws} rewirings within {low:.3f} and {high:.3f}"]
    if not scores["predicted"]:
        lines.append(f"warning: {pred} holds no connection: precision is undefined, recall 0")
    for name, what in (("unmapped", "lead to no true neurite"), ("within_one_neurite", "stay within one true neurite")):
        if scores[name]:
            lines.append(f"{scores[name]} of {scores['predicted']} predicted connections {what}")
    for side, rows in scores["background"].items():
        if rows:
            lines.append(f"{rows} rows of the {side} table name background (0) and were left out")
    total = scores["degree_correlation"]["total"]
    if not np.isnan(total["pearson"]):
        over = scores["degree_correlation"]["neurites"]
        lines.append(
            f"degrees of {over} true neurites: Pearson {total['pearson']:.3f}, Spearman {total['spearman']:.3f}"
        )
    return lines
