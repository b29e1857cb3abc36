"""Synapses, graph, tables, figures and report anew from other labels of a run, and what changed.

1. The run: its settings, its aligned EM and its own labels, compared with the checksums that it left.
2. The new labels, in the frame of that EM; synapses and graph on them with the settings of the run.
3. Decisions on synapses and names of neurites, found again by their places.
4. Before and after: labels, graph, and scores where truth is known.
5. The results take the places of the run's own, which are kept first (`emlib.runs.kept_results`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.measure.graph_change import LabelChange, compare_edges, compare_labels, graph_summary, node_changes
from emlib.pipeline.dependence import checksum
from emlib.pipeline.neurite_names import name_nodes, named_table, read_names
from emlib.pipeline.rebuild_inputs import (
    BOUNDARIES,
    MITOCHONDRIA,
    PREPROCESSED,
    RAW,
    TRUTH,
    Base,
    find_base,
    labels_name,
    newest_labels,
    own_table,
    read_new_labels,
)
from emlib.pipeline.rebuild_report import additions, score_rows
from emlib.pipeline.run import failure_on_record, terminable
from emlib.pipeline.scoring import one_way, score_aligned, total_shifts
from emlib.pipeline.settings import REBUILD
from emlib.pipeline.state import Run
from emlib.pipeline.steps import NEURITES_TABLE, boss_options, log_place, recall_graph
from emlib.pipeline.summary import summary
from emlib.pipeline.synapse_decisions import Applied, apply_decisions, read_decisions
from emlib.pipeline.synapse_sources import find_synapses
from emlib.publish.figures import NAMES
from emlib.publish.run_report import publish
from emlib.runs.artefacts import Outputs
from emlib.runs.kept_results import FOLDER, OWN, keep_own, keep_rebuilt, own_file
from emlib.runs.lock import run_lock
from emlib.runs.runlog import RunLog
from emlib.stages.align import apply_shifts, simulate_misalignment
from emlib.stages.graph import build_graph, edge_table, node_table, to_graphml
from emlib.stages.synapse_direction import direction_is_open, leave_direction_open
from emlib.volumes.atomic import remove_stale
from emlib.volumes.companions import read_labels
from emlib.volumes.volume import Volume

EDITS, NEURITE_NAMES = "synapse_edits.csv", "neurite_names.csv"
PROOFREADING = {EDITS, NEURITE_NAMES, "proofread_slices.json"}  # tables that are no results of the run
NO_EDITS = "none"
HEADLINES = ("VOI (bits)", "adapted Rand error", "synapses: F1", "connections: F1")


@dataclass(frozen=True)
class RebuildSettings:
    """What is rebuilt; all else is as recorded of the run."""

    labels: str | None = None  # a volume of any format; None: the newest in data/
    synapse_edits: str | None = None  # decisions; None: those in tables/, "none": leave them out
    match_nm: float = 100.0  # farthest that a candidate lies from the old one that was decided on: half a separation


@dataclass
class Rebuilt:
    """What a rebuild has come to.

    Attributes
    ----------
    run : Run
        As `emlib.pipeline.run_pipeline` returns.
    change : LabelChange
    edges : DataFrame
        Connections before and after.
    found : dict
        What ``tables/rebuild.json`` holds.
    kept : Path
        The copy of these results in ``rebuilt/``.
    """

    run: Run
    change: LabelChange
    edges: pd.DataFrame
    found: dict[str, Any]
    kept: Path

    def lines(self) -> list[str]:
        """What a person at the shell wants to read last."""
        labels, graph = self.found["labels"], self.found["graph"]
        families = ", ".join(f"{number} {name}" for name, number in self.change.families().items())
        lines = [
            f"{labels['neurites_before']} neurites before, {labels['neurites_after']} after"
            + (f" ({families})" if families else ", none changed"),
            f"VOI between the labels: {labels['voi_split']:.3f} split + {labels['voi_merge']:.3f} merge = "
            f"{labels['voi']:.3f} bits",
            f"graph: {graph['nodes_before']} -> {graph['nodes_after']} nodes, {graph['edges_before']} -> "
            f"{graph['edges_after']} edges: {graph['gained']} gained, {graph['lost']} lost, {graph['inside']} inside "
            f"one neurite now, {graph['reweighted']} reweighted, {graph['kept']} kept",
        ]
        told = {words: f"{_short(before)} -> {_short(after)}" for words, before, after, _ in self.found["scores"]}
        if shown := [f"{words} {told[words]}" for words in HEADLINES if words in told]:
            lines.append(f"against truth: {', '.join(shown)}")
        lines += [self.run.synthetic] if self.run.synthetic else []
        return [*lines, f"kept: {self.kept}", f"written: {self.run.outputs.path('report.html')}"]


def rebuild(
    settings: RebuildSettings, outdir: str | Path = "outputs", *, command: str = "", quiet: bool = False
) -> Rebuilt:
    """Make synapses, graph, tables, figures and report of a run anew from other labels.

    Parameters
    ----------
    settings : RebuildSettings
    outdir : path
        The run's; locked meanwhile.
    command : str
        The command line, for the record.
    quiet : bool

    Returns
    -------
    Rebuilt
        With the run's own labels and no decisions, every table of the run comes out byte for byte as it was.

    Raises
    ------
    UserError
        If there is no run, its EM or labels are missing or replaced, the new labels do not fit, or decisions and names
        belong to another volume. Nothing has been replaced then.
    """
    base = find_base(outdir)
    with run_lock(outdir), terminable():
        outputs = Outputs(outdir)
        outputs.remove_stale()
        remove_stale(outputs.root / FOLDER)
        labels = settings.labels or str(newest_labels(outputs.root))
        record = {"run": base.run_id, **asdict(settings), "labels": labels}
        log = RunLog(outputs.root / "runs", {**asdict(base.settings), REBUILD: record}, command)
        run = Run(replace(base.settings, until="publish"), outputs, log, command=command, quiet=quiet)
        with failure_on_record(run):
            return _rebuild(run, base, replace(settings, labels=labels))


def _rebuild(run: Run, base: Base, settings: RebuildSettings) -> Rebuilt:
    watch, name = run.watch, labels_name(settings.labels)
    with watch.stage("labels"):
        own, sha256 = _read(run, base, settings.labels)
        decisions, names, made_from = _people(run, base, settings)
    with watch.stage("synapses"):
        run.candidates, decided = _candidates(run, decisions, settings.match_nm)
    with watch.stage("graph"):
        recall_graph(run)
        if names is not None:
            name_nodes(run.graph, names)
    with watch.stage("compare"):
        change = compare_labels(own, run.labels)
        before = _edges_before(run, base, own)
        if direction_is_open(run.candidates):
            before = one_way(before, change.new_ids)
        edges = compare_edges(before, run.edges, change)
        found = {"labels": change.scores, "families": change.families(), "graph": graph_summary(edges, change)}
    with watch.stage("publish"):
        keep_own(run.outputs.root, base.run_id, _own_results(base))
        _write(run, change, edges, node_changes(change, before, run.edges), decided, names)
        scores_before = _score(run, base)
        found["scores"] = score_rows(scores_before, run.scores)
        made_from |= {"sha256": sha256, "match_nm": settings.match_nm}
        content = {"synthetic": run.synthetic, "name": name, "labels": settings.labels, **made_from, "compared": found}
        run.outputs.json("rebuild", content, "What this was rebuilt from, and what changed")
        _remove_stale_figures(run)
        outcomes = None if decided is None else decided.outcomes
        notes = _notes(run, base, settings, sha256)
        publish(run, additions(name, own, run, change, edges, found, scores_before, outcomes, names, notes))
        written = [path.as_posix() for one in run.outputs.written for path in one.files]
        kept = keep_rebuilt(run.outputs.root, name, made_from, written)
    run.log.update(
        status="done",
        stage_seconds=watch.seconds,
        stage_peak_mib=watch.peak_mib,
        peak_mib=max(watch.peak_mib.values()),
        summary={**summary(run), REBUILD: found},
    )
    return Rebuilt(run, change, edges, found, kept)


def _read(run: Run, base: Base, labels: str) -> tuple[np.ndarray, str]:
    """Fill the state with what the run left and the new labels; return its own labels, and the new ones' SHA-256."""
    if base.warning:
        run.warn(base.warning)
    run.aligned, sidecar = base.aligned()
    raw = base.array(RAW)
    place = {"voxel_size_nm": tuple(sidecar["voxel_size_nm"]), "offset": tuple(sidecar["offset"])}
    run.volume = Volume(run.aligned if raw is None else raw, **place, source=sidecar["source"])
    run.preprocessed = base.array(PREPROCESSED)
    run.synapse_probability = base.synapse_map()
    run.mitochondria_probability = base.array(MITOCHONDRIA)
    run.boundaries = base.array(BOUNDARIES)
    run.synthetic = sidecar.get("synthetic")
    log_place(run)
    own, own_name = base.labels()
    run.labels, sha256 = read_new_labels(labels, run.volume)
    if Path(labels).stem != own_name:
        run.settings = replace(run.settings, labels_from=labels)
    return own, sha256


def _people(
    run: Run, base: Base, settings: RebuildSettings
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, dict[str, Any]]:
    """Decisions on synapses and names of neurites, as far as there are any, and the checksums of their files."""
    tables = run.outputs.root / "tables"
    edits = Path(settings.synapse_edits or tables / EDITS)
    decisions, names, files = None, None, {"synapse_edits": None, "neurite_names": None}
    if settings.synapse_edits != NO_EDITS and (settings.synapse_edits or edits.is_file()):
        mine = base.wrote("tables/synapse_candidates.csv")
        found = (
            own_table(own_file(run.outputs.root, "tables/synapse_candidates.csv"), ("z", "y", "x")) if mine else None
        )
        decisions = read_decisions(edits, run.volume.shape, found)
        files["synapse_edits"] = checksum(edits)
        decisions = decisions if len(decisions) else None
    if (tables / NEURITE_NAMES).is_file():
        names, lines = read_names(tables / NEURITE_NAMES, run.labels)
        for line in lines:
            run.warn(line)
        files["neurite_names"] = checksum(tables / NEURITE_NAMES)
        names = names if len(names) else None
    return decisions, names, files


def _candidates(run: Run, decisions: pd.DataFrame | None, match_nm: float) -> tuple[pd.DataFrame, Applied | None]:
    settings, size = run.settings.stages.synapses, run.volume.voxel_size_nm
    candidates = find_synapses(run)
    if decisions is None:
        return candidates, None
    near = {"match_nm": match_nm, "separation_nm": settings.separation_nm}
    applied = apply_decisions(candidates, decisions, run.labels, size, **near)
    for line in applied.lines:
        run.warn(line)
    return applied.candidates if settings.directed else leave_direction_open(applied.candidates), applied


def _edges_before(run: Run, base: Base, own: np.ndarray) -> pd.DataFrame:
    """Connections of the run itself; made now where it stopped before its graph."""
    if base.wrote("tables/graph_edges.csv"):
        known = own_table(own_file(run.outputs.root, "tables/graph_edges.csv"), ("source", "target", "weight"))
        if known is not None:
            return known
    candidates = find_synapses(replace(run, labels=own))
    return edge_table(build_graph(candidates, settings=run.settings.stages.graph))


def _remove_stale_figures(run: Run) -> None:
    """Remove the figures that cannot be drawn again; those that lie there show other labels."""
    missing = {"figure1": run.volume.array is run.aligned, "figure5": run.boundaries is None}
    for name in (name for name, gone in missing.items() if gone):
        for path in run.outputs.path("figures").glob(f"{NAMES[name]}.*"):
            path.unlink(missing_ok=True)


def _own_results(base: Base) -> list[str]:
    """Tables, figures and report of the run itself."""
    there = list(base.files) or [
        path.relative_to(base.root).as_posix() for name in ("tables", "figures") for path in base.root.glob(f"{name}/*")
    ]
    chosen = [name for name in there if Path(name).parts[0] in ("tables", "figures")]
    return [name for name in chosen if Path(name).name not in PROOFREADING] + ["report.html"]


def _write(
    run: Run,
    change: LabelChange,
    edges: pd.DataFrame,
    nodes: pd.DataFrame,
    decided: Applied | None,
    names: pd.DataFrame | None,
) -> None:
    outputs = run.outputs
    outputs.table("synapse_candidates", run.candidates, "Synapse candidates: position, pre, post, score")
    if decided is not None:
        outputs.table("synapse_decisions", decided.outcomes, "What became of each decision on a synapse")
    stats = node_table(run.graph) if names is None else named_table(node_table(run.graph), names)
    outputs.table("graph_node_stats", stats, "Neurites of the graph: degrees, weights, PageRank")
    outputs.table("graph_edges", run.edges, "Connections: pre, post, weight")
    outputs.table("neurite_stats", run.neurites, NEURITES_TABLE)
    outputs.text("tables/graph.graphml", to_graphml(run.graph), "The graph for Cytoscape, Gephi, networkx")
    outputs.table("graph_changes", edges, "Connections before and after: gained, lost, reweighted, inside, kept")
    outputs.table("node_changes", nodes, "Neurites before and after by largest overlap, with their degrees")


def _score(run: Run, base: Base) -> dict[str, Any]:
    """Score against the truth that the run had, by the same functions; return the scores that it had itself."""
    try:
        before = json.loads(own_file(run.outputs.root, "tables/scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    before = before if isinstance(before, dict) and base.wrote("tables/scores.json") else {}
    if isinstance(before.get("alignment"), dict):
        run.scores["alignment"] = before["alignment"]
    if base.wrote("tables/truth_synapses.csv"):
        run.true_synapses = own_table(own_file(run.outputs.root, "tables/truth_synapses.csv"), ("z", "y", "x"))
    truth = _truth(run, base)
    score_aligned(run, truth)
    return before


def _truth(run: Run, base: Base) -> np.ndarray | None:
    """True neurites in the frame of the labels; None where they are not known, or not any more."""
    if (kept := base.array(TRUTH)) is not None:
        return kept
    settings = base.settings
    if not settings.truth:
        return None
    record = json.loads((base.root / "tables" / "alignment_shifts.json").read_text(encoding="utf-8"))
    run.shifts = pd.DataFrame(record["sections"])
    try:
        with base.at_its_place():
            given = read_labels(settings.truth, run.volume, boss_options(settings, base.root))
        if settings.simulate_misalignment_px:
            still = np.zeros(run.volume.shape, np.uint8)
            run.added = simulate_misalignment(still, settings.simulate_misalignment_px, settings.seed)[1]
        truth = apply_shifts(given, total_shifts(run), order=0, fill=0)
    except UserError as error:
        run.warn(f"neurites are not scored, since the truth of the run cannot be read any more: {error}")
        return None
    finally:
        run.shifts = None  # alignment is as it was, and so is its figure
    return truth if truth.any() else None


def _notes(run: Run, base: Base, settings: RebuildSettings, sha256: str) -> list[str]:
    notes = [
        f"Rebuilt from {settings.labels} (SHA-256 {sha256[:16]}…) with the settings of run {base.run_id}, whose own "
        f"tables, figures and report are kept in {FOLDER}/{OWN}. Alignment is that of the run: Figure 4 is there.",
        f"Decisions on synapses are matched to candidates within {settings.match_nm:g} nm.",
    ]
    if run.volume.array is run.aligned:
        notes.append("Figure 1 needs the EM as read, which a run with --save_minimal does not keep; it was left out.")
    return notes


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
