"""Flood a connected piece of a neurite from seeds along its boundary probability.

A small piece is flooded voxel by voxel. A large one is flooded coarse to fine:

1. Seeds that lie together are flooded voxel by voxel in a box around them.
2. From there, or from seeds that lie far apart, blocks of voxels are flooded, by the mean of their probability.
3. Voxels near where two floods of blocks meet are flooded once more, one by one.
4. What is cut off from its seeds goes to the flood around it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bioimage_cpp.segmentation import watershed
from scipy import ndimage

from emlib.proofread.pieces import Runs, connected, cut_runs, touching_runs
from emlib.volumes.volume import ZYX

LEVELS, STEPS = 128, 512  # of the probability, and of the slope within each: the watershed tells 65536 heights apart
POINTS = 48  # voxels of the seeds that distances are taken to
EXACT = 1_000_000  # voxels of a box that is flooded one by one
PATCH = 400_000  # voxels of the box around seeds that lie together
BLOCKS = 400_000  # blocks of the box of a large piece, at most

Shape = tuple[int, int, int]


class Piece(NamedTuple):
    """Voxels that hang together, in a box of their own.

    Attributes
    ----------
    shape : (Z, Y, X) of the box
    runs : Runs
        C-order indices in the box.
    boundary : (N,) float array in [0, 1]
        Of each voxel, in the order of the runs.
    size_nm : (z, y, x) of a voxel
    """

    shape: Shape
    runs: Runs
    boundary: np.ndarray
    size_nm: ZYX


class _Voxels(NamedTuple):
    """Voxels or blocks that are flooded one by one: their box, indices in it, and what `Piece` says of them."""

    shape: Shape
    at: np.ndarray
    boundary: np.ndarray
    size_nm: ZYX
    marks: np.ndarray  # (N,) int32, 0: none
    origins: np.ndarray  # (S, 3) float32, nm


class _Blocks(NamedTuple):
    """A piece in blocks: its runs cut at their sides, the block of each run, and what is flooded."""

    factor: Shape
    shape: Shape
    runs: Runs
    first: np.ndarray  # voxels of the piece before each run
    of_run: np.ndarray  # block of each run, as its place in `used`
    used: np.ndarray  # indices of the blocks that hold voxels
    mean: np.ndarray


def flood(piece: Piece, marked: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Share the voxels of a piece out among seeds.

    Parameters
    ----------
    piece : Piece
    marked : (M,) int array
        Voxels that are seeds, as places in the order of the runs, ascending.
    marks : (M,) int32 array
        Their seeds, from 1; two seeds or more.

    Returns
    -------
    (N,) int32 array
        0 where no flood comes: never, if the piece is connected over faces of voxels.

    Notes
    -----
    Seeded watershed after Meyer 1994, as implemented by bioimage-cpp, over faces of voxels. That one gives a plateau to
    whichever seed comes last; hence the probability is cut into 128 levels, and each is a slope away from the seeds.
    """
    owner = np.searchsorted(piece.runs.first, marked, "right") - 1
    seeds = np.stack(np.unravel_index(piece.runs.start[owner] + marked - piece.runs.first[owner], piece.shape))
    thinned = seeds[:, :: -(-len(marked) // POINTS)]
    origins = (thinned.T * np.asarray(piece.size_nm)).astype(np.float32)
    if np.prod(piece.shape) > EXACT:
        found = _flood_blocks(piece, marked, marks, seeds, origins)
        if found is not None:
            return _joined(piece, found, marked)
    every = np.zeros(len(piece.boundary), np.int32)
    every[marked] = marks
    return _flood_voxels(_Voxels(piece.shape, piece.runs.places(), piece.boundary, piece.size_nm, every, origins))


def _flood_voxels(voxels: _Voxels) -> np.ndarray:
    """Flood one by one; (N,) int32."""
    shape, at = voxels.shape, voxels.at
    axes = [axis * np.float32(size) for axis, size in zip(_coordinates(at, shape), voxels.size_nm, strict=True)]
    distance = np.full(len(at), np.inf, np.float32)
    for origin in voxels.origins:
        np.minimum(distance, sum((axis - o) ** 2 for axis, o in zip(axes, origin, strict=True)), out=distance)
    np.sqrt(distance, out=distance)
    distance *= np.float32((STEPS - 1) / max(float(distance.max(initial=0)), 1e-9))
    level = np.floor(np.clip(voxels.boundary.astype(np.float32), 0, 1) * (LEVELS - 1))
    relief, markers, mask = np.zeros(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    relief.reshape(-1)[at] = level * STEPS + np.floor(distance)
    markers.reshape(-1)[at] = voxels.marks
    mask.reshape(-1)[at] = True
    if shape[0] == 1:
        return watershed(relief[0], markers[0], mask=mask[0]).reshape(-1)[at]
    return watershed(relief, markers, mask=mask).reshape(-1)[at]


def _coordinates(at: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, y, x as float32, which is exact up to 16 million."""
    rows, x = np.divmod(at.astype(np.int32) if np.prod(shape) < 2**31 else at, shape[2])
    z, y = np.divmod(rows, shape[1])
    return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)


def _flood_blocks(piece: Piece, marked, marks, seeds: np.ndarray, origins: np.ndarray) -> np.ndarray | None:
    """Flood coarse to fine; None if seeds lie so that it cannot be done."""
    blocks = _blocks(piece)
    at = np.ravel_multi_index(
        tuple(axis // step for axis, step in zip(seeds, blocks.factor, strict=True)), blocks.shape
    )
    known, parts = marked, marks  # voxels whose part is known before blocks are flooded
    patch = _patch(piece, seeds, blocks.factor)
    if patch is not None:
        known, parts = _flood_patch(piece, blocks, marked, marks, patch, origins)
    elif _together(at, marks, blocks.shape):
        return None
    block = blocks.of_run[np.searchsorted(blocks.first, known, "right") - 1]
    low = np.full(len(blocks.used), np.iinfo(np.int32).max, np.int32)
    high = np.zeros(len(blocks.used), np.int32)
    np.minimum.at(low, block, parts)
    np.maximum.at(high, block, parts)
    size = tuple(step * side for step, side in zip(blocks.factor, piece.size_nm, strict=True))
    centre = ((np.array(blocks.factor) - 1) / 2 * piece.size_nm).astype(np.float32)
    one_seed = np.where(low == high, low, 0).astype(np.int32)
    coarse = _flood_voxels(_Voxels(blocks.shape, blocks.used, blocks.mean, size, one_seed, origins - centre))
    found = np.repeat(coarse[blocks.of_run], blocks.runs.length)
    found[known] = parts
    sure = np.zeros(len(found), bool)
    sure[known] = True
    return _refined(piece, blocks, found, sure, _near_cut(blocks, coarse)[blocks.of_run], origins)


def _blocks(piece: Piece) -> _Blocks:
    """Cut a piece into blocks that are about cubes in nm, each with the mean of its probability."""
    factor = np.ones(3, int)
    while np.prod(-(-np.array(piece.shape) // factor)) > BLOCKS:
        size = factor * np.array(piece.size_nm, float)
        size[factor >= np.array(piece.shape)] = np.inf
        factor[size <= size.min() * 1.01] *= 2
    rows, x = np.divmod(piece.runs.start, piece.shape[2])
    spans = (x + piece.runs.length - 1) // factor[2] - x // factor[2] + 1
    owner = np.repeat(np.arange(len(rows)), spans)
    column = np.arange(len(owner)) - np.repeat(np.cumsum(spans) - spans, spans) + (x // factor[2])[owner]
    row = rows[owner] * piece.shape[2]
    start = np.maximum(piece.runs.start[owner], row + column * factor[2])
    end = np.minimum(piece.runs.end[owner], row + (column + 1) * factor[2])
    runs = Runs(start, end)
    shape = tuple(int(n) for n in -(-np.array(piece.shape) // factor))
    z, y = np.divmod(rows, piece.shape[1])
    at = ((z // factor[0] * shape[1] + y // factor[1]) * shape[2])[owner] + column
    count = np.bincount(at, runs.length, int(np.prod(shape)))
    used = np.flatnonzero(count)
    first = runs.first
    total = np.bincount(at, np.add.reduceat(piece.boundary, first, dtype=np.float32), len(count))
    mean = (total[used] / count[used]).astype(np.float32)
    of_run = (np.cumsum(count > 0) - 1)[at]
    return _Blocks(tuple(int(n) for n in factor), shape, runs, first, of_run, used, mean)


def _together(at: np.ndarray, marks: np.ndarray, shape: Shape) -> bool:
    """Whether blocks of two seeds are the same or touch."""
    grid = np.zeros(shape, np.int32)
    grid.reshape(-1)[at] = marks
    high = ndimage.maximum_filter(grid, 3, mode="constant").reshape(-1)[at]
    return bool((high != marks).any())


def _patch(piece: Piece, seeds: np.ndarray, factor: Shape) -> np.ndarray | None:
    """The box around all seeds, (3, 2), as large as is flooded voxel by voxel; None if they lie far apart."""
    low, high = seeds.min(axis=1), seeds.max(axis=1) + 1
    reach, best = 2 * float(np.max(np.multiply(factor, piece.size_nm))), None
    while best is None or (best != np.stack([low * 0, piece.shape], axis=1)).any():
        margin = np.ceil(reach / np.asarray(piece.size_nm)).astype(int)
        box = np.stack([np.maximum(low - margin, 0), np.minimum(high + margin, piece.shape)], axis=1)
        if np.prod(box[:, 1] - box[:, 0]) > PATCH:
            return best
        best, reach = box, reach * 1.25
    return best


def _flood_patch(piece, blocks: _Blocks, marked, marks, box: np.ndarray, origins) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the patch and their parts, but for those near its faces, where a flood may come from elsewhere."""
    voxels, where = _inside(piece, blocks, np.ones(len(blocks.of_run), bool), box)
    own = np.zeros(len(voxels), np.int32)
    own[np.searchsorted(voxels, marked)] = marks
    found = _flood_voxels(_crop(piece, voxels, where, box, own, origins))
    core = box.copy()
    core[:, 0] += np.where(box[:, 0] > 0, blocks.factor, 0)
    core[:, 1] -= np.where(box[:, 1] < piece.shape, blocks.factor, 0)
    sure = (found > 0) & (_within(where, core) | (own > 0))
    return voxels[sure], found[sure]


def _near_cut(blocks: _Blocks, parts: np.ndarray) -> np.ndarray:
    """2 for blocks where two parts meet and those beside them, 1 for one block more, 0 elsewhere."""
    grid = np.zeros(blocks.shape, np.int32)
    grid.reshape(-1)[blocks.used] = parts
    meet = np.zeros(blocks.shape, bool)
    for axis in range(3):
        one, other = np.moveaxis(grid, axis, 0)[:-1], np.moveaxis(grid, axis, 0)[1:]
        differ = (one != other) & (one > 0) & (other > 0)
        np.moveaxis(meet, axis, 0)[:-1] |= differ
        np.moveaxis(meet, axis, 0)[1:] |= differ
    near = np.zeros(blocks.shape, np.int8)
    places = np.argwhere(meet)
    for reach, value in ((2, 1), (1, 2)):  # few blocks meet: a box around each is less than a filter of all
        for step in np.ndindex(*(2 * reach + 1,) * 3):
            beside = places + np.array(step) - reach
            inside = ((beside >= 0) & (beside < blocks.shape)).all(axis=1)
            near[tuple(beside[inside].T)] = value
    return near.reshape(-1)[blocks.used]


def _refined(piece, blocks: _Blocks, parts, sure, near: np.ndarray, origins) -> np.ndarray:
    """Flood the voxels near a cut once more, from the parts on either side, in boxes of bearable size."""
    margin = 2
    rows, x = np.divmod(blocks.runs.start, piece.shape[2])
    corner = np.stack([*np.divmod(rows, piece.shape[1]), x])
    length = blocks.runs.length
    tiles = [np.flatnonzero(near == 2)]
    while tiles:
        chosen = tiles.pop()
        if not len(chosen):
            continue
        at = corner[:, chosen]
        top = at.max(axis=1) + 1
        top[2] = (at[2] + length[chosen]).max()
        box = np.stack([np.maximum(at.min(axis=1) - margin, 0), np.minimum(top + margin, piece.shape)], axis=1)
        side = box[:, 1] - box[:, 0]
        if np.prod(side) > EXACT and side.max() > 8 * margin:
            axis = int(side.argmax())
            upper = at[axis] >= int(box[axis].sum()) // 2
            tiles += [chosen[upper], chosen[~upper]]
            continue
        voxels, where = _inside(piece, blocks, near > 0, box)
        band = near[np.searchsorted(blocks.first, voxels, "right") - 1] == 2
        free = band & ~sure[voxels]
        own = np.where(free, 0, parts[voxels]).astype(np.int32)
        found = _flood_voxels(_crop(piece, voxels, where, box, own, origins))
        free &= found > 0
        parts[voxels[free]] = found[free]
    return parts


def _inside(piece, blocks: _Blocks, which: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of some runs in a box, as places in the order of the piece, and their coordinates (3, N)."""
    rows, x = np.divmod(blocks.runs.start, piece.shape[2])
    z, y = np.divmod(rows, piece.shape[1])
    here = which & (z >= box[0, 0]) & (z < box[0, 1]) & (y >= box[1, 0]) & (y < box[1, 1])
    here = np.flatnonzero(here & (x < box[2, 1]) & (x + blocks.runs.length > box[2, 0]))
    length = blocks.runs.length[here]
    inner = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    where = np.stack([np.repeat(z[here], length), np.repeat(y[here], length), np.repeat(x[here], length) + inner])
    voxels = np.repeat(blocks.first[here], length) + inner
    fits = (where[2] >= box[2, 0]) & (where[2] < box[2, 1])
    return voxels[fits], where[:, fits]


def _crop(piece, voxels: np.ndarray, where: np.ndarray, box: np.ndarray, marks: np.ndarray, origins) -> _Voxels:
    shape = tuple(int(n) for n in box[:, 1] - box[:, 0])
    at = np.ravel_multi_index(tuple(where - box[:, :1]), shape)
    shifted = origins - (box[:, 0] * np.asarray(piece.size_nm)).astype(np.float32)
    return _Voxels(shape, at, piece.boundary[voxels], piece.size_nm, marks, shifted)


def _within(where: np.ndarray, box: np.ndarray) -> np.ndarray:
    return ((where >= box[:, :1]) & (where < box[:, 1:])).all(axis=0)


def _joined(piece: Piece, parts: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Give what is cut off from its seeds to the part that it touches most."""
    runs, part = cut_runs(piece.runs, parts)
    one, other = touching_runs(runs, piece.shape)
    seeded = np.searchsorted(runs.first, marked, "right") - 1
    apart = np.stack([one, other], axis=1)
    while True:
        same = part[one] == part[other]
        group = connected(len(part), one[same], other[same])
        held = np.zeros(int(group.max()) + 1, bool)
        held[group[seeded]] = True
        pairs = np.concatenate([apart[~same], apart[~same][:, ::-1]])
        pairs = pairs[~held[group[pairs[:, 0]]] & held[group[pairs[:, 1]]]]
        if not len(pairs):
            return np.repeat(part, runs.length)
        votes = np.zeros((len(held), int(part.max()) + 1), np.int64)
        np.add.at(votes, (group[pairs[:, 0]], part[pairs[:, 1]]), 1)
        moved = ~held[group] & (votes.max(axis=1) > 0)[group]
        part = np.where(moved, votes.argmax(axis=1)[group], part)
