"""Neurites as runs of voxels along x: where they are, which of them touch, what hangs together.

A run stands for some dozens of voxels, and which runs touch is a search in a sorted list: the time follows the neurite,
not the box around it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.proofread.boxes import Box, whole
from emlib.threads import map_threads


class Runs(NamedTuple):
    """Runs of voxels along x.

    Attributes
    ----------
    start, end : (R,) int64 array
        C-order indices in the volume, ascending; ends are exclusive. No run goes beyond its row.
    """

    start: np.ndarray
    end: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Voxels of each run, (R,)."""
        return self.end - self.start

    @property
    def first(self) -> np.ndarray:
        """How many voxels the runs before each have, (R,)."""
        length = self.end - self.start
        return np.cumsum(length) - length

    def keep(self, which: np.ndarray) -> Runs:
        """Return the runs that a boolean or index array names."""
        return Runs(self.start[which], self.end[which])

    def places(self) -> np.ndarray:
        """Return the indices of all voxels, (N,) int64."""
        length = self.length
        return np.repeat(self.start - self.first, length) + np.arange(int(length.sum()))

    def box(self, shape: tuple[int, int, int]) -> Box:
        """Return the smallest box that holds them; at least one run."""
        rows, x = np.divmod(self.start, shape[2])
        z, y = rows // shape[1], rows % shape[1]
        ends = (z.min(), z.max() + 1, y.min(), y.max() + 1, x.min(), (x + self.length).max())
        return tuple(int(end) for end in ends)  # type: ignore[return-value]

    def within(self, box: Box, shape: tuple[int, int, int]) -> Runs:
        """Return the runs as indices in a box that holds them."""
        rows, x = np.divmod(self.start, shape[2])
        z, y = np.divmod(rows, shape[1])
        z0, _, y0, y1, x0, x1 = box
        start = ((z - z0) * (y1 - y0) + y - y0) * (x1 - x0) + x - x0
        return Runs(start, start + self.length)


def label_runs(labels: np.ndarray, neurite: int, within: Box | None = None, z: int | None = None) -> Runs:
    """Find the runs of a neurite.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    neurite : int
    within : box, optional
        Known to hold all of it.
    z : int, optional
        This section alone.

    Examples
    --------
    >>> label_runs(np.array([[[0, 5, 5, 0, 5], [5, 0, 0, 0, 0]]]), 5)
    Runs(start=array([1, 4, 5]), end=array([3, 5, 6]))
    """
    z0, z1, y0, y1, x0, x1 = within or whole(labels.shape)
    _, height, width = labels.shape
    sections = range(z0, z1) if z is None else range(max(z, z0), min(z + 1, z1))

    def one(section: int) -> np.ndarray:
        inside = np.zeros((y1 - y0, x1 - x0 + 2), bool)
        np.equal(labels[section, y0:y1, x0:x1], neurite, out=inside[:, 1:-1])
        y, x = np.divmod(np.flatnonzero(inside[:, 1:] != inside[:, :-1]), x1 - x0 + 1)
        return (section * height + y + y0) * width + x + x0

    found = [np.zeros(0, np.int64), *map_threads(one, sections)]
    return Runs(*np.concatenate(found).reshape(-1, 2).T)


def touching_runs(runs: Runs, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return which runs share a face: (L,) int arrays, the first and the second run of each pair.

    Examples
    --------
    >>> runs = Runs(np.array([0, 5, 7]), np.array([2, 6, 8]))
    >>> [ends.tolist() for ends in touching_runs(runs, (1, 2, 4))]
    [[0], [1]]
    """
    _, height, width = shape
    row = runs.start // width
    beside = np.flatnonzero((runs.end[:-1] == runs.start[1:]) & (row[:-1] == row[1:]))
    first, second = [beside], [beside + 1]
    for step, there in ((width, (row % height) + 1 < height), (height * width, np.ones(len(row), bool))):
        index = np.flatnonzero(there)
        low = np.searchsorted(runs.end, runs.start[index] + step, "right")
        count = np.maximum(np.searchsorted(runs.start, runs.end[index] + step, "left") - low, 0)
        first.append(np.repeat(index, count))
        second.append(np.arange(count.sum()) + np.repeat(low - np.cumsum(count) + count, count))
    return np.concatenate(first), np.concatenate(second)


def cut_runs(runs: Runs, values: np.ndarray) -> tuple[Runs, np.ndarray]:
    """Cut runs where the value of their voxels changes.

    Parameters
    ----------
    runs : Runs
    values : (N,) array
        Of each voxel.

    Returns
    -------
    runs : Runs
    values : (R,) array
        Of each run.

    Examples
    --------
    >>> cut_runs(Runs(np.array([3]), np.array([6])), np.array([1, 1, 2]))
    (Runs(start=array([3, 5]), end=array([5, 6])), array([1, 2]))
    """
    starts = np.zeros(len(values) + 1, bool)
    starts[1:-1] = values[1:] != values[:-1]
    begin = runs.first
    starts[begin] = True
    first = np.flatnonzero(starts)
    owner = np.searchsorted(begin, first, "right") - 1
    start = runs.start[owner] + first - begin[owner]
    return Runs(start, start + np.diff(first, append=len(values))), values[first]


def connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number the pieces that pairs join, from 0, in the order of their first members.

    Examples
    --------
    >>> connected(4, np.array([0, 2]), np.array([3, 1])).tolist()
    [0, 1, 1, 0]
    """
    return connected_components(coo_array((np.ones(len(first), bool), (first, second)), (count, count)), False)[1]
