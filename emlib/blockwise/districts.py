"""Partition a graph that is too large to be held at once: what is clear first, district by district, then the rest.

1. The volume is divided into districts on a grid of its own, whatever the blocks; each sees a margin around itself.
   There, fragments are joined in the order in which the whole graph would join them, but only while the evidence lies
   above a bound: what was joined until then is small, and what lies beyond the margin has had no say.
2. A contact is closed if every district that sees both of its fragments joined them. Fragments that closed contacts
   connect become one node; its contacts with another node become one, their evidence added.
3. The few nodes and contacts that remain are partitioned at once, over all districts, and the joining goes on from
   where it would stand by then.

Overlapping parts that must agree are those of Pape et al. 2017; the bound is what lets greedy joining go on afterwards
as if it had never been interrupted. The outcome does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.blockwise.contacts import JOINED, UNIT
from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import Shape, lay, name, overlapping, sides
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import Evidence, RegionGraph, partition
from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import Box

STAGE, AGREED, REDUCED = "districts", "agreed", "contracted"
SOLID, FLAT = (384, 384, 384), (32, 512, 512)  # districts near isotropic, and of sections
SOLID_MARGIN, FLAT_MARGIN = (96, 96, 96), (16, 128, 128)  # that each sees around itself
SHARE = 1.0  # of the mean evidence for joining: the bound
LEFT = {"multicut": 0.13, "gasp": 0.38}  # of the contacts: 0.08 and 0.30 on FIB-25, 0.13 and 0.38 on the phantom


def district_size(site: Site) -> Shape:
    """Sides (z, y, x) of a district."""
    return SOLID if near_isotropic(site.voxel_size_nm) else FLAT


def margin(site: Site) -> Shape:
    """Voxels (z, y, x) that a district sees around itself."""
    return SOLID_MARGIN if near_isotropic(site.voxel_size_nm) else FLAT_MARGIN


def districts(site: Site) -> list[Box]:
    """The districts of the sections that are segmented."""
    return lay(site.seen, district_size(site))


def bound(told: Sequence[dict[str, Any]], segmenter: str) -> float:
    """Evidence above which districts join, from what `emlib.blockwise.contacts.strength` told of each block."""
    count, total = (sum(one["strength"][segmenter][k] for one in told if one["edges"]) for k in range(2))
    return SHARE * total / UNIT / max(count, 1)


def solve_district(site: Site, shared: tuple[str, float], box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Join what is clear in a district and around it; ``shared`` is the segmenter and the bound.

    Its table says for each fragment that was joined the first one that it was joined to.
    """
    outer = widened(box, site)
    whole = outer
    if site.kept is not None:
        whole = (slice(site.kept[outer[0].start], site.kept[outer[0].stop - 1] + 1), *outer[1:])
    parts = []
    for block in overlapping(whole, site.shape, site.block):
        if sides(site.seen_part(block))[0]:
            stored = site.read_table(JOINED, name(block))
            seen = _inside(site, stored["ends"], outer)
            parts.append([stored[key][seen] for key in ("ends", "same", "weight")])
    fragments, first = join(*(np.concatenate(part) for part in zip(*parts, strict=True)), *shared)
    moved = fragments != first
    return [site.write_table(STAGE, name(box), fragment=fragments[moved], first=first[moved])], {}


def widened(box: Box, site: Site) -> Box:
    """A box of the sections that are segmented, with the margin of a district."""
    z, y, x = (
        slice(max(0, side.start - far), min(n, side.stop + far))
        for side, far, n in zip(box, margin(site), site.seen, strict=True)
    )
    return z, y, x


def _inside(site: Site, ends: np.ndarray, box: Box) -> np.ndarray:
    """Which contacts have the seeds of both fragments in a box."""
    found, ids = np.ones(len(ends), bool), site.load("ids")
    for column in range(2):
        place = np.unravel_index(ids[ends[:, column] - 1], site.seen)
        for at, side in zip(place, box, strict=True):
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
    nodes, index = np.unique(ends, return_inverse=True)
    if not len(nodes):
        return nodes, nodes
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    rag = UndirectedGraph.from_unique_edges(len(nodes), index.reshape(-1, 2)[order].astype(np.uint64))
    graph = RegionGraph(rag, np.zeros((0, 1)), np.zeros(0, bool), np.zeros(0))
    segment = partition(graph, Evidence(same[order], weight[order]), segmenter, least)
    _, first, of = np.unique(segment, return_index=True, return_inverse=True)
    return nodes, nodes[first][of]


def agree_block(site: Site, shared: None, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Close the contacts of a block that all districts joined that see them.

    Its table says for each fragment that closed contacts of the block connect with others the first of these.
    """
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {}
    ends = site.read_table(JOINED, name(box))["ends"]
    closed, open_still = np.zeros(len(ends), bool), np.zeros(len(ends), bool)
    for district in overlapping(widened(part, site), site.seen, district_size(site)):
        stored = site.read_table(STAGE, name(district))
        seen = _inside(site, ends, widened(district, site))
        u, v = (_looked_up(stored["fragment"], stored["first"], column) for column in ends[seen].T)
        closed[seen] |= u == v
        open_still[seen] |= u != v
    fragment, first = connect(ends[closed & ~open_still])
    return [site.write_table(AGREED, name(box), fragment=fragment, first=first)], {}


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


def contract_block(site: Site, shared: None, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn the contacts of a block into contacts of what was joined; those within one node are gone."""
    if not sides(site.seen_part(box))[0]:
        return [], {}
    stored, first = site.read_table(JOINED, name(box)), site.load("first")
    u, v = first[stored["ends"]].T
    apart = u != v
    counts = {
        "evidence": np.rint(stored["same"] * stored["weight"] * UNIT).astype(np.int64)[apart],
        "weight": np.rint(stored["weight"] * UNIT).astype(np.int64)[apart],
        "faces": stored["faces"][apart],
    }
    ends = np.stack([np.minimum(u, v), np.maximum(u, v), stored["between"]], axis=1)[apart].astype(np.int64)
    ends, summed = add_up([ends], [counts])
    return [site.write_table(REDUCED, name(box), ends=ends, **summed)], {}


def add_up(
    ends: Sequence[np.ndarray], counts: Sequence[dict[str, np.ndarray]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Join tables of integers: rows with equal ends become one, their counts added."""
    rows, index = np.unique(np.concatenate(ends), axis=0, return_inverse=True)
    summed = {}
    for key in counts[0]:
        summed[key] = np.zeros(len(rows), np.int64)
        np.add.at(summed[key], index.ravel(), np.concatenate([one[key] for one in counts]))
    return rows, summed


def contract(
    engine: Engine, blocks: Sequence[Box], segmenter: str, least: float
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Join what is clear within districts and return what is left.

    Parameters
    ----------
    engine : Engine
    blocks : sequence of three slices
    segmenter : str
    least : float
        From `bound`.

    Returns
    -------
    first : (N + 1,) int array
        The first fragment of the node that each fragment belongs to; 0 for 0.
    ends : (E, 3) int64 array
        First fragments of two nodes, ascending, and whether the contact lies between sections; unique rows.
    counts : dict
        ``evidence`` and ``weight`` in parts of ``UNIT``, ``faces``.
    """
    site = engine.site
    engine.run(STAGE, solve_district, (segmenter, least), districts(site))
    engine.run(AGREED, agree_block, None, blocks)
    there = [name(box) for box in blocks if sides(site.seen_part(box))[0]]
    first = _firsts(site, there)
    site.save("first", first)
    engine.run(REDUCED, contract_block, None, blocks)
    tables = [site.read_table(REDUCED, one) for one in there]
    ends, counts = add_up(
        [table["ends"] for table in tables],
        [{key: table[key] for key in ("evidence", "weight", "faces")} for table in tables],
    )
    return first, ends, counts


def _firsts(site: Site, names: Sequence[str]) -> np.ndarray:
    """The first fragment of all that closed contacts connect, (N + 1,), for each fragment; 0 for 0."""
    tables = [site.read_table(AGREED, one) for one in names]
    u, v = (np.concatenate([t[key] for t in tables]).astype(np.int32) for key in ("fragment", "first"))
    count = len(site.load("ids")) + 1
    group = connected_components(coo_array((np.ones(len(u), bool), (u, v)), shape=(count, count)), directed=False)[1]
    first = np.zeros(int(group.max()) + 1, np.int64)
    first[group[::-1]] = np.arange(count - 1, -1, -1)  # the smallest is written last
    return first[group]


def solve_rest(ends: np.ndarray, counts: dict[str, np.ndarray], segmenter: str) -> tuple[np.ndarray, np.ndarray]:
    """Partition what is left over all districts; return nodes and the smallest node of the segment of each."""
    pairs, summed = add_up([ends[:, :2]], [counts])
    weight = np.maximum(summed["weight"], 1) / UNIT
    return join(pairs, summed["evidence"] / UNIT / weight, weight, segmenter)
