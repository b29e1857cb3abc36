"""Which segments are wrong, and where to look: the worst merges and splits of a segmentation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from scipy import ndimage

from emlib.measure.contingency import Contingency

Kind = Literal["merge", "split"]
COLUMNS = ("id", "bits", "voxels", "parts", "first", "second", "first_voxels", "second_voxels")


def worst_errors(table: Contingency, kind: Kind, count: int) -> pd.DataFrame:
    """Rank segments by what they add to the variation of information.

    Parameters
    ----------
    table : Contingency
    kind : {"merge", "split"}
        Merge: predicted segments that cover several true ones. Split: true segments cut into several predicted ones.
    count : int
        Rows at most.

    Returns
    -------
    DataFrame
        ``id`` (merge: predicted, split: true), ``bits`` (its share of VOI merge or split; all rows of a table without
        ``count`` sum to it), ``voxels``, ``parts`` (segments of the other side in it), ids and voxels of the ``first``
        and ``second`` largest of them, and ``place``, the flat index of a voxel within the second. Largest bits first.

    Notes
    -----
    The terms of the conditional entropies of each segment, as in Nunez-Iglesias et al. 2013.

    Examples
    --------
    >>> from emlib.measure.contingency import contingency
    >>> table = contingency(np.array([[1, 1, 2, 3]]), np.array([[5, 5, 5, 6]]))
    >>> worst_errors(table, "merge", 9)[["id", "voxels", "first", "second", "place"]].values.tolist()
    [[5, 3, 1, 2, 2]]
    """
    owner, part = (table.pred, table.truth) if kind == "merge" else (table.truth, table.pred)
    ids, which = np.unique(owner, return_inverse=True)
    size = np.bincount(which, table.voxels, minlength=len(ids))
    bits = np.bincount(which, table.voxels * np.log2(size[which] / table.voxels), minlength=len(ids))
    bits = bits / max(int(table.voxels.sum()), 1)
    parts = np.bincount(which, minlength=len(ids))
    several = np.flatnonzero(parts > 1)
    worst = several[np.lexsort((ids[several], -bits[several]))][:count]
    rows = np.lexsort((part, -table.voxels, which))
    first = rows[np.searchsorted(which[rows], worst)]
    second = rows[np.searchsorted(which[rows], worst) + 1]
    values = (ids[worst], bits[worst], size[worst].astype(np.int64), parts[worst], part[first], part[second])
    columns = dict(zip(COLUMNS, (*values, table.voxels[first], table.voxels[second]), strict=True))
    return pd.DataFrame({**columns, "place": table.place[second]})


def meeting_place(
    truth: np.ndarray, pred: np.ndarray, kind: Kind, one: int, parts: tuple[int, int], sampling: tuple[float, ...]
) -> tuple[int, ...] | None:
    """Where, within the segment ``one``, its two parts come nearest to each other.

    Parameters
    ----------
    truth, pred : (Z, Y, X) integer arrays
    kind : {"merge", "split"}
    one : int
        Merge: a predicted id; split: a true id.
    parts : (first, second)
        Two ids of the other side.
    sampling : (z, y, x)
        Size of a voxel in any unit.

    Returns
    -------
    (z, y, x) or None
        The voxel of the second part that lies nearest to the first, and of equally near ones the most central; None if
        either part is not in the arrays, or both have one id (two pieces of one neurite).
    """
    owner, part = (pred, truth) if kind == "merge" else (truth, pred)
    inside = owner == one
    first, second = inside & (part == parts[0]), inside & (part == parts[1])
    if parts[0] == parts[1] or not first.any() or not second.any():
        return None
    places = np.argwhere(second)
    distance = ndimage.distance_transform_edt(~first, sampling=sampling)[second]
    nearest = places[distance <= distance.min() * (1 + 1e-6)]
    # Two parts usually share a whole face: its middle shows more than its first corner.
    centre = ((nearest - nearest.mean(axis=0)) * sampling) ** 2
    return tuple(int(i) for i in nearest[centre.sum(axis=1).argmin()])
