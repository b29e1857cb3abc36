"""Run the stages in order, with their time and memory, and keep the record."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from emlib.errors import UserError
from emlib.pipeline.finished import basis, keep_finished
from emlib.pipeline.resume import MADE, StageRecords
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.steps import STEPS, publish_stage
from emlib.pipeline.summary import summary
from emlib.runs.artefacts import Outputs
from emlib.runs.kept_results import set_aside
from emlib.runs.lock import run_lock
from emlib.runs.runlog import RunLog

STAGES = tuple(STEPS)


def run_pipeline(
    settings: PipelineSettings,
    outdir: str | Path = "outputs",
    *,
    command: str = "",
    quiet: bool = False,
    resume: bool = False,
) -> Run:
    """Run the stages in order and write what they make.

    Parameters
    ----------
    settings : PipelineSettings
    outdir : path
        Held by a lock for the length of the run.
    command : str
        The command line, for the record.
    quiet : bool
        No progress and no summary.
    resume : bool
        Go on after the last whole stage of a run in ``outdir`` that was interrupted. A stage is done again, and so is
        what follows, if its settings, its input files or `emlib` have changed or one of its files is damaged. The
        outcome is that of an undisturbed run, byte for byte.

    Returns
    -------
    Run
        Arrays, tables, graph and scores as written.

    Raises
    ------
    UserError
        For what the user can mend, another run in ``outdir`` among it; the run log keeps the message.
    KeyboardInterrupt
        On Ctrl-C and on SIGTERM; the run log says "interrupted".
    """
    with recorded_run(settings, outdir, command=command, quiet=quiet) as (run, stopped):
        _run_stages(run, stopped, resume)
    return run


@contextmanager
def recorded_run(
    settings: PipelineSettings, outdir: str | Path, *, command: str, quiet: bool
) -> Iterator[tuple[Run, threading.Event]]:
    """Hold a folder for the length of the block, and put on record what breaks it off.

    Yields
    ------
    run : Run
        New, with its entry in the run log.
    stopped : threading.Event
        As `terminable` yields it.

    Raises
    ------
    UserError
        If another run holds the folder, or it cannot be written.
    """
    outputs = Outputs(outdir)
    with run_lock(outputs.root), terminable() as stopped:
        outputs.remove_stale()
        log = RunLog(outputs.root / "runs", asdict(settings), command)
        run = Run(settings, outputs, log, command=command, quiet=quiet)
        with failure_on_record(run):
            yield run, stopped


@contextmanager
def failure_on_record(run: Run) -> Iterator[None]:
    """Write to the run log what breaks off the block."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(UserError):  # a log that cannot be written must not hide what went wrong
            run.log.update(status=status, stage_seconds=run.watch.seconds, error=f"{type(error).__name__}: {error}")
        raise


def _run_stages(run: Run, stopped: threading.Event, resume: bool) -> None:
    names = STAGES[: STAGES.index(run.settings.until) + 1]
    records, rests_on, done = StageRecords(run), basis(run.settings), []
    if resume:
        done = records.restore([name for name in names if name in MADE])
    else:
        records.clear()
    silent = run.quiet or not sys.stderr.isatty()
    with tqdm(names, initial=len(done), disable=silent, leave=False, unit="stage") as bar:
        for name in names[len(done) :]:
            bar.set_description(name)
            with run.watch.stage(name):
                STEPS[name](run)
            if name in MADE:
                records.keep(name)
            run.log.update(**record_costs(run))
            bar.update()
            if stopped.is_set():  # a destructor has swallowed the interrupt
                raise KeyboardInterrupt
    if "publish" not in names:
        with run.watch.stage("publish"):
            publish_stage(run)
    set_aside(run.outputs.root)  # what was rebuilt from the run before
    keep_finished(run, rests_on, {path: sha for record in records.records for path, sha in record["files"].items()})
    run.log.update(
        status="done",
        **record_costs(run),
        peak_mib=max(run.watch.peak_mib.values()),
        summary={**summary(run), **({"resumed_after": done[-1]} if done else {})},
    )
    records.clear()


def record_costs(run: Run) -> dict[str, dict[str, float]]:
    """Seconds, processor seconds and peak memory of the stages so far, as the run log names them."""
    watch = run.watch
    return {
        "stage_seconds": watch.seconds,
        "stage_cpu_seconds": watch.cpu_seconds,
        "stage_peak_mib": watch.peak_mib,
    }


@contextmanager
def terminable() -> Iterator[threading.Event]:
    """Let SIGTERM end the block as Ctrl-C does; the event is set when it has come."""
    stopped = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break off the record
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Python takes signals in the main thread alone
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
