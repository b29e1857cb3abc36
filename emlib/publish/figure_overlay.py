"""Masks over EM as plain pictures of the size of the image: outlines, or painted areas, in the colours of classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emlib.measure.masks.outlines import outline
from emlib.publish.style import grey_range, grey_u8

Colour = tuple[int, int, int]
PIXELS_PER_LINE = 1000  # an image of so many pixels on its shorter side gets outlines that are one pixel thicker


def draw_overlay(em: np.ndarray, masks: Mapping[Colour, np.ndarray]) -> np.ndarray:
    """Draw the outlines of masks over EM.

    Parameters
    ----------
    em : (Y, X) array
        uint8 as it is; of other types the values from the 0.5 % to the 99.5 % quantile span black to white.
    masks : (Y, X) bool arrays by colour (red, green, blue)
        Later ones lie on top.

    Returns
    -------
    (Y, X, 3) uint8 array
        An outline is the inner boundary of its mask, one pixel wide, wider in images beyond 2000 pixels.

    Examples
    --------
    >>> mask = np.zeros((5, 5), bool)
    >>> mask[1:4, 1:4] = True
    >>> draw_overlay(np.full((5, 5), 9, np.uint8), {(255, 0, 0): mask})[2, :, 0].tolist()
    [9, 255, 9, 255, 9]
    """
    grey = em if em.dtype == np.uint8 else grey_u8(em, *grey_range(em))
    picture = np.repeat(grey[..., None], 3, axis=2)
    for colour, mask in masks.items():
        left, line = mask, np.zeros(mask.shape, bool)
        for _ in range(max(1, min(em.shape) // PIXELS_PER_LINE)):
            edge = outline(left)
            line |= edge
            left = left & ~edge
        picture[line] = colour
    return picture


def draw_colours(masks: Mapping[Colour, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Paint masks on black; where they overlap, the later one lies on top.

    Parameters
    ----------
    masks : (Y, X) bool arrays by colour (red, green, blue)
    shape : (Y, X)

    Returns
    -------
    (Y, X, 3) uint8 array

    Examples
    --------
    >>> draw_colours({(1, 2, 3): np.array([[True, False]])}, (1, 2)).tolist()
    [[[1, 2, 3], [0, 0, 0]]]
    """
    picture = np.zeros((*shape, 3), np.uint8)
    for colour, mask in masks.items():
        picture[mask] = colour
    return picture


def draw_legend(names: Mapping[str, Colour]) -> np.ndarray:
    """Draw which colour stands for what, a line each.

    Examples
    --------
    >>> draw_legend({"mitochondria": (230, 159, 0)}).shape[2]
    3
    """
    line, font = 28, ImageFont.load_default(18)
    width = 60 + max(int(font.getlength(name)) for name in names)
    picture = Image.new("RGB", (width, line * len(names) + 12), "white")
    draw = ImageDraw.Draw(picture)
    for row, (name, colour) in enumerate(names.items()):
        top = 6 + row * line
        draw.rectangle((10, top + 5, 28, top + 23), fill=tuple(colour), outline="black")
        draw.text((40, top + line // 2), name, fill="black", font=font, anchor="lm")
    return np.asarray(picture)
