"""Give enclosed segments to the neurite around them: mitochondria, vesicles and other organelles cut out by mistake.

1. Contact area of each segment with each neighbour and with the border of the volume.
2. A segment whose surface lies for the most part on one larger neighbour becomes part of it.
3. Repeat, as the merged neurite may now enclose others.
"""

from __future__ import annotations

import numpy as np

from emlib.stages.agglomerate import RegionGraph, contact_areas, face_areas
from emlib.volumes.volume import ZYX


def absorb_enclosed(
    segments: np.ndarray,
    graph: RegionGraph,
    fragments: np.ndarray,
    voxel_size_nm: ZYX,
    min_enclosed: float = 0.6,
    rounds: int = 3,
) -> np.ndarray:
    """Merge segments into the larger neighbour that encloses them.

    Parameters
    ----------
    segments : (N,) int array
        The segment of each fragment id, as ``multicut`` returns it.
    graph : RegionGraph
        Of the fragments.
    fragments : (Z, Y, X) int32 array
    voxel_size_nm : (z, y, x) in nm
    min_enclosed : float in (0, 1]
        Share of a segment's surface that must lie on one neighbour. The border of the volume counts as surface on
        nothing, so that a neurite that leaves the volume is not taken for an inclusion. Above 1 nothing is merged.
    rounds : int
        At most this many passes.

    Returns
    -------
    (N,) int array

    Notes
    -----
    After the removal of inclusions in NeuroProof (Parag et al. 2015), which asks for one single neighbour.
    """
    voxels = np.bincount(fragments.ravel(), minlength=len(segments))
    border = _border_area(fragments, face_areas(voxel_size_nm), sections=not graph.between.any())
    return absorb_by_size(segments, graph, voxels, border, voxel_size_nm, min_enclosed, rounds)


def absorb_by_size(
    segments: np.ndarray,
    graph: RegionGraph,
    voxels: np.ndarray,
    border: np.ndarray,
    voxel_size_nm: ZYX,
    min_enclosed: float = 0.6,
    rounds: int = 3,
) -> np.ndarray:
    """Merge segments as `absorb_enclosed` does, by what is known of each fragment.

    ``voxels`` and ``border`` are the size of each fragment id and its area on the border of the volume in nm².
    """
    segments = segments.astype(np.int64)
    edges = graph.rag.uv_ids()
    contact = contact_areas(graph, voxel_size_nm)
    for _ in range(rounds):
        merged = _absorb_once(segments, edges, contact, voxels, border, min_enclosed)
        if np.array_equal(merged, segments):
            break
        segments = merged
    return segments


def _border_area(fragments: np.ndarray, face: np.ndarray, sections: bool) -> np.ndarray:
    """Area of each fragment on the border of the volume, in nm².

    The first and last section are left out when fragments are cut section by section: there every fragment of
    the outer sections would lie on the border with its whole area.
    """
    area = np.zeros(int(fragments.max()) + 1)
    for axis in (0, 1, 2) if sections else (1, 2):
        for end in (0, -1):
            on_border = np.bincount(np.take(fragments, end, axis).ravel(), minlength=len(area))
            area += on_border * face[axis]
    return area


def _absorb_once(segments, edges, contact, voxels, border, min_enclosed: float) -> np.ndarray:
    count = int(segments.max()) + 1
    u, v = segments[edges[:, 0]], segments[edges[:, 1]]
    apart = u != v
    if not apart.any():
        return segments
    key = np.minimum(u, v)[apart] * count + np.maximum(u, v)[apart]
    pairs, index = np.unique(key, return_inverse=True)
    area = np.bincount(index, weights=contact[apart])
    a, b = pairs // count, pairs % count
    surface = np.bincount(a, area, count) + np.bincount(b, area, count)
    surface += np.bincount(segments[: len(border)], border, count)
    size = np.bincount(segments[: len(voxels)], voxels, count)
    inner, outer, shared = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([area, area])
    enclosed = (shared >= min_enclosed * surface[inner]) & (size[inner] < size[outer])
    host = np.arange(count)
    host[inner[enclosed]] = outer[enclosed]  # above one half no segment has two hosts; below, the last one is taken
    while not np.array_equal(host, host[host]):  # a host may itself have a host; sizes rise, so there is no circle
        host = host[host]
    return host[segments]
