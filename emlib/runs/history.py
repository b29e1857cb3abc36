"""The runs on record: read them, find one by its name, tell what was special about it.

An output folder has a log in ``runs/``, and one in each ``cutout_00/runs/``, ``cutout_01/runs/`` … that ``--cutouts``
made; all are read as one history. Reading changes nothing: a log of an older schema is read with its missing columns
empty, and is brought up to date when the next run is written.
"""

from __future__ import annotations

import difflib
import json
import platform
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from emlib.errors import UserError
from emlib.runs.runlog import COLUMNS, ESSENTIAL, FILE, LOCK_WAIT_S, check_version, told, warn_if_empty

JSON_COLUMNS = {  # and what they hold
    **dict.fromkeys(("offset_xyz", "cutout_xyz", "voxel_size_nm_zyx"), list),
    **dict.fromkeys(("settings", "versions", "summary", "environment"), dict),
    **dict.fromkeys(("stage_seconds", "stage_cpu_seconds", "stage_peak_mib"), dict),
}
DEEPEST = 50  # nesting of JSON; that of a run is 5
HEADLINES = {  # name of a figure: where it lies in the summary
    "neurites": ("neurites",),
    "candidates": ("candidates",),
    "nodes": ("nodes",),
    "edges": ("edges",),
    "voi_split": ("scores", "segmentation", "voi_split"),
    "voi_merge": ("scores", "segmentation", "voi_merge"),
    "voi": ("scores", "segmentation", "voi"),
    "arand": ("scores", "segmentation", "arand"),
    "synapse_f1": ("scores", "synapses", "f1"),
    "synapse_average_precision": ("scores", "synapses", "average_precision"),
    "edge_f1": ("scores", "graph", "f1"),
    "shift_rms_px": ("scores", "alignment", "rms_px"),
}


def read_runs(outdir: str | Path) -> list[dict[str, Any]]:
    """Read all runs of an output folder and of its cutouts, newest first.

    Parameters
    ----------
    outdir : path

    Returns
    -------
    list of dict
        The columns of the run log, JSON decoded, and ``folder``, the output folder of that run. ``status`` is "killed"
        where a run on this machine is on record as running, and its process is gone.

    Raises
    ------
    UserError
        If there are no runs yet, or a log is damaged, locked or of a newer schema.
    """
    root = Path(outdir)
    logs = [path for path in (root / "runs" / FILE, *sorted(root.glob(f"cutout_*/runs/{FILE}"))) if path.is_file()]
    for path in logs:
        warn_if_empty(path)
    runs = [run for path in logs for run in _rows(path)]
    if not runs:
        raise UserError(
            f"no runs yet in {root / 'runs'}; start one with run_pipeline.py --outdir {root}, or name another"
        )
    return sorted(runs, key=lambda run: run["started"] or "", reverse=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one log, the last written first, so that a stable sort by the time keeps them in that order."""
    # Not read-only: SQLite must be able to roll back what a killed run left half written.
    address = f"{path.resolve().as_uri()}?mode=rw"
    with told(path, "read"), closing(sqlite3.connect(address, uri=True, timeout=LOCK_WAIT_S)) as db:
        check_version(db, path)
        db.row_factory = sqlite3.Row
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        if not db.execute("PRAGMA table_info(runs)").fetchall():
            return []
        found = [dict(row) for row in db.execute("SELECT * FROM runs ORDER BY rowid DESC")]
    if found and not set(found[0]) >= set(ESSENTIAL):
        raise UserError(f"{path} is no run log: its table has no {' or '.join(ESSENTIAL)}; move it away")
    return [_decoded(row, path.parent.parent) for row in found]


def _decoded(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A row with its cells as what they should be, or None: one odd cell must not hide the other runs."""
    run = {name: _cell(name, row.get(name)) for name in COLUMNS}
    for name in ("stage_seconds", "stage_peak_mib"):
        run[name] = run[name] and {stage: value for stage, value in run[name].items() if _is_number(value)}
    if run["peak_mib"] is None and run["stage_peak_mib"]:  # a run that did not come to its end
        run["peak_mib"] = max(run["stage_peak_mib"].values())
    run["status"] = run["status"] or "unknown"
    if run["status"] == "running" and not _alive(run):
        run["status"] = "killed"
    return {**run, "folder": folder}


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in JSON_COLUMNS:
        try:
            found = json.loads(value) if value else None
        except (TypeError, ValueError, RecursionError):
            return None
        return found if isinstance(found, JSON_COLUMNS[name]) and _shallow(found, DEEPEST) else None
    if COLUMNS[name] in ("REAL", "INTEGER"):
        return value if _is_number(value) else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _shallow(value: Any, depth: int) -> bool:
    """Whether a value nests no deeper than this; what follows it down would otherwise run out of stack."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_shallow(item, depth - 1) for item in inner)


def _alive(run: dict[str, Any]) -> bool:
    """Whether the process of a run may still be there; always for runs of other machines and of older logs."""
    around = run["environment"] or {}
    if around.get("host") != platform.node() or not isinstance(around.get("pid"), int):
        return True
    try:  # a number is given again: a process that began after the run is another one
        return psutil.Process(around["pid"]).create_time() < datetime.fromisoformat(run["started"]).timestamp() + 1
    except (psutil.Error, TypeError, ValueError, OverflowError):
        return False


def find_run(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the run of this id, or of an id that begins so; ``last`` is the newest.

    Raises
    ------
    UserError
        If no run fits, or several do.

    Examples
    --------
    >>> find_run([{"run_id": "2026-b"}, {"run_id": "2025-a"}], "2025")
    {'run_id': '2025-a'}
    """
    if name == "last":
        return runs[0]
    ids = [str(run["run_id"]) for run in runs]
    fits = [run for run, run_id in zip(runs, ids, strict=True) if run_id == name] or [
        run for run, run_id in zip(runs, ids, strict=True) if name and run_id.startswith(name)
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(str(run["run_id"]) for run in fits[:3])
        more = f" and {len(fits) - 3} more" if len(fits) > 3 else ""
        raise UserError(f"{len(fits)} runs begin with {name}: {some}{more}; give more of the id")
    near = difflib.get_close_matches(name, ids, n=1, cutoff=0.3) or ids[:1]
    raise UserError(f"no run {name!r}; the nearest is {near[0]}; --runs lists all, last is the newest")


def headline(summary: dict[str, Any] | None) -> dict[str, float]:
    """The figures that stand for a run, out of its summary; those that it does not have are left out.

    Examples
    --------
    >>> headline({"neurites": 3, "scores": {"segmentation": {"voi": 1.5}, "graph": {"f1": None}}})
    {'neurites': 3, 'voi': 1.5}
    """
    found = {}
    for name, path in HEADLINES.items():
        value: Any = summary or {}
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            found[name] = value
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keys joined by dots; tuples become lists, as in JSON.

    Examples
    --------
    >>> flat({"graph": {"min_score": 0.1}, "cutout_xyz": (8, 8, 2)})
    {'graph.min_score': 0.1, 'cutout_xyz': [8, 8, 2]}
    """
    if not isinstance(values, dict):
        return {prefix: list(values) if isinstance(values, tuple) else values}
    return {
        name: leaf
        for key, value in values.items()
        for name, leaf in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def changed(settings: dict[str, Any] | None, defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults, flat and named as ``--set`` names them.

    Examples
    --------
    >>> usual = {"seed": 0, "stages": {"graph": {"min_score": 0.1}}}
    >>> changed({"seed": 0, "stages": {"graph": {"min_score": 0.3}}}, usual)
    {'graph.min_score': 0.3}
    """
    usual = named(defaults)
    return {name: value for name, value in named(settings or {}).items() if name not in usual or usual[name] != value}


def named(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings flat and with the names that ``--set`` takes."""
    return {name.removeprefix("stages."): value for name, value in flat(settings).items()}
