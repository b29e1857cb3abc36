"""Fragments in the three planes through the middle of a volume: what a picture of them needs, and no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FragmentPlanes:
    """Fragments before they are joined, in three planes; 0 in sections that were left out.

    Attributes
    ----------
    xy : (Y, X) int32 array
        In section ``depth // 2``.
    xz : (Z, X) int32 array
        In row ``height // 2``.
    yz : (Z, Y) int32 array
        In column ``width // 2``.
    count : int
        Fragments of the whole volume.
    """

    xy: np.ndarray
    xz: np.ndarray
    yz: np.ndarray
    count: int


def middle_planes(fragments: np.ndarray, good: np.ndarray) -> FragmentPlanes:
    """Take the middle planes out of fragments.

    Parameters
    ----------
    fragments : (N, Y, X) integer array
        Ids from 1, of the good sections.
    good : (Z,) bool array
        Sections that ``fragments`` holds.

    Examples
    --------
    >>> planes = middle_planes(np.array([[[1, 2]], [[3, 3]]]), np.array([True, False, True]))
    >>> planes.xy.tolist(), planes.xz.tolist(), planes.count
    ([[0, 0]], [[1, 2], [0, 0], [3, 3]], 3)
    """
    (_, height, width), depth = fragments.shape, len(good)
    xz, yz = np.zeros((depth, width), np.int32), np.zeros((depth, height), np.int32)
    xz[good], yz[good] = fragments[:, height // 2], fragments[:, :, width // 2]
    middle = depth // 2
    xy = np.zeros((height, width), np.int32)
    if good[middle]:
        xy[:] = fragments[np.count_nonzero(good[:middle])]
    return FragmentPlanes(xy, xz, yz, int(fragments.max()))
