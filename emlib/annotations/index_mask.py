"""Index masks: images whose pixels are the numbers of classes, 0 the background.

Names and colours come from ``classes.yaml`` in the input, or ``--classes``; without, the label of number 3 is ``3``.
Each piece of a class is a shape.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from emlib.annotations.classes import Classes
from emlib.annotations.files import key_of, root_of, split_of
from emlib.annotations.mask_files import find_classes, image_of, list_masks, pieces, read_ids
from emlib.annotations.shapes import IGNORED, Annotation, Entry, Shape, Source
from emlib.errors import UserError

MOST_CLASSES = 256


def find(source: Source) -> list[Entry]:
    """Return an entry for each mask.

    Raises
    ------
    UserError
        If there is none; on loading, if a number is in no class of ``classes.yaml``, or there are too many.
    """
    root, classes = root_of(source.path), find_classes(source)
    return [
        Entry(image_of(key_of(path.relative_to(root))), split_of(path.relative_to(root)), partial(_read, path, classes))
        for path in list_masks(source, "index masks")
    ]


def _read(path: Path, classes: Classes | None) -> Annotation:
    ids = read_ids(path)
    there = [int(number) for number in np.unique(ids)]
    names = {number: str(number) for number in there if number}
    if classes is None and len(names) > MOST_CLASSES:
        raise UserError(f"{path} holds {len(names)} numbers, too many for classes; are they --from instances?")
    if classes is not None:
        names = {one.id: one.name for one in classes.classes if one.id} | {classes.ignore: IGNORED}
        if unknown := [number for number in there if number and number not in names]:
            raise UserError(
                f"{path} has the class id {unknown[0]} in {int((ids == unknown[0]).sum())} pixels, which is outside of "
                f"classes.yaml; its ids are {', '.join(map(str, classes.ids))}; add it there"
            )
    shapes = [Shape(names[number], "mask", mask=mask, corner=corner) for number, mask, corner in pieces(ids)]
    image = Path(image_of(path.stem)).name
    return Annotation(str(path), tuple(shapes), f"{image}.png", path.parent, size=ids.shape)
