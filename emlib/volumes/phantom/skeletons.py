"""Centre lines of densely packed, branching neurites, in nm.

1. Draw tortuous, branching lines of varied calibre through a box, until their volume fills it.
2. Relax: lines of different neurites push each other apart, so that few cross.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.spatial import cKDTree

from emlib.threads import get_threads, map_threads

STEP_NM = 40.0  # spacing of points on centre lines
MIN_RADIUS_NM, MAX_RADIUS_NM = 42.0, 520.0  # terminal twigs to large axons, as in fly and rodent neuropil
MEMORY_NM = 300.0  # over which direction and calibre change
TWIG_NM = 700.0  # mean length of branches

# median radius in nm, spread of its logarithm, share of the volume, wandering of the direction, nm between branches
CALIBRES = ((230.0, 0.3, 0.09, 0.35, 1500.0), (115.0, 0.25, 0.28, 0.6, 1500.0), (58.0, 0.2, 0.65, 0.9, 2500.0))
# lines of like radii: within a class the nearest surface belongs to the nearest centre
CLASSES = ((0.0, 62.0), (62.0, 110.0), (110.0, 200.0), (200.0, np.inf))


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


def draw_skeletons(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> Skeletons:
    """Draw branching centre lines through the box between two corners (nm) until their volume fills it."""
    volume = float(np.prod(high - low))
    curves: list[tuple[np.ndarray, np.ndarray, int, int]] = []  # points, radii, neurite, (curve, point) sprouted from
    starts: list[int] = []
    total = neurite = 0
    for median, spread, share, wander, between in CALIBRES:
        filled = 0.0
        while filled < share * volume:
            calibre = np.clip(median * np.exp(spread * rng.standard_normal()), MIN_RADIUS_NM, MAX_RADIUS_NM)
            trunk = _walk(rng.uniform(low, high), _direction(rng), calibre, wander, (low, high), rng)
            queue = [(trunk, -1)]
            while queue:
                (points, radii), parent = queue.pop()
                curves.append((points, radii, neurite, parent))
                starts.append(total)
                filled += float(np.pi * (radii**2).sum() * STEP_NM)
                for at in np.flatnonzero(rng.random(len(points)) < STEP_NM / between):
                    thin = np.clip(radii[at] * rng.uniform(0.35, 0.8), MIN_RADIUS_NM, 110)
                    reach = rng.exponential(TWIG_NM)
                    branch = _walk(points[at], _direction(rng), thin, 0.9, (low, high), rng, reach)
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


def _walk(
    start: np.ndarray,
    heading: np.ndarray,
    calibre: float,
    wander: float,
    box: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    reach: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Points and radii of a tortuous line: both ways through the box, or a branch of length ``reach`` nm one way."""
    low, high = box
    length = np.linalg.norm(high - low) * 1.5
    count = int((length if reach is None else min(reach, length)) / STEP_NM) + 2
    memory = np.exp(-STEP_NM / MEMORY_NM)
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


def relax(lines: Skeletons, rounds: int = 12, renew: int = 4) -> Skeletons:
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
            near = np.concatenate([_neighbours(points, part, 5) for part in classes if len(part)], axis=1)
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
    tree = cKDTree(points[among])
    # Not with query's own workers: SciPy leaves them writing when the run is interrupted, and the process crashes.
    parts = np.array_split(points, get_threads())
    near = np.concatenate(map_threads(lambda part: tree.query(part, k=count)[1], parts))
    return among[near.reshape(len(points), count)]
