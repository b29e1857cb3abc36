"""What fills the cytoplasm: microtubules, reticulum, ribosomes and vesicles in transit."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from emlib.volumes.phantom.stain import Painter, draw_vesicles
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM

MICROTUBULE_RADIUS_NM = 10.0  # middle of the wall; 25 nm outer diameter
MICROTUBULES_PER_UM2, RETICULUM_PER_UM2 = 110.0, 8.0  # of cross-section; 50 to 150 microtubules in thin axons
RIBOSOMES_PER_UM3, VESICLES_PER_UM3 = 9000, 1500  # upper bounds: what falls on membranes is dropped
WALL_NM, WALL_STAIN = 6.0, 75.0  # thickness in nm and grey levels of the walls of tubes


def draw_cytoplasm(painter: Painter, rng: np.random.Generator) -> None:
    """Microtubules and reticulum along the neurites, ribosomes and vesicles everywhere."""
    tissue, lines = painter.tissue, painter.tissue.skeletons
    ends = np.flatnonzero(np.r_[True, np.diff(lines.curve) > 0, True])
    tubes: list[tuple[np.ndarray, np.ndarray, int]] = []
    for first, last in itertools.pairwise(ends.tolist()):
        points, radius = lines.points[first:last], lines.radius[first:last]
        if last - first < 4 or lines.neurite[first] < 0:
            continue
        area = np.pi * (np.median(radius) * 1e-3) ** 2
        tangent = np.gradient(points, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
        for ring, count in (
            (MICROTUBULE_RADIUS_NM, rng.poisson(MICROTUBULES_PER_UM2 * area)),
            (None, rng.poisson(RETICULUM_PER_UM2 * area)),
        ):
            for _ in range(count):
                tubes.append((*_tube(points, radius, tangent, ring, rng), int(lines.neurite[first]) + 1))
    if tubes:
        points = np.concatenate([t[0] for t in tubes])
        grey = np.concatenate([t[1] for t in tubes])
        painter.dust(points, grey, np.repeat([t[2] for t in tubes], [len(t[0]) for t in tubes]), 10)
    grid = tissue.grid
    volume = float(np.prod(grid.extent)) * 1e-9
    low, high = np.asarray(grid.origin), np.asarray(grid.origin) + grid.extent
    ribosomes = rng.uniform(low, high, (int(RIBOSOMES_PER_UM3 * volume), 3))
    points = (ribosomes[:, None] + 10 * rng.standard_normal((len(ribosomes), 5, 3))).reshape(-1, 3)
    strength = np.repeat(rng.gamma(2.0, 0.5, len(ribosomes)), 5)
    painter.dust(points, strength * 110 * 4 / 3 * np.pi * 11**3 / 5, None, 14)
    # vesicles in transit: some neurites are full of them, most hold few
    stray = rng.uniform(low, high, (int(VESICLES_PER_UM3 * volume), 3))
    voxel, _ = grid.locate(stray)
    owner = tissue.owner.reshape(-1)[voxel]
    chance = rng.beta(0.4, 1.0, int(tissue.owner.max()) + 1)[owner]
    kept = (tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM > 24) & (rng.random(len(stray)) < chance)
    kept &= ~painter.in_mitochondrion(stray)
    draw_vesicles(painter, stray[kept], owner[kept], rng)


def _tube(
    points: np.ndarray, radius: np.ndarray, tangent: np.ndarray, ring: float | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Specks on the wall of a tube beside a centre line: microtubule, or reticulum of varying bore (``ring`` None)."""
    count = len(points)
    side = rng.standard_normal(3)
    if ring is None:
        side = side + gaussian_filter1d(rng.standard_normal((count, 3)), 2, axis=0) * 2
    side = side - (side * tangent).sum(axis=1, keepdims=True) * tangent
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    path = points + side * (np.sqrt(rng.random()) * 0.85 * radius)[:, None]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    step = 2.5 if ring else 1.0
    start, stop = (0, along[-1]) if ring else np.sort(rng.uniform(0, along[-1], 2))
    at = np.arange(start, stop, step)
    wall = rng.standard_normal((len(at), 3))
    wall /= np.linalg.norm(wall, axis=1, keepdims=True) + 1e-9
    bore = np.full(len(at), ring) if ring else 14 + 10 * (1 + np.sin(at / 90 + rng.uniform(0, 6)))
    specks = np.stack([np.interp(at, along, path[:, a]) for a in range(3)], axis=1) + wall * bore[:, None]
    return specks, WALL_STAIN * WALL_NM * 2 * np.pi * bore * step
