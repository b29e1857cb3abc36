"""Take the mark of synthetic data away again, but only from folders in which none is left."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from emlib.errors import UserError
from emlib.runs.artefacts import write_text
from emlib.volumes.synthetic import SYNTHETIC_MARK


def remove_marks(root: Path, folders: Iterable[str] = ("data", "tables")) -> None:
    """Remove the mark from each folder; where an earlier run has left files of the phantom, it names them instead.

    Parameters
    ----------
    root : Path
        The output folder.
    folders : names in it
        What is synthetic says so in its JSON: the sidecar of an array, ``alignment_shifts.json``, ``scores.json``.

    Raises
    ------
    UserError
        If a mark cannot be removed.
    """
    for folder in folders:
        path = root / folder / SYNTHETIC_MARK
        left = [file.stem for file in sorted((root / folder).glob("*.json")) if _synthetic(file)]
        if left:
            write_text(path, f"SYNTHETIC PHANTOM, NOT REAL DATA, left from an earlier run: {', '.join(left)}\n")
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot remove {path}: {error.strerror}; remove it or choose another --outdir") from error


def _synthetic(path: Path) -> bool:
    """Whether a JSON file says that it is not real, or cannot say that it is."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return isinstance(content, dict) and bool(content.get("synthetic"))
