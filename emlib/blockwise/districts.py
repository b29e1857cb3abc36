"""Partition a graph that is too large to be held at once: what is clear first, district by district, then the rest.

1. The volume is divided into districts on a grid of its own, whatever the blocks; each sees a margin around itself.
   There, fragments are joined in the order in which the whole graph would join them, but only while the evidence lies
   above a bound: what was joined until then is small, and what lies beyond the margin has had no say.
2. A contact is closed if every district that sees both of its fragments joined them. Fragments that closed contacts
   connect become one node; its contacts with another node become one, their evidence added.
3. Where too much is left, the same again on what is left: districts and margins twice, three times as large, the bound
   anew.
4. The few nodes and contacts that remain are partitioned at once, over all districts, and the joining goes on from
   where it would stand by then.

Overlapping parts that must agree are those of Pape et al. 2017; the bound is what lets greedy joining go on afterwards
as if it had never been interrupted. The outcome does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.utils import UnionFind
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.blockwise.contacts import UNIT, senders
from emlib.blockwise.contracted import (
    FIRST,
    GATHERED,
    REDUCED,
    contacts_of,
    contract_block,
    gather_block,
    number_type,
    of_level,
)
from emlib.blockwise.engine import Engine
from emlib.blockwise.flood import in_parts
from emlib.blockwise.grid import Shape, lay, name, overlapping, sides
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import Evidence, RegionGraph, partition
from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import Box

STAGE, AGREED = "districts", "agreed"
SOLID, FLAT = (384, 384, 384), (32, 512, 512)  # districts near isotropic, and of sections
SOLID_MARGIN, FLAT_MARGIN = (96, 96, 96), (16, 128, 128)  # that each sees around itself
SHARE = 1.0  # of the mean evidence for joining: the bound
LEVELS, USEFUL = 3, 0.8  # at most so many; another one only where the last left at most this share
# What each level leaves, as a share of the contacts of fragments: the most on FIB-25 and the phantom, a tenth more.
LEFT = {"multicut": (0.092, 0.033, 0.02), "gasp": (0.32, 0.078, 0.038)}


def district_size(site: Site) -> Shape:
    """Sides (z, y, x) of a district of the first level."""
    return SOLID if near_isotropic(site.voxel_size_nm) else FLAT


def margin(site: Site) -> Shape:
    """Voxels (z, y, x) that a district of the first level sees around itself."""
    return SOLID_MARGIN if near_isotropic(site.voxel_size_nm) else FLAT_MARGIN


def larger(shape: Shape, level: int) -> Shape:
    """Sides of a district, or a margin, on a level, counted from 0: twice, three times those of the first."""
    z, y, x = (side * (level + 1) for side in shape)
    return z, y, x


def districts(site: Site, level: int = 0) -> list[Box]:
    """The districts of the sections that are segmented."""
    return lay(site.seen, larger(district_size(site), level))


def seen_by(site: Site, level: int = 0) -> int:
    """Voxels that the largest district sees."""
    voxels = 1
    for side, far, n in zip(larger(district_size(site), level), larger(margin(site), level), site.seen, strict=True):
        voxels *= max(min(n, at + side + far) - max(0, at - far) for at in range(0, n, side))
    return voxels


def expected(site: Site, contacts: float, segmenter: str, most: int) -> list[float]:
    """Contacts that each level is expected to begin with, and last what they leave."""
    found = [contacts]
    for level, share in enumerate(LEFT[segmenter]):
        if found[-1] <= most or (level and len(districts(site, level)) == 1):
            break
        found.append(contacts * share)
    return found


def bound(told: Sequence[dict[str, Any]], segmenter: str) -> float:
    """Evidence above which districts join, from what `emlib.blockwise.contacts.strength` told of each block."""
    count, total = (sum(one["strength"][segmenter][k] for one in told if one["edges"]) for k in range(2))
    return SHARE * total / UNIT / max(count, 1)


def solve_district(site: Site, shared: tuple[str, float, int], box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Join what is clear in a district and around it; ``shared`` is the segmenter, the bound and the level.

    Its table says for each fragment that was joined the first one that it was joined to.
    """
    segmenter, least, level = shared
    outer = widened(box, site, level)
    whole = outer
    if site.kept is not None:
        whole = (slice(site.kept[outer[0].start], site.kept[outer[0].stop - 1] + 1), *outer[1:])
    parts = []
    for block in overlapping(whole, site.shape, site.block):
        if sides(site.seen_part(block))[0]:
            ends, same, weight = contacts_of(site, level, name(block))
            seen = np.flatnonzero(inside(places(site, ends[:, 0]), outer))
            seen = seen[inside(places(site, ends[seen, 1]), outer)]
            parts.append([ends[seen], same[seen], weight[seen]])
    ends, same, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    fragments, first = join(ends, same, weight, segmenter, least)
    moved = fragments != first
    return [site.write_table(of_level(STAGE, level), name(box), fragment=fragments[moved], first=first[moved])], {}


def widened(box: Box, site: Site, level: int = 0) -> Box:
    """A box of the sections that are segmented, with the margin of a district."""
    z, y, x = (
        slice(max(0, side.start - far), min(n, side.stop + far))
        for side, far, n in zip(box, larger(margin(site), level), site.seen, strict=True)
    )
    return z, y, x


def places(site: Site, fragments: np.ndarray) -> np.ndarray:
    """Where the seeds of fragments lie, (K, 3) int32."""
    return site.load("place")[fragments - 1]


def inside(place: np.ndarray, box: Box) -> np.ndarray:
    """Which places lie in a box."""
    found = np.ones(len(place), bool)
    for at, side in zip(place.T, box, strict=True):
        found &= (at >= side.start) & (at < side.stop)
    return found


def join(
    ends: np.ndarray, same: np.ndarray, weight: np.ndarray, segmenter: str, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Partition the nodes that these edges name, as long as the evidence lies above ``least``.

    Returns
    -------
    nodes, first : (K,) int array
        The nodes, and the smallest node of the segment of each.
    """
    nodes = np.sort(ends, axis=None)
    if not len(nodes):
        return nodes, nodes
    nodes = nodes[np.concatenate([[True], nodes[1:] != nodes[:-1]])]
    index = np.searchsorted(nodes, ends)
    order = np.argsort(index[:, 0] * len(nodes) + index[:, 1])
    rag = UndirectedGraph.from_unique_edges(len(nodes), index[order].astype(np.uint64))
    del index
    graph = RegionGraph(rag, np.zeros((0, 1)), np.zeros(0, bool), np.zeros(0))
    segment = partition(graph, Evidence(same[order], weight[order]), segmenter, least)
    _, first, of = np.unique(segment, return_index=True, return_inverse=True)
    return nodes, nodes[first][of]


def agree_block(site: Site, level: int, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Close the contacts of a block that all districts of a level joined that see them.

    Its table says for each fragment that closed contacts of the block connect with others the first of these.
    """
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {}
    ends = contacts_of(site, level, name(box))[0]
    of_u, of_v = (places(site, column) for column in ends.T)
    closed, open_still = np.zeros(len(ends), bool), np.zeros(len(ends), bool)
    around, size = widened(part, site, level), larger(district_size(site), level)
    for district in overlapping(around, site.seen, size):
        stored = site.read_table(of_level(STAGE, level), name(district))
        outer = widened(district, site, level)
        seen = np.flatnonzero(inside(of_u, outer) & inside(of_v, outer))
        u, v = (_looked_up(stored["fragment"], stored["first"], column) for column in ends[seen].T)
        closed[seen] |= u == v
        open_still[seen] |= u != v
    fragment, first = connect(ends[closed & ~open_still])
    return [site.write_table(of_level(AGREED, level), name(box), fragment=fragment, first=first)], {}


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each key, keys ascending; what is no key stands for itself."""
    if not len(keys):
        return wanted
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], wanted)


def connect(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find what pairs connect; return, of those that are not the first of their group, number and first, ascending.

    Examples
    --------
    >>> connect(np.array([[2, 9], [9, 5], [3, 4]]))
    (array([4, 5, 9]), array([3, 2, 2]))
    """
    nodes, index = np.unique(pairs, return_inverse=True)
    if not len(nodes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    u, v = index.reshape(-1, 2).astype(np.int32).T
    links = coo_array((np.ones(len(u), bool), (u, v)), shape=(len(nodes),) * 2)
    group = connected_components(links, directed=False)[1]
    first = nodes[np.unique(group, return_index=True)[1]][group]
    moved = nodes != first
    return nodes[moved], first[moved]


def contract(engine: Engine, blocks: Sequence[Box], segmenter: str, told: Sequence[dict[str, Any]], most: int) -> int:
    """Join what is clear within districts, level by level, until no more than ``most`` contacts are left.

    Parameters
    ----------
    engine : Engine
    blocks : sequence of three slices
    segmenter : str
    told : sequence of dict
        What the blocks told of their contacts.
    most : int

    Returns
    -------
    int
        The last level. What is left of the contacts lies in its tables `GATHERED`, and the first fragment of the node
        that each fragment belongs to, (N + 1,), 0 for 0, in its column `FIRST`.
    """
    site, edges = engine.site, sum(one["edges"] for one in told)
    for level in range(LEVELS):
        boxes = districts(site, level)
        engine.run(of_level(STAGE, level), solve_district, (segmenter, bound(told, segmenter), level), boxes)
        engine.run(of_level(AGREED, level), agree_block, level, blocks)
        site.save(of_level(FIRST, level), firsts(site, blocks, level))
        told = engine.run(of_level(REDUCED, level), contract_block, level, blocks)
        own = list(enumerate(senders(told, blocks)))
        told = engine.run(of_level(GATHERED, level), gather_block, level, blocks, own)
        before, edges = edges, sum(one["edges"] for one in told)
        if edges <= most or edges > USEFUL * before or len(districts(site, level + 1)) == 1:
            break
    return level


def firsts(site: Site, blocks: Sequence[Box], level: int) -> np.ndarray:
    """The first fragment of all that closed contacts connect, (N + 1,), for each fragment; 0 for 0."""
    count = len(site.load("ids")) + 1
    forest, kind = UnionFind(count), number_type(count)
    for box in blocks:
        if sides(site.seen_part(box))[0]:
            stored = site.read_table(of_level(AGREED, level), name(box))
            forest.merge(np.stack([stored["fragment"], stored["first"]], axis=1).astype(np.uint64))
    group = forest.element_labeling()
    del forest
    smallest = np.full(count, count, kind)
    for part in reversed(list(in_parts(count))):  # the smallest is written last
        smallest[group[part][::-1]] = np.arange(part.start, part.stop, dtype=kind)[::-1]
    first, before = np.empty(count, kind), site.load(of_level(FIRST, level - 1)) if level else None
    for part in in_parts(count):
        first[part] = smallest[group[part] if before is None else group[before[part]]]
    return first


def solve_rest(site: Site, blocks: Sequence[Box], level: int, segmenter: str) -> tuple[np.ndarray, np.ndarray]:
    """Partition what a level left over all districts; return nodes and the smallest node of the segment of each."""
    there = [name(box) for box in blocks if sides(site.seen_part(box))[0]]
    parts = [contacts_of(site, level + 1, one) for one in there]
    ends, same, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    del parts
    return join(ends, same, weight, segmenter)
