"""Skeletons of labelled neurites, for measuring where nobody has traced them by hand.

Per neurite, after TEASAR (Sato et al. 2000, "TEASAR: tree-structure extraction algorithm for accurate and robust
skeletons"). It follows paths instead of peeling off voxels, so it works in nm whatever the shape of a voxel, and a
rough surface gives no twigs:

1. Thin out: a coarse grid of cells of about 20 nm; a cell belongs to the neurite if any of its voxels does.
2. Root each connected piece at one end.
3. Draw the cheapest path from the farthest cell that is not explained yet to the tree; depth makes a step cheap.
4. What lies around the path, as far as the surface and a bit, is explained. Repeat from 3 until everything is.
5. Smooth away the staircase of the grid, but leave no node outside its neurite.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from emlib.threads import map_threads
from emlib.volumes.swc import Skeleton
from emlib.volumes.volume import ZYX, Box

CELL_NM = 20.0  # half the diameter of the thinnest neurites
MIN_LENGTH_NM = 500.0
SCALE, MARGIN_NM = 1.5, 100.0  # a path explains what lies within SCALE × depth + MARGIN_NM of it
SMOOTHING = 5  # rounds
_STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])


def make_skeletons(labels: np.ndarray, voxel_size_nm: ZYX, min_length_nm: float = MIN_LENGTH_NM) -> list[Skeleton]:
    """Make skeletons of all neurites of a label volume.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        0 is background.
    voxel_size_nm : (z, y, x) in nm
    min_length_nm : float
        Shorter trees are left out: crumbs at the faces of a volume, whose run length says nothing about a method.

    Returns
    -------
    list of Skeleton
        One per neurite that has a tree, in the order of the ids; the name is the id. Each connected piece of a neurite
        is a tree of its own; pieces in cells that touch are one. Every node, rounded, is a voxel of its neurite; nodes
        are about 20 nm apart, or a voxel where voxels are larger.

    Notes
    -----
    A bump becomes a branch if it leaves a box of 1.5 × the depth + 100 nm around the centre line. At the faces
    of the volume a neurite is taken to go on, so that its centre line runs straight into the face.

    Examples
    --------
    >>> tube = np.zeros((5, 5, 100), np.uint8)
    >>> tube[1:4, 1:4] = 9
    >>> (skeleton,) = make_skeletons(tube, (10, 10, 10))
    >>> skeleton.name, len(skeleton.nodes) - len(skeleton.edges)  # one tree
    ('9', 1)
    """
    code, ids = pd.factorize(np.ascontiguousarray(labels).ravel())
    code = (code + 1).astype(np.int32).reshape(labels.shape)
    boxes = ndimage.find_objects(code)
    size = np.asarray(voxel_size_nm, np.float64)
    wanted = np.flatnonzero(ids != 0)

    def make(at: int) -> Skeleton:
        nodes, edges = _trees(_thin_out(code, at + 1, boxes[at], size), min_length_nm)
        return Skeleton(str(ids[at]), _smooth(nodes, edges, code, at + 1), edges)

    skeletons = map_threads(make, wanted[np.argsort(ids[wanted])])
    return [skeleton for skeleton in skeletons if len(skeleton.edges)]


class _Cells(NamedTuple):
    """One neurite on a coarse grid."""

    voxels: np.ndarray  # (N, 3) of the volume: the one nearest to the middle of each cell
    places: np.ndarray  # (N, 3) of the cells in the grid
    depth: np.ndarray  # (N,) nm to the surface
    shape: tuple[int, ...]  # of the grid
    size: np.ndarray  # nm, of a cell


def _thin_out(code: np.ndarray, one: int, box: Box, size: np.ndarray) -> _Cells:
    """Pool the voxels of one neurite into cells."""
    factor = np.maximum(1, np.rint(CELL_NM / size)).astype(np.int64)
    last = (np.array(code.shape) - 1) // factor
    # a margin of background where there is any: beyond the faces of the volume the distance transform sees no surface
    low = np.maximum(np.array([side.start for side in box]) // factor - 1, 0)
    high = np.minimum((np.array([side.stop for side in box]) - 1) // factor + 1, last)
    inside = code[tuple(map(slice, low * factor, (high + 1) * factor))] == one
    shape = high - low + 1
    inside = np.pad(inside, [(0, gap) for gap in shape * factor - inside.shape])
    blocks = inside.reshape(np.stack([shape, factor], axis=1).ravel()).transpose(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(*shape, -1)
    grid = blocks.any(axis=-1)
    within = np.stack(np.unravel_index(np.arange(blocks.shape[-1]), factor), axis=1)
    within = within[np.argsort((((within - (factor - 1) / 2) * size) ** 2).sum(axis=1), kind="stable")]
    nearest = blocks[grid][:, np.ravel_multi_index(tuple(within.T), factor)].argmax(axis=1)
    places = np.argwhere(grid)
    cell_nm = size * factor
    if grid.all():  # no surface in sight
        depth = np.full(len(places), np.linalg.norm(cell_nm * shape))
    else:
        depth = ndimage.distance_transform_edt(grid, sampling=cell_nm)[grid]
    return _Cells((places + low) * factor + within[nearest], places, depth, grid.shape, cell_nm)


def _links(cells: _Cells) -> tuple[csr_array, csr_array]:
    """Lengths (nm) and costs of the steps between neighbouring cells, each stored one way."""
    count = len(cells.places)
    index = np.full(np.add(cells.shape, 2), -1, np.int32)
    index[tuple(cells.places.T + 1)] = np.arange(count)
    ends = np.stack([index[tuple((cells.places + 1 + step).T)] for step in _STEPS], axis=1)
    here, step = np.nonzero(ends >= 0)
    there = ends[here, step]
    starts = np.searchsorted(here, np.arange(count + 1))
    length = np.linalg.norm(_STEPS * cells.size, axis=1)[step]
    cost = length * (cells.depth[here] ** -2 + cells.depth[there] ** -2)
    return tuple(csr_array((values, there, starts), shape=(count, count)) for values in (length, cost))


def _trees(cells: _Cells, min_length_nm: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (voxels of the volume) and edges of all trees of a neurite that are long enough."""
    lengths, costs = _links(cells)
    pieces, piece = connected_components(lengths, directed=False)
    order = np.argsort(piece, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(piece, minlength=pieces))[:-1])
    nodes, edges, count = [np.empty((0, 3), np.int64)], [np.empty((0, 2), np.int64)], 0
    for part in parts:
        if len(part) * np.linalg.norm(cells.size) < min_length_nm:
            continue
        own = _Cells(cells.voxels[part], cells.places[part], cells.depth[part], cells.shape, cells.size)
        whole = pieces == 1
        tree = _tree(own, *(links if whole else links[part][:, part] for links in (lengths, costs)))
        steps = np.diff(own.places[tree], axis=1)[:, 0] * cells.size
        if np.linalg.norm(steps, axis=1).sum() >= min_length_nm:
            used, ends = np.unique(tree, return_inverse=True)
            nodes.append(own.voxels[used])
            edges.append(ends.reshape(-1, 2) + count)
            count += len(used)
    return np.concatenate(nodes), np.concatenate(edges)


def _tree(cells: _Cells, lengths: csr_array, costs: csr_array) -> np.ndarray:
    """Edges (E, 2) between the cells of one connected piece."""
    root = int(dijkstra(lengths, directed=False, indices=0).argmax())
    _, parent = dijkstra(costs, directed=False, indices=root, return_predecessors=True)
    far = np.argsort(-_lengths_to_root(cells, parent, root), kind="stable")
    reach = np.ceil((SCALE * cells.depth + MARGIN_NM)[:, None] / cells.size).astype(np.int64)
    low, high = np.maximum(cells.places - reach, 0), cells.places + reach + 1
    explained = np.zeros(cells.shape, bool)
    in_tree = np.zeros(len(far), bool)
    in_tree[root] = True
    edges = []
    for end in far:
        if explained[tuple(cells.places[end])]:
            continue
        path = [int(end)]
        while not in_tree[path[-1]]:
            in_tree[path[-1]] = True
            path.append(int(parent[path[-1]]))
        for cell in path:
            (z, y, x), (z1, y1, x1) = low[cell], high[cell]
            explained[z:z1, y:y1, x:x1] = True
        edges += zip(path[1:], path[:-1], strict=True)
    return np.array(edges, np.int64).reshape(-1, 2)


def _lengths_to_root(cells: _Cells, parent: np.ndarray, root: int) -> np.ndarray:
    """Length in nm of the path from each cell up to the root: each round doubles how far up it reaches."""
    up = parent.copy()
    up[root] = root
    length = np.linalg.norm((cells.places - cells.places[up]) * cells.size, axis=1)
    while (up != root).any():
        length, up = length + length[up], up[up]
    return length


def _smooth(nodes: np.ndarray, edges: np.ndarray, code: np.ndarray, one: int) -> np.ndarray:
    """Pull nodes within branches towards their neighbours; those that would leave the neurite stay where they are."""
    nodes = nodes.astype(np.float64)
    ends = edges.ravel()
    inner = np.flatnonzero(np.bincount(ends, minlength=len(nodes)) == 2)
    which = np.argsort(ends, kind="stable")
    others = edges[:, ::-1].ravel()[which]
    pairs = others[np.searchsorted(ends[which], inner)[:, None] + [0, 1]]
    moved = nodes.copy()
    for _ in range(SMOOTHING):
        moved[inner] = 0.5 * moved[inner] + 0.25 * moved[pairs].sum(axis=1)
    inside = code[tuple(np.floor(moved + 0.5).astype(np.int64).T)] == one
    return np.where(inside[:, None], moved, nodes)
