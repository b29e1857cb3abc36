"""The region adjacency graph in blocks: each contact with the boundary evidence along all of it, wherever it lies.

1. A block owns the faces between one of its voxels and the next one along z, y or x: each face is counted once.
2. Contacts of two fragments that lie wholly inside a block are measured there.
3. Of the others a block sends the values on its faces to the block that holds the seed of the first fragment, where
   they are put together. Median and quartile are therefore those of all faces, not of a summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp import graph as bic_graph

from emlib.blockwise.flood import read_fragments
from emlib.blockwise.grid import name, sides, within
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import FEATURES, MulticutSettings, RegionGraph, edge_evidence
from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import Box

STAGE, JOINED = "contacts", "edges"
MEDIAN, QUARTILE, SIZE = (FEATURES.index(column) for column in ("median", "p25", "size"))


def contact_block(site: Site, shared: None, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure the contacts of a block.

    Its table holds ``inner`` (u, v) with ``measured`` (median, quartile, faces), and the faces of the others: ``owner``
    (the block that they go to), ``outer`` (u, v), ``value``, sorted by all three.
    """
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {"owners": []}
    outer = tuple(slice(side.start, min(n, side.stop + 1)) for side, n in zip(part, site.seen, strict=True))
    local, rank = read_fragments(site, outer)
    boundaries = site.read_seen("boundaries", outer)
    core = within(part, outer)
    there = np.bincount(local[core].ravel(), minlength=len(rank))
    split = there[1:] != site.load("voxels")[rank[1:] - 1]
    split = np.concatenate([[False], split])

    rag = bic_graph.region_adjacency_graph(local, number_of_threads=1)
    features = bic_graph.features.edge_map_features_complex(rag, local, boundaries, number_of_threads=1)
    ends = rag.uv_ids().astype(np.int64)
    mine = ~(split[ends[:, 0]] | split[ends[:, 1]])
    u, v, value = _faces(local, boundaries, core, split)
    u, v = rank[u], rank[v]
    owner = _owner(site, u)
    order = np.lexsort((value, v, u, owner))
    wrote = site.write_table(
        STAGE,
        name(box),
        inner=rank[ends[mine]],
        measured=features[mine][:, [MEDIAN, QUARTILE, SIZE]],
        owner=owner[order],
        outer=np.stack([u[order], v[order]], axis=1),
        value=value[order],
    )
    return [wrote], {"owners": [int(one) for one in np.unique(owner)]}


def _faces(
    local: np.ndarray, boundaries: np.ndarray, core: Box, split: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fragments u < v and mean boundary of the faces that a block owns, where one of the two is not all inside."""
    found = [], [], []
    for axis in range(3):
        length = min(core[axis].stop, local.shape[axis] - 1)
        here = tuple(slice(0, length) if k == axis else side for k, side in enumerate(core))
        ahead = tuple(slice(1, length + 1) if k == axis else side for k, side in enumerate(core))
        a, b = local[here], local[ahead]
        at = (a != b) & (split[a] | split[b])
        a, b = a[at], b[at]
        found[0].append(np.minimum(a, b))
        found[1].append(np.maximum(a, b))
        found[2].append((boundaries[here][at].astype(np.float64) + boundaries[ahead][at].astype(np.float64)) / 2)
    u, v, value = (np.concatenate(part) for part in found)
    return u, v, value


def _owner(site: Site, rank: np.ndarray) -> np.ndarray:
    """Number of the block, in the order of the volume, that holds the seed of each fragment."""
    z, y, x = np.unravel_index(site.load("ids")[rank - 1], site.seen)
    if site.kept is not None:
        z = np.asarray(site.kept, np.int64)[z]
    counts = [-(-n // side) for n, side in zip(site.shape, site.block, strict=True)]
    at = [place // side for place, side in zip((z, y, x), site.block, strict=True)]
    return np.ravel_multi_index(at, counts) if len(rank) else np.zeros(0, np.int64)


def senders(told: Sequence[dict[str, Any]], blocks: Sequence[Box]) -> list[list[str]]:
    """For each block the names of those that have faces for it."""
    found: list[list[str]] = [[] for _ in blocks]
    for box, one in zip(blocks, told, strict=True):
        for owner in one["owners"]:
            found[owner].append(name(box))
    return found


def join_block(
    site: Site, shared: tuple[MulticutSettings, int, list[str]], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Put the contacts of a block together and weigh their evidence.

    ``shared`` is the settings, the number of the block, and the names of those that have faces for it. The table holds
    ``ends`` (u, v), ascending, ``same``, ``weight``, ``faces`` and ``between``.
    """
    settings, number, sources = shared
    if not sides(site.seen_part(box))[0]:
        return [], {"edges": 0}
    own = site.read_table(STAGE, name(box))
    pairs, values = [], []
    for source in sources:
        stored = own if source == name(box) else site.read_table(STAGE, source)
        first, last = np.searchsorted(stored["owner"], [number, number + 1])
        pairs.append(stored["outer"][first:last])
        values.append(stored["value"][first:last])
    ends, measured = own["inner"], own["measured"]
    if pairs:
        more = _measure(np.concatenate(pairs), np.concatenate(values))
        ends, measured = np.concatenate([ends, more[0]]), np.concatenate([measured, more[1]])
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, measured = ends[order], measured[order]
    features = np.zeros((len(ends), len(FEATURES)))
    features[:, [MEDIAN, QUARTILE, SIZE]] = measured
    between, overlap = _stacked(site, ends, measured[:, 2])
    same, weight = edge_evidence(RegionGraph(None, features, between, overlap), settings)
    faces = measured[:, 2].astype(np.int64)
    wrote = site.write_table(JOINED, name(box), ends=ends, same=same, weight=weight, faces=faces, between=between)
    return [wrote], {"edges": len(ends)}


def _measure(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median, lower quartile (between the two nearest values, linearly) and count of the values of each pair."""
    order = np.lexsort((values, pairs[:, 1], pairs[:, 0]))
    pairs, values = pairs[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)]))
    count = np.diff(np.append(starts, len(values)))
    columns = []
    for share in (0.5, 0.25):
        place = share * (count - 1)
        low = np.floor(place).astype(np.int64)
        below, above = values[starts + low], values[starts + np.minimum(low + 1, count - 1)]
        columns.append(below + (above - below) * (place - low))
    return pairs[starts], np.stack([*columns, count], axis=1)


def _stacked(site: Site, ends: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each contact lies between two sections, and its share of the smaller fragment."""
    overlap = faces / site.load("voxels")[ends - 1].min(axis=1)
    if near_isotropic(site.voxel_size_nm):
        return np.zeros(len(ends), bool), overlap
    section = site.load("ids")[ends - 1] // (site.seen[1] * site.seen[2])
    return section[:, 0] != section[:, 1], overlap
