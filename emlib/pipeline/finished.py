"""What a run that ended well rested on and what it wrote, in ``runs/finished.json``: it need not be done again.

The record counts while it is that of the newest run in the folder, settings, input files and code are as they were,
and each file has the checksum that it was written with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.pipeline.dependence import CONTENT, checksum, code_fingerprint, dependence
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.steps import STEPS
from emlib.runs.artefacts import write_json
from emlib.runs.history import read_runs
from emlib.runs.runlog import PACKAGES, versions

FILE = Path("runs") / "finished.json"
COLUMNS = ("offset_xyz", "stage_seconds", "peak_mib", "summary")  # of the run log, which stand for the run


def basis(settings: PipelineSettings) -> dict[str, Any]:
    """All that the outcome of a run depends on.

    Parameters
    ----------
    settings : PipelineSettings

    Returns
    -------
    dict
        JSON values by name: what each stage depends on, the files with the truth, how far the run goes, the code.

    Examples
    --------
    >>> rests_on = basis(PipelineSettings(seed=3))
    >>> rests_on["seed"], rests_on["until"], rests_on["graph.min_score"]
    (3, 'publish', 0.1)
    """
    found: dict[str, Any] = {}
    for stage in STEPS:
        found |= dependence(settings, stage)
    found |= {"until": settings.until, "truth": settings.truth, "truth_synapses": settings.truth_synapses}
    for given in (settings.truth, settings.truth_synapses):
        # What stands for the content of a file is the same whatever the file is read for.
        read = dependence(PipelineSettings(dataset=given), "cutout") if given else {}
        found |= {name: value for name, value in read.items() if name == f"{CONTENT}{given}"}
    known = versions()
    return {**found, "emlib or its libraries": code_fingerprint({n: known.get(n, "") for n in ("python", *PACKAGES)})}


def keep_finished(run: Run, rests_on: dict[str, Any], checksums: dict[str, str]) -> None:
    """Put a run on record whose files are all in place.

    Parameters
    ----------
    run : Run
    rests_on : dict
        Its `basis`, taken before it read anything.
    checksums : dict
        SHA-256 by name of files that are known already.
    """
    root = run.outputs.root
    names = [path.as_posix() for artefact in run.outputs.written for path in artefact.files]
    files = {name: checksums.get(name) or checksum(root / name) for name in names}
    write_json(root / FILE, {"run_id": run.log.run_id, "basis": rests_on, "files": files})


def finished(folder: Path, settings: PipelineSettings) -> tuple[dict[str, Any] | None, str]:
    """Look up a run that need not be done again.

    Parameters
    ----------
    folder : Path
        Its output folder.
    settings : PipelineSettings
        What is asked for now.

    Returns
    -------
    dict or None
        Its row of the run log, as `emlib.runs.history.read_runs` gives it.
    str
        Why a run that is done does not count; empty if it does, or if there is none.
    """
    try:
        newest = next((run for run in read_runs(folder) if run["folder"] == folder), None)
    except UserError:
        return None, ""
    if newest is None or newest["status"] != "done":
        return None, ""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        before, files, known = dict(told["basis"]), dict(told["files"]), told["run_id"] == newest["run_id"]
        known = known and all(newest[name] is not None for name in COLUMNS)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        return None, "what the run rested on is not on record"
    now = json.loads(json.dumps(basis(settings)))
    if other := [name for name in {**now, **before} if now.get(name) != before.get(name)]:
        return None, f"{other[0]} has changed"
    for name, written in files.items():
        try:
            if checksum(folder / name) != written:
                return None, f"{folder / name} is damaged"
        except OSError:
            return None, f"{folder / name} is missing"
    return newest, ""
