"""GeoJSON: one file per image. Modelled on QuPath 0.5 and on GDAL/OGR 3 (RFC 7946).

QuPath counts pixels of the full image from the corner of the first one. OGR counts the same way in images without a
georeference; where all of y is negative, as QGIS shows such images, y is turned round. Polygons may have holes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import shapely

from emlib.annotations.files import guess, key_of, list_files, read_json, root_of, split_of
from emlib.annotations.geometry import numbers
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError, nearest
from emlib.volumes.reading import reading

USUAL = ("label", "class", "classification", "name", "type", "category", "DN")  # the first that is there
KINDS = {"Polygon": "polygon", "MultiPolygon": "polygon", "LineString": "line", "MultiLineString": "line",
         "Point": "point", "MultiPoint": "point", "GeometryCollection": "polygon"}  # fmt: skip


def find(source: Source) -> list[Entry]:
    """Return an entry for each ``.geojson`` or ``.json`` of the input.

    Raises
    ------
    UserError
        If there is none; on loading, if one is no GeoJSON, or a feature has no label.
    """
    root = root_of(source.path)
    return [
        Entry(key_of(path.relative_to(root)), split_of(path.relative_to(root)), partial(_read, path, source))
        for path in list_files(source.path, (".geojson", ".json"), "GeoJSON files")
    ]


def _read(path: Path, source: Source) -> Annotation:
    features = _features(read_json(path), path)
    with reading(path):
        found = [_shape(one, path, source) for one in features if one.get("geometry")]
    shapes, notes = (
        tuple(found),
        [f"{len(features) - len(found)} features without geometry"] * (len(features) > len(found)),
    )
    bounds = [shape.geometry.bounds for shape in shapes if not shape.geometry.is_empty]
    if bounds and max(y1 for _, _, _, y1 in bounds) <= 0 and min(y0 for _, y0, _, _ in bounds) < 0:
        flip = partial(shapely.transform, transformation=lambda xy: xy * (1, -1))
        shapes = tuple(replace(shape, geometry=flip(shape.geometry)) for shape in shapes)
        notes.append("y is negative throughout and was turned round")
    return Annotation(str(path), shapes, path.stem, path.parent, notes=tuple(notes))


def _features(content: Any, path: Path) -> list[dict]:
    """The features of a collection, a bare list, or one alone."""
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    listed = content.get("features") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "geometry" in one for one in listed):
        raise UserError(f"{path} is no GeoJSON with features; {guess(content)}")
    return listed


def _shape(feature: dict, path: Path, source: Source) -> Shape:
    area = shapely.force_2d(shapely.geometry.shape(feature["geometry"]))
    if area.geom_type not in KINDS:
        raise ValueError(f"no geometry is called {area.geom_type!r}")
    numbers(shapely.get_coordinates(area))  # refuses what is none
    return Shape(_label(feature.get("properties") or {}, path, source), KINDS[area.geom_type], area)


def _label(properties: dict, path: Path, source: Source) -> str:
    """The class that QuPath gave, else the property asked for, else one with a usual name."""
    names = [source.attribute] if source.attribute else USUAL
    for name in names:
        value = properties.get(name)
        if isinstance(value, dict):  # QuPath: {"name": "Mitochondrion", "color": [200, 0, 0]}; derived classes in names
            value = value.get("name") or ": ".join(value.get("names", []))
        if value not in (None, ""):
            return str(value)
    if source.label:
        return source.label
    hint = (
        nearest(source.attribute, list(properties)) if source.attribute else f"it has {', '.join(properties) or 'none'}"
    )
    raise UserError(
        f"{path}: a feature has no class among its properties ({hint}); say which with --attribute, or give "
        "all such features one label with --label NAME"
    )
