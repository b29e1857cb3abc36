"""The run log: one row per run in ``runs/pipeline_runs.sqlite``, and ``runs/<run_id>_config.json`` beside it.

Written when a run starts and updated as it goes, so that a killed run leaves its row with status "running".
``PRAGMA user_version`` holds the version of the schema. A log of an older schema is brought up to date in place, in
one transaction, when the next run is written; one of a newer schema is refused and left as it is.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from emlib import __version__
from emlib.errors import UserError
from emlib.runs.artefacts import plain, write_json
from emlib.threads import get_threads

FILE = "pipeline_runs.sqlite"
LOCK_WAIT_S = 10.0  # for another program that has the log; a run holds it for some milliseconds
SCHEMA_VERSION = 3  # 1: all columns up to error; 2: environment; 3: stage_cpu_seconds
COLUMNS = {
    "run_id": "TEXT PRIMARY KEY",
    "status": "TEXT NOT NULL",  # running, done, failed, interrupted
    "started": "TEXT",  # UTC, ISO 8601
    "seconds": "REAL",
    "command": "TEXT",
    "dataset": "TEXT",
    "synthetic": "TEXT",  # why the data are not real, if they are not
    "offset_xyz": "TEXT",
    "cutout_xyz": "TEXT",
    "voxel_size_nm_zyx": "TEXT",
    "seed": "INTEGER",
    "settings": "TEXT",
    "versions": "TEXT",
    "git_commit": "TEXT",
    "stage_seconds": "TEXT",
    "stage_peak_mib": "TEXT",
    "peak_mib": "REAL",
    "summary": "TEXT",  # neurites, candidates, edges, scores
    "error": "TEXT",
    "environment": "TEXT",  # threads, CPU, cores, memory, folder, process
    "stage_cpu_seconds": "TEXT",
}
ESSENTIAL = ("run_id", "status")  # no migration can make these up
PACKAGES = ("numpy", "scipy", "scikit-image", "bioimage-cpp", "networkx", "pandas", "matplotlib")


class RunLog:
    """A run's row in the log.

    Parameters
    ----------
    folder : path
        The ``runs/`` folder.
    settings : dict
        The resolved settings, written to ``<run_id>_config.json`` too.
    command : str
        The command line as typed.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], command: str) -> None:
        self.folder = Path(folder)
        now = datetime.now(UTC)
        self.run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.started = time.monotonic()
        self.versions = versions()
        warn_if_empty(self.folder / FILE)
        with self._connect() as db:
            migrate(db)
            db.execute(
                "INSERT INTO runs (run_id, status, started, command, settings, seed, versions, git_commit, environment)"
                " VALUES (?, 'running', ?, ?, ?, ?, ?, ?, ?)",
                (
                    self.run_id,
                    now.isoformat(timespec="seconds"),
                    command,
                    json.dumps(plain(settings)),
                    settings.get("seed"),
                    json.dumps(self.versions),
                    git_commit(),
                    json.dumps(environment()),
                ),
            )
        write_json(self.folder / f"{self.run_id}_config.json", settings)

    def update(self, **values: Any) -> None:
        """Set columns of this run; values that SQLite cannot hold are stored as JSON."""
        unknown = set(values) - set(COLUMNS)
        if unknown:
            raise ValueError(f"the run log has no column {', '.join(sorted(unknown))}")
        values["seconds"] = round(time.monotonic() - self.started, 3)
        stored = [v if isinstance(v, (str, int, float, type(None))) else json.dumps(plain(v)) for v in values.values()]
        with self._connect() as db:
            db.execute(
                f"UPDATE runs SET {', '.join(f'{name} = ?' for name in values)} WHERE run_id = ?",
                (*stored, self.run_id),
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Open the log for one transaction; wait for another run that is writing."""
        path = self.folder / FILE
        with told(path, "write"), closing(sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)) as db:
            check_version(db, path)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.rollback()
                raise
            db.commit()


def migrate(db: sqlite3.Connection) -> None:
    """Make the table of runs, or bring that of an older schema up to date; called inside a transaction.

    Every version so far has only added columns, so whichever are missing are added, empty in the old rows.

    Raises
    ------
    sqlite3.DatabaseError
        If the table ``runs`` is not that of a run log.
    """
    there = {name for _, name, *_ in db.execute("PRAGMA table_info(runs)")}
    if not there:
        db.execute(f"CREATE TABLE runs ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
    elif not there >= set(ESSENTIAL):
        raise sqlite3.DatabaseError(f"its table runs has no column {' or '.join(ESSENTIAL)}, so it is no run log")
    for name, kind in COLUMNS.items() if there else ():
        if name not in there:
            db.execute(f"ALTER TABLE runs ADD COLUMN {name} {kind}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a log that a later emlib has written; nothing is changed in it.

    Raises
    ------
    UserError
        If its schema is newer than ``SCHEMA_VERSION``.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise UserError(
            f"the run log {path} has schema {version}, this emlib {__version__} knows up to {SCHEMA_VERSION}; "
            "update emlib or choose another --outdir"
        )


def warn_if_empty(path: Path) -> None:
    """Say on stderr if a log is there and has no byte in it: whatever runs it held are lost."""
    if path.is_file() and path.stat().st_size == 0:
        line = "has 0 bytes; what it may have held is lost, and the next run begins it anew"
        print(f"warning: the run log {path} {line}", file=sys.stderr, flush=True)


@contextmanager
def told(path: Path, verb: str) -> Iterator[None]:
    """Turn what SQLite raises in the block into a `UserError` that names the file and what to do with it."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        remedy = "move it away or choose another --outdir"
        if "locked" in str(error):
            remedy = "another program holds it: close that one, or wait, and run the command again"
        raise UserError(f"cannot {verb} the run log {path}: {error}; {remedy}") from error


def environment() -> dict[str, Any]:
    """What a run finds around it: threads, processor, memory, where and as which process it runs."""
    return {
        "threads": get_threads(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "folder": os.getcwd(),  # relative paths of the settings start here
        "host": platform.node(),
        "pid": os.getpid(),
    }


def cpu_model() -> str:
    """Name of the processor as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of emlib, Python, the system and the libraries that can change a result."""
    found = {"emlib": __version__, "python": sys.version.split()[0], "system": platform.platform()}
    for name in PACKAGES:
        found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the source tree, with "+" if it was modified; None outside a git checkout."""
    here = Path(__file__).parent
    call = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(call, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
