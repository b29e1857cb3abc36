"""Connected pieces of a label volume that is read slab by slab."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class Pieces:
    """Number the connected pieces of each id, slab after slab.

    A true neurite that was cut to a box falls apart into pieces that meet outside of it; no method can join them again.
    Pieces get provisional numbers, those that touch across slabs are joined at the end: one pass, and never more than a
    slab in memory. Voxels of one id that touch by a corner belong together.

    Parameters
    ----------
    in_plane : bool
        Pieces within each section for itself.

    Examples
    --------
    >>> pieces = Pieces()
    >>> numbers = [pieces.add(np.array([[[7, 0, 7]]])), pieces.add(np.array([[[7, 7, 7]]]))]
    >>> pieces.final(np.concatenate(numbers).ravel()).tolist(), pieces.ids().tolist()
    ([1, 0, 1, 1, 1, 1], [0, 7])
    """

    def __init__(self, in_plane: bool = False) -> None:
        self.in_plane = in_plane
        self._ids: list[np.ndarray] = [np.zeros(1, np.int64)]  # of piece 0, the background
        self._joins: list[np.ndarray] = []
        self._count = 0
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, labels: np.ndarray) -> np.ndarray:
        """Return provisional numbers of the pieces of the next slab.

        Parameters
        ----------
        labels : (Z, Y, X) integer array
            The sections after those of the call before.

        Returns
        -------
        (Z, Y, X) int64 array, 0 where ``labels`` is 0
        """
        import cc3d

        if self.in_plane:
            return np.stack([self._numbered(section, cc3d.connected_components, 8) for section in labels])
        numbers = self._numbered(labels, cc3d.connected_components, 26)
        if self._last is not None:
            self._join(*self._last, labels[0], numbers[0])
        self._last = labels[-1].copy(), numbers[-1].copy()
        return numbers

    def _numbered(self, labels: np.ndarray, connected, connectivity: int) -> np.ndarray:
        pieces, count = connected(labels, connectivity=connectivity, return_N=True)
        ids = np.zeros(count + 1, labels.dtype)
        ids[pieces.ravel()] = labels.ravel()
        self._ids.append(ids[1:])
        numbers = np.where(pieces > 0, pieces.astype(np.int64) + self._count, 0)
        self._count += count
        return numbers

    def _join(self, above: np.ndarray, above_n: np.ndarray, below: np.ndarray, below_n: np.ndarray) -> None:
        height, width = above.shape
        for dy, dx in _NEIGHBOURS:
            a = (slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
            b = (slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0)))
            same = (above[a] == below[b]) & (above[a] != 0)
            if same.any():
                self._joins.append(np.unique(np.stack([above_n[a][same], below_n[b][same]]), axis=1))

    def final(self, numbers: np.ndarray) -> np.ndarray:
        """Return the final numbers, 1 … n, of provisional ones, after the last slab."""
        return self._joined()[numbers]

    def ids(self) -> np.ndarray:
        """Return the label that each final number, 0 … n, has in the volume."""
        final = self._joined()
        dtype = self._ids[-1].dtype
        ids = np.zeros(int(final.max()) + 1, dtype)
        ids[final] = np.concatenate([part.astype(dtype) for part in self._ids])
        return ids

    def _joined(self) -> np.ndarray:
        joins = np.concatenate(self._joins, axis=1) if self._joins else np.zeros((2, 0), np.int64)
        size = self._count + 1
        links = coo_array((np.ones(joins.shape[1], bool), tuple(joins)), shape=(size, size))
        return connected_components(links, directed=False)[1].astype(np.int64)
