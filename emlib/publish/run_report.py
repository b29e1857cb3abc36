"""What a run of the pipeline publishes: its figures, and the report that holds them with tables and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emlib.publish.figure_synapses import Clefts
from emlib.publish.figures import NAMES, figure1, figure2, figure3, figure4, figure5, figure6
from emlib.publish.page import put_figure
from emlib.publish.report import Artefact, FigureItem, Number, ReportContext, Table, Timing, render_report
from emlib.publish.score_tables import score_tables
from emlib.publish.stages_used import stages_used, used_in_short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from emlib.pipeline import Run

CAPTIONS = {
    "figure1": "One section through the stages, and cuts across sections before and after alignment.",
    "figure2": "Synapse candidates on the aligned EM, their scores, and strong, middling and weak ones enlarged.",
    "figure3": "The strongest connections as a drawing and as a matrix, and the degrees of all neurites.",
    "figure4": "Shift, reliability and residual misalignment of each section.",
    "figure5": "EM, boundary probability, fragments and the neurites that they were joined to, in three planes.",
    "figure6": "Surfaces of the largest neurites, together and each by itself.",
}
LARGE_SHARE = 0.25  # a neurite above this share of the volume is suspected of being several


@dataclass(frozen=True)
class Additions:
    """What a report shows besides that of a plain run, in front of it.

    Attributes
    ----------
    title : str
    figures : sequence of (file name without suffix, caption, Figure)
    numbers : sequence of Number
    tables, scores : sequence of Table
    notes : sequence of str
    """

    title: str
    figures: Sequence[tuple[str, str, Figure]] = ()
    numbers: Sequence[Number] = ()
    tables: Sequence[Table] = ()
    scores: Sequence[Table] = ()
    notes: Sequence[str] = ()


def publish(run: Run, added: Additions | None = None) -> None:
    """Draw the figures that the stages so far allow and write ``report.html``."""
    added = added or Additions("EM volume to wiring graph")
    figures = [_figure(run, *one) for one in added.figures]
    figures += [_figure(run, NAMES[name], CAPTIONS[name], figure) for name, figure in _figures(run)]
    report = render_report(_context(run, figures, added))
    run.outputs.text("report.html", report, "This report")


def _figures(run: Run):
    """Yield the figures for which there is data, by their numbers."""
    size, note = run.volume.voxel_size_nm, run.synthetic
    if run.labels is not None and run.volume.array is not run.aligned:  # else nobody kept the EM as read
        yield "figure1", figure1(run.volume.array, run.preprocessed, run.aligned, run.labels, size, note=note)
    if run.candidates is not None:
        own = run.settings.stages
        clefts = None
        if run.synapse_probability is not None:
            clefts = Clefts(run.synapse_probability, own.synapses.experts.min_probability)
        found = (run.aligned, run.labels, run.candidates, size, own.graph.min_score, run.true_synapses)
        yield "figure2", figure2(*found, note=note, clefts=clefts)
    if run.graph is not None:
        yield "figure3", figure3(run.graph, note=note)
    if run.shifts is not None:
        shifts = None if run.align_skipped else run.shifts
        yield "figure4", figure4(shifts, size, run.align_skipped, note=note, added=run.added)
    if run.labels is not None and run.boundaries is not None:
        planes = (run.aligned, run.boundaries, run.fragments, run.labels)
        yield "figure5", figure5(*planes, size, used_in_short(run), note=note)
    if run.labels is not None:
        ids, voxels = _sizes(run)
        order = np.argsort(-voxels, kind="stable")
        yield "figure6", figure6(run.labels, ids[order].tolist(), voxels[order].tolist(), size, note=note)


def _figure(run: Run, name: str, caption: str, figure: Figure) -> FigureItem:
    png, pdf = put_figure(run.outputs, figure, name, caption)
    return FigureItem(name, caption, png.read_bytes(), f"figures/{pdf.name}")


def _context(run: Run, figures: Sequence[FigureItem], added: Additions) -> ReportContext:
    volume = run.volume
    return ReportContext(
        title=added.title,
        run_id=run.log.run_id,
        status="done" if run.settings.until == "publish" else f"stopped after {run.settings.until}, as asked",
        dataset=run.settings.dataset,
        voxel_size_nm=volume.voxel_size_nm,
        shape=volume.shape,
        offset=volume.offset,
        seed=run.settings.seed,
        command=run.command,
        synthetic_note=run.synthetic,
        warnings=run.warnings,
        notes=[*added.notes, *([run.align_skipped] if run.align_skipped else [])],
        settings=_settings(run),
        used=stages_used(run),
        numbers=[*added.numbers, *_numbers(run)],
        scores=[*added.scores, *score_tables(run.scores)] or None,
        tables=[*added.tables, *_tables(run)],
        figures=figures,
        distrust=_distrust(run),
        timings=[
            Timing(name, s, run.watch.peak_mib[name], run.watch.cpu_seconds.get(name))
            for name, s in run.watch.seconds.items()
        ],
        start_mib=run.watch.start_mib,
        artefacts=[Artefact(a.path.as_posix(), a.what, dtype=a.detail, bytes=a.size) for a in run.outputs.written],
        versions=run.log.versions,
    )


def _settings(run: Run) -> dict[str, dict]:
    """Settings by stage; those of a nested step as ``step.name``."""
    everything = asdict(run.settings)
    stages = everything.pop("stages")
    shown = {"run": everything}
    for stage, values in stages.items():
        shown[stage] = {}
        for name, value in values.items():
            if isinstance(value, dict):
                shown[stage].update({f"{name}.{key}": inner for key, inner in value.items()})
            else:
                shown[stage][name] = value
    return shown


def _numbers(run: Run) -> list[Number]:
    numbers = []
    if run.labels is not None:
        numbers.append(Number("neurites", len(_sizes(run)[0]), "pieces of neurites in this cutout, not whole cells"))
    if run.candidates is not None:
        kept = int((run.candidates["score"] >= run.settings.stages.graph.min_score).sum())
        numbers.append(Number("synapse candidates", len(run.candidates), f"{kept} of them reach the minimum score"))
    if run.graph is not None:
        numbers.append(Number("connected neurites", run.graph.number_of_nodes(), "with at least one candidate kept"))
        way = "directed, from pre to post" if run.graph.is_directed() else "undirected: nobody knows which side sends"
        numbers.append(Number("connections", run.graph.number_of_edges(), way))
    if run.scores.get("segmentation"):
        numbers.append(Number("VOI", run.scores["segmentation"]["voi"], "error against truth; 0 is perfect", "bits"))
    return numbers


def _tables(run: Run) -> list[Table]:
    tables = []
    if run.labels is not None:
        tables.append(_largest(run))
    if run.graph is not None:
        tables.append(Table.from_frame("Strongest connections", run.edges, link="tables/graph_edges.csv"))
    if run.candidates is not None:
        best = run.candidates.sort_values("score", ascending=False, kind="stable")
        shown = best[[c for c in ("z", "y", "x", "pre_id", "post_id", "score") if c in best]]
        tables.append(Table.from_frame("Highest-scoring candidates", shown, link="tables/synapse_candidates.csv"))
    return tables


def _largest(run: Run) -> Table:
    """The ten largest neurites: what the table of neurites says of them, or their share of the volume alone."""
    if run.neurites is not None:
        best = run.neurites.sort_values("voxels", ascending=False, kind="stable")
        frame = best[["neurite_id", "volume_um3", "surface_um2"]].assign(
            share_percent=100 * best["voxels"] / run.labels.size
        )
        more = [name for name in best if name.startswith(("extent_", "synapses", "mitochondria"))]
        return Table.from_frame("Largest neurites", frame.join(best[more]), link="tables/neurite_stats.csv")
    ids, voxels = _sizes(run)
    order = np.argsort(-voxels, kind="stable")
    cubic_um = np.prod(run.volume.voxel_size_nm) / 1e9
    frame = pd.DataFrame(
        {
            "neurite_id": ids[order],
            "volume_um3": voxels[order] * cubic_um,
            "share_percent": 100 * voxels[order] / run.labels.size,
        }
    )
    return Table.from_frame("Largest neurites", frame)


def _sizes(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Ids above 0, ascending, and their voxels; ids may be of any size."""
    if run.neurites is not None:
        return run.neurites["neurite_id"].to_numpy(), run.neurites["voxels"].to_numpy()
    ids, voxels = np.unique(run.labels, return_counts=True)
    return ids[ids > 0], voxels[ids > 0]


def _distrust(run: Run) -> list[str]:
    """Reasons found in this very run not to believe a figure."""
    reasons = []
    if run.volume.source.get("voxel_size_assumed"):
        reasons.append("The voxel size was assumed: lengths, volumes and every setting in nm may be off.")
    if run.labels is not None:
        voxels = _sizes(run)[1]
        share = voxels.max() / run.labels.size if voxels.size else 0
        if share > LARGE_SHARE:
            reasons.append(f"One neurite fills {share:.0%} of the volume: it is probably several, merged.")
    if run.shifts is not None and "used" in run.shifts and not run.shifts["used"].all():
        bad = ", ".join(str(z) for z in run.shifts["z"][~run.shifts["used"]][:10])
        reasons.append(f"Sections without a reliable shift (z = {bad}): neurites may be cut or joined there.")
    if run.candidates is not None:
        reasons += _distrust_synapses(run)
    if run.settings.stages.segment.segmenter == "watershed" and not run.settings.labels_from:
        reasons.append("The slice-wise baseline was used; it merges far more neurites than the default segmenter.")
    return reasons


def _distrust_synapses(run: Run) -> list[str]:
    """Why not to believe the synapse candidates: what they are, and what is known of their direction."""
    directed = run.settings.stages.synapses.directed
    if run.synapse_probability is None:
        what = "Synapse candidates are dark spots at contacts. Most are not synapses"
        return [f"{what}, and their direction is {'a guess' if directed else 'left open'}."]
    what = "Synapse candidates are what a network takes for synapses; on other tissue than it was trained on it may err"
    return [f"{what}. Their direction is {'a guess' if directed else 'left open'}."]
