"""A volume on disk as the array that a viewer slices: what is looked at is read, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from emlib.volumes.volume import VolumeSource


class Stored:
    """A volume of a file, indexed as an array of NumPy is.

    Parameters
    ----------
    source : VolumeSource

    Examples
    --------
    >>> array = np.arange(24).reshape(2, 3, 4)
    >>> Stored(VolumeSource("none", array.shape, array.dtype, array.__getitem__))[1, :, -1].tolist()
    [15, 19, 23]
    """

    ndim = 3

    def __init__(self, source: VolumeSource) -> None:
        self.source = source
        self.shape, self.dtype = source.shape, np.dtype(source.dtype)
        self.size = int(np.prod(source.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read the box around what is asked for, and index that."""
        key = key if isinstance(key, tuple) else (key,)
        if any(entry is Ellipsis for entry in key):
            at = next(n for n, entry in enumerate(key) if entry is Ellipsis)
            key = (*key[:at], *[slice(None)] * (4 - len(key)), *key[at + 1 :])
        key = (*key, *[slice(None)] * (3 - len(key)))
        box, rest = zip(*(_cover(entry, length) for entry, length in zip(key, self.shape, strict=True)), strict=True)
        return self.source.read(box)[rest]

    def grey_range(self) -> tuple[float, float]:
        """Return the grey values below and above which 0.5 % of the middle section lie, to show it by."""
        section = self[len(self) // 2].astype(np.float32)
        low, high = np.nanpercentile(section, (0.5, 99.5))
        return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def _cover(entry: Any, length: int) -> tuple[slice, Any]:
    """The slice to read for an entry of an index, and the entry within that slice."""
    if isinstance(entry, slice):
        numbers = range(*entry.indices(length))
        if not len(numbers):
            return slice(0, 0), slice(None)
        low, high = min(numbers), max(numbers)
        return slice(low, high + 1), slice(None, None, entry.step)
    numbers = np.asarray(entry)
    if numbers.dtype == bool:
        numbers = np.flatnonzero(numbers)
    if ((numbers < -length) | (numbers >= length)).any():
        raise IndexError(f"index {entry} is outside of an axis of {length}")
    numbers = numbers % length
    low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, -1)
    return slice(low, high + 1), numbers - low if numbers.ndim else int(numbers) - low
