"""Passes over a volume that may be larger than memory: block by block, of a very large one over some of its blocks.

What a training needs to know of all voxels (grey values, share of boundaries, checksum) comes from these passes, so
that it is the same whether the volume is held in memory or read from files.
"""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import Protocol

import numpy as np

from emlib.volumes.volume import Box

BLOCK = (32, 512, 512)  # voxels: chunks of files are whole parts of it, or a few of them are read twice
MOST_VOXELS = 2**29  # that are looked at: a terabyte would take hours


class Voxels(Protocol):
    """A (Z, Y, X) array, or what reads boxes of one from a file."""

    shape: tuple[int, int, int]

    def __getitem__(self, box: Box) -> np.ndarray:
        """Return the voxels of a box within the shape."""


def blocks_of(shape: tuple[int, int, int], first_z: int = 0) -> list[Box]:
    """Cut a volume into blocks, in the order of the array, at fixed sections of its file.

    Parameters
    ----------
    shape : (Z, Y, X)
    first_z : int
        Where the volume begins in its file.

    Examples
    --------
    >>> [(box[0].start, box[0].stop) for box in blocks_of((40, 10, 10), 30)]
    [(0, 2), (2, 34), (34, 40)]
    """
    sides = []
    for length, side, before in zip(shape, BLOCK, (first_z, 0, 0), strict=True):
        ends = sorted({0, length, *range(-before % side, length, side)})
        sides.append([slice(first, end) for first, end in pairwise(ends)])
    return list(product(*sides))


def looked_at(shape: tuple[int, int, int], first_z: int = 0) -> list[Box]:
    """Return the blocks that passes go through: all, or of more than 2²⁹ voxels some, spread evenly.

    Examples
    --------
    >>> len(blocks_of((1024, 10240, 10240))), len(looked_at((1024, 10240, 10240)))
    (12800, 64)
    """
    boxes = blocks_of(shape, first_z)
    share = min(1.0, MOST_VOXELS / prod(shape))
    if share == 1:
        return boxes
    chosen = np.unique(np.linspace(0, len(boxes) - 1, max(1, round(share * len(boxes)))).round().astype(int))
    return [boxes[number] for number in chosen]


def count_values(voxels: Voxels, first_z: int = 0) -> np.ndarray:
    """Count how often each value occurs.

    Parameters
    ----------
    voxels : (Z, Y, X) uint8 or uint16 voxels
    first_z : int

    Returns
    -------
    (256,) or (65536,) int64 array

    Examples
    --------
    >>> np.flatnonzero(count_values(np.array([[[3, 3, 7]]], np.uint8)))
    array([3, 7])
    """
    total = 0
    for box in looked_at(voxels.shape, first_z):
        part = voxels[box]
        total = total + np.bincount(part.ravel(), minlength=int(np.iinfo(part.dtype).max) + 1)
    return total
