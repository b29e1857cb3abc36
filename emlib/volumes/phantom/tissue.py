"""Densely packed, branching neurites in nm, and their smooth boundaries on a voxel grid.

1. Draw tortuous, branching centre lines of varied calibre through a box, until their volume fills it.
2. Relax: lines of different neurites push each other apart, so that few cross.
3. Give each voxel of a coarse isotropic grid to the neurite whose surface is nearest, in warped coordinates.
4. Blur every neurite's indicator while it is interpolated to the fine grid: the largest one owns the voxel, and the lead
   over the second tells how deep inside the neurite the voxel lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.signal import lfilter
from scipy.spatial import cKDTree
from scipy.special import erfinv

from emlib.threads import get_threads, map_threads
from emlib.volumes.phantom.grid import Box, Grid, covering

COARSE_NM = 24.0  # a third of the thinnest neurite; the blur below hides the steps
BLUR_NM = 22.0  # sd of the blur of neurite indicators: below one coarse voxel steps show, above it thin neurites vanish
STEP_NM = 40.0  # spacing of points on centre lines
MIN_RADIUS_NM, MAX_RADIUS_NM = 42.0, 520.0  # terminal twigs to large axons, as in fly and rodent neuropil
DEPTH_STEP_NM = 0.25  # depth below the neurite surface is kept as uint8 in these steps

# median radius in nm, spread of its logarithm, share of the volume, wandering of the direction, nm between branches
CALIBRES = ((230.0, 0.3, 0.09, 0.35, 1500.0), (110.0, 0.25, 0.26, 0.6, 1500.0), (54.0, 0.2, 0.70, 0.9, 2500.0))
CLASSES = ((0.0, 62.0), (62.0, 110.0), (110.0, 200.0), (200.0, np.inf))  # radii that are compared by their centres


@dataclass
class Skeletons:
    """Centre lines of all neurites; points of one curve follow each other.

    Attributes
    ----------
    points : (P, 3) float array, nm
    radius : (P,) float array, nm
    neurite : (P,) int array, from 0
    curve : (P,) int array, from 0; a neurite has a trunk and its branches
    parent : (P,) int array
        For the first point of a branch, the point it sprouts from; else -1.
    """

    points: np.ndarray
    radius: np.ndarray
    neurite: np.ndarray
    curve: np.ndarray
    parent: np.ndarray


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


def draw_skeletons(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> Skeletons:
    """Draw branching centre lines that cross the box between two corners until their volume fills it."""
    volume = float(np.prod(high - low))
    curves: list[tuple[np.ndarray, np.ndarray, int, int]] = []  # points, radii, neurite, (curve, point) sprouted from
    starts: list[int] = []
    total = neurite = 0
    for median, spread, share, wander, between in CALIBRES:
        filled = 0.0
        while filled < share * volume:
            calibre = np.clip(median * np.exp(spread * rng.standard_normal()), MIN_RADIUS_NM, MAX_RADIUS_NM)
            trunk = _walk(rng.uniform(low, high), _direction(rng), calibre, wander, low, high, rng)
            queue = [(trunk, -1)]
            while queue:
                (points, radii), parent = queue.pop()
                curves.append((points, radii, neurite, parent))
                starts.append(total)
                filled += float(np.pi * (radii**2).sum() * STEP_NM)
                for at in np.flatnonzero(rng.random(len(points)) < STEP_NM / between):
                    thin = np.clip(radii[at] * rng.uniform(0.35, 0.8), MIN_RADIUS_NM, 110)
                    reach = rng.exponential(700)
                    branch = _walk(points[at], _direction(rng), thin, 0.9, low, high, rng, reach)
                    if len(branch[0]) > 3:
                        queue.append((branch, total + at))
                total += len(points)
            neurite += 1
    lengths = [len(c[0]) for c in curves]
    parent = np.full(total, -1)
    parent[starts] = [c[3] for c in curves]
    return Skeletons(
        np.concatenate([c[0] for c in curves]),
        np.concatenate([c[1] for c in curves]),
        np.repeat([c[2] for c in curves], lengths),
        np.repeat(np.arange(len(curves)), lengths),
        parent,
    )


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _walk(start, heading, calibre, wander, low, high, rng, reach=None) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii of a tortuous line: both ways through the box, or a branch of length ``reach`` nm one way."""
    length = np.linalg.norm(high - low) * 1.5
    count = int((length if reach is None else min(reach, length)) / STEP_NM) + 2
    memory = np.exp(-STEP_NM / 300.0)
    noise = rng.standard_normal((count, 4)) * np.sqrt(1 - memory**2)
    noise[0] /= np.sqrt(1 - memory**2)
    noise = lfilter([1], [1, -memory], noise, axis=0)
    tangent = heading + wander * noise[:, :3]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    points = np.cumsum(tangent, axis=0) * STEP_NM
    middle = count // 2 if reach is None else 0
    points += start - points[middle]
    outside = ((points < low) | (points > high)).any(axis=1)
    before, after = np.flatnonzero(outside[:middle]), np.flatnonzero(outside[middle:])
    part = slice(before[-1] + 1 if len(before) else 0, middle + after[0] if len(after) else count)
    radii = np.clip(calibre * np.exp(0.28 * noise[:, 3]), MIN_RADIUS_NM, MAX_RADIUS_NM)
    return points[part], radii[part]


def relax(lines: Skeletons, rounds: int = 16, renew: int = 4) -> Skeletons:
    """Push centre lines of different neurites apart until few overlap; branches stay on their trunks.

    Neighbours are looked up anew every ``renew`` rounds.
    """
    points, radius = lines.points.astype(np.float32), lines.radius.astype(np.float32)
    middle = np.flatnonzero((lines.curve[1:-1] == lines.curve[:-2]) & (lines.curve[1:-1] == lines.curve[2:])) + 1
    roots = np.flatnonzero(lines.parent >= 0)
    # points of thick lines overlap heavily: a few of them are enough as obstacles
    stride = np.maximum(1, (0.6 * radius / STEP_NM).astype(int))
    obstacle = np.arange(len(points)) % stride == 0
    # one tree per calibre: the nearest centre of a thick line is far away and would not be among a few neighbours
    classes = [np.flatnonzero(obstacle & (radius >= a) & (radius < b)) for a, b in CLASSES]
    for turn in range(rounds):
        if turn % renew == 0:
            near = np.concatenate([_neighbours(points, part, 6) for part in classes if len(part)], axis=1)
            reach = radius[:, None] + radius[near]
            share = radius[near] / reach  # the thinner one gives way
            share[lines.neurite[near] == lines.neurite[:, None]] = 0
        away = points[:, None] - points[near]
        gap = np.sqrt(np.einsum("ijk,ijk->ij", away, away)) + 1e-3
        push = 0.6 * np.clip(reach / gap - 1, 0, None) * share
        move = np.einsum("ij,ijk->ik", push, away)
        size = np.sqrt(np.einsum("ij,ij->i", move, move))
        points += move * np.minimum(1, 40.0 / np.maximum(size, 1e-3))[:, None]
        points[middle] += 0.2 * (points[middle - 1] + points[middle + 1] - 2 * points[middle])
        points[roots] = points[lines.parent[roots]]
    return Skeletons(points.astype(float), lines.radius, lines.neurite, lines.curve, lines.parent)


def _neighbours(points: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    count = min(count, len(among))
    near = cKDTree(points[among]).query(points, k=count, workers=get_threads())[1]
    return among[near.reshape(len(points), count)]


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
    largest = largest[(old[largest] > 0) & (sizes[largest] > 30)]
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
    map_threads(fill, [tuple(slice(s, s + tile) for s in (z, y, x)) for z in starts[0] for y in starts[1] for x in starts[2]])
    return owner, neighbour, depth


def _blur_weights(coarse: Grid, fine: Grid, axis: int) -> np.ndarray:
    """Gaussian weights (fine, coarse) along one axis, rows sum to 1, cut at three sd."""
    distance = fine.centres(axis)[:, None] - coarse.centres(axis)[None]
    weights = np.where(np.abs(distance) <= 3 * BLUR_NM, np.exp(-0.5 * (distance / BLUR_NM) ** 2), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
