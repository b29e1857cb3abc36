"""Partition a graph that is too large to be held at once: first within districts, then what is left over all.

1. The volume is divided into districts on a grid of its own, whatever the blocks. Fragments whose seeds lie in one
   district, and the contacts between them, are partitioned by themselves.
2. Fragments that were joined become one node; its contacts with another node become one, their evidence added.
3. The few nodes and contacts that remain are partitioned at once, over all districts.

What is joined within a district stays joined, so that the outcome may differ from that of one partition; it does not
depend on the blocks (Pape et al. 2017 solve multicut in this way).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph

from emlib.blockwise.contacts import JOINED
from emlib.blockwise.engine import Engine
from emlib.blockwise.flood import cell_size
from emlib.blockwise.grid import Shape, lay, name, overlapping, sides
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import Evidence, RegionGraph, partition
from emlib.volumes.volume import Box

STAGE, REDUCED = "districts", "contracted"
CELLS = 2  # of the flood along each side of a district
UNIT = 2**20  # evidence is added in so many parts of one: the sum is the same in any order


def district_size(site: Site) -> Shape:
    """Sides (z, y, x) of a district."""
    z, y, x = (CELLS * side for side in cell_size(site))
    return z, y, x


def districts(site: Site) -> list[Box]:
    """The districts of the sections that are segmented."""
    return lay(site.seen, district_size(site))


def solve_district(site: Site, segmenter: str, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Partition a district; its table says for each fragment that was joined the first one that it was joined to."""
    whole = box if site.kept is None else (slice(site.kept[box[0].start], site.kept[box[0].stop - 1] + 1), *box[1:])
    tables = [site.read_table(JOINED, name(b)) for b in _with_tables(site, whole)]
    ends = np.concatenate([table["ends"] for table in tables])
    ids = site.load("ids")
    inside = np.ones(len(ends), bool)
    for column in range(2):
        place = np.unravel_index(ids[ends[:, column] - 1], site.seen)
        for at, side in zip(place, box, strict=True):
            inside &= (at >= side.start) & (at < side.stop)
    same, weight = (np.concatenate([table[key] for table in tables])[inside] for key in ("same", "weight"))
    fragments, first = _join(ends[inside], same, weight, segmenter)
    moved = fragments != first
    return [site.write_table(STAGE, name(box), fragment=fragments[moved], first=first[moved])], {}


def _with_tables(site: Site, box: Box) -> list[Box]:
    return [block for block in overlapping(box, site.shape, site.block) if sides(site.seen_part(block))[0]]


def _join(ends: np.ndarray, same: np.ndarray, weight: np.ndarray, segmenter: str) -> tuple[np.ndarray, np.ndarray]:
    """Partition the nodes that these edges name; return the nodes and the smallest node of the segment of each."""
    nodes, index = np.unique(ends, return_inverse=True)
    if not len(nodes):
        return nodes, nodes
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    rag = UndirectedGraph.from_unique_edges(len(nodes), index.reshape(-1, 2)[order].astype(np.uint64))
    graph = RegionGraph(rag, np.zeros((0, 1)), np.zeros(0, bool), np.zeros(0))
    segment = partition(graph, Evidence(same[order], weight[order]), segmenter)
    _, first, of = np.unique(segment, return_index=True, return_inverse=True)
    return nodes, nodes[first][of]


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


def contract(engine: Engine, blocks: Sequence[Box], segmenter: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Partition within districts and return what is left.

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
    boxes = districts(site)
    engine.run(STAGE, solve_district, segmenter, boxes)
    first = np.arange(len(site.load("ids")) + 1, dtype=np.int64)
    for box in boxes:
        table = site.read_table(STAGE, name(box))
        first[table["fragment"]] = table["first"]
    site.save("first", first)
    engine.run(REDUCED, contract_block, None, blocks)
    tables = [site.read_table(REDUCED, name(box)) for box in blocks if sides(site.seen_part(box))[0]]
    ends, counts = add_up(
        [table["ends"] for table in tables],
        [{key: table[key] for key in ("evidence", "weight", "faces")} for table in tables],
    )
    return first, ends, counts


def solve_rest(ends: np.ndarray, counts: dict[str, np.ndarray], segmenter: str) -> tuple[np.ndarray, np.ndarray]:
    """Partition what is left over all districts; return nodes and the smallest node of the segment of each."""
    pairs, summed = add_up([ends[:, :2]], [counts])
    weight = np.maximum(summed["weight"], 1) / UNIT
    return _join(pairs, summed["evidence"] / UNIT / weight, weight, segmenter)
