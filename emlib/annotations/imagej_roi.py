"""ImageJ regions of interest: a ``.roi`` or a ``.zip`` of them per image. Modelled on ImageJ 1.54, read with roifile.

Areas count from the corner of the first pixel; lines and points from its centre, so that 0.5 is added to theirs. The
label is that of the folder (``mitochondria/00.zip``) or ``--label``; else the region's name without a number at its
end. A name that ImageJ made of coordinates (0012-0345) is no label.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from emlib.annotations import geometry
from emlib.annotations.files import key_of, list_files, root_of
from emlib.annotations.per_label import group_by_image
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError
from emlib.volumes.reading import reading

CENTRE = 0.5
_AUTOMATIC = re.compile(r"\d+(-\d+)+|\d*")
_SET = re.compile(r"^RoiSet[ _-]+|[ _-]+RoiSet$|[ _-]+rois?$", re.IGNORECASE)  # RoiSet_00.zip is of image 00
NO_LABEL = ""


def find(source: Source) -> list[Entry]:
    """Return an entry for each image; files of one name in the folders of several labels are one image.

    Raises
    ------
    UserError
        If there is no file; on loading, if one cannot be read, or a region has no label.
    """
    root = root_of(source.path)
    paths = list_files(source.path, (".roi", ".zip"), "ImageJ regions")
    images = group_by_image(paths, root, NO_LABEL, _image_of)  # here a region's own name may tell
    return [
        Entry(key, split, partial(_read, [(path, label or source.label) for path, label in files]))
        for (split, key), files in images.items()
    ]


def _image_of(key: str) -> str:
    """The image that a file of regions is about."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{_SET.sub('', name) or name}".lstrip("/")


def _read(files: list[tuple[Path, str | None]]) -> Annotation:
    import roifile

    shapes, notes = [], []
    for path, label in files:
        with reading(path):
            found = roifile.roiread(path)
            for roi in found if isinstance(found, list) else [found]:
                shape = _shape(roi, label or _label(roi, path))
                shapes += [shape] if shape else []
                notes += [] if shape else [f"{path}: a region of type {roi.roitype.name} has no area and is left out"]
    first = files[0][0]
    name = _image_of(key_of(first.name))
    return Annotation(str(first), tuple(shapes), f"{name}.png", first.parent, notes=tuple(notes))


def _label(roi, path: Path) -> str:
    """The name of a region without a number at its end."""
    name = (roi.name or "").strip()
    if _AUTOMATIC.fullmatch(name):
        raise UserError(
            f"{path}: the region {name!r} says no label; rename it in the ROI Manager, put the file in a folder of its "
            "label's name, or give --label NAME"
        )
    return re.sub(r"[ _-]*\d+$", "", name) or name


def _shape(roi, label: str) -> Shape | None:
    """A shape from a region; None if it has no area, such as an angle."""
    from roifile import ROI_TYPE

    kind = roi.roitype
    if kind == ROI_TYPE.RECT and roi.multi_coordinates is not None:
        return Shape(label, "polygon", geometry.even_odd(roi.coordinates(multi=True)))
    if kind in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        x0, y0, x1, y1 = roi.left, roi.top, roi.right, roi.bottom
        if roi.subpixelrect:
            x0, y0 = roi.xd, roi.yd
            x1, y1 = x0 + roi.widthd, y0 + roi.heightd
        if kind == ROI_TYPE.RECT:
            return Shape(label, "rectangle", geometry.rectangle(x0, y0, x1, y1))
        centre, radii = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
        return Shape(label, "ellipse", geometry.ellipse(centre, radii))
    points = roi.coordinates()
    if kind in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        return Shape(label, "polygon", geometry.polygon(points))
    width = float(roi.stroke_width) or None
    if kind in (ROI_TYPE.LINE, ROI_TYPE.FREELINE, ROI_TYPE.POLYLINE):
        return Shape(label, "line", geometry.line(points + CENTRE), width=width)
    if kind == ROI_TYPE.POINT:
        return Shape(label, "point", geometry.points(points + CENTRE))
    return None
