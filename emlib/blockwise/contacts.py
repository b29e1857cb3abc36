"""The region adjacency graph in blocks: each contact with the boundary evidence along all of it, wherever it lies.

1. A block owns the faces between one of its voxels and the next one along z, y or x: each face is counted once.
2. Contacts of two fragments that lie wholly inside a block are measured there.
3. Of the others a block sends the values on its faces to the block that holds the seed of the first fragment, where
   they are put together. Median and quartile are therefore those of all faces, not of a summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from emlib.blockwise.flood import read_fragments
from emlib.blockwise.grid import name, sides, within
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import MulticutSettings, RegionGraph, edge_evidence
from emlib.stages.boundaries import near_isotropic
from emlib.stages.contact_features import EVIDENT, FEATURES, evident_features, percentile
from emlib.volumes.volume import Box

STAGE, JOINED = "contacts", "edges"
UNIT = 2**20  # evidence is added in so many parts of one: the sum is the same in any order
MEASURED = [FEATURES.index(column) for column in EVIDENT]


class Seen(NamedTuple):
    """What a block sees to measure contacts: itself and the voxels after it along each axis.

    Attributes
    ----------
    outer, core : three slices
        In the volume; the block itself in ``outer``.
    local : int32 array
        Fragments, numbered from 1.
    rank : (K,) int64 array
        Their numbers in the volume.
    split : (K,) bool array
        Whether a fragment is not all inside the block.
    """

    outer: Box
    core: Box
    local: np.ndarray
    rank: np.ndarray
    split: np.ndarray


def look(site: Site, part: Box) -> Seen:
    """Read the fragments that a block sees."""
    outer = tuple(slice(side.start, min(n, side.stop + 1)) for side, n in zip(part, site.seen, strict=True))
    local, rank = read_fragments(site, outer)
    core = within(part, outer)
    there = np.bincount(local[core].ravel(), minlength=len(rank))
    split = there[1:] != site.load("voxels")[rank[1:] - 1]
    return Seen(outer, core, local, rank, np.concatenate([[False], split]))


def contact_block(site: Site, shared: None, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure the contacts of a block.

    Its table holds ``inner`` (u, v) with ``measured`` (median, quartile, faces), and the faces of the others: ``owner``
    (the block that they go to), ``outer`` (u, v), ``value``, sorted by all three.
    """
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {"owners": []}
    outer, core, local, rank, split = look(site, part)
    boundaries = site.read_seen("boundaries", outer)
    sections = not near_isotropic(site.voxel_size_nm)
    ends, measured = evident_features(local, boundaries, sections=sections)
    mine = ~(split[ends[:, 0]] | split[ends[:, 1]])
    u, v, (value,) = faces_of(local, [boundaries], core, split)
    value = value.astype(np.float32) if sections else value  # as those inside
    u, v = rank[u], rank[v]
    owner = owner_of(site, u)
    order = np.lexsort((value, v, u, owner))
    wrote = site.write_table(
        STAGE,
        name(box),
        inner=rank[ends[mine]],
        measured=measured[mine],
        owner=owner[order],
        outer=np.stack([u[order], v[order]], axis=1),
        value=value[order],
    )
    return [wrote], {"owners": [int(one) for one in np.unique(owner)]}


def faces_of(
    local: np.ndarray, maps: Sequence[np.ndarray], core: Box, split: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Find the faces that a block owns where one of the two fragments is not all inside.

    Parameters
    ----------
    local : (z, y, x) int array
        Fragments of the block, and of the voxels after it.
    maps : sequence of (z, y, x) float32 arrays
    core : three slices
        The block itself.
    split : (K,) bool array
        By number of the fragment, whether it is not all inside.

    Returns
    -------
    u, v : (F,) int arrays
        Fragments, u < v.
    values : list of (F,) float64 arrays
        Mean of the two voxels, for each map.
    """
    ends, found = ([], []), [[] for _ in maps]
    for axis in range(3):
        length = min(core[axis].stop, local.shape[axis] - 1)
        here = tuple(slice(0, length) if k == axis else side for k, side in enumerate(core))
        ahead = tuple(slice(1, length + 1) if k == axis else side for k, side in enumerate(core))
        a, b = local[here], local[ahead]
        at = (a != b) & (split[a] | split[b])
        a, b = a[at], b[at]
        ends[0].append(np.minimum(a, b))
        ends[1].append(np.maximum(a, b))
        for parts, values in zip(found, maps, strict=True):
            parts.append((values[here][at].astype(np.float64) + values[ahead][at].astype(np.float64)) / 2)
    u, v = (np.concatenate(part) for part in ends)
    return u, v, [np.concatenate(parts) for parts in found]


def owner_of(site: Site, rank: np.ndarray) -> np.ndarray:
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
    features[:, MEASURED] = measured
    between, overlap = stacked(site, ends, measured[:, 2])
    same, weight = edge_evidence(RegionGraph(None, features, between, overlap), settings)
    faces = measured[:, 2].astype(np.int64)
    wrote = site.write_table(JOINED, name(box), ends=ends, same=same, weight=weight, faces=faces, between=between)
    return [wrote], {"edges": len(ends), "strength": strength(same, weight)}


def strength(same: np.ndarray, weight: np.ndarray) -> dict[str, list[int]]:
    """Contacts that speak for joining, and the sum in parts of ``UNIT`` of what each segmenter orders them by."""
    joins = same > 0
    order = {"multicut": same * weight, "gasp": same}
    return {
        segmenter: [int(joins.sum()), int(np.rint(values[joins] * UNIT).astype(np.int64).sum())]
        for segmenter, values in order.items()
    }


def _measure(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median, lower quartile and count of the values of each pair."""
    pairs, starts, count, values = grouped(pairs, values)
    return pairs, np.stack([*(percentile(values, starts, count, percent) for percent in (50, 25)), count], axis=1)


def grouped(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort by pair and value; return the pairs, where each begins, how many values it has, and the values."""
    order = np.lexsort((values, pairs[:, 1], pairs[:, 0]))
    pairs, values = pairs[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)])[: len(pairs)])
    return pairs[starts], starts, np.diff(np.append(starts, len(values))), values


def stacked(site: Site, ends: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each contact lies between two sections, and its share of the smaller fragment."""
    overlap = faces / site.load("voxels")[ends - 1].min(axis=1)
    if near_isotropic(site.voxel_size_nm):
        return np.zeros(len(ends), bool), overlap
    section = site.load("ids")[ends - 1] // (site.seen[1] * site.seen[2])
    return section[:, 0] != section[:, 1], overlap
