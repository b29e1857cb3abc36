"""Colours, number formats and the grey values of pictures: what all figures and the report share."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path
from PIL import Image

# Okabe & Ito 2008: eight colours that stay apart in the common forms of colour blindness.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
INK = "#1A1A1A"
GREY = "#8A8A8A"
PALE = "#E4E4E4"

PRE, POST = SKY, ORANGE  # on grey EM the two differ in lightness as well as in hue
SCORES = "viridis"

_HUES = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE)
_TINTS = 9


def _palette() -> np.ndarray:
    """Return (63, 3) float32 colours in 0–255: seven hues, each from dark to pale, neighbours far apart."""
    hues = np.array([[int(h[i : i + 2], 16) for i in (1, 3, 5)] for h in _HUES], np.float32)
    colours = []
    for tint in (4, 0, 7, 2, 8, 5, 1, 6, 3):  # an order in which consecutive ids differ in lightness too
        mix = (tint - 1.5) / 11
        colours.append(hues * (1 + mix) if mix < 0 else hues + (255 - hues) * mix)
    return np.concatenate(colours)


PALETTE = _palette()


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Return the colour of each id: the same id has the same colour in every figure and run.

    Parameters
    ----------
    labels : integer array of any shape

    Returns
    -------
    (..., 3) float32 array, 0 to 255
        Ids 63 apart may share a colour; outlines, not colours, tell neighbours apart.
    """
    # Multiplying by a number coprime to the palette's length sends consecutive ids to distant colours.
    return PALETTE[(labels.astype(np.int64) * 23 % len(PALETTE)).astype(np.intp)]


def grey_u8(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map grey values from ``low``…``high`` to uint8 0…255, clipped.

    Examples
    --------
    >>> grey_u8(np.array([[0.0, 0.5, 2.0]]), 0, 1)
    array([[  0, 127, 255]], dtype=uint8)
    """
    scaled = (np.asarray(image, np.float32) - low) * (255.0 / max(high - low, 1e-9))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """Return the grey values that a picture should span, from the 0.5 % to the 99.5 % quantile."""
    step = max(1, int((image.size / 250_000) ** 0.5))  # a quarter of a million voxels tell enough
    low, high = np.percentile(image[::step, ::step], (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def shrink(image: np.ndarray, limit: int) -> np.ndarray:
    """Reduce a uint8 (H, W) picture by whole-number block means until no side is longer than ``limit`` pixels."""
    factors = [max(1, -(-side // limit)) for side in image.shape]
    if factors == [1, 1]:
        return image
    return np.asarray(Image.fromarray(image).reduce((factors[1], factors[0])))


def overlay(grey: np.ndarray, labels: np.ndarray, size: tuple[int, int], alpha: float = 0.5) -> np.ndarray:
    """Paint labels over EM: half-transparent colours by id and a thin white line wherever the id changes.

    Parameters
    ----------
    grey : (H, W) uint8 array
    labels : (H, W) integer array
        0 stays grey.
    size : (height, width) of the result in pixels
        Outlines are one of these pixels wide, whatever the voxel's shape.

    Returns
    -------
    (height, width, 3) uint8 array
    """
    rows = (np.arange(size[0]) * labels.shape[0]) // size[0]
    columns = (np.arange(size[1]) * labels.shape[1]) // size[1]
    ids = labels[rows[:, None], columns[None, :]]
    em = np.asarray(Image.fromarray(grey).resize(size[::-1], Image.Resampling.BILINEAR), np.float32)[..., None]
    strength = np.where(ids > 0, np.float32(alpha), np.float32(0))[..., None]
    picture = em + (label_colours(ids) - em) * strength
    edge = np.zeros(ids.shape, bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    picture[edge] += (255 - picture[edge]) * 0.75
    return picture.astype(np.uint8)


def outline(mask: np.ndarray) -> Path:
    """Return the voxel edges around a mask as one path in (x, y) data coordinates.

    One path of many pieces is drawn many times faster than a collection of lines.

    Parameters
    ----------
    mask : (H, W) bool array
        Voxel (y, x) covers y ± 0.5, x ± 0.5. The picture's own border is not an outline.

    Examples
    --------
    >>> outline(np.array([[True, False]])).vertices.tolist()
    [[0.5, -0.5], [0.5, 0.5]]
    """
    y, x = np.nonzero(mask[:, 1:] != mask[:, :-1])
    upright = np.stack([x + 0.5, y - 0.5, x + 0.5, y + 0.5], 1)
    y, x = np.nonzero(mask[1:] != mask[:-1])
    level = np.stack([x - 0.5, y + 0.5, x + 0.5, y + 0.5], 1)
    points = np.concatenate([upright, level]).reshape(-1, 2)
    return Path(points, np.tile([Path.MOVETO, Path.LINETO], len(points) // 2))


def count(number: int) -> str:
    """Write a whole number with thin spaces between thousands.

    Examples
    --------
    >>> count(7577) == "7\u202f577"
    True
    """
    return f"{int(number):,}".replace(",", "\u202f")


def plural(number: int, noun: str) -> str:
    """Return the count with its noun: ``1 section``, ``2 sections``.

    Examples
    --------
    >>> plural(1, "section"), plural(0, "section")
    ('1 section', '0 sections')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
