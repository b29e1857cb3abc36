"""From files to scores: what ``evaluate.py`` does, one file per kind of result."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from emlib.runs.artefacts import Outputs

KINDS = ("segmentation", "masks", "synapses", "graph")
RUN_FLAGS = {"config", "seed", "threads", "quiet", "debug"}  # of every script; a kind without chance has no seed


def evaluate(what: str, *, pred: str, truth: str, outdir: str | Path = "outputs", **options: Any) -> list[str]:
    """Score a prediction against truth and write tables, JSON and figures.

    Parameters
    ----------
    what : {"segmentation", "masks", "synapses", "graph"}
    pred, truth : str
        Files or folders.
    outdir : path
    **options
        The ``Settings`` of that kind's module.

    Returns
    -------
    list of str
        Lines for the shell: the table of scores, then the paths written.

    Raises
    ------
    UserError
        For what the user can mend.
    """
    module = import_module(f"emlib.evaluation.{what}")
    names = module.Settings.__dataclass_fields__
    settings = module.Settings(**{k: v for k, v in options.items() if k in names or k not in RUN_FLAGS})
    outputs = Outputs(outdir)
    lines = module.evaluate(pred, truth, outputs, settings)
    stale = [name for name in outputs.left_over() if name.startswith(f"tables/evaluate_{what}")]
    if stale:
        lines.append(f"warning: left from an earlier evaluation, not of this one: {', '.join(stale)}")
    return [*lines, *(f"written: {outputs.path(str(artefact.path))}" for artefact in outputs.written)]
