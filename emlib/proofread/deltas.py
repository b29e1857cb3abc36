"""What an edit does to the voxels: places, old and new labels, small enough to keep every one in a journal.

A delta names voxels by their C-order index in the whole volume, as runs, so that its size and the time to apply it
follow the voxels that change and neither the bounding box nor the volume.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from emlib.proofread.boxes import Box, box_of

LEVEL = 1  # of zlib: runs of a segment shrink a hundredfold at any level
_STORED = np.dtype("<i8")


@dataclass(frozen=True)
class Delta:
    """Voxels that change, before and after.

    Attributes
    ----------
    box : (z0, z1, y0, y1, x0, x1)
        The smallest that holds them; ends are exclusive.
    voxels : int
        How many change; at least 1.
    runs : bytes
        zlib of little-endian int64 pairs (gap, length): so many indices are left out after the run before, so many
        follow on each other. Indices count voxels of the whole volume in C order.
    old, new : bytes
        zlib of little-endian int64 labels in the order of the indices; a single one stands for all.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 2, 2]]])
    >>> delta = make_delta(labels.shape, np.array([2, 3]), 2, 1)
    >>> apply_delta(labels, delta)
    >>> labels.tolist(), delta.box, delta.voxels
    ([[[1, 1, 1, 1]]], (0, 1, 0, 1, 2, 4), 2)
    >>> revert_delta(labels, delta)
    >>> labels.tolist()
    [[[1, 1, 2, 2]]]
    """

    box: Box
    voxels: int
    runs: bytes
    old: bytes
    new: bytes

    def places(self) -> np.ndarray:
        """Return the indices of the voxels in the flattened volume, ascending; (N,) int64."""
        gap, length = np.frombuffer(zlib.decompress(self.runs), _STORED).reshape(-1, 2).T
        return np.repeat(np.cumsum(gap), length) + np.arange(int(length.sum()))

    def old_labels(self) -> np.ndarray:
        """Return the labels before, (N,) int64, or (1,) where they are all the same."""
        return np.frombuffer(zlib.decompress(self.old), _STORED)

    def new_labels(self) -> np.ndarray:
        """Return the labels after, (N,) int64, or (1,) where they are all the same."""
        return np.frombuffer(zlib.decompress(self.new), _STORED)

    def inverse(self) -> Delta:
        """Return the delta that takes this one back."""
        return Delta(self.box, self.voxels, self.runs, self.new, self.old)


def make_delta(
    shape: tuple[int, int, int], places: np.ndarray, old: np.ndarray | int, new: np.ndarray | int
) -> Delta | None:
    """Pack a change of labels; voxels that keep their label are left out.

    Parameters
    ----------
    shape : (Z, Y, X) of the volume
    places : (N,) int array
        C-order indices, ascending, none twice.
    old, new : (N,) int array, or one label for all

    Returns
    -------
    Delta or None
        None if nothing changes.
    """
    places = np.asarray(places, np.int64)
    old, new = np.atleast_1d(old), np.atleast_1d(new)
    if len(old) > 1 or len(new) > 1:
        differ = old != new
        if not differ.all():
            places = places[differ]
            old, new = (labels[differ] if len(labels) > 1 else labels for labels in (old, new))
    elif old[0] == new[0]:
        return None
    if not len(places):
        return None
    return Delta(box_of(places, shape), len(places), _runs(places), _labels(old), _labels(new))


def make_run_delta(
    shape: tuple[int, int, int], start: np.ndarray, end: np.ndarray, old: int, new: np.ndarray | int
) -> Delta | None:
    """Pack a change of labels that is known as runs along x: the same delta as of their voxels, and sooner.

    Parameters
    ----------
    shape : (Z, Y, X) of the volume
    start, end : (R,) int array
        C-order indices, ascending; ends are exclusive. No run goes beyond its row.
    old : int
    new : (R,) int array, or one label for all

    Returns
    -------
    Delta or None
        None if nothing changes.

    Examples
    --------
    >>> one = make_run_delta((1, 1, 9), np.array([1, 3]), np.array([3, 5]), 7, 8)
    >>> one == make_delta((1, 1, 9), np.array([1, 2, 3, 4]), 7, 8), one.box
    (True, (0, 1, 0, 1, 1, 5))
    """
    length = end - start
    if isinstance(new, np.ndarray):
        keep = new != old
        start, end, length, new = start[keep], end[keep], length[keep], new[keep]
    elif new == old:
        return None
    if not len(start):
        return None
    first = np.flatnonzero(np.append(True, start[1:] != end[:-1]))
    runs = start[first], end[np.append(first[1:], len(end)) - 1]
    rows, x = np.divmod(start, shape[2])
    z, y = np.divmod(rows, shape[1])
    ends = (z.min(), z.max() + 1, y.min(), y.max() + 1, x.min(), (x + length).max())
    if isinstance(new, np.ndarray):
        new = new[:1] if (new == new[0]).all() else np.repeat(new, length)
    box = tuple(int(at) for at in ends)
    return Delta(box, int(length.sum()), _packed(*runs), _labels(np.atleast_1d(old)), _labels(np.atleast_1d(new)))


def apply_delta(labels: np.ndarray, delta: Delta) -> None:
    """Change labels in place.

    Parameters
    ----------
    labels : (Z, Y, X) int array, C-contiguous
    delta : Delta

    Raises
    ------
    ValueError
        If the labels are not those that the delta was made for; nothing is changed then.
    """
    if not labels.flags.c_contiguous:
        raise ValueError("labels must be C-contiguous: a delta counts voxels in that order")
    flat, places, old = labels.reshape(-1), delta.places(), delta.old_labels()
    if int(places[-1]) >= len(flat) or (flat[places] != old).any():
        raise ValueError("the labels are not those that this edit was made on")
    flat[places] = delta.new_labels().astype(labels.dtype)


def revert_delta(labels: np.ndarray, delta: Delta) -> None:
    """Take a change back in place; arguments and errors as for `apply_delta`."""
    apply_delta(labels, delta.inverse())


def _runs(places: np.ndarray) -> bytes:
    first = np.flatnonzero(np.diff(places, prepend=places[0] - 2) != 1)
    length = np.diff(first, append=len(places))
    start = places[first]
    return _packed(start, start + length)


def _packed(start: np.ndarray, end: np.ndarray) -> bytes:
    gap, length = start - np.concatenate([[0], end[:-1]]), end - start
    return zlib.compress(np.stack([gap, length], axis=1).astype(_STORED).tobytes(), LEVEL)


def _labels(values: np.ndarray) -> bytes:
    if (values == values[0]).all():
        values = values[:1]
    return zlib.compress(values.astype(_STORED).tobytes(), LEVEL)
