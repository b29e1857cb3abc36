"""The edit journal: an SQLite file that holds every edit of one label volume, in the order in which they were made.

Each entry is committed before the labels change, so that a killed window loses nothing. Undo and redo are entries of
their own that name the entry they take back or do again; nothing is ever removed. The file is whole after each edit
(no write-ahead log beside it), synchronised with the disk, and locked while a session has it open.

``header`` holds JSON by key: the labels' SHA-256, shape, dtype and voxel size. ``edits`` holds a row per entry;
each has the SHA-256 of its columns and of the entry before, so that a damaged or missing one shows. The tables are
described in `emlib.proofread.journal_format`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.proofread.deltas import Delta
from emlib.proofread.journal_format import (
    APPLICATION_ID,
    COLUMNS,
    VERSION,
    Entry,
    Identity,
    as_entry,
    chain,
    start_of_chain,
    write_journal,
)
from emlib.proofread.records import Change
from emlib.volumes.atomic import atomic_path

FILE = Path("runs") / "proofreading.sqlite"
_READ = f"SELECT {', '.join(COLUMNS)}, checksum FROM edits WHERE id = ?"


class Journal:
    """An open journal; other programs cannot open it meanwhile.

    Parameters
    ----------
    path : Path
        There must be one, see `create_journal`.

    Raises
    ------
    UserError
        If the file is no journal, damaged, of a newer emlib, or open in another window.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"no such journal: {self.path}; --outdir or --journal names another")
        self._db = None
        try:
            with _told(self.path, "read"):
                if not self.path.stat().st_size:  # SQLite takes it for a new database, and writes to it
                    raise sqlite3.DatabaseError("the file is empty")
                self._db = _connect(self.path)
                _check(self._db, self.path)
                self.header = {key: json.loads(value) for key, value in self._db.execute("SELECT * FROM header")}
                self.last = self._db.execute("SELECT coalesce(max(id), 0) FROM edits").fetchone()[0]
                head = self._db.execute("SELECT checksum FROM edits WHERE id = ?", (self.last,)).fetchone()
            self._head = head[0] if head else start_of_chain(self.header)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def identity(self) -> Identity:
        """Which labels it belongs to."""
        known = self.header["labels"]
        return Identity(known["sha256"], tuple(known["shape"]), known["dtype"], tuple(known["voxel_size_nm"]))

    def require(self, identity: Identity, labels: str | Path) -> None:
        """Compare with labels.

        Raises
        ------
        UserError
            If the journal belongs to others.
        """
        mine = self.identity
        if (mine.sha256, mine.shape) == (identity.sha256, identity.shape):
            return
        how = f"shape {mine.shape} and these have {identity.shape}"
        if mine.shape == identity.shape:
            how = f"SHA-256 {mine.sha256[:12]}… and these have {identity.sha256[:12]}…"
        raise UserError(
            f"the journal {self.path} is of other labels than {labels}: they had {how}; give those with --labels, or "
            "start a new journal with --journal FILE"
        )

    def append(
        self,
        operation: str,
        *,
        user: str,
        ids: list[int],
        arguments: str = "{}",
        delta: Delta | None = None,
        records: list[Change] = (),
        target: int | None = None,
    ) -> int:
        """Write an entry; when this returns, it is on the disk.

        Returns
        -------
        int
            Its id.

        Raises
        ------
        UserError
            If it cannot be written (disk full, no permission); the journal is as it was.
        """
        row = (
            self.last + 1,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            user,
            operation,
            target,
            arguments,
            json.dumps(ids),
            json.dumps(delta.box) if delta else None,
            delta.voxels if delta else 0,
            *((delta.runs, delta.old, delta.new) if delta and target is None else (None, None, None)),
            json.dumps([list(change) for change in records] if target is None else [], ensure_ascii=False),
        )
        head = chain(self._head, row)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(f"INSERT INTO edits VALUES ({', '.join('?' * (len(row) + 1))})", (*row, head))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise UserError(
                f"cannot write the journal {self.path}: {error}; the edit was refused and nothing changed: free space "
                "there or mend the permissions, then do it again"
            ) from error
        self.last, self._head = row[0], head
        return row[0]

    def entry(self, number: int) -> Entry:
        """Read an entry by its id, 1 … ``last``."""
        with _told(self.path, "read"):
            row = self._db.execute(_READ, (number,)).fetchone()
        return as_entry(row)

    def entries(self) -> Iterator[Entry]:
        """Read all entries in order, one at a time, and compare each with its checksum.

        Raises
        ------
        UserError
            If one is damaged or missing; it says where a copy of those before it lies.
        """
        head = start_of_chain(self.header)
        for number in range(1, self.last + 1):
            try:
                row = self._db.execute(_READ, (number,)).fetchone()
            except sqlite3.DatabaseError:
                row = None
            if row is None or chain(head, row[:-1]) != row[-1]:
                self.close()
                _refuse_damaged(self.path, f"entry {number} is damaged or missing")
            head = row[-1]
            yield as_entry(row)

    def close(self) -> None:
        """Close the file and let others have it."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
        self._db = None


def create_journal(path: str | Path, identity: Identity, about: dict[str, Any] | None = None) -> None:
    """Make an empty journal, whole or not at all.

    Parameters
    ----------
    path : path
        Nothing may lie there.
    identity : Identity
    about : dict, optional
        More for the header; JSON values.

    Raises
    ------
    UserError
        If there is a file already, or it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists; a journal is never overwritten")
    header = {"labels": asdict(identity), "created": datetime.now(UTC).isoformat(timespec="seconds"), **(about or {})}
    with atomic_path(path) as temporary:
        write_journal(temporary, header)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA trusted_schema = OFF")
        try:
            db.execute("BEGIN EXCLUSIVE")  # from here on the lock is held
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):  # which serves for a replay
                raise
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no whole journal."""
    kind, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if kind != APPLICATION_ID:
        raise UserError(f"{path} is a database, but no journal of proofreading; name another with --journal")
    if version > VERSION:
        raise UserError(f"the journal {path} has version {version}, this emlib knows up to {VERSION}; update emlib")
    told = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if told != "ok":
        raise sqlite3.DatabaseError(told.splitlines()[-1])


@contextmanager
def _told(path: Path, verb: str) -> Iterator[None]:
    """Turn what SQLite raises into a `UserError`; what a damaged journal still holds is saved."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"the journal {path} is open in another window; close that one first") from error
        raise UserError(f"cannot {verb} the journal {path}: {error}; check its permissions") from error
    except sqlite3.DatabaseError as error:
        _refuse_damaged(path, str(error))
    except (ValueError, KeyError, TypeError):
        _refuse_damaged(path, "its header is not readable")


def _refuse_damaged(path: Path, why: str) -> None:
    from emlib.proofread.damage import rescue  # only a damaged journal needs it

    raise UserError(f"the journal {path} is damaged ({why}): {rescue(path)}") from None
