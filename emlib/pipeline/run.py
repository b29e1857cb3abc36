"""Run the stages in order, with their time and memory, and keep the record."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.steps import STEPS, publish_stage
from emlib.pipeline.summary import summary
from emlib.runs.artefacts import Outputs
from emlib.runs.runlog import RunLog

STAGES = tuple(STEPS)


def run_pipeline(
    settings: PipelineSettings, outdir: str | Path = "outputs", *, command: str = "", quiet: bool = False
) -> Run:
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
