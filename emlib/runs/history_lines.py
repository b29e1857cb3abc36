"""The runs on record for the shell: the list, all about one, and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emlib.runs.history import HEADLINES, changed, find_run, flat, headline, named, read_runs

BRIEF = ("voi", "arand", "synapse_f1", "edge_f1")  # what fits into a line of the list


def list_lines(runs: list[dict[str, Any]], defaults: dict[str, Any]) -> list[str]:
    """A table with a line for each run: id, status, seconds, peak, scores, data set, settings not the defaults."""
    rows = [("run", "status", "seconds", "peak MiB", "neurites", "edges", *BRIEF, "dataset", "settings")]
    for run in runs:
        figures, others = headline(run["summary"]), changed(run["settings"], defaults)
        others.pop("dataset", None)
        rows.append(
            (
                *(str(run["run_id"]), run["status"], _number(run["seconds"]), _number(run["peak_mib"], 0)),
                *(_number(figures.get(name)) for name in ("neurites", "edges", *BRIEF)),
                _dataset(run) + (" (phantom instead)" if "could not be reached" in (run["synthetic"] or "") else ""),
                " ".join(f"{name}={_text(value)}" for name, value in others.items()),
            )
        )
    left = {0, 1, len(rows[0]) - 2, len(rows[0]) - 1}
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def show_lines(run: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Everything that is on record of one run; settings that are not the defaults are marked with a star."""
    unusual = changed(run["settings"], defaults)
    plain = ("run_id", "status", "error", "started", "seconds", "peak_mib", "command", "folder", "dataset", "synthetic")
    around = {"git_commit": run["git_commit"], **(run["environment"] or {}), **(run["versions"] or {})}
    seconds, spent, peaks = (run[f"stage_{name}"] or {} for name in ("seconds", "cpu_seconds", "peak_mib"))
    parts = {
        "": {name: run[name] for name in (*plain, "offset_xyz", "cutout_xyz", "voxel_size_nm_zyx")},
        "results": flat(run["summary"] or {}),
        "stages": {
            name: f"{seconds[name]:.2f} s, {_number(spent.get(name), 2)} s CPU, {_number(peaks.get(name), 0)} MiB"
            for name in seconds
        },
        "settings (* not the default)": {
            f"{name}{' *' if name in unusual else ''}": value for name, value in named(run["settings"] or {}).items()
        },
        "environment": {"folder it was started in" if key == "folder" else key: value for key, value in around.items()},
    }
    lines = []
    for title, values in parts.items():
        known = {name: value for name, value in values.items() if value not in (None, "")}
        if known:
            width = max(map(len, known))
            lines += ["", title] if title else []
            lines += [f"{'  ' if title else ''}{name:{width}}  {_text(value)}" for name, value in known.items()]
    return lines


def csv_text(runs: Iterable[dict[str, Any]], defaults: dict[str, Any]) -> str:
    """All runs as CSV: what the list shows, all figures, and the settings that are not the defaults as JSON."""
    plain = ("run_id", "status", "started", "seconds", "peak_mib", "dataset", "synthetic", "seed", "git_commit")
    names = (*plain, "folder", *HEADLINES, "error", "settings_changed", "command")
    rows: list[str] = []
    # Python 3.11 quotes a value with a line end only if that is part of the line end it is told to write, so: both.
    table = csv.DictWriter(SimpleNamespace(write=rows.append), names, lineterminator="\r\n")
    table.writeheader()
    for run in runs:
        extra = {"settings_changed": json.dumps(changed(run["settings"], defaults), ensure_ascii=False)}
        known = {name: run.get(name) for name in names if name in run}
        table.writerow({**known, "dataset": _dataset(run), **headline(run["summary"]), **extra})
    return "".join(row.removesuffix("\r\n") + "\n" for row in rows)


def _dataset(run: dict[str, Any]) -> str:
    """A run that failed before it read anything has its data set in the settings only."""
    return str(run["dataset"] or (run["settings"] or {}).get("dataset") or "")


def _number(value: Any, digits: int = 2) -> str:
    if not isinstance(value, (int, float)):
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _text(value: Any) -> str:
    """A value as a person reads it; floats with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return str(value)


def answer(
    outdir: str | Path, defaults: dict[str, Any], *, show: str | None = None, export: str | None = None
) -> list[str]:
    """Lines for ``--runs`` or ``--show RUN``; for ``--export csv`` one text, whose values may hold line ends.

    Parameters
    ----------
    outdir : path
    defaults : dict
        The settings of a run without flags.
    show : str, optional
        A run: its id, the beginning of it, or ``last``.
    export : str, optional
        ``"csv"``. Printed rather than written to ``tables/``, whose bytes are the same in equal runs, as times are not.

    Raises
    ------
    UserError
        As `read_runs` and `find_run`.
    """
    runs = read_runs(outdir)
    if show is not None:
        lines = show_lines(find_run(runs, show), defaults)
    else:
        lines = [csv_text(runs, defaults).removesuffix("\n")] if export else list_lines(runs, defaults)
    return [line.encode("utf-8", "replace").decode("utf-8") for line in lines]  # the name of a file may be no UTF-8
