"""What maps hold along the contacts of fragments: which fragments touch, and figures of each map between them.

Where each fragment lies in one section, a contact is known from two sections. Those are measured a few sections at a
time, which a processor's cache holds: a third faster than all at once, and with the same numbers. The three figures
that the evidence of a contact rests on come from one sort of all faces of these sections, six times as fast again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bioimage_cpp import graph as bic_graph

from emlib.threads import get_threads, map_threads

FEATURES = ("mean", "median", "std", "min", "max", "p5", "p10", "p25", "p75", "p90", "p95", "size")
EVIDENT = ("median", "p25", "size")
AT_ONCE = 4  # sections; 1 and 8 take a quarter longer
MOST_LOCAL = 2**16  # fragments of those sections, two of which and a value of 32 bits make a number of 64
LAST = np.uint64(2**32 - 1)


def measure_contacts(fragments: np.ndarray, maps: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find the contacts of fragments and measure maps along them.

    Parameters
    ----------
    fragments : (Z, Y, X) int32 array
        Ids from 1.
    maps : sequence of (Z, Y, X) float32 arrays

    Returns
    -------
    ends : (E, 2) int64 array
        Ids of two fragments that touch, rows ascending.
    features : list of (E, 12) arrays
        For each map, columns as in ``FEATURES``, of the mean of the two voxels at each face.
    """
    lowest, highest = (extreme(fragments.reshape(len(fragments), -1), axis=1) for extreme in (np.min, np.max))
    if len(fragments) <= AT_ONCE or (highest[:-1] >= lowest[1:]).any():  # some fragment lies in several sections
        return _measure(fragments, maps, get_threads())

    def slab(first: int) -> tuple[np.ndarray, list[np.ndarray]]:
        seen = slice(first, first + AT_ONCE + 1)  # and the section after, whose own contacts are left to its slab
        low = int(lowest[first]) - 1
        ends, features = _measure(fragments[seen] - np.int32(low), [one[seen] for one in maps], 1)
        mine = ends[:, 0] + low <= highest[seen][:AT_ONCE].max()
        return ends[mine] + low, [one[mine] for one in features]

    parts = map_threads(slab, range(0, len(fragments), AT_ONCE))
    features = [np.concatenate([part[1][k] for part in parts]) for k in range(len(maps))]
    return np.concatenate([part[0] for part in parts]), features


def evident_features(fragments: np.ndarray, boundaries: np.ndarray, *, sections: bool) -> tuple[np.ndarray, np.ndarray]:
    """Measure only what the evidence of a contact rests on.

    Parameters
    ----------
    fragments : (Z, Y, X) int32 array
        Ids from 1.
    boundaries : (Z, Y, X) float32 array, not negative
    sections : bool
        Whether each fragment lies in one section and ids rise with the section.

    Returns
    -------
    ends : (E, 2) int64 array
        As from `measure_contacts`.
    features : (E, 3) array
        Columns ``EVIDENT``. Of sections the value at a face is rounded to float32.
    """
    if not sections:
        ends, (features,) = measure_contacts(fragments, [boundaries])
        return ends, features[:, [FEATURES.index(name) for name in EVIDENT]]

    def slab(first: int) -> tuple[np.ndarray, np.ndarray]:
        seen = slice(first, first + AT_ONCE + 1)
        low = int(fragments[first].min()) - 1
        pairs, values = _sorted_faces(fragments[seen] - np.int32(low), boundaries[seen])
        starts = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)])
        count = np.diff(np.append(starts, len(pairs)))
        ends = np.stack([pairs[starts] >> np.uint64(32), pairs[starts] & LAST], axis=1).astype(np.int64) + low
        quantiles = (percentile(values, starts, count, percent) for percent in (50, 25))
        return ends, np.stack([*quantiles, count], axis=1)

    parts = map_threads(slab, range(0, len(fragments), AT_ONCE))
    ends, features = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ends, features


def _sorted_faces(fragments: np.ndarray, boundaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces of all sections but the last, and those towards it where there are more than ``AT_ONCE``.

    Returns the two ends as one number, the first in the upper half, and the value, sorted by both.
    """
    ends, values = [], []
    own = min(len(fragments), AT_ONCE)
    for axis in range(3):
        here, ahead = ([slice(None) if axis == 0 else slice(own), slice(None), slice(None)] for _ in range(2))
        here[axis], ahead[axis] = slice(None, -1), slice(1, None)
        u, v = fragments[tuple(here)], fragments[tuple(ahead)]
        at = np.flatnonzero(u != v)
        u, v = u.ravel()[at].astype(np.uint64), v.ravel()[at].astype(np.uint64)
        ends.append(np.minimum(u, v) << np.uint64(32) | np.maximum(u, v))
        values.append((boundaries[tuple(here)].ravel()[at] + boundaries[tuple(ahead)].ravel()[at]) * np.float32(0.5))
    pairs, found = np.concatenate(ends), np.concatenate(values) + np.float32(0)  # -0 becomes 0, whose bits are in order
    if fragments.max() >= MOST_LOCAL:
        order = np.lexsort((found, pairs))
        return pairs[order], found[order]
    # What is not negative is ordered as its bits are.
    keys = (pairs >> np.uint64(32) << np.uint64(48)) | (pairs & LAST) << np.uint64(32) | found.view(np.uint32)
    keys.sort()
    pairs = keys >> np.uint64(48) << np.uint64(32) | keys >> np.uint64(32) & np.uint64(MOST_LOCAL - 1)
    return pairs, (keys & LAST).astype(np.uint32).view(np.float32)


def percentile(values: np.ndarray, starts: np.ndarray, count: np.ndarray, percent: int) -> np.ndarray:
    """Return the percentile of each group of sorted values, between the two nearest, rounded as bioimage-cpp does.

    Parameters
    ----------
    values : (F,) float array
        Ascending in each group.
    starts, count : (G,) int arrays
        Where each group begins, and how many values it has.
    percent : int
    """
    place = percent * (count - 1) / 100
    low = np.floor(place).astype(np.int64)
    below, above = (values[at].astype(np.float64) for at in (starts + low, starts + np.minimum(low + 1, count - 1)))
    return below * (1 - (place - low)) + above * (place - low)


def _measure(fragments: np.ndarray, maps: Sequence[np.ndarray], threads: int) -> tuple[np.ndarray, list[np.ndarray]]:
    fragments = np.ascontiguousarray(fragments)
    rag = bic_graph.region_adjacency_graph(fragments, number_of_threads=threads)
    features = [
        bic_graph.features.edge_map_features_complex(
            rag, fragments, np.ascontiguousarray(one, np.float32), number_of_threads=threads
        )
        for one in maps
    ]
    return rag.uv_ids().astype(np.int64), features
