"""An array that can be drawn on and never changes: strokes lie over it until they are taken up or wiped off.

A viewer writes strokes into the array that it shows. It is given this one, so that nothing can get past the journal:
what was drawn is read off, becomes an edit, and the labels themselves change through that edit alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Drawing:
    """A volume with strokes over it; only sections that were drawn on are copied.

    Parameters
    ----------
    under : (Z, Y, X) int array
        Shown where nothing is drawn; it may change meanwhile.

    Attributes
    ----------
    written : function, optional
        Called after each write.

    Examples
    --------
    >>> drawing = Drawing(np.zeros((2, 2, 3), np.int32))
    >>> drawing[1, :, 2] = 7
    >>> drawing[1].tolist(), drawing.under.any()
    ([[0, 0, 7], [0, 0, 7]], np.False_)
    >>> drawing.strokes()
    {7: array([[1, 0, 2],
           [1, 1, 2]])}
    """

    ndim = 3

    def __init__(self, under: np.ndarray) -> None:
        self.under = under
        self.written: Callable[[], None] = lambda: None
        self._drawn: dict[int, np.ndarray] = {}  # z -> (Y, X)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.under.shape

    @property
    def dtype(self) -> np.dtype:
        """That of the array below."""
        return self.under.dtype

    @property
    def size(self) -> int:
        """Voxels."""
        return self.under.size

    def __len__(self) -> int:
        return len(self.under)

    def __bool__(self) -> bool:
        """Whether there are strokes."""
        return bool(self._drawn)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a drawing has no array of its own; it must be copied")
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return a copy of what is seen; any index that NumPy takes."""
        key = self._key(key)
        if isinstance(key[0], (int, np.integer)):
            return np.array(self._seen(key[0])[key[1:]])
        if isinstance(key[0], slice):
            out = np.array(self.under[key])
            for place, z in enumerate(range(*key[0].indices(len(self)))):
                if z in self._drawn:
                    out[place] = self._drawn[z][key[1:]]
            return out
        out, at = np.array(self.under[key]), self._voxels(key)
        for z, section in self._drawn.items():
            hit = at[0] == z
            out[hit] = section[at[1][hit], at[2][hit]]
        return out

    def __setitem__(self, key: Any, value: Any) -> None:
        """Draw; any index that NumPy takes."""
        key = self._key(key)
        if isinstance(key[0], (int, np.integer)):
            self._section(key[0])[key[1:]] = value
        elif isinstance(key[0], slice):
            value = np.broadcast_to(value, self.under[key].shape)
            for place, z in enumerate(range(*key[0].indices(len(self)))):
                self._section(z)[key[1:]] = value[place]
        else:
            at = self._voxels(key)
            value = np.broadcast_to(value, at[0].shape)
            for z in np.unique(at[0]).tolist():
                hit = at[0] == z
                self._section(z)[at[1][hit], at[2][hit]] = value[hit]
        self.written()

    def strokes(self) -> dict[int, np.ndarray]:
        """Return what is drawn and differs from what lies below: by label, (N, 3) int arrays of z, y, x."""
        places, labels = [np.zeros((0, 3), np.int64)], [np.zeros(0, self.dtype)]
        for z in sorted(self._drawn):
            y, x = np.nonzero(self._drawn[z] != self.under[z])
            places.append(np.stack([np.full(len(y), z), y, x], axis=1))
            labels.append(self._drawn[z][y, x])
        where, what = np.concatenate(places), np.concatenate(labels)
        return {label: where[what == label] for label in np.unique(what).tolist()}

    def wipe(self) -> None:
        """Take all strokes away."""
        self._drawn.clear()

    def _seen(self, z: int) -> np.ndarray:
        z = self._checked(z)
        return self._drawn.get(z, self.under[z])

    def _section(self, z: int) -> np.ndarray:
        """The copy of a section that takes the strokes."""
        z = self._checked(z)
        if z not in self._drawn:
            self._drawn[z] = np.array(self.under[z])
        return self._drawn[z]

    def _checked(self, z: int) -> int:
        if not -len(self) <= z < len(self):
            raise IndexError(f"there is no section {z} of {len(self)}")
        return int(z) % len(self)

    def _key(self, key: Any) -> tuple:
        """An index of three entries; a mask becomes the places in it."""
        key = key if isinstance(key, tuple) else (key,)
        if any(isinstance(entry, (list, np.ndarray)) and np.asarray(entry).dtype == bool for entry in key):
            return np.broadcast_arrays(*self._grid(key))  # rare: through the numbers of all voxels
        if any(entry is Ellipsis for entry in key):
            at = next(n for n, entry in enumerate(key) if entry is Ellipsis)
            key = (*key[:at], *[slice(None)] * (4 - len(key)), *key[at + 1 :])
        return (*key, *[slice(None)] * (3 - len(key)))

    def _voxels(self, key: tuple) -> tuple[np.ndarray, ...]:
        """z, y and x of all voxels that an index with an array for z names, in its shape."""
        if not any(isinstance(entry, slice) for entry in key):
            at = np.broadcast_arrays(*map(np.asarray, key))
            return tuple(axis % length for axis, length in zip(at, self.shape, strict=True))
        return self._grid(key)

    def _grid(self, key: tuple) -> tuple[np.ndarray, ...]:
        numbers = np.arange(self.size).reshape(self.shape)[key]
        return np.unravel_index(numbers, self.shape)
