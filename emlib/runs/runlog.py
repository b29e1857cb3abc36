"""The run log: one row per run in ``runs/pipeline_runs.sqlite``, and ``runs/<run_id>_config.json`` beside it.

Written when a run starts and updated as it goes, so that a killed run leaves its row with status "running".
"""

from __future__ import annotations

import json
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

from emlib import __version__
from emlib.errors import UserError
from emlib.runs.artefacts import plain, write_json

SCHEMA_VERSION = 1
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
}
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
        with self._connect() as db:
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            db.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute(
                "INSERT INTO runs (run_id, status, started, command, settings, seed, versions, git_commit)"
                " VALUES (?, 'running', ?, ?, ?, ?, ?, ?)",
                (
                    self.run_id,
                    now.isoformat(timespec="seconds"),
                    command,
                    json.dumps(plain(settings)),
                    settings.get("seed"),
                    json.dumps(self.versions),
                    git_commit(),
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
        path = self.folder / "pipeline_runs.sqlite"
        try:
            with closing(sqlite3.connect(path, timeout=30)) as db, db:
                yield db
        except sqlite3.DatabaseError as error:
            raise UserError(f"cannot write the run log {path}: {error}; move it away or choose another --outdir") from (
                error
            )


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
