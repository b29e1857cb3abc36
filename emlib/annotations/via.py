"""VGG Image Annotator: one JSON file for many images. Modelled on VIA 2.0.12, projects and exported regions alike.

Coordinates are whole pixels of the canvas and are taken to count from the corner of the first pixel. VIA knows the
size of an image's file, not its height and width. ``theta`` of an ellipse is in radians, clockwise as seen.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from emlib.annotations import geometry
from emlib.annotations.files import guess, key_of, list_files, read_json, root_of, split_of
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError, nearest
from emlib.volumes.reading import reading

USUAL = (
    "label",
    "class",
    "type",
    "name",
    "category",
    "object",
)  # attributes that hold the label, the first that is there


def find(source: Source) -> list[Entry]:
    """Return an entry for each image of each ``.json`` of the input.

    Raises
    ------
    UserError
        If there is no file, one is no VIA, or it cannot be told which attribute holds the label.
    """
    root = root_of(source.path)
    paths = list_files(source.path, (".json",), "VIA files")
    return [entry for path in paths for entry in _entries(path, root, source)]


def _entries(path: Path, root: Path, source: Source) -> list[Entry]:
    content = read_json(path)
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    listed = list(images.values()) if isinstance(images, dict) else []
    if images is None or not all(isinstance(one, dict) and {"filename", "regions"} <= set(one) for one in listed):
        raise UserError(f"{path} is no VIA file, its images have no 'filename' and 'regions'; {guess(content)}")
    with reading(path):
        attributes = content.get("_via_attributes", {}).get("region", {})
        options = {name: one.get("options", {}) for name, one in attributes.items() if isinstance(one, dict)}
        folder = split_of(path.relative_to(root))
        return [
            Entry(
                key_of(one["filename"]), folder or split_of(one["filename"]), partial(_read, path, one, options, source)
            )
            for one in listed
        ]


def _read(path: Path, image: dict, options: dict[str, Any], source: Source) -> Annotation:
    regions = image["regions"]
    where = f"{path} ({image['filename']})"
    with reading(path):
        listed = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
        shapes = tuple(_shape(one, _label(one, options, source, where)) for one in listed)
        return Annotation(where, shapes, str(image["filename"]), path.parent)


def _label(region: dict, options: dict[str, Any], source: Source, where: str) -> str:
    """The label of a region: of the attribute asked for, of the only one, or of one with a usual name."""
    values = {key: value for key, value in region.get("region_attributes", {}).items() if value not in ("", {}, None)}
    if source.attribute and source.attribute in values:
        name = source.attribute
    elif source.attribute and values:
        raise UserError(
            f"{where}: a region has no attribute {source.attribute!r}; {nearest(source.attribute, list(values))}"
        )
    else:
        named = [name for name in USUAL if name in map(str.lower, values)]
        name = (
            next(iter(values), None) if len(values) == 1 else next((k for k in values if k.lower() in named[:1]), None)
        )
    if name is None and source.label:
        return source.label
    if name is None:
        has = (
            f"has the attributes {', '.join(values)}; say which with --attribute"
            if values
            else "has no label; give it one in VIA, or give all such regions one with --label NAME"
        )
        raise UserError(f"{where}: a region {has}")
    value = values[name]
    if isinstance(value, dict):  # check boxes: those that are on
        value = "+".join(key for key, on in value.items() if on)
    told = options.get(name, {}).get(str(value)) if isinstance(options.get(name), dict) else None
    return str(told) if told and str(value).isdecimal() else str(value)  # an option's number stands for its text


def _shape(region: dict, label: str) -> Shape:
    """A shape from its region."""
    value = region["shape_attributes"]
    kind = value["name"]
    if kind in ("polygon", "polyline"):
        points = list(zip(value["all_points_x"], value["all_points_y"], strict=True))
        return (
            Shape(label, "polygon", geometry.polygon(points))
            if kind == "polygon"
            else Shape(label, "line", geometry.line(points))
        )
    if kind == "rect":
        x, y = value["x"], value["y"]
        return Shape(label, "rectangle", geometry.rectangle(x, y, x + value["width"], y + value["height"]))
    if kind == "circle":
        return Shape(label, "circle", geometry.ellipse((value["cx"], value["cy"]), (value["r"], value["r"])))
    if kind == "ellipse":
        degrees = math.degrees(value.get("theta", 0))
        radii = value["rx"], value["ry"]
        return Shape(label, "ellipse", geometry.ellipse((value["cx"], value["cy"]), radii, degrees))
    if kind == "point":
        return Shape(label, "point", geometry.points([(value["cx"], value["cy"])]))
    raise ValueError(f"no shape of VIA is called {kind!r}")
