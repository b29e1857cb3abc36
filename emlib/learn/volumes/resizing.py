"""Sections at another size, whole or in part: a part has the very bytes that it has in the whole.

Pillow resizes a part with weights that may differ from those of the whole in their last digit. So its weights are
computed here, once for each length, and a part takes its rows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

Window = tuple[slice, slice]


@lru_cache(maxsize=16)
def resize_weights(length: int, to: int) -> csr_array:
    """Return what each of ``to`` pixels takes from each of ``length``.

    Returns
    -------
    (to, length) sparse float32 array
        Rows sum to 1.

    Notes
    -----
    A triangle as wide as two pixels of the coarser side: linear interpolation, anti-aliased when it makes smaller
    (``BILINEAR`` of Pillow).

    Examples
    --------
    >>> resize_weights(2, 4).toarray()
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.25, 0.75],
           [0.  , 1.  ]], dtype=float32)
    """
    scale = length / to
    reach = max(scale, 1.0)
    centre = (np.arange(to) + 0.5) * scale - 0.5
    place = np.floor(centre - reach)[:, None].astype(np.int64) + np.arange(2 * int(np.ceil(reach)) + 2)
    weight = np.maximum(1 - np.abs(place - centre[:, None]) / reach, 0)
    weight[(place < 0) | (place >= length)] = 0
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    row, column = np.nonzero(weight)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=to))])
    return csr_array((weight[row, column], place[row, column], ends), shape=(to, length))


def seen_by(part: slice, length: int, to: int) -> slice:
    """Return the pixels of ``length`` from which a part of ``to`` pixels is made.

    Examples
    --------
    >>> seen_by(slice(1, 3), 100, 50)
    slice(1, 7, None)
    """
    if length == to:
        return part
    weights = resize_weights(length, to)
    columns = weights.indices[weights.indptr[part.start] : weights.indptr[part.stop]]
    return slice(int(columns.min()), int(columns.max()) + 1)


def resized(planes: np.ndarray, seen: Window, shape: Sequence[int], window: Window, to: Sequence[int]) -> np.ndarray:
    """Bring a window of a section to another size.

    Parameters
    ----------
    planes : (C, y, x) float32 array
        The part ``seen`` of the section, which holds all that `seen_by` says.
    seen : (slice of rows, slice of columns)
    shape : (Y, X)
        Of the section.
    window : (slice of rows, slice of columns)
        Of the resized section.
    to : (Y', X')
        Size of the resized section.

    Returns
    -------
    (C, y', x') float32 array

    Examples
    --------
    >>> section = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    >>> whole = resized(section, (slice(0, 1), slice(0, 4)), (1, 4), (slice(0, 1), slice(0, 2)), (1, 2))
    >>> whole, resized(section[..., 1:], (slice(0, 1), slice(1, 4)), (1, 4), (slice(0, 1), slice(1, 2)), (1, 2))
    (array([[[0.71..., 2.28...]]], dtype=float32), array([[[2.28...]]], dtype=float32))
    """
    down, across = (
        None if length == new else resize_weights(length, new)[part][:, side]
        for side, length, part, new in zip(seen, shape, window, to, strict=True)
    )
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(window, seen, strict=True))
    found = []
    for plane in planes:
        high = plane[rows] if down is None else down @ plane
        found.append(high[:, columns] if across is None else (across @ high.T).T)
    return np.stack(found).astype(np.float32, copy=False)
