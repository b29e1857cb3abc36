"""A labelled volume as sections along its axes, each in the middle of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from emlib.learn.datasets.mirroring import mirrored_indices
from emlib.learn.volumes.counts import Voxels, count_values

NAME = "boundaries"  # the channel that is learnt from labels


@dataclass(frozen=True)
class LabelledVolume:
    """EM and the targets that belong to it.

    Attributes
    ----------
    em : (Z, Y, X) uint8 or uint16 voxels
    targets : (Z, Y, X) uint8 voxels
        0, 1, and 255 where nobody annotated.
    axes : tuple of int
        Along which sections are cut: (0,), or (0, 1, 2) where voxels are near isotropic.
    sections : int
        Odd: a section and its neighbours, which are the channels of the network.
    first_z : int
        Where the volume begins in its file.
    """

    em: Voxels
    targets: Voxels
    axes: tuple[int, ...] = (0,)
    sections: int = 1
    first_z: int = 0

    organelles = (NAME,)
    activation = "sigmoid"

    @cached_property
    def grey_counts(self) -> np.ndarray:
        """How often each grey value occurs, see `emlib.learn.volumes.counts.count_values`; counted once."""
        return count_values(self.em, self.first_z)

    def __len__(self) -> int:
        """How many sections there are to train on, over all axes."""
        return sum(self.em.shape[axis] for axis in self.axes)

    def shape(self, axis: int) -> tuple[int, int, int]:
        """Return how many sections there are along an axis, and their rows and columns."""
        z, y, x = self.em.shape
        return {0: (z, y, x), 1: (y, z, x), 2: (x, z, y)}[axis]

    def image(self, axis: int, index: int, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Return (C, *size) grey values: a part of a section along an axis with its neighbours.

        Parameters
        ----------
        axis, index : int
        corner, size : (y, x)
            First pixel and sides of the part. What lies outside of the volume is mirrored at its outermost voxels.
        """
        return crop(self.em, axis, (index - self.sections // 2, *corner), (self.sections, *size))

    def target(self, axis: int, index: int, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        """Return (1, *size) targets of a part of a section along an axis."""
        return crop(self.targets, axis, (index, *corner), (1, *size))


def crop(voxels: Voxels, axis: int, first: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """Cut a box whose first axis is the given one; no more is read than it shows.

    Parameters
    ----------
    voxels : (Z, Y, X) array or reader
    axis : int
    first, size : three int
        In the order of `along`. What lies outside is mirrored at the outermost voxels.

    Returns
    -------
    array of that size

    Examples
    --------
    >>> crop(np.arange(24).reshape(2, 3, 4), 2, (-1, 0, 1), (3, 1, 2))
    array([[[5, 9]],
    <BLANKLINE>
           [[4, 8]],
    <BLANKLINE>
           [[5, 9]]])
    """
    order = (axis, *(other for other in range(3) if other != axis))
    wanted, box = [], [slice(None)] * 3
    for at, start, count in zip(order, first, size, strict=True):
        indices = mirrored_indices(start, count, voxels.shape[at])
        box[at] = slice(int(indices.min()), int(indices.max()) + 1)
        wanted.append(indices - indices.min())
    part = along(voxels[tuple(box)], axis)
    for at, indices in enumerate(wanted):
        if len(indices) != part.shape[at] or (np.diff(indices) != 1).any():
            part = part.take(indices, axis=at)
    return part


def along(volume: np.ndarray, axis: int) -> np.ndarray:
    """Return a view of (Z, Y, X) whose first axis is the given one; the others stay in their order.

    Examples
    --------
    >>> along(np.zeros((2, 3, 4)), 1).shape
    (3, 2, 4)
    """
    return np.moveaxis(volume, axis, 0)


def neighbours(index: int, count: int, depth: int) -> np.ndarray:
    """Return which sections a section is seen with: itself in the middle; beyond the ends they are mirrored.

    Examples
    --------
    >>> neighbours(1, 5, 4).tolist()
    [1, 0, 1, 2, 3]
    """
    return mirrored_indices(index - count // 2, count, depth)


def stack(sections: np.ndarray, index: int, count: int) -> np.ndarray:
    """Return a section in the middle of its neighbours; beyond the ends the volume is mirrored at its last section.

    Parameters
    ----------
    sections : (D, Y, X) array
    index : int
    count : int
        Odd.

    Returns
    -------
    (count, Y, X) array

    Examples
    --------
    >>> stack(np.arange(4).reshape(4, 1, 1), 1, 5).ravel().tolist()
    [1, 0, 1, 2, 3]
    """
    return crop(sections, 0, (index - count // 2, 0, 0), (count, *sections.shape[1:]))
