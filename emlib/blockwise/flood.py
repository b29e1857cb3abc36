"""Fragments: the relief flooded from its seeds, on a grid of cells that lies fixed in the volume.

A cell sees seeds and relief some windows around itself, floods all of that, and keeps its own voxels. Which of two
floods comes first to a voxel of equal height depends on all that was flooded before; on a grid that does not move with
the blocks, fragments are the same whatever these are. Heights are the 65 536 levels of the whole volume, or section.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bioimage_cpp.segmentation import watershed

from emlib.blockwise.grid import Shape, around, lay, name, overlapping, sides, within
from emlib.blockwise.seeds import relief_of, seeds_within, smooth_reach
from emlib.blockwise.site import Site
from emlib.stages.boundaries import near_isotropic
from emlib.stages.watershed import FragmentSettings, seed_window
from emlib.volumes.volume import Box

STAGE = "fragments"
LEVELS = 65535  # steps of the watershed of bioimage-cpp 0.9, which cuts off what is between two
SOLID, FLAT = (192, 192, 192), (16, 512, 512)  # cells near isotropic, and of sections
SOLID_CHUNK, FLAT_CHUNK = (64, 64, 64), (16, 128, 128)
PART = 2**20  # rows of a column of all fragments that are worked on at once
WINDOWS = 2.5  # margin of a cell in windows of a seed: 99.99 % of voxels as without cells (FIB-25, 7 voxels wide)


def cell_size(site: Site) -> Shape:
    """Sides (z, y, x) of a cell."""
    return SOLID if near_isotropic(site.voxel_size_nm) else FLAT


def cell_chunk(site: Site) -> Shape:
    """Chunks of the array of fragments; a cell consists of whole ones."""
    return SOLID_CHUNK if near_isotropic(site.voxel_size_nm) else FLAT_CHUNK


def cells(site: Site) -> list[Box]:
    """The cells of the sections that are segmented."""
    return lay(site.seen, cell_size(site))


def margin(site: Site, settings: FragmentSettings) -> Shape:
    """Voxels (z, y, x) around a cell that are flooded with it."""
    z, y, x = (int(np.ceil(WINDOWS * side)) for side in seed_window(site.voxel_size_nm, settings))
    return (z if near_isotropic(site.voxel_size_nm) else 0), y, x


def flood_cell(site: Site, settings: FragmentSettings, cell: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Flood a cell.

    Voxels get numbers from 1 of their own cell; its table says which seed each number is (``ids``), how many voxels it
    has in the cell and how many faces on the border of the volume across z, y and x.
    """
    far = margin(site, settings)
    outer, _ = around(cell, np.add(smooth_reach(site, settings), far), site.seen)
    near = tuple(
        slice(max(0, side.start - m), min(n, side.stop + m)) for side, m, n in zip(cell, far, site.seen, strict=True)
    )
    relief = _levels(relief_of(site, settings, outer)[within(near, outer)], site.load("heights")[near[0]])
    place, seed = seeds_within(site, near, site.load("renamed"))
    ids, number = np.unique(seed, return_inverse=True)
    markers = np.zeros(relief.shape, np.int32)
    markers.ravel()[place] = number + 1
    if near_isotropic(site.voxel_size_nm):
        flooded = watershed(relief, markers)
    else:
        flooded = np.stack([watershed(*section) for section in zip(relief, markers, strict=True)])
    own = flooded[within(cell, near)]
    voxels = np.bincount(own.ravel(), minlength=len(ids) + 1)
    there = np.flatnonzero(voxels[1:])
    renumber = np.zeros(len(ids) + 1, np.int32)
    renumber[there + 1] = np.arange(1, len(there) + 1)
    own = renumber[own]
    table = {"ids": ids[there], "voxels": voxels[there + 1], "border": _border(own, cell, site.seen, len(there))}
    return [site.write(STAGE, cell, own), site.write_table(STAGE, name(cell), **table)], {"fragments": len(there)}


def _levels(relief: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The heights that a flood without cells would tell apart, as float32; ``heights`` as from `seeds.heights`."""
    low, high = heights[:, 0, None, None], heights[:, 1, None, None]
    steps = LEVELS / np.where(high > low, high - low, np.inf)
    return np.floor((relief.astype(np.float64) - low) * steps).astype(np.float32)


def _border(own: np.ndarray, cell: Box, shape: Shape, count: int) -> np.ndarray:
    """Faces (count, 3) of each fragment of a cell on the border of the volume, across z, y and x."""
    faces = np.zeros((count + 1, 3), np.int64)
    for axis, (side, length) in enumerate(zip(cell, shape, strict=True)):
        for at_end, index in ((side.start == 0, 0), (side.stop == length, -1)):
            if at_end:
                faces[:, axis] += np.bincount(np.take(own, index, axis).ravel(), minlength=count + 1)
    return faces[1:]


def in_parts(count: int) -> Iterator[slice]:
    """Cut a column of this length into parts."""
    for start in range(0, count, PART):
        yield slice(start, min(start + PART, count))


def gather_nodes(site: Site) -> int:
    """Sum what the cells know of each fragment and count the fragments.

    Writes columns ``ids``, ``place`` (z, y, x of the seed), ``voxels`` and ``border``, one after the other, and cell by
    cell, as there may be very many fragments.
    """
    boxes = cells(site)
    ids = np.concatenate([site.read_table(STAGE, name(cell))["ids"] for cell in boxes])
    ids.sort()
    ids = ids[np.concatenate([[True], ids[1:] != ids[:-1]])[: len(ids)]]
    site.save("ids", ids)
    place = np.empty((len(ids), 3), np.int32)
    for part in in_parts(len(ids)):
        place[part] = np.stack(np.unravel_index(ids[part], site.seen), axis=1)
    site.save("place", place)
    del place
    for column, shape, kind in (("voxels", (), np.int64), ("border", (3,), np.int32)):
        total = np.zeros((len(ids), *shape), kind)
        for cell in boxes:
            stored = site.read_table(STAGE, name(cell))
            total[np.searchsorted(ids, stored["ids"])] += stored[column].astype(kind)
        site.save(column, total)
        del total
    return len(ids)


def read_fragments(site: Site, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Read fragments of several cells under one numbering.

    Returns
    -------
    local : int32 array of the shape of the box
        From 1.
    rank : (K + 1,) int64 array
        For each local number the fragment's number in the whole volume, from 1 in the order of seeds; 0 for 0.
    """
    ids, parts = site.load("ids"), []
    for cell in overlapping(box, site.seen, cell_size(site)):
        shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, cell, strict=True))
        rank = np.searchsorted(ids, site.read_table(STAGE, name(cell))["ids"]) + 1
        parts.append((within(shared, box), site.read(STAGE, shared), rank))
    ranks = np.unique(np.concatenate([rank for _, _, rank in parts]))
    local = np.empty(sides(box), np.int32)
    for place, voxels, rank in parts:
        local[place] = np.concatenate([[0], np.searchsorted(ranks, rank) + 1]).astype(np.int32)[voxels]
    return local, np.concatenate([[0], ranks])
