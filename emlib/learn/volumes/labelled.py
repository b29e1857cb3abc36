"""A labelled volume as sections along its axes, each in the middle of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NAME = "boundaries"  # the channel that is learnt from labels


@dataclass(frozen=True)
class LabelledVolume:
    """EM and the targets that belong to it.

    Attributes
    ----------
    em : (Z, Y, X) uint8 or uint16 array
    targets : (Z, Y, X) uint8 array
        0, 1, and 255 where nobody annotated.
    axes : tuple of int
        Along which sections are cut: (0,), or (0, 1, 2) where voxels are near isotropic.
    sections : int
        Odd: a section and its neighbours, which are the channels of the network.
    first_z : int
        Where the volume begins in its file.
    """

    em: np.ndarray
    targets: np.ndarray
    axes: tuple[int, ...] = (0,)
    sections: int = 1
    first_z: int = 0

    organelles = (NAME,)
    activation = "sigmoid"

    def __len__(self) -> int:
        """How many sections there are to train on, over all axes."""
        return sum(self.em.shape[axis] for axis in self.axes)

    def shape(self, axis: int) -> tuple[int, int, int]:
        """Return how many sections there are along an axis, and their rows and columns."""
        return along(self.em, axis).shape

    def image(self, axis: int, index: int) -> np.ndarray:
        """Return (C, Y', X') grey values: a section along an axis with its neighbours."""
        return stack(along(self.em, axis), index, self.sections)

    def target(self, axis: int, index: int) -> np.ndarray:
        """Return (1, Y', X') targets of a section along an axis."""
        return along(self.targets, axis)[index][None]


def along(volume: np.ndarray, axis: int) -> np.ndarray:
    """Return a view of (Z, Y, X) whose first axis is the given one; the others stay in their order.

    Examples
    --------
    >>> along(np.zeros((2, 3, 4)), 1).shape
    (3, 2, 4)
    """
    return np.moveaxis(volume, axis, 0)


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
    reach, depth = count // 2, len(sections)
    if reach <= index < depth - reach:
        return sections[index - reach : index + reach + 1]
    period = max(2 * (depth - 1), 1)
    at = np.arange(index - reach, index + reach + 1) % period
    return sections[np.minimum(at, period - at)]
