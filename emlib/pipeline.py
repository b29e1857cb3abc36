"""From raw EM to a wiring graph: which stage follows which, and what is kept.

1. cutout       read a box of the volume; fall back to the phantom when BossDB cannot be reached
2. preprocess   denoise, equalise contrast
3. align        translate sections onto a common frame; skipped when the volume is near isotropic
4. boundaries   probability that a voxel is membrane
5. segment      neurite labels
6. synapses     candidates with their partners
7. graph        directed, weighted
8. publish      scores when truth is known, figures, report
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from emlib.measure.instances import score_instances
from emlib.runs.artefacts import Outputs, plain
from emlib.runs.runlog import RunLog
from emlib.runs.stopwatch import Stopwatch
from emlib.stages.align import AlignSettings, apply_shifts, estimate_shifts, simulate_misalignment
from emlib.stages.boundaries import intensity_boundaries, near_isotropic
from emlib.stages.graph import GraphSettings, build_graph, edge_table, node_table, to_graphml
from emlib.stages.preprocess import PreprocessSettings, preprocess
from emlib.stages.segment import SegmentSettings, segment
from emlib.stages.synapses import SynapseSettings, find_candidates
from emlib.volumes.bossdb import DEFAULT_URI, NetworkUnreachable
from emlib.volumes.companions import read_labels, read_probability
from emlib.volumes.cutout import read_cutout
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Volume

STAGES = ("cutout", "preprocess", "align", "boundaries", "segment", "synapses", "graph", "publish")
PHANTOM_URI = "sample://phantom"


@dataclass(frozen=True)
class StageSettings:
    """The settings of the stages, as ``--set`` names them."""

    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    synapses: SynapseSettings = field(default_factory=SynapseSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)


@dataclass(frozen=True)
class PipelineSettings:
    """Everything that decides what a run produces."""

    dataset: str = DEFAULT_URI
    cutout_xyz: tuple[int, int, int] = (256, 256, 64)
    offset_xyz: tuple[int, int, int] | None = None
    voxel_size_nm: tuple[float, float, float] | None = None
    seed: int = 0
    fallback: bool = True  # to the phantom, when the network cannot be reached
    network_timeout_s: float = 30.0
    until: str = "publish"
    save_minimal: bool = False
    aligned_dtype: str = "float32"
    align_sections: bool | None = None  # None: unless near isotropic
    simulate_misalignment_px: float = 0.0
    boundaries_from: str = "intensity"  # or a file
    labels_from: str | None = None
    truth: str | None = None
    stages: StageSettings = field(default_factory=StageSettings)


@dataclass
class Run:
    """What a run has produced so far; stages fill it in order."""

    settings: PipelineSettings
    outputs: Outputs
    log: RunLog
    watch: Stopwatch = field(default_factory=Stopwatch)
    command: str = ""
    warnings: list[str] = field(default_factory=list)
    synthetic: str | None = None  # the note that every figure and artefact carries
    volume: Volume | None = None
    added: pd.DataFrame | None = None  # shifts that were added on purpose
    preprocessed: np.ndarray | None = None
    shifts: pd.DataFrame | None = None
    align_skipped: str | None = None
    aligned: np.ndarray | None = None
    boundaries: np.ndarray | None = None
    labels: np.ndarray | None = None
    candidates: pd.DataFrame | None = None
    graph: Any = None
    truth: np.ndarray | None = None
    true_synapses: pd.DataFrame | None = None  # in voxels of the aligned volume
    scores: dict[str, Any] = field(default_factory=dict)

    def warn(self, line: str) -> None:
        """Say a line that the user must see, and keep it for the report."""
        self.warnings.append(line)
        tqdm.write(f"warning: {line}", file=sys.stderr)

    def save_array(self, name: str, array: np.ndarray, what: str, settings: Any = None) -> None:
        """Write an array with the provenance of this run in its sidecar."""
        volume = self.volume
        self.outputs.array(
            name,
            array,
            what,
            voxel_size_nm=volume.voxel_size_nm,
            offset=volume.offset,
            source=volume.source,
            synthetic=self.synthetic,
            settings=settings,
            seed=self.settings.seed,
        )


def run_pipeline(settings: PipelineSettings, outdir: str | Path = "outputs", *, command: str = "", quiet: bool = False) -> Run:
    """Run the stages in order and write what they make.

    Parameters
    ----------
    settings : PipelineSettings
    outdir : path
    command : str
        The command line, for the record.
    quiet : bool
        No progress and no summary.

    Returns
    -------
    Run
        Arrays, tables, graph and scores as written.

    Raises
    ------
    UserError
        For what the user can mend; the run log keeps the message.
    """
    outputs = Outputs(outdir)
    log = RunLog(outputs.root / "runs", asdict(settings), command)
    run = Run(settings, outputs, log, command=command)
    last = STAGES.index(settings.until)
    bar = tqdm(STAGES[: last + 1], disable=quiet or not sys.stderr.isatty(), leave=False, unit="stage")
    try:
        for name in bar:
            bar.set_description(name)
            with run.watch.stage(name):
                STEPS[name](run)
            log.update(stage_seconds=run.watch.seconds, stage_peak_mib=run.watch.peak_mib)
        if settings.until != "publish":
            with run.watch.stage("publish"):
                publish_stage(run)
        log.update(
            status="done",
            stage_seconds=run.watch.seconds,
            stage_peak_mib=run.watch.peak_mib,
            peak_mib=max(run.watch.peak_mib.values()),
            summary=summary(run),
        )
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        log.update(status=status, stage_seconds=run.watch.seconds, error=f"{type(error).__name__}: {error}")
        raise
    finally:
        bar.close()
    return run


def cutout_stage(run: Run) -> None:
    """Read the box; keep it as uint8."""
    settings = run.settings
    shape = tuple(reversed(settings.cutout_xyz))
    try:
        source = open_volume(
            settings.dataset, shape_hint=shape, seed=settings.seed, network_timeout_s=settings.network_timeout_s
        )
        run.volume = _read(run, source)
    except NetworkUnreachable as error:
        if not settings.fallback:
            raise
        run.synthetic = f"SYNTHETIC PHANTOM, NOT REAL DATA: {settings.dataset} could not be reached"
        run.warn(f"{error}. THIS RUN USES THE SYNTHETIC PHANTOM INSTEAD (--no-fallback makes this an error)")
        run.volume = _read(run, open_volume(PHANTOM_URI, shape_hint=shape, seed=settings.seed))
    if run.synthetic is None and run.volume.truth is not None:
        run.synthetic = "SYNTHETIC PHANTOM, NOT REAL DATA"
    for line in run.volume.source["notes"]:
        run.warn(line)
    if settings.simulate_misalignment_px:
        moved, run.added = simulate_misalignment(run.volume.array, settings.simulate_misalignment_px, settings.seed)
        run.volume = replace(run.volume, array=moved)
    run.log.update(
        dataset=settings.dataset,
        synthetic=run.synthetic,
        offset_xyz=run.volume.offset[::-1],
        cutout_xyz=run.volume.shape[::-1],
        voxel_size_nm_zyx=run.volume.voxel_size_nm,
    )
    run.truth = _truth(run)
    if not settings.save_minimal:
        run.save_array("em_cutout_u8_zyx", run.volume.array, "EM as read, uint8")


def _read(run: Run, source) -> Volume:
    settings = run.settings
    return read_cutout(
        source, settings.cutout_xyz, settings.offset_xyz, settings.seed, voxel_size_nm=settings.voxel_size_nm
    )


def _truth(run: Run) -> np.ndarray | None:
    """True labels in the frame of the cutout, if they are known."""
    if run.settings.truth:
        return read_labels(run.settings.truth, run.volume)
    if run.volume.truth is None:
        return None
    box = tuple(slice(first, first + size) for first, size in zip(run.volume.offset, run.volume.shape, strict=True))
    return run.volume.truth.labels[box]


def preprocess_stage(run: Run) -> None:
    """Denoise and equalise contrast."""
    run.preprocessed = preprocess(run.volume.array, run.settings.stages.preprocess)
    if not run.settings.save_minimal:
        run.save_array(
            "em_preprocessed_f32_zyx", run.preprocessed, "EM denoised and contrast-equalised", run.settings.stages.preprocess
        )


def align_stage(run: Run) -> None:
    """Estimate and apply shifts, or say why not."""
    settings = run.settings
    if settings.align_sections is False:
        run.align_skipped = "alignment was switched off with --no-align"
    elif settings.align_sections is None and near_isotropic(run.volume.voxel_size_nm):
        run.align_skipped = "near-isotropic volume, taken for aligned; --align aligns it"
    depth = len(run.preprocessed)
    if run.align_skipped:
        run.shifts = pd.DataFrame({"z": np.arange(depth), "dy": np.zeros(depth), "dx": np.zeros(depth)})
        aligned, record = run.preprocessed, {"skipped": run.align_skipped}
    else:
        run.shifts, pairs = estimate_shifts(run.preprocessed, settings.stages.align)
        aligned = apply_shifts(run.preprocessed, run.shifts)
        record = {"skipped": None, **_alignment_quality(run, aligned, pairs)}
    run.aligned = _stored(aligned, settings.aligned_dtype)
    record["sections"] = run.shifts.round(6).to_dict("records")
    run.outputs.json("alignment_shifts", record, "Shift of each section, its reliability, residuals before and after")
    name = f"em_aligned_{settings.aligned_dtype}_zyx"
    run.save_array(name, run.aligned.astype(settings.aligned_dtype), "EM aligned, in [0, 1]", settings.stages.align)


def _stored(aligned: np.ndarray, dtype: str) -> np.ndarray:
    """What the file will hold, as float32: later stages see the same values when they start from the file."""
    if dtype == "float32":
        return aligned.astype(np.float32, copy=False)
    return aligned.astype(dtype).astype(np.float32)


def _alignment_quality(run: Run, aligned: np.ndarray, pairs: pd.DataFrame) -> dict[str, Any]:
    """Residuals, whether translation explains them, and the recovery error where the shifts are known."""
    from emlib.measure.shifts import recovery_error
    from emlib.stages.align import explained

    enough, message = explained(aligned, run.shifts, pairs, run.settings.stages.align)
    if not enough:
        run.warn(message)
    quality = {
        "residual_before_px": float(run.shifts["residual_before_px"].mean()),
        "residual_after_px": float(run.shifts["residual_after_px"].mean()),
        "translation_explains_residual": enough,
        "message": message,
    }
    if run.added is None and run.volume.truth is not None:
        known = run.volume.truth.shifts
        first = run.volume.offset[0]
        known = known[(known["z"] >= first) & (known["z"] < first + len(run.shifts))]
        run.added = known.assign(z=known["z"] - first).reset_index(drop=True)
    if run.added is not None:
        quality["known_shifts"] = recovery_error(run.added, run.shifts)
        run.scores["alignment"] = quality["known_shifts"]
    return quality


def boundaries_stage(run: Run) -> None:
    """Boundary probability from intensity or from a file; not needed when labels come from a file."""
    settings = run.settings
    if settings.labels_from or settings.stages.segment.segmenter == "watershed":
        return
    if settings.boundaries_from == "intensity":
        run.boundaries = intensity_boundaries(run.aligned, run.volume.voxel_size_nm, settings.stages.segment.boundaries)
    else:
        given = read_probability(settings.boundaries_from, run.volume)
        run.boundaries = apply_shifts(given, run.shifts)
    if not settings.save_minimal:
        run.save_array(
            "boundaries_f16_zyx",
            run.boundaries.astype(np.float16),
            "Boundary probability",
            {"from": settings.boundaries_from, **asdict(settings.stages.segment.boundaries)},
        )


def segment_stage(run: Run) -> None:
    """Neurite labels from the segmenter or from a file."""
    settings = run.settings
    if settings.labels_from:
        given = read_labels(settings.labels_from, run.volume)
        run.labels = apply_shifts(given, run.shifts, order=0, fill=0)
        what = f"Neurite labels from {settings.labels_from}"
    else:
        run.labels = segment(run.aligned, run.volume.voxel_size_nm, settings.stages.segment, run.boundaries)
        what = f"Neurite labels ({settings.stages.segment.segmenter})"
    name = "neurite_labels_i32_zyx" if run.labels.dtype == np.int32 else "neurite_labels_i64_zyx"
    run.save_array(name, run.labels, what, settings.stages.segment)


def synapses_stage(run: Run) -> None:
    """Synapse candidates with their partners."""
    run.candidates = find_candidates(run.aligned, run.labels, run.volume.voxel_size_nm, run.settings.stages.synapses)
    run.outputs.table("synapse_candidates", run.candidates, "Synapse candidates: position, pre, post, score")


def graph_stage(run: Run) -> None:
    """Directed weighted graph with its tables."""
    run.graph = build_graph(run.candidates, run.labels, run.settings.stages.graph, run.volume.voxel_size_nm)
    run.outputs.table("graph_node_stats", node_table(run.graph), "Neurites of the graph: degrees, weights, PageRank")
    run.outputs.table("graph_edges", edge_table(run.graph), "Connections: pre, post, weight")
    run.outputs.text("tables/graph.graphml", to_graphml(run.graph), "The graph for Cytoscape, Gephi, networkx")


def publish_stage(run: Run) -> None:
    """Scores, figures and the report."""
    from emlib.publish.run_report import publish

    if run.truth is not None and run.labels is not None:
        score_stage(run)
    publish(run)


def score_stage(run: Run) -> None:
    """Score the labels against truth that was moved like the EM."""
    moved = apply_shifts(run.truth, _total_shifts(run), order=0, fill=0)
    run.scores["segmentation"] = score_instances(moved, run.labels, zero="fill")
    run.outputs.json("scores", plain(run.scores), "Scores against truth; predicted 0 filled from the nearest label")


def _total_shifts(run: Run) -> pd.DataFrame:
    """Shifts from the frame of the truth to that of the labels: simulated ones first, then the estimated."""
    if not run.settings.simulate_misalignment_px:
        return run.shifts
    return run.shifts.assign(dy=run.shifts["dy"] + run.added["dy"], dx=run.shifts["dx"] + run.added["dx"])


def summary(run: Run) -> dict[str, Any]:
    """The figures that describe a run in a line."""
    found: dict[str, Any] = {}
    if run.labels is not None:
        found["neurites"] = int(len(np.unique(run.labels[run.labels > 0])))
    if run.candidates is not None:
        found["candidates"] = len(run.candidates)
    if run.graph is not None:
        found["nodes"], found["edges"] = run.graph.number_of_nodes(), run.graph.number_of_edges()
    if run.scores:
        found["scores"] = plain(run.scores)
    return found


def report_lines(run: Run) -> list[str]:
    """What a person at the shell wants to read last: what came out, how good, where it lies."""
    found = summary(run)
    lines = [", ".join(f"{found[name]} {name}" for name in ("neurites", "candidates", "nodes", "edges") if name in found)]
    if "segmentation" in run.scores:
        s = run.scores["segmentation"]
        lines.append(
            f"against truth: VOI {s['voi_split']:.2f} split + {s['voi_merge']:.2f} merge = {s['voi']:.2f} bits, "
            f"ARAND {s['arand']:.3f}"
        )
    if "alignment" in run.scores:
        lines.append(f"known shifts recovered to {run.scores['alignment']['rms_px']:.2f} px RMS")
    seconds, peak = sum(run.watch.seconds.values()), max(run.watch.peak_mib.values())
    lines.append(f"{seconds:.1f} s in the stages, peak {peak:.0f} MiB")
    if run.synthetic:
        lines.append(run.synthetic)
    return [*lines, f"written: {run.outputs.path('report.html')}"]


STEPS: dict[str, Callable[[Run], None]] = {
    "cutout": cutout_stage,
    "preprocess": preprocess_stage,
    "align": align_stage,
    "boundaries": boundaries_stage,
    "segment": segment_stage,
    "synapses": synapses_stage,
    "graph": graph_stage,
    "publish": publish_stage,
}
