"""The output folder of a conversion: made whole or not at all, and never over somebody's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emlib.annotations.files import MANIFEST
from emlib.errors import UserError
from emlib.runs.artefacts import write_json
from emlib.volumes.atomic import atomic_path, left_by_system, remove_stale


def check_output(folder: Path, sources: list[Path], *, overwrite: bool) -> None:
    """Refuse a folder that holds something.

    Parameters
    ----------
    folder : Path
    sources : list of Path
        The input and the images; they may not lie in the folder.
    overwrite : bool
        A folder may be replaced that holds an earlier conversion, and nothing that was added to it since.

    Raises
    ------
    UserError
    """
    for source in sources:
        if folder.resolve() in (source.resolve(), *source.resolve().parents):
            raise UserError(f"--output {folder} holds what is read, {source}; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    there = [path for path in folder.rglob("*") if path.is_file() and not left_by_system(path.name)]
    if not there:
        return
    if not overwrite:
        raise UserError(f"--output {folder} holds a data set already; choose another folder, or give --overwrite")
    own = _own_files(folder)
    for path in sorted(there):
        if path.relative_to(folder).as_posix() not in own:
            raise UserError(
                f"--output {folder} holds {path.relative_to(folder).as_posix()}, which no conversion wrote; "
                "--overwrite would lose it: move it away, or choose another folder"
            )


@contextmanager
def new_folder(folder: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder beside ``folder`` that takes its place when the block ends without an error.

    Parameters
    ----------
    folder : Path
    settings : dict
        Written into ``conversion.json`` with the names of all files, by which a later conversion knows its own.
    """
    remove_stale(folder.parent)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        yield temporary
        names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        write_json(temporary / MANIFEST, {"settings": settings, "files": [*names, MANIFEST]})


def _own_files(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
