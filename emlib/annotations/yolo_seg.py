"""YOLO segmentation: one text file per image, ``class x y x y …`` on each line. Modelled on Ultralytics YOLO 8 to 11.

Coordinates are fractions of the image's width and height, from the corner of the first pixel. ``data.yaml`` holds the
names. A line with four numbers is a box (its centre and size), as in files for detection.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from emlib.annotations import geometry
from emlib.annotations.classes import read_yaml
from emlib.annotations.files import key_of, list_files, root_of, split_of
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError
from emlib.volumes.reading import reading

NO_LABELS = (
    "classes.txt",
    "train.txt",
    "val.txt",
    "test.txt",
    "readme.txt",
    "readme.dataset.txt",
    "readme.roboflow.txt",
)


def find(source: Source) -> list[Entry]:
    """Return an entry for each ``.txt`` of the input.

    Raises
    ------
    UserError
        If there is none, or no file has the names; on loading, if a class has no name, or a line is no polygon.
    """
    root = root_of(source.path)
    paths = [p for p in list_files(source.path, (".txt",), "YOLO labels") if p.name.lower() not in NO_LABELS]
    names = _names(root)
    return [
        Entry(key_of(path.relative_to(root)), split_of(path.relative_to(root)), partial(_read, path, names))
        for path in paths
    ]


def _names(root: Path) -> dict[int, str]:
    """The names of the classes, from data.yaml or classes.txt in the folder or the one above it."""
    for folder in (root, root.parent):
        for path in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))):
            content = read_yaml(path)
            names = content.get("names") if isinstance(content, dict) else None
            if isinstance(names, list):
                return {number: str(name) for number, name in enumerate(names)}
            if isinstance(names, dict):
                return {int(number): str(name) for number, name in names.items()}
        if (folder / "classes.txt").is_file():
            lines = (folder / "classes.txt").read_text(encoding="utf-8-sig").splitlines()
            return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    raise UserError(f"{root} holds no data.yaml with the names of the classes; add one: 'names: [membrane, vesicle]'")


def _read(path: Path, names: dict[int, str]) -> Annotation:
    shapes = []
    with reading(path):
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                shapes.append(_shape(line.split(), names, f"{path}, line {number}"))
    return Annotation(str(path), tuple(shapes), f"{path.stem}.png", path.parent, relative=True)


def _shape(words: list[str], names: dict[int, str], where: str) -> Shape:
    try:
        number, values = int(float(words[0])), np.array(words[1:], float)
    except ValueError as error:
        raise UserError(f"{where} is not 'class x y x y …' but {' '.join(words)[:60]!r}; export it again") from error
    if number not in names:
        there = ", ".join(f"{key} {name}" for key, name in list(names.items())[:6])
        raise UserError(f"{where} has class {number}, which data.yaml does not name; it names {there}")
    if len(values) == 4:
        (x, y), (width, height) = values[:2], values[2:]
        box = geometry.rectangle(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Shape(names[number], "rectangle", box)
    if len(values) < 6 or len(values) % 2:
        raise UserError(f"{where} has {len(values)} numbers; a polygon has an even number of them, six or more")
    return Shape(names[number], "polygon", geometry.polygon(values.reshape(-1, 2)))
