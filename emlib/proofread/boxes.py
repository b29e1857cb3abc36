"""Where each neurite lies and how many voxels it has, kept up to date so that an edit looks at a box, not the volume.

Counts are exact. A box never misses a voxel, but stays as large as it was when a neurite shrinks, until `Boxes.tighten`
is told better: finding the smaller one would cost a look at all of the old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from emlib.threads import map_threads

if TYPE_CHECKING:
    from emlib.proofread.deltas import Delta

Box = tuple[int, int, int, int, int, int]  # z0, z1, y0, y1, x0, x1; ends are exclusive
SLAB = 2**22  # voxels that are numbered anew at a time


class Boxes:
    """Bounding box and number of voxels of each neurite; 0, the background, has none.

    Parameters
    ----------
    labels : (Z, Y, X) int array

    Examples
    --------
    >>> boxes = Boxes(np.array([[[0, 5, 5], [7, 0, 5]]]))
    >>> boxes.ids(), boxes[5], boxes.voxels(5), 6 in boxes, boxes.highest
    ([5, 7], (0, 1, 0, 2, 1, 3), 3, False, 7)
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.shape: tuple[int, int, int] = labels.shape
        self._box: dict[int, Box] = {}
        self._count: dict[int, int] = {}
        self.highest = 0  # the largest id that ever was: an id is not used twice
        step = max(1, SLAB // max(1, labels.shape[1] * labels.shape[2]))

        def one(z: int) -> list[tuple[int, int, Box]]:
            return _measure(labels[z : z + step], z)

        for found in map_threads(one, range(0, len(labels), step)):
            for neurite, count, box in found:
                self._grow(neurite, count, box)

    def __contains__(self, neurite: object) -> bool:
        return neurite in self._count

    def __getitem__(self, neurite: int) -> Box:
        return self._box[neurite]

    def __len__(self) -> int:
        return len(self._count)

    def ids(self) -> list[int]:
        """Return the ids in use, ascending."""
        return sorted(self._count)

    def voxels(self, neurite: int) -> int:
        """Return how many voxels a neurite has; 0 if there is no such id."""
        return self._count.get(neurite, 0)

    def tighten(self, neurite: int, box: Box) -> None:
        """Take over a smaller box that is known to hold all of a neurite."""
        if neurite in self._count:
            self._box[neurite] = box

    def update(self, delta: Delta) -> None:
        """Follow a change of the labels."""
        old, new = delta.old_labels(), delta.new_labels()
        for neurite, count in zip(*np.unique(old, return_counts=True), strict=True):
            self._shrink(int(neurite), delta.voxels if len(old) == 1 else int(count))
        if len(new) == 1:
            self._grow(int(new[0]), delta.voxels, delta.box)
            return
        places = delta.places()
        for neurite in np.unique(new):
            chosen = places[new == neurite]
            self._grow(int(neurite), len(chosen), box_of(chosen, self.shape))

    def _grow(self, neurite: int, count: int, box: Box) -> None:
        if neurite == 0:
            return
        self.highest = max(self.highest, neurite)
        self._count[neurite] = self._count.get(neurite, 0) + count
        self._box[neurite] = union(self._box.get(neurite, box), box)

    def _shrink(self, neurite: int, count: int) -> None:
        if neurite == 0:
            return
        self._count[neurite] -= count
        if not self._count[neurite]:
            del self._count[neurite], self._box[neurite]


def union(one: Box, other: Box) -> Box:
    """Return the smallest box that holds both.

    Examples
    --------
    >>> union((0, 1, 0, 1, 0, 1), (3, 4, 0, 2, 0, 1))
    (0, 4, 0, 2, 0, 1)
    """
    return tuple(  # type: ignore[return-value]
        (max if end % 2 else min)(a, b) for end, (a, b) in enumerate(zip(one, other, strict=True))
    )


def slices(box: Box) -> tuple[slice, slice, slice]:
    """Return a box as an index.

    Examples
    --------
    >>> np.arange(8).reshape(2, 2, 2)[slices((1, 2, 0, 2, 0, 1))].ravel().tolist()
    [4, 6]
    """
    z0, z1, y0, y1, x0, x1 = box
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)


def whole(shape: tuple[int, int, int]) -> Box:
    """Return the box of a whole volume."""
    return (0, shape[0], 0, shape[1], 0, shape[2])


def box_of(places: np.ndarray, shape: tuple[int, int, int]) -> Box:
    """Return the smallest box that holds the voxels with these C-order indices, one or more, in any order.

    Examples
    --------
    >>> box_of(np.array([5, 6]), (2, 2, 2))
    (1, 2, 0, 2, 0, 2)
    """
    rows, x = np.divmod(places, shape[2])
    z, y = np.divmod(rows, shape[1])
    return tuple(int(n) for side in (z, y, x) for n in (side.min(), side.max() + 1))  # type: ignore[return-value]


def _measure(slab: np.ndarray, first: int) -> list[tuple[int, int, Box]]:
    """Id, voxels and box of each label in a slab of sections."""
    codes, ids = pd.factorize(slab.reshape(-1))  # ids may be sparse and huge, codes are not
    codes = (codes + 1).astype(np.int32).reshape(slab.shape)
    counts = np.bincount(codes.reshape(-1), minlength=len(ids) + 1)[1:]
    return [
        (int(neurite), int(count), (z.start + first, z.stop + first, y.start, y.stop, x.start, x.stop))
        for neurite, count, (z, y, x) in zip(ids, counts, ndimage.find_objects(codes), strict=True)
        if neurite
    ]
