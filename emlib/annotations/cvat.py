"""CVAT for images 1.1: one XML file for many images. Modelled on CVAT 2.x.

Coordinates count from the corner of the first pixel. Shapes are drawn in the order of ``z_order``. Masks are runs of
pixels along the rows of their box, the first run off. Tags, cuboids and skeletons have no area and are left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from emlib.annotations import geometry
from emlib.annotations.files import key_of, list_files, root_of, split_of
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError
from emlib.volumes.reading import reading

KINDS = ("polygon", "box", "ellipse", "polyline", "points", "mask")


def find(source: Source) -> list[Entry]:
    """Return an entry for each ``<image>`` of each ``.xml`` of the input; ``subset`` names its split.

    Raises
    ------
    UserError
        If there is no file, or one is no such XML.
    """
    root = root_of(source.path)
    return [entry for path in list_files(source.path, (".xml",), "CVAT files") for entry in _entries(path, root)]


def _entries(path: Path, root: Path) -> list[Entry]:
    with reading(path):
        try:
            tree = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise UserError(f"{path} is no XML: {error}; the file is damaged, export it again") from error
        if tree.tag != "annotations":
            raise UserError(f"{path} is no CVAT file, it begins with <{tree.tag}>; choose another --from")
        if tree.find("track") is not None:
            raise UserError(f"{path} holds tracks of a video; export it from CVAT as 'CVAT for images 1.1'")
        folder = split_of(path.relative_to(root))
        return [
            Entry(
                key_of(image.attrib["name"]),
                folder or split_of(f"{image.get('subset', '')}/x") or split_of(image.attrib["name"]),
                partial(_read, path, image),
            )
            for image in tree.iter("image")
        ]


def _read(path: Path, image: ElementTree.Element) -> Annotation:
    with reading(path):
        drawn = sorted((one for one in image if one.tag in KINDS), key=lambda one: int(one.get("z_order") or 0))
        left_out = sorted({one.tag for one in image if one.tag not in KINDS})
        return Annotation(
            where=f"{path} ({image.attrib['name']})",
            shapes=tuple(map(_shape, drawn)),
            image=image.attrib["name"],
            near=path.parent,
            size=(int(image.attrib["height"]), int(image.attrib["width"])),
            notes=tuple(f"<{tag}> has no area and is left out" for tag in left_out),
        )


def _shape(one: ElementTree.Element) -> Shape:
    """A shape from its element."""
    value = one.attrib
    make = partial(Shape, value["label"], group=value.get("group_id"))
    if one.tag == "box":
        corners = [float(value[key]) for key in ("xtl", "ytl", "xbr", "ybr")]
        return make("rectangle", _turned(geometry.rectangle(*corners), float(value.get("rotation", 0))))
    if one.tag == "ellipse":
        cx, cy, rx, ry = (float(value[key]) for key in ("cx", "cy", "rx", "ry"))
        return make("ellipse", geometry.ellipse((cx, cy), (rx, ry), float(value.get("rotation", 0))))
    if one.tag == "mask":
        height, width = int(value["height"]), int(value["width"])
        runs = [int(run) for run in value["rle"].split(",")]
        if sum(runs) != height * width:
            raise ValueError(f"the run lengths of a mask add up to {sum(runs)} pixels, not {height} × {width}")
        mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        return make("mask", mask=mask, corner=(int(float(value["top"])), int(float(value["left"]))))
    points = [[float(number) for number in pair.split(",")] for pair in value["points"].split(";")]
    if one.tag == "polygon":
        return make("polygon", geometry.polygon(points))
    return make("line", geometry.line(points)) if one.tag == "polyline" else make("point", geometry.points(points))


def _turned(area, degrees: float):
    from shapely import affinity

    return affinity.rotate(area, degrees, origin="center") if degrees else area
