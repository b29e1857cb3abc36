"""What a damaged journal still holds: its first entries, in order, up to the first that is not whole."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from emlib.proofread.journal_format import COLUMNS, chain, start_of_chain, write_journal
from emlib.volumes.atomic import atomic_path


def rescue(path: str | Path) -> str:
    """Copy what can be read of a damaged journal into one of its own beside it; the damaged file stays as it is.

    Parameters
    ----------
    path : path

    Returns
    -------
    str
        What was found, where the copy lies and what to do, for the line of an error. A copy is named by the number of
        its edits; one that lies there already is left alone, since somebody may have gone on with it.
    """
    path = Path(path)
    header, rows = read_whole_entries(path)
    if header is None:
        return "none of its edits could be read; it is left as it is: move it away to start anew"
    copy = path.with_name(f"{path.stem}_first_{len(rows)}_edits{path.suffix}")
    if not copy.exists():
        with atomic_path(copy) as temporary:
            write_journal(temporary, header, rows)
    edits = "1 edit" if len(rows) == 1 else f"{len(rows)} edits"
    return f"the first {edits} could be read and lie in {copy}; it is left as it is: go on with --journal {copy}"


def read_whole_entries(path: str | Path) -> tuple[dict[str, Any] | None, list[tuple]]:
    """Read the entries of a journal from the first up to one that is damaged, out of a file that may be cut short.

    Parameters
    ----------
    path : path
        Nothing is written to it.

    Returns
    -------
    header : dict or None
        None if not even that can be read.
    rows : list of tuple
        The columns of table ``edits``, each compared with its checksum.

    Notes
    -----
    SQLite refuses a file that is shorter than its header says, unless its schema is declared writable; then it reads
    the pages that are there.
    """
    rows: list[tuple] = []
    header = None
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            db.execute("PRAGMA writable_schema = ON")
            header = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM header")}
            head = start_of_chain(header)
            while True:
                select = f"SELECT {', '.join(COLUMNS)}, checksum FROM edits WHERE id = ?"
                row = db.execute(select, (len(rows) + 1,)).fetchone()
                if row is None or chain(head, row[:-1]) != row[-1]:
                    break
                rows.append(row)
                head = row[-1]
    except (sqlite3.Error, ValueError, KeyError, TypeError, OverflowError):  # as far as it goes
        pass
    if header is not None and not isinstance(header.get("labels"), dict):
        header = None
    return header, rows
