"""Scores against truth as tables of the report, chance beside every score that has one."""

from __future__ import annotations

from typing import Any

from emlib.publish.report import Table

SCORE_MEANING = {
    "voi_split": "bits; 0 is perfect; grows with each neurite cut apart",
    "voi_merge": "bits; 0 is perfect; grows with each pair of neurites run together",
    "voi": "bits; sum of the two above",
    "arand": "adapted Rand error; 0 is perfect, 1 is worst",
    "rand_precision": "low when neurites are merged",
    "rand_recall": "low when neurites are split",
    "cremi_score": "square root of VOI × ARAND",
    "voxels": "labelled voxels compared",
    "true_segments": "neurites in the truth",
    "pred_segments": "neurites in the prediction",
    "zero": "what became of predicted 0",
}
MEASURES = ("precision", "recall", "f1")
COLUMNS = ["score", "value", "chance"]
LINK = "tables/scores.json"


def score_tables(scores: dict[str, Any]) -> list[Table]:
    """Make the tables of all scores that a run has.

    Parameters
    ----------
    scores : dict
        What ``tables/scores.json`` holds: ``segmentation``, ``synapses``, ``graph``, ``alignment``, as far as known.

    Returns
    -------
    list of Table
    """
    makers = {"segmentation": _segmentation, "synapses": _synapses, "graph": _graph, "alignment": _alignment}
    return [make(scores[name]) for name, make in makers.items() if scores.get(name)]


def _segmentation(scores: dict[str, Any]) -> Table:
    chance = scores["chance"]["one_segment"], scores["chance"]["same_sizes_at_random"]
    rows = [
        [name, value, *(one.get(name) for one in chance), SCORE_MEANING.get(name, "")]
        for name, value in scores.items()
        if not isinstance(value, dict)
    ]
    caption = (
        "Truth 0 is ignored; predicted 0 takes the nearest label of its section. Chance: everything one neurite, and "
        "segments of the same sizes with each voxel drawn at random."
    )
    return Table("Segmentation against truth", ["score", "value", "one neurite", "random", "meaning"], rows, caption)


def _synapses(scores: dict[str, Any]) -> Table:
    rows = _beside(scores, (*MEASURES, "average_precision"))
    for kind, words in (
        ("partners", "both partners right"),
        ("partners_unordered", "partners right, either way round"),
    ):
        if kind in scores:
            rows += _beside(scores, MEASURES, kind, words)
    if "direction_accuracy" in scores:
        direction = scores["direction_accuracy"]
        rows.append([f"direction, of {direction['pairs']} pairs", direction["accuracy"], direction["chance"]])
    rows += [["predicted", scores["predicted"], None], ["in the truth", scores["truth"], None]]
    caption = (
        f"Matched one to one within {scores['max_distance_nm']:g} nm. Chance: as many places drawn at random in the "
        "cutout; for partners, those that were found, shuffled."
    )
    return Table("Synapses against truth", COLUMNS, rows, caption, LINK)


def _graph(scores: dict[str, Any]) -> Table:
    rows = _beside(scores, MEASURES, None, "connections")
    for kind, words in (("weighted", "weights"), ("undirected", "either way round")):
        rows += _beside(scores, MEASURES, kind, words)
    for side, correlation in scores["degree_correlation"].items():
        if isinstance(correlation, dict):
            rows.append([f"degree ({side}), rank correlation", correlation["spearman"], None])
    names = {
        "predicted": "predicted connections",
        "truth": "true connections",
        "unmapped": "predicted, to no true neurite",
        "within_one_neurite": "predicted, within one true neurite",
    }
    rows += [[words, scores[name], None] for name, words in names.items()]
    caption = (
        "Neurites stand for the true one that they overlap most. Chance: the targets of the predicted connections "
        "shuffled."
    )
    return Table("Graph against truth", COLUMNS, rows, caption, LINK)


def _alignment(scores: dict[str, Any]) -> Table:
    caption = "Error of the estimated shifts against the known ones, mean removed."
    return Table("Alignment against known shifts", ["error", "pixels"], [list(row) for row in scores.items()], caption)


def _beside(scores: dict[str, Any], names: tuple[str, ...], kind: str | None = None, words: str = "") -> list[list]:
    """Rows of name, value and chance."""
    values, chance = (each[kind] if kind else each for each in (scores, scores["chance"]))
    label = f"{words}: " if words else ""
    return [[label + name.replace("_", " "), values[name], chance[name]] for name in names]
