"""What the report of a rebuild shows besides that of a run: what changed, and the scores before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from emlib.measure.graph_change import LabelChange, degree_changes
from emlib.publish.figure_change import figure_graphs, figure_labels
from emlib.publish.report import Number, Table
from emlib.publish.run_report import Additions

LABELS_FIGURE, GRAPHS_FIGURE = "Figure5_labels_before_after", "Figure6_graph_before_after"
ROWS = 15  # of a table in the report
SCORES = {  # what is set side by side: where it lies in scores.json
    "VOI split (bits)": ("segmentation", "voi_split"),
    "VOI merge (bits)": ("segmentation", "voi_merge"),
    "VOI (bits)": ("segmentation", "voi"),
    "adapted Rand error": ("segmentation", "arand"),
    "synapses: precision": ("synapses", "precision"),
    "synapses: recall": ("synapses", "recall"),
    "synapses: F1": ("synapses", "f1"),
    "synapses, both partners right: F1": ("synapses", "partners", "f1"),
    "connections: precision": ("graph", "precision"),
    "connections: recall": ("graph", "recall"),
    "connections: F1": ("graph", "f1"),
}


def additions(
    name: str,
    own: np.ndarray,
    run: Any,
    change: LabelChange,
    edges: pd.DataFrame,
    found: dict[str, Any],
    scores_before: dict[str, Any],
    decided: pd.DataFrame | None,
    named: pd.DataFrame | None,
    notes: Sequence[str],
) -> Additions:
    """Collect what a report of rebuilt results shows besides that of a run.

    Parameters
    ----------
    name : str
        Of the new labels.
    own : (Z, Y, X) integer array
        The labels of the run itself.
    run : Run
        As rebuilt.
    change : LabelChange
    edges : DataFrame
        From `emlib.measure.graph_change.compare_edges`.
    found : dict
        ``labels`` and ``graph``: what `compare_labels` and `graph_summary` count.
    scores_before : dict
        ``scores.json`` of the run itself; empty where no truth is known.
    decided : DataFrame or None
        What became of decisions on synapses.
    named : DataFrame or None
        ``neurite_id, name, note``.
    notes : sequence of str
    """
    names = ("the run's own labels", f"{name} labels")
    size, note = run.volume.voxel_size_nm, run.synthetic
    figures = [
        (
            LABELS_FIGURE,
            "One section of the labels before and after, with the neurites that changed in colour.",
            figure_labels(run.aligned, own, run.labels, change.pairs, size, names, note),
        ),
        (
            GRAPHS_FIGURE,
            "The graph before and after; blue connections are gained, red ones lost, orange ones reweighted.",
            figure_graphs(edges, names, note),
        ),
    ]
    graph, labels = found["graph"], found["labels"]
    numbers = [
        Number("connections gained", graph["gained"], "that the run's own labels did not give"),
        Number("connections lost", graph["lost"] + graph["inside"], f"{graph['inside']} now inside of one neurite"),
        Number("connections reweighted", graph["reweighted"], "with more or fewer synapses"),
        Number("labels apart", labels["voi"], "VOI between the labels before and after", "bits"),
    ]
    tables = [_counts(labels, graph, change), _edges(edges), _neurites(change), _degrees(edges)]
    if decided is not None:
        tables.append(_decisions(decided))
    if named is not None:
        caption = "As given while proofreading; joined by + where several are one neurite now."
        tables.append(Table.from_frame("Named neurites", named, ROWS, caption, "tables/neurite_names.csv"))
    rows = score_rows(scores_before, run.scores)
    scores = [_scores(rows)] if rows else []
    return Additions(f"Wiring graph rebuilt from {name} labels", figures, numbers, tables, scores, notes)


def score_rows(before: dict[str, Any], after: dict[str, Any]) -> list[list[Any]]:
    """Return rows of score, before, after and difference, as far as both sides have them.

    Examples
    --------
    >>> score_rows({"graph": {"f1": 0.5}}, {"graph": {"f1": 0.75}})
    [['connections: F1', 0.5, 0.75, 0.25]]
    """
    rows = []
    for words, path in SCORES.items():
        values = []
        for scores in (before, after):
            value: Any = scores
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            values.append(value if isinstance(value, (int, float)) and np.isfinite(value) else None)
        if any(value is not None for value in values):
            rows.append([words, *values, None if None in values else values[1] - values[0]])
    return rows


def _scores(rows: list[list[Any]]) -> Table:
    caption = (
        "Against the same truth: the run's own labels before, the new ones after. Chance stands in the tables below."
    )
    return Table("Scores before and after", ["score", "before", "after", "difference"], rows, caption)


def _counts(labels: dict[str, Any], graph: dict[str, int], change: LabelChange) -> Table:
    rows = [
        [words, counts[f"{key}_before"], counts[f"{key}_after"], counts[f"{key}_after"] - counts[f"{key}_before"]]
        for words, key, counts in (
            ("neurites in the labels", "neurites", labels),
            ("neurites in the graph", "nodes", graph),
            ("connections", "edges", graph),
            ("synapses in connections", "weight", graph),
        )
    ]
    families = ", ".join(f"{number} {name}" for name, number in change.families().items()) or "none changed"
    caption = (
        f"Groups of neurites that belong together before and after: {families}. {labels['share_changed']:.2%} of the "
        f"labelled voxels changed; {labels['voxels_unlabelled']} became background, {labels['voxels_labelled']} were. "
        f"VOI between the labels: {labels['voi_split']:.3g} bits split (neurites before that are cut apart) + "
        f"{labels['voi_merge']:.3g} bits merged (neurites before that are one now), where both label."
    )
    return Table("Before and after", ["", "before", "after", "difference"], rows, caption)


def _edges(edges: pd.DataFrame) -> Table:
    changed = edges[edges["change"] != "kept"]
    shown = changed.rename(columns={"source": "source_id", "target": "target_id"})
    caption = (
        "Ids after; minus the old id of a neurite that is gone. “Inside”: both ends are one neurite now. The last "
        "columns say what became of the two neurites; edges_before names them by their ids before."
    )
    return Table.from_frame("Connections that changed", shown, ROWS, caption, "tables/graph_changes.csv")


def _neurites(change: LabelChange) -> Table:
    changed = change.pairs[change.pairs["change"] != "same"]
    shown = changed.rename(columns={"family": "group", "before": "before_id", "after": "after_id"})
    caption = "Each neurite beside the one it shares most voxels with; rows of one group belong together."
    return Table.from_frame("Neurites that changed", shown, ROWS, caption, "tables/node_changes.csv")


def _degrees(edges: pd.DataFrame) -> Table:
    caption = "Partners that send to the neurite (in) and receive from it (out); ids after."
    return Table.from_frame("Largest changes of degree", degree_changes(edges), ROWS, caption)


def _decisions(decided: pd.DataFrame) -> Table:
    counts = decided.groupby(["decision", "outcome"]).size().reset_index(name="synapses")
    return Table.from_frame("Decisions on synapses", counts, None, link="tables/synapse_decisions.csv")
