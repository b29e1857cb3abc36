"""Between which grey values the data lie, so that changes of grey can be measured in units of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

TAIL = 0.0005  # of the pixels at either end are passed over: hot pixels, blank corners
ROOM = 0.05  # of the span is added at either end, so that data which fill their type keep its whole range
WHOLE = (0.0, 1.0)


def find_grey_range(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the darkest and the brightest grey of images, without rare outliers and with some room.

    Parameters
    ----------
    images : iterable of uint8 or uint16 arrays

    Returns
    -------
    low, high : float
        In units of the largest value of the type: the quantiles 0.0005 and 0.9995 of all pixels, moved apart by 5 % of
        their span, within [0, 1]. The whole range, 0 and 1, if all pixels are equal or there is none.

    Raises
    ------
    ValueError
        If grey values are of another type.

    Examples
    --------
    Twelve bits in sixteen, and eight bits that are filled.

    >>> low, high = find_grey_range([np.arange(4096, dtype=np.uint16)])
    >>> round(low * 65535), round(high * 65535)
    (0, 4298)
    >>> find_grey_range([np.arange(256, dtype=np.uint8)])
    (0.0, 1.0)
    """
    counts = np.zeros(65536, np.int64)
    for image in images:
        if image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"grey values are uint8 or uint16, not {image.dtype}")
        step = 65535 // np.iinfo(image.dtype).max
        found = np.bincount(image.ravel())
        counts[: len(found) * step : step] += found
    return counted_grey_range(counts)


def counted_grey_range(counts: np.ndarray) -> tuple[float, float]:
    """As `find_grey_range`, of pixels that were counted.

    Parameters
    ----------
    counts : (256,) or (65536,) int array
        How often each value occurs.

    Examples
    --------
    >>> image = np.array([9, 10, 10, 30], np.uint8)
    >>> counted_grey_range(np.bincount(image, minlength=256)) == find_grey_range([image])
    True
    """
    largest = len(counts) - 1
    seen = np.cumsum(counts)
    low, high = (int(np.searchsorted(seen, share * seen[-1])) * (65535 // largest) for share in (TAIL, 1 - TAIL))
    if not low < high:
        return WHOLE
    room = ROOM * (high - low)
    return max(low - room, 0.0) / 65535, min(high + room, 65535.0) / 65535
