"""Neurites on a voxel grid, with smooth walls.

1. Give each voxel of a coarse isotropic grid to the neurite whose surface is nearest, then bend space a little.
2. Keep one piece of each neurite.
3. Blur every neurite's indicator while it is interpolated to the fine grid: the largest one owns the voxel, and its
   lead over the second tells how far the voxel is from the wall between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.special import erfinv

from emlib.threads import map_threads
from emlib.volumes.phantom.grid import Box, Grid, covering
from emlib.volumes.phantom.skeletons import CLASSES, Skeletons, draw_skeletons, relax

COARSE_NM = 24.0  # a third of the thinnest neurite; the blur below hides the steps
BLUR_NM = 22.0  # sd of the blur of neurite indicators: below one coarse voxel steps show, above it thin neurites vanish
DEPTH_STEP_NM = 0.25  # depth below the neurite surface is kept as uint8 in these steps


@dataclass
class Tissue:
    """Neurites on the fine grid.

    Attributes
    ----------
    grid : Grid
    owner : (Z, Y, X) integer array
        Neurite that owns the voxel, from 1.
    neighbour : (Z, Y, X) integer array
        Neurite across the nearest boundary.
    depth : (Z, Y, X) uint8 array
        Distance to that boundary in steps of `DEPTH_STEP_NM`, saturating at 63.75 nm.
    skeletons : Skeletons
        ``neurite`` is the id in ``owner`` minus one.
    """

    grid: Grid
    owner: np.ndarray
    neighbour: np.ndarray
    depth: np.ndarray
    skeletons: Skeletons


def grow_tissue(grid: Grid, seed: int) -> Tissue:
    """Fill the box of a fine grid with neurites.

    Parameters
    ----------
    grid : Grid
        Pitch up to about 12 nm, so that membranes are resolved.
    seed : int

    Returns
    -------
    Tissue
    """
    rng = np.random.default_rng([seed, 1])
    pad = 3 * COARSE_NM  # tissue beyond the grid, so that its border is like its middle
    low, high = np.subtract(grid.origin, pad), np.asarray(grid.origin) + grid.extent + pad
    skeletons = relax(draw_skeletons(low - 200, high + 200, rng))
    coarse = covering(low, high, COARSE_NM)
    labels = paint(skeletons, coarse, rng)
    owner, neighbour, depth = refine(labels, coarse, grid)
    return Tissue(grid, owner, neighbour, depth, skeletons)


def paint(lines: Skeletons, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Label a coarse grid with the nearest neurite; every neurite that is left is one piece, ids from 1.

    The neurite numbers in ``lines`` are renumbered to match (-1: vanished).
    """
    centres = [grid.centres(axis).reshape([-1 if a == axis else 1 for a in range(3)]) for axis in range(3)]
    voxel, inside = grid.locate(lines.points)

    def nearest_in_class(limits: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the surface around the nearest centre of a class of like radii, and whose it is."""
        part = np.flatnonzero((lines.radius >= limits[0]) & (lines.radius < limits[1]) & inside)
        if not len(part):
            return np.full(grid.shape, np.inf, np.float32), np.zeros(grid.shape, np.int32)
        point = np.full(grid.shape, -1)
        point.ravel()[voxel[part]] = part
        found = distance_transform_edt(point < 0, return_distances=False, return_indices=True)
        point = point[tuple(found)]
        squares = sum((centres[axis] - lines.points[:, axis].astype(np.float32)[point]) ** 2 for axis in range(3))
        return np.sqrt(squares) - lines.radius.astype(np.float32)[point], lines.neurite[point].astype(np.int32) + 1

    best, labels = nearest_in_class(CLASSES[0])
    for distance, owner in map_threads(nearest_in_class, CLASSES[1:]):
        wins = distance < best
        best[wins], labels[wins] = distance[wins], owner[wins]
    # bend space, so that walls curve: 30 nm amplitude over some 300 nm
    source = []
    for axis in range(3):
        bend = gaussian_filter(rng.standard_normal(grid.shape).astype(np.float32), 100 / COARSE_NM, mode="wrap")
        bend *= 30 / COARSE_NM / max(float(bend.std()), 1e-6)
        index = np.arange(grid.shape[axis], dtype=np.float32).reshape(centres[axis].shape)
        source.append(np.clip(np.rint(index + bend), 0, grid.shape[axis] - 1).astype(np.intp))
    return _one_piece_each(labels[tuple(source)], lines)


def _one_piece_each(labels: np.ndarray, lines: Skeletons) -> np.ndarray:
    """Keep the largest piece of each label, let the rest and the unlabelled be overgrown by what is nearest."""
    pieces, count = cc3d.connected_components(labels, connectivity=6, return_N=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    old = np.zeros(count + 1, np.int64)
    old[pieces.ravel()] = labels.ravel()
    order = np.lexsort((-sizes, old))
    largest = order[np.r_[True, np.diff(old[order]) > 0]]
    largest = largest[old[largest] > 0]
    visible = sizes[largest] > 30
    largest = largest[visible] if visible.any() else largest
    new = np.zeros(count + 1, np.int32)
    new[largest] = np.arange(1, len(largest) + 1)
    kept = new[pieces]
    nearest = distance_transform_edt(kept == 0, return_distances=False, return_indices=True)
    renumber = np.full(lines.neurite.max() + 2, -1)
    renumber[old[largest] - 1] = np.arange(len(largest))
    lines.neurite = renumber[lines.neurite]
    return kept[tuple(nearest)]


def refine(labels: np.ndarray, coarse: Grid, fine: Grid, tile: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate labels smoothly to a fine grid.

    Returns
    -------
    owner, neighbour : integer arrays of ``fine.shape``
        Labels with the largest and the second largest blurred indicator.
    depth : uint8 array of ``fine.shape``
        Distance to the boundary between the two, exact for plane walls, in steps of `DEPTH_STEP_NM`.
    """
    dtype = np.min_scalar_type(int(labels.max()))
    owner, neighbour = np.zeros(fine.shape, dtype), np.zeros(fine.shape, dtype)
    depth = np.zeros(fine.shape, np.uint8)
    lead = (np.arange(4096) + 0.5) / 4096  # a plane wall at distance d leaves a lead of erf(d / (√2 sd))
    to_depth = np.clip(BLUR_NM * np.sqrt(2) * erfinv(lead) / DEPTH_STEP_NM, 0, 255).astype(np.uint8)
    weights = [_blur_weights(coarse, fine, axis) for axis in range(3)]

    def fill(box: Box) -> None:
        source, parts = [], []
        for axis in range(3):
            rows = weights[axis][box[axis]]
            used = np.flatnonzero(rows.any(axis=0))
            source.append(slice(used[0], used[-1] + 1))
            parts.append(np.ascontiguousarray(rows[:, source[-1]]))
        block = labels[tuple(source)]
        names = np.unique(block).astype(dtype)
        best = second = None
        for name in names:
            field = (block == name).astype(np.float32)
            field = np.matmul(field, parts[2].T)
            field = np.matmul(parts[1], field)
            field = np.matmul(parts[0], field.reshape(len(field), -1)).reshape([len(p) for p in parts])
            if best is None:
                best, second = field, np.zeros_like(field)
                first_name, second_name = np.full(field.shape, name, dtype), np.full(field.shape, name, dtype)
                continue
            wins = field > best
            places = field > second
            np.copyto(second_name, name, where=places)
            np.copyto(second_name, first_name, where=wins)
            np.copyto(first_name, name, where=wins)
            np.maximum(second, np.minimum(best, field), out=second)
            np.maximum(best, field, out=best)
        owner[box], neighbour[box] = first_name, second_name
        depth[box] = to_depth[np.clip((best - second) * 4096, 0, 4095).astype(np.int16)]

    starts = [range(0, size, tile) for size in fine.shape]
    map_threads(
        fill, [tuple(slice(s, s + tile) for s in (z, y, x)) for z in starts[0] for y in starts[1] for x in starts[2]]
    )
    return owner, neighbour, depth


def _blur_weights(coarse: Grid, fine: Grid, axis: int) -> np.ndarray:
    """Gaussian weights (fine, coarse) along one axis, rows sum to 1, cut at three sd."""
    distance = fine.centres(axis)[:, None] - coarse.centres(axis)[None]
    weights = np.where(np.abs(distance) <= 3 * BLUR_NM, np.exp(-0.5 * (distance / BLUR_NM) ** 2), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
