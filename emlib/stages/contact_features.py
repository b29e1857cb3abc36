"""What maps hold along the contacts of fragments: which fragments touch, and twelve figures of each map between them.

Where each fragment lies in one section, a contact is known from two sections. Those are measured a few sections at a
time, which a processor's cache holds: a third faster than all at once, and with the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bioimage_cpp import graph as bic_graph

from emlib.threads import get_threads, map_threads

FEATURES = ("mean", "median", "std", "min", "max", "p5", "p10", "p25", "p75", "p90", "p95", "size")
AT_ONCE = 4  # sections; 1 and 8 take a quarter longer


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
