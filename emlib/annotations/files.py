"""The files of an input folder: found in natural order, with the split that their folder names, and read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.volumes.reading import reading

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


MANIFEST = "conversion.json"
OWN_FILES = (MANIFEST, "report.csv", "instances.csv")  # what a conversion writes beside its data set
OVERLAYS = "overlays"


def list_files(path: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """Return a file itself, or the files below a folder that end so, in natural order, without `hidden` ones.

    Parameters
    ----------
    path : Path
    suffixes : sequence of str
        In small letters, with the dot.
    what : str
        What such files are, for the error.

    Raises
    ------
    UserError
        If there is no such path, or no such file in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"no such file or folder: --input {path}")
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in suffixes and file.is_file() and not hidden(file.relative_to(path))
    ]
    if not found:
        raise UserError(
            f"{path} holds no {what} ({' '.join(suffixes)}); name their folder with --input, or check --from"
        )
    return sorted(found, key=natural)


def root_of(path: Path) -> Path:
    """Return the folder from which keys and splits count: the path, or that of the file."""
    return path if path.is_dir() else path.parent


def split_of(relative: str | Path) -> str | None:
    """Return the split that the first telling folder of a path names.

    Examples
    --------
    >>> [split_of(name) for name in ("valid/labels/a.txt", "images/Train/a.png", "a.png")]
    ['val', 'train', None]
    """
    for part in Path(str(relative).replace("\\", "/")).parts[:-1]:
        if part.lower() in SPLITS:
            return SPLITS[part.lower()]
    return None


def key_of(relative: str | Path) -> str:
    """Return a path without its suffix and without folders that name a split or a kind of file.

    Examples
    --------
    >>> [key_of(name) for name in ("train/cell1/a.json", "images\\\\a.b.png", "../a.png")]
    ['cell1/a', 'a.b', 'a']
    """
    parts = [part for part in str(relative).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    folders = [part for part in parts[:-1] if part.lower() not in SPLITS and part.lower() not in KINDS]
    name = parts[-1] if parts else ""
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, *NOTES) else name
    return "/".join([*folders, stem])


KINDS = ("images", "labels", "masks", "raw", "annotations", "img", "image", "mask", "instances")
NOTES = (".json", ".geojson", ".xml", ".csv", ".txt", ".roi", ".zip")


def natural(path: str | Path) -> tuple:
    """Return a sort key that puts 2 before 10."""
    parts = re.split(r"(\d+)", str(path).lower())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), str(path)


def read_json(path: Path) -> Any:
    """Read JSON, UTF-8 with or without a byte order mark.

    Raises
    ------
    UserError
        If it cannot be read or is no JSON; says where it breaks off.
    """
    with reading(path):
        try:
            return json.loads(path.read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path} is no JSON: {str(error)[:150]}; the file is damaged, export it again") from error


def guess(content: Any) -> str:
    """Return a hint at the format that parsed JSON seems to have.

    Examples
    --------
    >>> guess({"images": [], "annotations": []}), guess(3)
    ('it looks like --from coco', 'choose another --from')
    """
    keys = set(content) if isinstance(content, dict) else set()
    marks = {
        "coco": {"images", "annotations"},
        "labelme": {"shapes", "imagePath"},
        "via": {"_via_img_metadata"},
        "geojson": {"features"},
    }
    name = next((name for name, needed in marks.items() if needed <= keys), None)
    return f"it looks like --from {name}" if name else "choose another --from"


def hidden(relative: Path) -> bool:
    """Whether a path below the input is none of its files: hidden, of an archive of macOS, or a conversion's own."""
    own = relative.name in OWN_FILES or OVERLAYS in relative.parts[:-1]
    return own or any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)
