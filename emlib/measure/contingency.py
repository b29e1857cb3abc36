"""The contingency table of two segmentations: how many voxels carry each pair (true id, predicted id).

It is sparse, a few ten thousand pairs for a billion voxels, and adds up: tables of parts of a volume are combined into
that of the whole, so that neither segmentation has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emlib.threads import map_threads

_PIECE = 1 << 20  # voxels per task of a thread; fixed, so that places do not depend on the number of threads


@dataclass(frozen=True)
class Contingency:
    """Voxels shared by each pair of ids that occurs, sorted by (truth, pred).

    Attributes
    ----------
    truth, pred : (P,) integer arrays
        The ids of each pair, in the dtypes of the segmentations.
    voxels : (P,) int64 array
        How many voxels carry the pair.
    place : (P,) int64 array
        A voxel that carries the pair, as its flat index in the volume: the middle of the longest run along x, which
        lies where the overlap is thick.
    run : (P,) int64 array
        Length of that run in voxels.
    """

    truth: np.ndarray
    pred: np.ndarray
    voxels: np.ndarray
    place: np.ndarray
    run: np.ndarray

    def keep(self, which: np.ndarray) -> Contingency:
        """Return the table of the pairs that a boolean or index array names."""
        return Contingency(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def contingency(truth: np.ndarray, pred: np.ndarray, first_section: int = 0) -> Contingency:
    """Count the voxels of each (true id, predicted id) pair where truth is not 0.

    Parameters
    ----------
    truth, pred : integer arrays of one shape
        Any integer dtype; ids of any size. ``truth == 0`` is unlabelled and left out; ``pred == 0`` is an id like any
        other (see ``score_instances`` for what else can be done with it).
    first_section : int
        z of the arrays' first section in the volume, for ``place``.

    Returns
    -------
    Contingency

    Raises
    ------
    ValueError
        If the shapes differ or a dtype is not an integer.

    Examples
    --------
    >>> table = contingency(np.array([[1, 1, 1, 0, 2]]), np.array([[7, 7, 8, 8, 8]]))
    >>> table.truth.tolist(), table.pred.tolist(), table.voxels.tolist(), table.place.tolist()
    ([1, 1, 2], [7, 8, 8], [2, 1, 1], [1, 2, 4])
    """
    truth, pred = np.asarray(truth), np.asarray(pred)
    if truth.shape != pred.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {pred.shape}: they must be equal")
    for name, array in (("truth", truth), ("prediction", pred)):
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} has dtype {array.dtype}: labels must be integers")
    start = first_section * int(np.prod(truth.shape[1:], dtype=np.int64))
    truth, pred = truth.ravel(), pred.ravel()

    def count(first: int) -> Contingency:
        part = slice(first, first + _PIECE)
        return _count(truth[part], pred[part], start + first)

    return combine(map_threads(count, range(0, truth.size, _PIECE)))


def combine(tables: Iterable[Contingency]) -> Contingency:
    """Add up the tables of parts of one volume.

    Parameters
    ----------
    tables : iterable of Contingency
        With equal dtypes; may be empty.

    Returns
    -------
    Contingency
    """
    tables = list(tables)
    if len(tables) == 1:
        return tables[0]
    if not tables:
        return Contingency(*(np.zeros(0, np.int64) for _ in range(5)))
    columns = [np.concatenate([getattr(t, name) for t in tables]) for name in Contingency.__dataclass_fields__]
    return _grouped(*columns)


def rename_truth(table: Contingency, ids: np.ndarray) -> Contingency:
    """Return the table with other true ids, one per row; rows whose pair is now the same are added up."""
    return _grouped(ids, table.pred, table.voxels, table.place, table.run)


def marginal(ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the weights of each distinct id, in ascending order of ids, and which of them each row is."""
    distinct, which = np.unique(ids, return_inverse=True)
    return np.bincount(which, weights=weights, minlength=len(distinct)), which


def _count(truth: np.ndarray, pred: np.ndarray, start: int) -> Contingency:
    """Table of two flat pieces whose first voxel has the index ``start``."""
    # Labels are constant over long runs along x: counting runs instead of voxels makes the table ten times cheaper.
    changes = truth[1:] != truth[:-1]
    changes |= pred[1:] != pred[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=truth.size)
    known = truth[starts] != 0
    starts, lengths = starts[known], lengths[known]
    return _grouped(truth[starts], pred[starts], lengths, start + starts + lengths // 2, lengths)


def _grouped(
    truth: np.ndarray, pred: np.ndarray, voxels: np.ndarray, place: np.ndarray, run: np.ndarray
) -> Contingency:
    """Sum rows that carry the same pair, keep the place of the longest run, and sort by (truth, pred)."""
    # Hashing finds the few distinct ids in many rows several times faster than sorting them would.
    t, truth_ids = pd.factorize(truth)
    p, pred_ids = pd.factorize(pred)
    pair, keys = pd.factorize(t * np.int64(max(len(pred_ids), 1)) + p)
    truth, pred = truth_ids[keys // max(len(pred_ids), 1)], pred_ids[keys % max(len(pred_ids), 1)]
    total = np.bincount(pair, weights=voxels, minlength=len(keys)).astype(np.int64)
    # Of repeated indices the last assignment stays: with rows in ascending order that is the longest run.
    ascending = np.argsort(run, kind="stable")
    longest = np.zeros(len(keys), np.int64)
    longest[pair[ascending]] = ascending
    order = np.lexsort((pred, truth))
    longest = longest[order]
    return Contingency(truth[order], pred[order], total[order], place[longest], run[longest])
