"""The stages of a run: each takes what it needs from the state, calls one function, and writes what it made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.measure.shifts import recovery_error
from emlib.pipeline.boundary_sources import (
    boundaries_are_made,
    check_boundary_source,
    is_file,
    make_boundaries,
    maps_without_boundaries,
)
from emlib.pipeline.contacts import check_segmenting, contact_model
from emlib.pipeline.marks import remove_marks
from emlib.pipeline.scoring import read_true_synapses, score_run
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.synapse_sources import find_synapses, tell_of_direction
from emlib.publish.run_report import publish
from emlib.stages.align import apply_shifts, estimate_shifts, simulate_misalignment
from emlib.stages.boundaries import near_isotropic
from emlib.stages.graph import build_graph, edge_table, node_table, to_graphml
from emlib.stages.neurite_stats import neurite_stats
from emlib.stages.preprocess import preprocess
from emlib.stages.segment import segment
from emlib.stages.translation_check import TranslationCheck, check_translation
from emlib.volumes.bossdb import BossOptions, NetworkUnreachable
from emlib.volumes.companions import read_labels
from emlib.volumes.cutout import read_cutout
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Volume

PHANTOM_URI = "sample://phantom"
SYNTHETIC = "SYNTHETIC PHANTOM, NOT REAL DATA"
NEURITES_TABLE = "Every neurite: size, surface, extent, synapses, and mitochondria where a network tells them"


def cutout_stage(run: Run) -> None:
    """Read the box; keep it as uint8."""
    settings = run.settings
    check_boundary_source(settings)
    check_segmenting(settings)
    read_true_synapses(run)
    try:
        run.volume = _read(run, settings)
    except NetworkUnreachable as error:
        run.synthetic = phantom_instead(settings, error)
        run.warn(f"{error}. THIS RUN USES THE SYNTHETIC PHANTOM INSTEAD; --no-fallback makes this an error")
    if run.synthetic:
        # Voxel size and offset that were asked for are those of the other volume.
        own = replace(settings, dataset=PHANTOM_URI, voxel_size_nm=None, offset_xyz=None)
        run.volume = _read(run, own)
    elif run.volume.truth is not None:
        run.synthetic = SYNTHETIC
    for line in run.volume.source["notes"]:
        run.warn(line)
    if settings.simulate_misalignment_px:
        moved, run.added = simulate_misalignment(run.volume.array, settings.simulate_misalignment_px, settings.seed)
        run.volume = replace(run.volume, array=moved)
    tell_place(run)
    if not settings.save_minimal:
        run.save_array("em_cutout_u8_zyx", run.volume.array, "EM as read, uint8", holds="volume")


def phantom_instead(settings: PipelineSettings, error: NetworkUnreachable) -> str:
    """Return the note that a run on the phantom carries when its volume is out of reach.

    Raises
    ------
    NetworkUnreachable
        The ``error`` itself, if there is to be no fallback.
    UserError
        If a file is given that belongs to the volume: the phantom must not be scored against it.
    """
    if not settings.fallback:
        raise error
    files = {
        "--truth": settings.truth,
        "--truth_synapses": settings.truth_synapses,
        "--labels": settings.labels_from,
        "--boundaries": settings.boundaries_from if is_file(settings.boundaries_from) else None,
    }
    if given := [f"{flag} {file}" for flag, file in files.items() if file]:
        raise UserError(
            f"{error}. The phantom cannot stand in, since {' and '.join(given)} would not belong to it; leave that out "
            "to run on the phantom"
        ) from error
    return f"{SYNTHETIC}: {settings.dataset} could not be reached"


def tell_place(run: Run) -> None:
    """Say where the EM comes from, in the log and beside the artefacts, and read the truth that belongs to it."""
    if run.synthetic:  # what a run on real data leaves of an earlier one shows at its end
        run.outputs.mark_synthetic(run.synthetic)
    log_place(run)
    run.truth = _truth(run)


def log_place(run: Run) -> None:
    """Put on record where the EM comes from and how large its voxels are."""
    run.log.update(
        dataset=run.settings.dataset,
        synthetic=run.synthetic,
        offset_xyz=run.volume.offset[::-1],
        cutout_xyz=run.volume.shape[::-1],
        voxel_size_nm_zyx=run.volume.voxel_size_nm,
    )


def recall_cutout(run: Run) -> None:
    """Do again what leaves no artefact, once the volume of an interrupted run is back."""
    read_true_synapses(run)
    tell_place(run)


def boss_options(settings: PipelineSettings, root: Path) -> BossOptions:
    """How BossDB is asked; blocks that were fetched once stay in ``cache/`` of the output folder."""
    return BossOptions(
        timeout_s=settings.network_timeout_s,
        resolution=settings.resolution,
        config_file=settings.boss_config,
        cache_dir=root / "cache",
        refresh=settings.refresh,
    )


def _boss(run: Run) -> BossOptions:
    return boss_options(run.settings, run.outputs.root)


def _read(run: Run, settings: PipelineSettings) -> Volume:
    source = open_volume(
        settings.dataset,
        shape_hint=tuple(reversed(settings.cutout_xyz)),
        seed=settings.seed,
        boss=_boss(run),
        progress=not run.quiet,
        fill_missing=settings.fill_missing,
        note=run.say,
    )
    return read_cutout(
        source, settings.cutout_xyz, settings.offset_xyz, settings.seed, voxel_size_nm=settings.voxel_size_nm
    )


def _truth(run: Run) -> np.ndarray | None:
    """True labels in the frame of the cutout, if they are known."""
    if run.settings.truth:
        return read_labels(run.settings.truth, run.volume, _boss(run))
    if run.volume.truth is None:
        return None
    box = tuple(slice(first, first + size) for first, size in zip(run.volume.offset, run.volume.shape, strict=True))
    return run.volume.truth.labels[box]


def preprocess_stage(run: Run) -> None:
    """Denoise and equalise contrast."""
    run.preprocessed = preprocess(run.volume.array, run.settings.stages.preprocess)
    if not run.settings.save_minimal:
        run.save_array(
            "em_preprocessed_f32_zyx",
            run.preprocessed,
            "EM denoised and contrast-equalised",
            run.settings.stages.preprocess,
            holds="preprocessed",
        )


def align_stage(run: Run) -> None:
    """Estimate and apply shifts, or say why not."""
    settings = run.settings
    run.align_skipped = why_not_aligned(run)
    if run.align_skipped:
        run.shifts = no_shifts(len(run.preprocessed))
        aligned, record = run.preprocessed, {"skipped": run.align_skipped}
    else:
        own = settings.stages.align
        run.shifts, _ = estimate_shifts(run.preprocessed, own)
        aligned = apply_shifts(run.preprocessed, run.shifts)
        check = check_translation(aligned, own.band, own.min_reliability)
        record = {"skipped": None, **alignment_quality(run, check)}
    run.aligned = _stored(aligned, settings.aligned_dtype)
    keep_shifts(run, record)
    name = f"em_aligned_{settings.aligned_dtype}_zyx"
    stored = run.aligned.astype(settings.aligned_dtype, copy=False)
    run.save_array(name, stored, "EM aligned, in [0, 1]", settings.stages.align, holds="aligned")


def why_not_aligned(run: Run) -> str | None:
    """Why the sections of a run stay where they are; None if they are aligned."""
    if run.settings.align_sections is False:
        return "alignment was switched off with --no-align"
    if run.settings.align_sections is None and near_isotropic(run.volume.voxel_size_nm):
        return "near-isotropic volume, taken for aligned; --align aligns it"
    return None


def no_shifts(depth: int) -> pd.DataFrame:
    """Shifts of sections that stay where they are."""
    return pd.DataFrame({"z": np.arange(depth), "dy": np.zeros(depth), "dx": np.zeros(depth)})


def keep_shifts(run: Run, record: dict[str, Any]) -> None:
    """Write the shifts of a run and what is known of them."""
    record["synthetic"] = run.synthetic
    record["sections"] = run.shifts.round(6).to_dict("records")
    run.outputs.json("alignment_shifts", record, "Shift of each section, its reliability, residuals before and after")


def _stored(aligned: np.ndarray, dtype: str) -> np.ndarray:
    """What the file will hold, as float32: later stages see the same values when they start from the file."""
    if dtype == "float32":
        return aligned.astype(np.float32, copy=False)
    return aligned.astype(dtype).astype(np.float32)


def alignment_quality(run: Run, check: TranslationCheck) -> dict[str, Any]:
    """Residuals, whether translation explains them, and the recovery error where the shifts are known."""
    if not check.explained:
        run.warn(check.message)
    quality = {
        "residual_before_px": float(run.shifts["residual_before_px"].median()),
        "residual_after_px": float(run.shifts["residual_after_px"].median()),
        "translation_explains_residual": check.explained,
        "message": check.message,
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
    """Boundary probability from intensity, a model or a file; not needed when labels come from a file."""
    settings = run.settings
    if not boundaries_are_made(settings):
        maps_without_boundaries(run)
        _save_maps(run)
        return
    run.boundaries, record = make_boundaries(run)
    if settings.boundaries_from != "experts":
        maps_without_boundaries(run)
    _save_maps(run)
    if not settings.save_minimal:
        exact = settings.boundaries_from == "experts"  # float16 as it is: a run that goes on reads it back
        run.save_array(
            "boundaries_f16_zyx",
            run.boundaries.astype(np.float16),
            "Boundary probability",
            record,
            holds="boundaries" if exact else None,
        )


def _save_maps(run: Run) -> None:
    """Write what a network told besides boundaries; synapses are found on their map, also when a graph is rebuilt."""
    for name in ("synapse", "mitochondria"):
        found = getattr(run, f"{name}_probability")
        if found is not None and (name == "synapse" or not run.settings.save_minimal):
            what = f"{name.capitalize()} probability"
            run.save_array(f"{name}_probability_f16_zyx", found, what, run.network, holds=f"{name}_probability")


def segment_stage(run: Run) -> None:
    """Neurite labels from the segmenter or from a file."""
    settings = run.settings
    if settings.labels_from:
        given = read_labels(settings.labels_from, run.volume, _boss(run))
        run.labels = apply_shifts(given, run.shifts, order=0, fill=0)
        what = f"Neurite labels from {settings.labels_from}"
    else:
        edges = contact_model(run)
        given = (run.aligned, run.volume.voxel_size_nm, settings.stages.segment, run.boundaries, edges)
        run.labels = segment(*given, look=partial(setattr, run, "fragments"))
        what = f"Neurite labels ({settings.stages.segment.segmenter}{', learned contacts' if edges else ''})"
    name = "neurite_labels_i32_zyx" if run.labels.dtype == np.int32 else "neurite_labels_i64_zyx"
    run.save_array(name, run.labels, what, settings.stages.segment, holds="labels")


def synapses_stage(run: Run) -> None:
    """Synapse candidates with their partners."""
    run.candidates = find_synapses(run)
    tell_of_direction(run)
    run.outputs.table("synapse_candidates", run.candidates, "Synapse candidates: position, pre, post, score")


def graph_stage(run: Run) -> None:
    """Directed weighted graph with its tables."""
    recall_graph(run)
    write_graph(run)


def write_graph(run: Run) -> None:
    """Write the tables of a graph that is built, and those of its neurites where they are known."""
    run.outputs.table("graph_node_stats", node_table(run.graph), "Neurites of the graph: degrees, weights, PageRank")
    run.outputs.table("graph_edges", run.edges, "Connections: pre, post, weight")
    if run.neurites is not None:
        run.outputs.table("neurite_stats", run.neurites, NEURITES_TABLE)
    run.outputs.text("tables/graph.graphml", to_graphml(run.graph), "The graph for Cytoscape, Gephi, networkx")


def recall_graph(run: Run) -> None:
    """Build the graph and the table of neurites; from candidates and labels that is as quick as reading them back."""
    run.graph = build_graph(run.candidates, run.labels, run.settings.stages.graph, run.volume.voxel_size_nm)
    if run.synthetic:
        run.graph.graph["synthetic"] = run.synthetic
    run.edges = edge_table(run.graph)
    found = (run.labels, run.volume.voxel_size_nm, run.graph, run.mitochondria_probability)
    run.neurites = neurite_stats(*found, run.settings.stages.neurites)


def publish_stage(run: Run) -> None:
    """Scores, figures and the report."""
    score_run(run)
    left = run.outputs.left_over()
    if left:
        run.warn(f"left from an earlier run in {run.outputs.root}, not of this one: {', '.join(left)}")
    if not run.synthetic:
        remove_marks(run.outputs.root)
    publish(run)


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

# What an interrupted run that goes on does again, after the arrays and tables of the stage are back.
RECALL: dict[str, Callable[[Run], None]] = {"cutout": recall_cutout, "graph": recall_graph}
