"""Score a run whose truth is known: cut like the EM and moved by the same shifts.

The same functions score here and in ``evaluate.py``, on what the tables hold, so that both give the same figures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.synapse_tables import PARTNERS, has_partners, read_synapses
from emlib.measure.contingency import contingency
from emlib.measure.edges import ENDS
from emlib.measure.graphs import score_graph
from emlib.measure.instances import fill_zero, score_against_chance
from emlib.measure.synapses.partners import largest_overlap
from emlib.measure.synapses.scores import score_synapses
from emlib.pipeline.state import Run
from emlib.stages.align import apply_shifts
from emlib.stages.graph import GraphSettings, build_graph, edge_table
from emlib.stages.synapse_direction import UNKNOWN, direction_is_open

CHANCE_DRAWS = 100  # as many as evaluate.py draws


def read_true_synapses(run: Run) -> None:
    """Read ``--truth_synapses``, before there is any work to lose.

    Raises
    ------
    UserError
        If the table cannot be used or is empty.
    """
    path = run.settings.truth_synapses
    if path is None:
        return
    run.given_synapses = read_synapses(path)
    if not len(run.given_synapses):
        raise UserError(f"--truth_synapses {path} holds no synapse: there is no truth to score against")


def score_run(run: Run) -> None:
    """Score what the run has made against the truth that is known; write ``tables/scores.json``."""
    if run.labels is None:
        return
    shifts, truth = total_shifts(run), None
    if run.truth is not None:
        truth = apply_shifts(run.truth, shifts, order=0, fill=0)
        if not truth.any():
            run.warn("no labelled voxel of the truth lies in this cutout: segmentation is not scored")
            truth = None
    if truth is not None and run.volume.truth is not None:
        run.save_array("truth_neurites_i32_zyx", truth.astype(np.int32), "True neurites of the phantom, aligned")
    run.true_synapses = _true_synapses(run, shifts)
    score_aligned(run, truth)


def score_aligned(run: Run, truth: np.ndarray | None) -> None:
    """Score what the run has made against truth in the frame of its labels; write the tables.

    Parameters
    ----------
    run : Run
        ``true_synapses`` in voxels of the aligned volume, where they are known.
    truth : (Z, Y, X) integer array or None
        True neurites, moved like the sections.
    """
    if truth is not None:
        run.scores["segmentation"] = score_against_chance(contingency(truth, fill_zero(run.labels)))
    if run.true_synapses is not None:
        run.outputs.table("truth_synapses", run.true_synapses, "True synapses in this cutout, aligned")
        _score_wiring(run, truth)
    if truth is not None or "synapses" in run.scores:
        run.outputs.json("scores", {"synthetic": run.synthetic, **run.scores}, "Scores against truth")


def _score_wiring(run: Run, truth: np.ndarray | None) -> None:
    """Score synapses, and where the partners of the true ones are known the graph."""
    synapses, seed = run.true_synapses, run.settings.seed
    known = run.candidates is None or not direction_is_open(run.candidates)
    id_map = None
    if has_partners(synapses):
        true_edges = edge_table(build_graph(synapses.assign(score=1.0), settings=GraphSettings()))[[*ENDS, "weight"]]
        run.outputs.table("truth_edges", true_edges, "True connections, by the true synapses in this cutout")
        if truth is not None and run.candidates is not None:
            id_map = _id_map(run, truth)
    if run.candidates is not None:
        run.scores["synapses"] = score_synapses(
            _as_written(run.candidates),
            _as_written(synapses),
            run.volume.voxel_size_nm,
            min_score=run.settings.stages.graph.min_score,
            id_map=id_map,
            shape=run.volume.shape,
            draws=CHANCE_DRAWS,
            seed=seed,
        ).scores
        if not known:
            run.scores["synapses"] = _without_direction(run.scores["synapses"])
    if id_map is not None and run.edges is not None and len(true_edges):
        edges = run.edges if known else one_way(run.edges, id_map)
        true_edges = true_edges if known else one_way(true_edges)
        scores = score_graph(edges, true_edges, id_map, draws=CHANCE_DRAWS, seed=seed).scores
        run.scores["graph"] = scores if known else _without_direction(scores)


def one_way(edges: pd.DataFrame, id_map: dict[int, int] | None = None) -> pd.DataFrame:
    """Turn edges without direction so that equal pairs are equal edges.

    Parameters
    ----------
    edges : DataFrame
        ``source``, ``target``.
    id_map : dict, optional
        The names by which they will be compared; what has none goes by minus its own.

    Returns
    -------
    DataFrame
        The end of the smaller name is the source.

    Examples
    --------
    >>> one_way(pd.DataFrame({"source": [1, 2], "target": [2, 3]}), {1: 9, 2: 8, 3: 7}).to_numpy().tolist()
    [[2, 1], [3, 2]]
    """
    ends = edges[ENDS].to_numpy(np.int64)
    named = ends if id_map is None else np.array([[id_map.get(a, -a) for a in pair] for pair in ends.tolist()])
    turned = np.where(named[:, :1] > named[:, 1:], ends[:, ::-1], ends) if len(ends) else ends
    return edges.assign(source=turned[:, 0], target=turned[:, 1])


def _without_direction(scores: dict) -> dict:
    """Leave out what depends on who sends."""
    lost = ("partners", "direction_accuracy", "in", "out")
    kept = {name: value for name, value in scores.items() if name not in lost}
    for name in ("chance", "degree_correlation"):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in lost}
    return {**kept, "direction": UNKNOWN}


def _id_map(run: Run, truth: np.ndarray) -> dict[int, int] | None:
    """True id of each predicted id; None, and a warning, if the true synapses name other neurites than the truth."""
    table = contingency(truth, run.labels)
    if not run.true_synapses[list(PARTNERS)].isin(set(table.truth.tolist())).to_numpy().any():
        run.warn("no neurite that the true synapses name is in the true labels: partners and graph are not scored")
        return None
    return largest_overlap(table)


def _as_written(table: pd.DataFrame) -> pd.DataFrame:
    """Floats with the digits that tables are written with."""
    floats = {name: [float(f"{value:.6g}") for value in table[name]] for name in table.select_dtypes("float")}
    return table.assign(**floats)


def total_shifts(run: Run) -> pd.DataFrame:
    """Shifts from the frame of the truth to that of the labels: simulated ones first, then the estimated."""
    if not run.settings.simulate_misalignment_px:
        return run.shifts
    return run.shifts.assign(dy=run.shifts["dy"] + run.added["dy"], dx=run.shifts["dx"] + run.added["dx"])


def _true_synapses(run: Run, shifts: pd.DataFrame) -> pd.DataFrame | None:
    """True synapses inside the cutout, in voxels of the aligned volume; None where none is known."""
    known = _known_synapses(run)
    if known is None:
        return None
    table = known[["z", "y", "x", *(PARTNERS if has_partners(known) else ())]].copy()
    table[["z", "y", "x"]] -= np.array(run.volume.offset)
    nearest = table[["z", "y", "x"]].round().to_numpy(np.int64)
    inside = ((nearest >= 0) & (nearest < run.volume.shape)).all(axis=1)
    if not inside.any():
        run.warn("no true synapse lies in this cutout: synapses and graph are not scored")
        return None
    move = shifts.set_index("z").loc[nearest[inside, 0]]
    table = table[inside].reset_index(drop=True)
    return table.assign(y=table["y"] + move["dy"].to_numpy(), x=table["x"] + move["dx"].to_numpy())


def _known_synapses(run: Run) -> pd.DataFrame | None:
    """The user's table, which belongs to the data set that was asked for; else the phantom's own."""
    asked_for = run.volume.source["uri"] == run.settings.dataset
    if run.given_synapses is not None and asked_for:
        return run.given_synapses
    return None if run.volume.truth is None else run.volume.truth.synapses
