"""The partition of the whole graph, at once or in districts first, and the labels of every block from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph

from emlib.blockwise.contacts import JOINED
from emlib.blockwise.districts import bound, contract, solve_rest
from emlib.blockwise.engine import Engine
from emlib.blockwise.flood import read_fragments
from emlib.blockwise.grid import name, sides
from emlib.blockwise.site import Site
from emlib.stages.agglomerate import Evidence, RegionGraph, face_areas, partition
from emlib.stages.inclusions import absorb_by_size
from emlib.volumes.volume import Box

MOST_EDGES = 1_000_000  # that are partitioned at once, in 340 MB; of more, what is clear is joined in districts first


def solve(
    engine: Engine, blocks: Sequence[Box], told: Sequence[dict[str, Any]], segmenter: str, min_enclosed: float
) -> int:
    """Partition the fragments of the volume; write the neurite of each as column ``neurite`` and count the neurites.

    Up to ``MOST_EDGES`` contacts, fragments, edges and their order are those that the whole volume gives, so that the
    partition is the same; beyond, see `emlib.blockwise.districts`. ``told`` is what the blocks told of their contacts.
    """
    if sum(one["edges"] for one in told) <= MOST_EDGES:
        found = _at_once(engine, blocks, segmenter, min_enclosed)
    else:
        found = _in_districts(engine, blocks, segmenter, min_enclosed, bound(told, segmenter))
    there = np.zeros(int(found.max()) + 1, bool)
    there[found[1:]] = True  # fragment 0 does not exist
    neurite = np.cumsum(there, dtype=np.int32)[found]
    neurite[0] = 0
    engine.site.save("neurite", neurite)
    return int(neurite.max(initial=0))


def _at_once(engine: Engine, blocks: Sequence[Box], segmenter: str, min_enclosed: float) -> np.ndarray:
    """The segment of each fragment."""
    site = engine.site
    voxels = np.concatenate([[0], site.load("voxels")])
    tables = [site.read_table(JOINED, name(box)) for box in blocks if sides(site.seen_part(box))[0]]
    ends = np.concatenate([table["ends"] for table in tables])
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    columns = {key: np.concatenate([t[key] for t in tables])[order] for key in ("same", "weight", "faces", "between")}
    rag = UndirectedGraph.from_unique_edges(len(voxels), ends[order].astype(np.uint64))
    graph = RegionGraph(rag, columns["faces"][:, None].astype(float), columns["between"], np.zeros(0))
    found = partition(graph, Evidence(columns["same"], columns["weight"]), segmenter)
    border = _border_area(site, sections=not columns["between"].any())
    return absorb_by_size(found, graph, voxels, border, site.voxel_size_nm, min_enclosed)


def _in_districts(
    engine: Engine, blocks: Sequence[Box], segmenter: str, min_enclosed: float, least: float
) -> np.ndarray:
    """The same, with what is clear joined in districts first; then nodes are what was joined there."""
    site = engine.site
    first, ends, counts = contract(engine, blocks, segmenter, least)
    own = first == np.arange(len(first))
    nodes, node = np.flatnonzero(own), (np.cumsum(own) - 1)[first]  # node 0 stands for fragment 0, which does not exist
    segment = np.arange(len(nodes))
    joined, to = solve_rest(ends, counts, segmenter)
    segment[np.searchsorted(nodes, joined)] = np.searchsorted(nodes, to)
    voxels = np.bincount(node, np.concatenate([[0], site.load("voxels")]), len(nodes))
    between = ends[:, 2].astype(bool)
    border = np.bincount(node, _border_area(site, sections=not between.any()), len(nodes))
    rag = _Ends(np.searchsorted(nodes, ends[:, :2]))
    graph = RegionGraph(rag, counts["faces"][:, None].astype(float), between, np.zeros(0))
    return absorb_by_size(segment, graph, voxels, border, site.voxel_size_nm, min_enclosed)[node]


class _Ends:
    """Edges as a graph gives them, where a pair may have two: within sections and between."""

    def __init__(self, ends: np.ndarray) -> None:
        self.ends = ends

    def uv_ids(self) -> np.ndarray:
        return self.ends


def _border_area(site: Site, sections: bool) -> np.ndarray:
    """Area of each fragment on the border of the volume in nm²; of sections, not that of the first and last one."""
    face, faces = face_areas(site.voxel_size_nm), site.load("border")
    area = np.zeros(len(faces) + 1)
    for axis in (0, 1, 2) if sections else (1, 2):
        area[1:] += faces[:, axis] * face[axis]
    return area


def label_block(site: Site, shared: dict[str, Any], box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the neurite labels of a block; ``shared`` is what the partition depends on."""
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [site.write_seen("neurites", box, np.zeros((0, *sides(box)[1:]), np.int32))], {}
    local, rank = read_fragments(site, part)
    return [site.write_seen("neurites", box, site.load("neurite")[rank][local])], {}


def sizes(site: Site) -> np.ndarray:
    """Voxels of each neurite, (N + 1,) int64; 0 for 0."""
    neurite = site.load("neurite")
    return np.bincount(neurite, np.concatenate([[0], site.load("voxels")]), int(neurite.max()) + 1).astype(np.int64)
