"""A run in a few lines: for the run log and for the person at the shell."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from emlib.pipeline.memory import plan_memory
from emlib.pipeline.rerun import Recalled
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.runs.artefacts import plain


def summary(run: Run) -> dict[str, Any]:
    """The figures that describe a run in a line."""
    found: dict[str, Any] = {}
    if run.labels is not None:
        count = run.labelled
        found["neurites"] = len(np.unique(run.labels[run.labels > 0])) if count is None else count
    if run.candidates is not None:
        found["candidates"] = len(run.candidates)
    if run.graph is not None:
        found["nodes"], found["edges"] = run.graph.number_of_nodes(), run.graph.number_of_edges()
    if run.scores:
        found["scores"] = plain(run.scores)
    return found


def announce(
    settings: PipelineSettings, again: Recalled | None = None, *, force: bool = False, quiet: bool = False
) -> None:
    """Say before a run what memory it is planned to take and, of one done again, what is not as it was.

    Raises
    ------
    UserError
        If it cannot fit into the memory that is free, unless ``force``.
    """
    if again is not None and again.warning():
        print(f"warning: {again.warning()}", file=sys.stderr, flush=True)
    plan = None if settings.blocks_xyz else plan_memory(settings)  # those in blocks keep to a budget
    if plan is None:
        return
    plan.check(force)
    if not quiet:
        print(plan.line(), flush=True)


def report_lines(run: Run) -> list[str]:
    """What a person at the shell wants to read last: what came out, how good, where it lies."""
    found = summary(run)
    counts = [f"{found[name]} {name}" for name in ("neurites", "candidates", "nodes", "edges") if name in found]
    lines = [", ".join(counts)] if counts else []
    if "segmentation" in run.scores:
        s = run.scores["segmentation"]
        lines.append(
            f"against truth: VOI {s['voi_split']:.2f} split + {s['voi_merge']:.2f} merge = {s['voi']:.2f} bits, "
            f"ARAND {s['arand']:.3f} (all one neurite: {s['chance']['one_segment']['voi']:.2f} bits)"
        )
    if "synapses" in run.scores:
        s = run.scores["synapses"]
        lines.append(
            f"synapses: {_found(s)}, average precision {_short(s['average_precision'])}; "
            f"{s['predicted']} candidates for {s['truth']} true"
        )
    if "graph" in run.scores:
        s = run.scores["graph"]
        lines.append(f"graph: edge {_found(s)} (chance {_short(s['chance']['f1'])})")
    if "alignment" in run.scores:
        lines.append(f"known shifts recovered to {run.scores['alignment']['rms_px']:.2f} px RMS")
    seconds, peak = sum(run.watch.seconds.values()), max(run.watch.peak_mib.values())
    lines.append(f"{seconds:.1f} s in the stages, peak {peak:.0f} MiB")
    if run.synthetic:
        lines.append(run.synthetic)
    return [*lines, f"written: {run.outputs.path('report.html')}"]


def _found(scores: dict[str, Any]) -> str:
    return f"precision {_short(scores['precision'])}, recall {_short(scores['recall'])}, F1 {_short(scores['f1'])}"


def _short(value: float) -> str:
    """Two decimals; a dash for what is undefined, as precision without predictions."""
    return "–" if np.isnan(value) else f"{value:.2f}"
