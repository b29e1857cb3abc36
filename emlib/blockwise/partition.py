"""The partition of the whole graph, at once or in districts first, and the labels of every block from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph

from emlib.blockwise.contacts import JOINED
from emlib.blockwise.contracted import FIRST, contacts_between, of_level
from emlib.blockwise.districts import contract, solve_rest
from emlib.blockwise.engine import Engine
from emlib.blockwise.flood import in_parts, read_fragments
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
        found = _in_districts(engine, blocks, told, segmenter, min_enclosed)
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
    border = _border_area(site, slice(0, len(voxels)), sections=not columns["between"].any())
    return absorb_by_size(found, graph, voxels, border, site.voxel_size_nm, min_enclosed)


def _in_districts(
    engine: Engine, blocks: Sequence[Box], told: Sequence[dict[str, Any]], segmenter: str, min_enclosed: float
) -> np.ndarray:
    """The same, with what is clear joined in districts first; then nodes are what was joined there."""
    site = engine.site
    level = contract(engine, blocks, segmenter, told, MOST_EDGES)
    joined, to = solve_rest(site, blocks, level, segmenter)
    nodes, node = _numbered(site.load(of_level(FIRST, level)))  # node 0 is fragment 0, which does not exist
    segment = np.arange(len(nodes), dtype=node.dtype)
    segment[np.searchsorted(nodes, joined)] = np.searchsorted(nodes, to)
    segment = np.unique(segment, return_inverse=True)[1].astype(node.dtype)  # from 0 in the same order
    there = [name(box) for box in blocks if sides(site.seen_part(box))[0]]
    ends, faces = contacts_between(site, level, there, node, segment)
    between = ends[:, 2].astype(bool)
    count = int(segment.max()) + 1
    voxels, border = np.zeros(count), np.zeros(count)
    for part in in_parts(len(node)):
        of = segment[node[part]]
        voxels += np.bincount(of, of_fragments(site.load("voxels"), part), count)
        border += np.bincount(of, _border_area(site, part, sections=not between.any()), count)
    graph = RegionGraph(_Ends(ends[:, :2]), faces[:, None].astype(float), between, np.zeros(0))
    found = absorb_by_size(np.arange(count), graph, voxels, border, site.voxel_size_nm, min_enclosed)
    return found.astype(node.dtype)[segment][node]


def _numbered(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find those that are the first of their node, and for each the place of its first among them.

    Examples
    --------
    >>> _numbered(np.array([0, 1, 1, 3, 1]))
    (array([0, 1, 3]), array([0, 1, 1, 2, 1]))
    """
    parts = list(in_parts(len(first)))
    own = [np.flatnonzero(first[part] == np.arange(part.start, part.stop)) + part.start for part in parts]
    nodes = np.concatenate(own)
    node = np.empty_like(first)
    for part in parts:
        node[part] = np.searchsorted(nodes, first[part])
    return nodes, node


class _Ends:
    """Edges as a graph gives them, where a pair may have two: within sections and between."""

    def __init__(self, ends: np.ndarray) -> None:
        self.ends = ends

    def uv_ids(self) -> np.ndarray:
        return self.ends


def of_fragments(column: np.ndarray, part: slice) -> np.ndarray:
    """What a column says of these fragments; 0 of fragment 0, which does not exist."""
    if part.start:
        return column[part.start - 1 : part.stop - 1]
    return np.concatenate([np.zeros((1, *column.shape[1:]), column.dtype), column[: part.stop - 1]])


def _border_area(site: Site, part: slice, sections: bool) -> np.ndarray:
    """Area of fragments on the border of the volume in nm²; of sections, not that of the first and last one."""
    faces = of_fragments(site.load("border"), part)
    first = 0 if sections else 1
    return faces[:, first:] @ face_areas(site.voxel_size_nm)[first:]


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
    total = np.zeros(int(neurite.max()) + 1, np.int64)
    for part in in_parts(len(neurite)):
        voxels = np.bincount(neurite[part], of_fragments(site.load("voxels"), part), len(total))
        total += np.rint(voxels).astype(np.int64)
    return total
