"""Labelme: one JSON file per image. Modelled on Labelme 5.5 (files of 4 and 6 read alike).

Coordinates are on the canvas, (0, 0) the corner of the first pixel. A circle is its centre and a point on it; the
points of a mask are the first and the last pixel of its box, and the PNG inside it has the size of that box.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emlib.annotations import geometry
from emlib.annotations.drawing import Region
from emlib.annotations.files import guess, key_of, list_files, read_json, root_of, split_of
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.annotations.tracing import trace
from emlib.errors import UserError
from emlib.volumes.reading import reading

VERSION = "5.5.0"
AREAS = ("polygon", "rectangle", "circle", "ellipse", "mask")


def find(source: Source) -> list[Entry]:
    """Return an entry for each ``.json`` of the input.

    Raises
    ------
    UserError
        If there is none; on loading, if one is no Labelme file.
    """
    root = root_of(source.path)
    paths = list_files(source.path, (".json",), "Labelme files")
    return [
        Entry(key_of(path.relative_to(root)), split_of(path.relative_to(root)), partial(read, path)) for path in paths
    ]


def read(path: Path) -> Annotation:
    """Read one file.

    Raises
    ------
    UserError
        If it is no JSON, or no Labelme file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path} is no Labelme file, it has no list 'shapes'; {guess(content)}")
    with reading(path):
        data = content.get("imageData")
        size = content.get("imageHeight"), content.get("imageWidth")
        return Annotation(
            where=str(path),
            shapes=tuple(_shape(one, path) for one in content["shapes"]),
            image=str(content.get("imagePath") or f"{path.stem}.png"),
            near=path.parent,
            data=base64.b64decode(data) if data else None,
            size=(int(size[0]), int(size[1])) if all(size) else None,
        )


def write(regions: Sequence[tuple[str, Region]], size: tuple[int, int], image: str) -> dict[str, Any]:
    """Return the content of a Labelme file; reading it and drawing it gives the same pixels.

    Parameters
    ----------
    regions : sequence of (class, Region)
    size : (height, width) of the image
    image : str
        Its path from the JSON file.

    Returns
    -------
    dict
        Areas with their corners as they were drawn; pixels, and lines and points with the width that they were given,
        as polygons along the edges of pixels; what has holes, which Labelme's polygons cannot have, as masks.
    """
    shapes = [shape for number, (name, region) in enumerate(regions, 1) for shape in _written(name, region, number)]
    common = {"version": VERSION, "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return {**common, "imageHeight": size[0], "imageWidth": size[1]}


def _shape(one: dict, path: Path) -> Shape:
    """A shape from its entry in ``shapes``."""
    kind, points = one.get("shape_type") or "polygon", one["points"]
    group = one.get("group_id")
    make = partial(Shape, label=str(one["label"]), group=None if group is None else str(group))
    if kind == "mask":
        from PIL import Image

        with Image.open(io.BytesIO(base64.b64decode(one["mask"]))) as image:
            mask = np.asarray(image) > 0
        (x, y) = geometry.numbers(points)[0]
        return make(kind="mask", mask=mask, corner=(int(y), int(x)))
    if kind == "circle":
        (cx, cy), (px, py) = points
        radius = math.hypot(px - cx, py - cy)
        return make(kind=kind, geometry=geometry.ellipse((cx, cy), (radius, radius)))
    if kind == "rectangle" and len(points) == 2:
        return make(kind=kind, geometry=geometry.rectangle(*points[0], *points[1]))
    if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation"):  # the last from X-AnyLabeling
        return make(kind="polygon", geometry=geometry.polygon(points))
    if kind in ("line", "linestrip"):
        return make(kind="line", geometry=geometry.line(points))
    if kind in ("point", "points"):
        return make(kind="point", geometry=geometry.points(points))
    raise UserError(
        f"{path}: no shape_type is called {kind!r}; there are polygon, rectangle, circle, line, linestrip, "
        "point, points and mask"
    )


def _written(name: str, region: Region, number: int) -> list[dict]:
    """The entries of one region; several of them share a group."""
    shape = region.shape
    if shape.geometry is not None and shape.kind in AREAS and not _has_holes(shape.geometry):
        parts = [part for part in getattr(shape.geometry, "geoms", [shape.geometry]) if part.geom_type == "Polygon"]
    else:
        parts = trace(region.mask, region.corner)
    group = number if len(parts) > 1 else None
    return [_mask_entry(name, part, group) if part.interiors else _polygon_entry(name, part, group) for part in parts]


def _polygon_entry(name: str, part: Any, group: int | None) -> dict:
    return _entry(name, "polygon", part.exterior.coords[:-1], group)


def _mask_entry(name: str, part: Any, group: int | None) -> dict:
    """A piece with holes as a mask in its own box."""
    from PIL import Image

    from emlib.annotations.drawing import rasterise

    x0, y0, x1, y1 = (int(value) for value in part.bounds)  # traced along pixel edges: whole numbers
    mask, _ = rasterise(part, (y1, x1))
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    entry = _entry(name, "mask", [(x0, y0), (x1 - 1, y1 - 1)], group)
    return entry | {"mask": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _entry(name: str, kind: str, points: Any, group: int | None = None) -> dict:
    listed = [[float(x), float(y)] for x, y in points]
    common = {"label": name, "points": listed, "group_id": group, "description": "", "shape_type": kind}
    return {**common, "flags": {}, "mask": None}


def _has_holes(area: Any) -> bool:
    return any(len(getattr(part, "interiors", ())) for part in getattr(area, "geoms", [area]))
