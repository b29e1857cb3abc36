"""Instance labels: images whose pixels are the numbers of objects, 0 the background; also black and white masks,
of which each piece (pixels that touch by side or corner) is an object.

Such images know no classes: the folder of a file names them, as in the organelle folders of a data set
(``train/mitochondria/00.png``), or ``--label``; without either, the label is ``object``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from emlib.annotations.files import root_of
from emlib.annotations.mask_files import boxes, image_of, list_masks, pieces, read_ids
from emlib.annotations.per_label import group_by_image
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError

LABEL = "object"
BINARY_SHARE = 0.99  # of what is not 0 is 255: a black and white mask
HALF = 128


def find(source: Source) -> list[Entry]:
    """Return an entry for each image; the masks of one name in the folders of several labels are one image.

    Raises
    ------
    UserError
        If there is none; on loading, if masks of one image differ in size.
    """
    root = root_of(source.path)
    images = group_by_image(list_masks(source, "label images"), root, source.label or LABEL, image_of)
    return [Entry(key, split, partial(_read, files)) for (split, key), files in images.items()]


def _read(files: list[tuple[Path, str]]) -> Annotation:
    shapes, notes, sizes = [], [], {}
    for path, label in files:
        ids = read_ids(path)
        sizes[ids.shape] = path
        found, note = objects(ids, label)
        shapes += found
        notes += [note] if note else []
    if len(sizes) > 1:
        told = ", ".join(f"{path} is {height} × {width}" for (height, width), path in sizes.items())
        raise UserError(f"masks of one image differ in size: {told} (height × width)")
    first = files[0][0]
    return Annotation(
        str(first),
        tuple(shapes),
        f"{image_of(first.stem)}.png",
        first.parent,
        size=next(iter(sizes)),
        notes=tuple(notes),
    )


def objects(ids: np.ndarray, label: str) -> tuple[list[Shape], str]:
    """Return a shape for each object, cropped to its own box, and a note where the numbers are those of no objects.

    Parameters
    ----------
    ids : (Y, X) array of whole numbers, however large
    label : str

    Examples
    --------
    >>> [(s.corner, s.mask.shape) for s in objects(np.array([[0, 9, 9], [70000, 0, 0]]), "a")[0]]
    [((0, 1), (1, 2)), ((1, 0), (1, 1))]
    >>> len(objects(np.array([[255, 0, 255]], np.uint8), "a")[0])  # black and white: each piece is an object
    2
    """
    if ids.dtype == np.uint8 and _binary(ids):
        odd = int(np.count_nonzero((ids > 0) & (ids < 255)))
        found = [Shape(label, "mask", mask=mask, corner=corner) for _, mask, corner in pieces(ids >= HALF)]
        return (
            found,
            f"{label}: {odd} grey pixels of a black and white mask; from {HALF} on they are inside" if odd else "",
        )
    numbers, dense = np.unique(ids, return_inverse=True)  # huge numbers would make as many boxes
    dense = dense.reshape(ids.shape).astype(np.int32) + np.int32(numbers.size > 0 and numbers[0] != 0)
    return [Shape(label, "mask", mask=mask, corner=corner) for _, mask, corner in boxes(dense)], ""


def _binary(ids: np.ndarray) -> bool:
    """Whether an 8-bit image is black and white, a few grey pixels aside that drawing programs leave at edges."""
    counts = np.bincount(ids.ravel(), minlength=256)
    return counts[255] > BINARY_SHARE * counts[1:].sum()
