"""Colour masks: images whose colours are classes, black the background.

The colours come from ``classes.yaml`` in the input, or ``--classes``; without, the label of a colour is ``#RRGGBB``.
Each piece of a class is a shape.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from emlib.annotations.classes import BACKGROUND, Classes, hex_colour
from emlib.annotations.files import key_of, root_of, split_of
from emlib.annotations.mask_files import find_classes, image_of, list_masks, pieces, read_pixels
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.errors import UserError

MOST_COLOURS = 64  # more are a picture, or edges that were smoothed or compressed


def find(source: Source) -> list[Entry]:
    """Return an entry for each mask.

    Raises
    ------
    UserError
        If there is none; on loading, if a colour is that of no class, or there are too many.
    """
    root, classes = root_of(source.path), find_classes(source)
    return [
        Entry(image_of(key_of(path.relative_to(root))), split_of(path.relative_to(root)), partial(_read, path, classes))
        for path in list_masks(source, "colour masks")
    ]


def _read(path: Path, classes: Classes | None) -> Annotation:
    pixels = read_pixels(path, keep_palette=False)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.dtype != np.uint8 or pixels.shape[-1] not in (3, 4):
        raise UserError(f"{path} is no 8-bit RGB image but {pixels.dtype} {pixels.shape}; save it as RGB")
    codes = pixels[..., 0].astype(np.uint32) << 16 | pixels[..., 1].astype(np.uint32) << 8 | pixels[..., 2]
    there, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(there) > MOST_COLOURS:
        raise UserError(
            f"{path} has {len(there)} colours, too many for classes; save masks with hard edges, as PNG, not JPEG"
        )
    names = _names(path, classes, dict(zip(there.tolist(), counts.tolist(), strict=True)))
    numbers = {code: number for number, code in enumerate(there.tolist(), 1) if names[code] != BACKGROUND}
    ids = np.vectorize(lambda code: numbers.get(code, 0), otypes=[np.uint8])(there)[inverse.reshape(codes.shape)]
    labels = {number: names[code] for code, number in numbers.items()}
    shapes = [Shape(labels[number], "mask", mask=mask, corner=corner) for number, mask, corner in pieces(ids)]
    return Annotation(str(path), tuple(shapes), f"{image_of(path.stem)}.png", path.parent, size=codes.shape)


def _names(path: Path, classes: Classes | None, counts: dict[int, int]) -> dict[int, str]:
    """The label of each colour."""
    text = {code: hex_colour((code >> 16, code >> 8 & 255, code & 255)) for code in counts}
    if classes is None:
        return {code: BACKGROUND if code == 0 else colour for code, colour in text.items()}
    known = {one.colour[0] << 16 | one.colour[1] << 8 | one.colour[2]: one.name for one in classes.classes}
    for code, count in counts.items():
        if code not in known:
            close = min(known, key=lambda other: _distance(code, other))
            near = f"#{close:06X} {known[close]}"
            raise UserError(
                f"{path} has the colour {text[code]} in {count} pixels, which no class has; the nearest is {near}"
            )
    return known


def _distance(one: int, other: int) -> int:
    return sum(((one >> shift & 255) - (other >> shift & 255)) ** 2 for shift in (0, 8, 16))
