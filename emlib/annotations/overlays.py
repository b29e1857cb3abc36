"""A picture to look at: the image in grey, the outline of each class in its colour, names beside the largest shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emlib.annotations.classes import Classes, Colour
from emlib.annotations.drawing import Region
from emlib.annotations.shapes import IGNORED

LEAST_SIDE = 640  # smaller images are enlarged, so that names can be read
NAMED = 6  # shapes of each class that get their name, the largest
LINE = 22  # pixels of a line of the legend


def draw_overlay(pixels: np.ndarray, regions: Sequence[tuple[str, Region]], classes: Classes) -> np.ndarray:
    """Return an RGB picture of an image and its shapes.

    Parameters
    ----------
    pixels : (Y, X) uint8 or uint16 array
    regions : sequence of (class, Region)
    classes : Classes
        Names and colours; black is shown as white, as it could not be seen.

    Returns
    -------
    (H, W, 3) uint8 array
        Enlarged by a whole number until its shorter side has 640 pixels or more, with a legend below.
    """
    from PIL import Image, ImageDraw, ImageFont

    from emlib.publish.style import grey_range, grey_u8

    factor = -(-LEAST_SIDE // min(pixels.shape)) if min(pixels.shape) < LEAST_SIDE else 1
    grey = np.kron(grey_u8(pixels, *grey_range(pixels)), np.ones((factor, factor), np.uint8))
    picture = np.repeat(grey[..., None], 3, axis=-1)
    colours = {one.name: one.colour if any(one.colour) else (255, 255, 255) for one in classes.classes}
    shown = [(name, region) for name, region in regions if name != IGNORED]
    for name, region in shown:
        picture[_enlarged_outline(region, factor, grey.shape)] = colours[name]
    font = ImageFont.load_default(size=15)
    columns = _legend_columns(classes, shown, picture.shape[1], font)
    lines = -(-len(columns) // max(1, columns[0][2])) if columns else 0
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + LINE * lines + 6 * bool(lines)), (20, 20, 20))
    canvas.paste(Image.fromarray(picture))
    pen = ImageDraw.Draw(canvas)
    _write_names(pen, shown, colours, factor, font, picture.shape)
    for place, (text, colour, per_line) in enumerate(columns):
        x = 8 + (place % per_line) * (picture.shape[1] // per_line)
        y = picture.shape[0] + 4 + LINE * (place // per_line)
        pen.rectangle((x, y + 3, x + 13, y + 16), fill=colour)
        pen.text((x + 20, y), text, fill=(235, 235, 235), font=font)
    return np.asarray(canvas)


def _enlarged_outline(region: Region, factor: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the outermost pixels of a region, in the enlarged picture."""
    big = np.pad(np.kron(region.mask, np.ones((factor, factor), bool)), 1)
    inside = big[:-2, 1:-1] & big[2:, 1:-1] & big[1:-1, :-2] & big[1:-1, 2:]
    rows, columns = np.nonzero(big[1:-1, 1:-1] & ~inside)
    return rows + region.corner[0] * factor, columns + region.corner[1] * factor


def _write_names(pen, regions, colours: dict[str, Colour], factor: int, font, size: tuple[int, ...]) -> None:
    """Write the class beside its largest shapes, kept inside the picture, never over another name."""
    from collections import defaultdict

    by_class = defaultdict(list)
    for name, region in regions:
        by_class[name].append(region)
    taken: list[tuple[float, float, float, float]] = []
    for name, found in by_class.items():
        for region in sorted(found, key=lambda one: -one.mask.sum())[:NAMED]:
            row, column = _middle(region)
            left, top, right, bottom = pen.textbbox((0, 0), name, font=font)
            x = min(max(2, (column + 0.5) * factor - (right - left) / 2), max(2, size[1] - right - 3))
            y = min(max(2, (row + 0.5) * factor - (bottom - top) / 2), max(2, size[0] - bottom - 3))
            box = (x, y, x + right, y + bottom)
            if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                continue
            taken.append(box)
            pen.text((x, y), name, fill=colours[name], font=font, stroke_width=2, stroke_fill=(0, 0, 0))


def _middle(region: Region) -> tuple[int, int]:
    """The pixel of a region that lies deepest inside it, in the image."""
    from scipy.ndimage import distance_transform_edt

    deepest = int(np.argmax(distance_transform_edt(np.pad(region.mask, 1))[1:-1, 1:-1]))
    row, column = np.unravel_index(deepest, region.mask.shape)
    return int(row) + region.corner[0], int(column) + region.corner[1]


def _legend_columns(classes: Classes, regions, width: int, font) -> list[tuple[str, Colour, int]]:
    """The text and colour of each entry, and how many fit on a line."""
    counts = {name: sum(one == name for one, _ in regions) for name in classes.names}
    entries = [(f"{one.name} ({counts[one.name]})", one.colour) for one in classes.classes if counts[one.name]]
    if not entries:
        return [("no shapes", (120, 120, 120), 1)]
    widest = max(font.getlength(text) for text, _ in entries) + 40
    per_line = max(1, int(width // widest))
    return [(text, colour if any(colour) else (255, 255, 255), per_line) for text, colour in entries]
