"""Crops that may reach beyond an image: it goes on as its mirror image."""

from __future__ import annotations

import numpy as np


def mirrored_indices(first: int, count: int, length: int) -> np.ndarray:
    """Return ``count`` indices of an axis from ``first`` on, to and fro without repeating its ends.

    Examples
    --------
    >>> mirrored_indices(-2, 8, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(2 * (length - 1), 1)
    at = np.arange(first, first + count) % period
    return np.minimum(at, period - at)


def reflected_crop(image: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """Cut a square from the last two axes; what lies outside is the image mirrored at its border pixels.

    Parameters
    ----------
    image : (..., Y, X) array
    row, column : int
        Of the first pixel, perhaps outside.
    size : int
        Side in pixels.

    Returns
    -------
    (..., size, size) array

    Examples
    --------
    >>> reflected_crop(np.arange(4)[None] * np.ones((4, 1), int), 0, -2, 4)[0].tolist()
    [2, 1, 0, 1]
    """
    height, width = image.shape[-2:]
    if row >= 0 and column >= 0 and row + size <= height and column + size <= width:
        return image[..., row : row + size, column : column + size]
    rows, columns = mirrored_indices(row, size, height), mirrored_indices(column, size, width)
    return image.take(rows, axis=-2).take(columns, axis=-1)
