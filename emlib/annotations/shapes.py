"""What every reader of annotations gives: shapes with labels on an image.

Coordinates are (x, y) in pixels from the image's upper left corner: the pixel in row r and column c covers
c ≤ x < c + 1, r ≤ y < r + 1, so that its centre lies at +0.5. Readers of formats that count otherwise convert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from emlib.annotations.classes import Classes

IGNORED = "\0ignored"  # the label of pixels that nobody annotated; no file can hold such a name


@dataclass(frozen=True)
class Shape:
    """One drawn shape.

    Attributes
    ----------
    label : str
    kind : str
        polygon, rectangle, circle, ellipse, line, point or mask.
    geometry : shapely geometry, optional
        Areas, lines and points in corner coordinates; None for a mask.
    mask : (h, w) bool array, optional
    corner : (row, column)
        Where the first pixel of ``mask`` lies in the image; may be outside.
    width : float, optional
        Of a line, in pixels; None where the file does not say.
    group : str, optional
        Shapes of one label and one group are one object.
    crowd : bool
        Several objects that nobody told apart (COCO's ``iscrowd``).
    """

    label: str
    kind: str
    geometry: BaseGeometry | None = None
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    width: float | None = None
    group: str | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Annotation:
    """The shapes of one image, in the order in which they were drawn.

    Attributes
    ----------
    where : str
        The file, for messages.
    shapes : tuple of Shape
    image : str
        The image's name or path as the file gives it.
    near : Path
        The folder from which ``image`` counts.
    data : bytes, optional
        The image file itself, where the annotation holds it.
    size : (height, width), optional
        Of the image, as the annotation claims.
    relative : bool
        Coordinates are fractions of width and height.
    notes : tuple of str
        What the reader left out.
    """

    where: str
    shapes: tuple[Shape, ...]
    image: str
    near: Path
    data: bytes | None = None
    size: tuple[int, int] | None = None
    relative: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """An annotated image that a reader found; ``load`` reads its shapes, each time anew.

    Attributes
    ----------
    key : str
        Path of the image below the input, without suffix, ``/`` between folders.
    split : str or None
        train, val or test, where the input is divided already.
    load : function without arguments, returns Annotation
    """

    key: str
    split: str | None
    load: Callable[[], Annotation]


@dataclass(frozen=True)
class Source:
    """Where annotations are, and what was typed about them.

    Attributes
    ----------
    path : Path
        A file or a folder.
    label : str, optional
        ``--label``: the label of shapes whose format has none.
    attribute : str, optional
        ``--attribute``: the property that holds the label.
    classes : Classes, optional
        ``--classes``: names and colours of index and colour masks.
    """

    path: Path
    label: str | None = None
    attribute: str | None = None
    classes: Classes | None = None
