"""napari shapes: one CSV per layer, one row per corner. Modelled on napari 0.5 and 0.6 (``index,shape-type,…``).

Whole numbers are the centres of pixels, axis-0 counts rows and axis-1 columns, so 0.5 is added to both. napari writes
no labels: the folder of a file names them (``mitochondria/00.csv``), or ``--label``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from emlib.annotations import geometry
from emlib.annotations.files import list_files, root_of
from emlib.annotations.per_label import group_by_image
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError
from emlib.volumes.reading import reading

CENTRE = 0.5
COLUMNS = ["index", "shape-type", "vertex-index", "axis-0", "axis-1"]


def find(source: Source) -> list[Entry]:
    """Return an entry for each image; the files of one name in the folders of several labels are one image.

    Raises
    ------
    UserError
        If there is no ``.csv``, or a file has no label; on loading, if one is no layer of shapes.
    """
    root = root_of(source.path)
    paths = list_files(source.path, (".csv",), "napari shapes")
    images = group_by_image(paths, root, source.label)
    return [Entry(key, split, partial(_read, files)) for (split, key), files in images.items()]


def _read(files: list[tuple[Path, str]]) -> Annotation:
    shapes = [shape for path, label in files for shape in _shapes(path, label)]
    first = files[0][0]
    return Annotation(str(first), tuple(shapes), f"{first.stem}.png", first.parent)


def _shapes(path: Path, label: str) -> list[Shape]:
    import pandas as pd

    with reading(path):
        table = pd.read_csv(path)
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise UserError(
                f"{path} is no layer of napari shapes, it has no column {missing[0]}; choose another --from"
            )
        if "axis-2" in table.columns:
            raise UserError(f"{path} has three axes; save the shapes of each section as a file of its own")
        return [
            _shape(str(corners["shape-type"].iloc[0]), corners.sort_values("vertex-index"), label)
            for _, corners in table.groupby("index", sort=True)
        ]


def _shape(kind: str, corners, label: str) -> Shape:
    points = corners[["axis-1", "axis-0"]].to_numpy(float) + CENTRE
    if kind in ("polygon", "rectangle"):
        return Shape(label, kind, geometry.polygon(points))
    if kind == "ellipse":  # the four corners of the box around it, which may be turned
        along, across = points[1] - points[0], points[3] - points[0]
        radii = np.hypot(*along) / 2, np.hypot(*across) / 2
        turned = float(np.degrees(np.arctan2(along[1], along[0])))
        return Shape(label, kind, geometry.ellipse(points.mean(axis=0), radii, turned))
    if kind in ("path", "line"):
        return Shape(label, "line", geometry.line(points))
    raise ValueError(f"no shape of napari is called {kind!r}")
