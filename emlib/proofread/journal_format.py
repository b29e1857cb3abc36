"""What stands in a journal file: its tables, what a row means, and the checksums that chain the rows."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlib.proofread.boxes import Box
from emlib.proofread.deltas import Delta
from emlib.proofread.records import Change

APPLICATION_ID = 0x656D7072  # "empr", in SQLite's header: what kind of database this is
VERSION = 1
UNDO, REDO = "undo", "redo"
HEADER = "CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
EDITS = """CREATE TABLE edits (
    id INTEGER PRIMARY KEY,  -- 1, 2, 3, …
    time TEXT NOT NULL,      -- UTC, ISO 8601
    user TEXT NOT NULL,
    operation TEXT NOT NULL, -- of emlib.proofread.operations, or undo, redo
    target INTEGER,          -- the entry that an undo takes back or a redo does again
    arguments TEXT NOT NULL, -- JSON: ids, seeds, sections, names
    ids TEXT NOT NULL,       -- JSON list of the neurites concerned
    box TEXT,                -- JSON z0, z1, y0, y1, x0, x1; null where no voxel changes
    voxels INTEGER NOT NULL,
    runs BLOB, old BLOB, new BLOB,  -- see emlib.proofread.deltas.Delta; null for undo and redo
    records TEXT NOT NULL,   -- JSON list of [kind, key, old, new]
    checksum TEXT NOT NULL
)"""
COLUMNS = (
    *("id", "time", "user", "operation", "target", "arguments", "ids", "box", "voxels"),
    *("runs", "old", "new", "records"),
)


@dataclass(frozen=True)
class Identity:
    """Which labels a journal belongs to.

    Attributes
    ----------
    sha256 : str
        Of the voxels, C order, as int32 or int64.
    shape : (Z, Y, X)
    dtype : str
    voxel_size_nm : (z, y, x) in nm
    """

    sha256: str
    shape: tuple[int, int, int]
    dtype: str
    voxel_size_nm: tuple[float, float, float]

    @classmethod
    def of(cls, labels: np.ndarray, voxel_size_nm: tuple[float, float, float]) -> Identity:
        """Return the identity of labels that nobody has edited yet."""
        digest = hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()
        return cls(digest, labels.shape, str(labels.dtype), tuple(float(size) for size in voxel_size_nm))


@dataclass(frozen=True)
class Entry:
    """A row of the journal; box and voxels stand there for undo and redo too, delta and records only for edits."""

    id: int
    time: str
    user: str
    operation: str
    target: int | None
    arguments: str
    ids: list[int]
    box: Box | None
    voxels: int
    delta: Delta | None
    records: list[Change]


def write_journal(path: Path, header: dict[str, Any], rows: list[tuple] = ()) -> None:
    """Write a journal with this header and these rows, their checksums included."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("BEGIN")
            db.execute(HEADER)
            db.execute(EDITS)
            db.executemany("INSERT INTO header VALUES (?, ?)", [(key, json.dumps(v)) for key, v in header.items()])
            db.executemany(f"INSERT INTO edits VALUES ({', '.join('?' * (len(COLUMNS) + 1))})", rows)
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise OSError(None, f"{error}") from error


def start_of_chain(header: dict[str, Any]) -> str:
    """Return what stands for the checksum before the first entry: that of the labels."""
    return str(header["labels"]["sha256"])


def chain(before: str, row: tuple) -> str:
    """Return the checksum of a row, given the one before."""
    digest = hashlib.sha256(before.encode())
    for value in row:
        stored = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        digest.update(f"{type(value).__name__} {len(stored)} ".encode())
        digest.update(stored)
    return digest.hexdigest()


def as_entry(row: tuple) -> Entry:
    """Return a row as an `Entry`."""
    number, time, user, operation, target, arguments, ids, box, voxels, runs, old, new, records, _ = row
    where = None if box is None else tuple(json.loads(box))
    delta = None if runs is None else Delta(where, voxels, runs, old, new)
    changes = [Change(*change) for change in json.loads(records)]
    return Entry(number, time, user, operation, target, arguments, json.loads(ids), where, voxels, delta, changes)
