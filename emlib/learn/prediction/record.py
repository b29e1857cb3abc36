"""What was predicted, and how far: ``predict.json`` says what the work is, ``predict_done.jsonl`` what of it is done.

A line is added to the second once the files or blocks that it names are written, so that a killed run goes on where it
was. Whether a folder may be written to at all is decided by the first: results of another model, other inputs or other
settings are never mixed, and replaced only with ``--overwrite``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.runs.artefacts import plain, write_json, write_text
from emlib.volumes.atomic import left_by_system, remove_stale

RECORD, DONE, PARTIAL = "predict.json", "predict_done.jsonl", ".partial"
OTHERS = ("runs",)  # of the lock


class Journal:
    """The units that are done, of a run that may write to its folder.

    Parameters
    ----------
    root : Path
        The output folder.
    done : list of dict
        What an earlier run of the same work has finished.
    """

    def __init__(self, root: Path, done: Sequence[Mapping[str, Any]] = ()) -> None:
        self.root = root
        self._done = {self._key(one["name"], one.get("block")): dict(one) for one in done}
        write_text(root / DONE, "".join(_line(one) for one in self._done.values()))

    def get(self, name: str, block: int | None = None) -> dict[str, Any] | None:
        """Return what is on record of an input, or one block of it; None where it is not done or files are gone."""
        found = self._done.get(self._key(name, block))
        return found if found is not None and self._whole(found) else None

    def add(self, name: str, block: int | None = None, files: Sequence[str] = (), **about: Any) -> dict[str, Any]:
        """Record an input, or one block of it, as done, after all of it is written.

        Parameters
        ----------
        name : str
        block : int, optional
        files : names relative to the output folder
            Kept with their sizes; a folder without one.
        **about
            JSON values: pixels, foreground.

        Raises
        ------
        UserError
            If the line cannot be written.
        """
        sizes = {file: self._size(file) for file in files}
        one = plain({"name": name, **({} if block is None else {"block": block}), "files": sizes, **about})
        try:
            with (self.root / DONE).open("a", encoding="utf-8") as journal:
                journal.write(_line(one))
        except OSError as error:
            raise UserError(
                f"cannot write {self.root / DONE}: {error.strerror}; free space there or choose another --output"
            ) from error
        self._done[self._key(name, block)] = one
        return one

    def forget(self, name: str) -> None:
        """Take an input and all of its blocks off the record."""
        self._done = {key: one for key, one in self._done.items() if key[0] != name}
        write_text(self.root / DONE, "".join(_line(one) for one in self._done.values()))

    def _size(self, file: str) -> int | None:
        path = self.root / file
        return None if path.is_dir() else path.stat().st_size

    def _whole(self, one: Mapping[str, Any]) -> bool:
        """Whether the files of a unit are there in their sizes."""
        try:
            return all(self._size(file) == size and (self.root / file).exists() for file, size in one["files"].items())
        except OSError:
            return False

    @staticmethod
    def _key(name: str, block: int | None) -> tuple[str, int]:
        return name, -1 if block is None else block


def open_journal(
    root: Path, record: Mapping[str, Any], *, folders: Sequence[str], resume: bool, overwrite: bool
) -> Journal:
    """Decide whether a folder may be written to, and write ``predict.json``.

    Parameters
    ----------
    root : Path
        The output folder, held by `emlib.runs.lock.run_lock`.
    record : mapping
        JSON values: all that the results depend on, under ``model``, ``settings`` and ``inputs``.
    folders : sequence of str
        That results go to, relative to ``root``.
    resume : bool
        Go on where an earlier run of the same work ended.
    overwrite : bool
        Remove what an earlier run of other work wrote.

    Returns
    -------
    Journal

    Raises
    ------
    UserError
        If the folder holds results of other work, or files of which nothing is on record, and ``overwrite`` is not
        given; with ``resume`` the error says what differs.
    """
    record = json.loads(json.dumps(plain(record)))
    old, done = _read_record(root / RECORD), []
    if old is None:
        _refuse_unknown(root, folders, overwrite)
    elif old == record:
        done = _read_done(root / DONE) if resume else []
    elif overwrite or not _read_done(root / DONE):  # a run that ended before its first result
        _remove_old(root, _read_done(root / DONE))
    else:
        how = "cannot be resumed" if resume else "would be overwritten"
        raise UserError(
            f"{root} holds results of other work, which {how}: {_difference(old, record)}; choose another --output, or "
            "give --overwrite"
        )
    for folder in (root, *(root / name for name in folders)):
        remove_stale(folder)
    if not done:
        shutil.rmtree(root / PARTIAL, ignore_errors=True)
    write_json(root / RECORD, record)
    return Journal(root, done)


def _read_record(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged; choose another --output, or remove it to begin anew") from error


def _read_done(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; the last may have been cut short."""
    found = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            with suppress(ValueError):
                one = json.loads(line)
                if line.endswith("\n") and isinstance(one, dict) and {"name", "files"} <= set(one):
                    found.append(one)
    return found


def _refuse_unknown(root: Path, folders: Sequence[str], overwrite: bool) -> None:
    """Stop before files that no record of ours tells of are replaced: masks drawn by hand lie in such folders."""
    for folder in folders:
        place = root / folder
        if not overwrite and place.is_dir() and any(not left_by_system(one.name) for one in place.iterdir()):
            raise UserError(
                f"{place} holds files that are no predictions on record; choose another --output, or give --overwrite"
            )


def _remove_old(root: Path, done: Sequence[Mapping[str, Any]]) -> None:
    """Remove the files that an earlier run has on record, and no others."""
    for one in done:
        for file in one["files"]:
            path = root / file
            if not path.resolve().is_relative_to(root.resolve()):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for name in {Path(file).parent for one in done for file in one["files"]}:
        with suppress(OSError):  # others lie there
            os.rmdir(root / name)


def _difference(old: Any, new: Mapping[str, Any]) -> str:
    """The first thing in which two records differ, in words."""
    old = old if isinstance(old, dict) else {}
    for part, what in (("model", "another model"), ("inputs", "other inputs")):
        if old.get(part) != new[part]:
            return what
    before, now = old.get("settings") or {}, new["settings"]
    for name in now:
        if before.get(name) != now[name]:
            return f"{name} was {json.dumps(before.get(name))} and is {json.dumps(now[name])}"
    return "another version of emlib"


def _line(one: Mapping[str, Any]) -> str:
    return json.dumps(one, ensure_ascii=False) + "\n"
