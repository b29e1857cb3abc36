"""Where models lie: a path, or the name of one that comes with emlib."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import emlib
from emlib.errors import UserError

MODELS = Path(emlib.__file__).resolve().parent.parent / "models"
SHOWN = 5


def find_checkpoint(path_or_name: str | Path | None) -> Path:
    """Return the file of a model.

    Parameters
    ----------
    path_or_name : str, Path or None
        A file, or the name of a bundled model: ``NAME`` for ``models/pretrained/NAME.pth``. A file wins. None stands
        for a flag that was not given.

    Raises
    ------
    UserError
        If there is none; the message names the checkpoints under ``models/``, those with the most similar name first.
    """
    here = {file.resolve(): file for folder in (MODELS, Path("models")) for file in folder.rglob("*.pth")}
    if path_or_name is None:
        raise UserError(f"name a model with --model_path{_there(Path(), here.values()) or '; train one with train.py'}")
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the .pth file of a model{_there(path, path.glob('*.pth'))}")
    bundled = MODELS / "pretrained" / f"{path.name}.pth"
    if len(path.parts) == 1 and bundled.is_file():
        return bundled
    raise UserError(f"there is no model {path}{_there(path, here.values()) or '; train one with train.py'}")


def _there(path: Path, files: Iterable[Path]) -> str:
    """The end of a message that names files, those with a name like that of `path` first."""
    names = [_short(file) for file in files if file.is_file() and not file.name.startswith(".")]
    likeness = {name: difflib.SequenceMatcher(None, str(path), name).ratio() for name in names}
    names = sorted(likeness, key=lambda name: (-likeness[name], name))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"; there is {', '.join(names[:SHOWN])}{more}" if names else ""


def _short(file: Path) -> str:
    """A bundled model by its name, others by their path."""
    return file.stem if file.resolve().parent == MODELS / "pretrained" else str(file)
