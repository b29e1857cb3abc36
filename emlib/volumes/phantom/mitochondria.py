"""Mitochondria: bent capsules along the thicker neurites with two membranes, dark matrix and cristae."""

from __future__ import annotations

import numpy as np

from emlib.volumes.phantom.stain import Painter
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM, Tissue

LENGTH_NM = (350.0, 1400.0)
RADIUS_NM = (75.0, 200.0)
CRISTA_SPACING_NM = (48.0, 75.0)
GAP_NM = 18.0  # cytoplasm that is left under the plasma membrane


def draw_mitochondria(painter: Painter, fraction: float, rng: np.random.Generator) -> None:
    """Draw mitochondria along the thicker neurites and mark them in ``painter.mitochondria``.

    Parameters
    ----------
    painter : Painter
    fraction : float
        Share of the volume that is aimed at.
    rng : numpy Generator
    """
    tissue, grid = painter.tissue, painter.tissue.grid
    lines = tissue.skeletons
    mask = painter.mitochondria.reshape(-1)
    voxel, inside = grid.locate(lines.points)
    deep = inside & (lines.radius > 85) & (tissue.owner.reshape(-1)[voxel] == lines.neurite + 1)
    goal = fraction * mask.size
    filled = 0
    for seat in rng.permutation(np.flatnonzero(deep)):
        if filled >= goal:
            break
        spine, radius = _spine(tissue, int(seat), rng)
        taken = painter.sections.locate(spine)
        if len(spine) < 3 or mask[taken[0][taken[1]]].any():
            continue
        fine, inward = _capsule(tissue, spine, radius, int(lines.neurite[seat]) + 1)
        if not len(inward):
            continue
        where = [grid.centres(a)[fine[a]] for a in range(3)]
        painter.shade(fine, _grey(inward, where, spine, rng))
        solid = inward > 0
        part, share = painter.share(tuple(f[solid] for f in fine))
        mask[part[share >= 0.5]] = True
        filled += int((share >= 0.5).sum())


def _spine(tissue: Tissue, seat: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Axis points of a mitochondrion around a point of a centre line, and its radius in nm."""
    lines = tissue.skeletons
    curve = np.flatnonzero(lines.curve == lines.curve[seat])
    points = lines.points[curve]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    half = rng.uniform(*LENGTH_NM) / 2
    radius = float(np.clip(lines.radius[seat] * rng.uniform(0.65, 0.95), *RADIUS_NM))
    middle = along[seat - curve[0]]
    at = np.arange(max(0, middle - half), min(along[-1], middle + half), 0.35 * radius)
    side = rng.standard_normal(3)
    side *= max(0, lines.radius[seat] - radius - 25) * rng.random() / np.linalg.norm(side)
    return np.stack([np.interp(at, along, points[:, a]) + side[a] for a in range(3)], axis=1), radius


def _capsule(
    tissue: Tissue, spine: np.ndarray, radius: float, neurite: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Fine voxels of a bent capsule clipped to its neurite, and how far inside its surface each lies (nm, from -10)."""
    grid = tissue.grid
    box = grid.window(spine.min(axis=0) - 1.1 * radius - 13, spine.max(axis=0) + 1.1 * radius + 13)
    shape = tuple(s.stop - s.start for s in box)
    if 0 in shape:
        return (), np.empty(0)
    inward = np.full(shape, -np.inf, np.float32)
    for centre, size in zip(spine, radius * np.linspace(0.9, 1.1, len(spine)), strict=True):
        ball = grid.window(centre - size - 12, centre + size + 12)
        at = [(grid.centres(a, ball[a]) - centre[a]) ** 2 for a in range(3)]
        distance = size - np.sqrt(at[0][:, None, None] + at[1][:, None] + at[2])
        part = inward[tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(ball, box, strict=True))]
        np.maximum(part, distance.astype(np.float32), out=part)
    np.minimum(inward, tissue.depth[box] * np.float32(DEPTH_STEP_NM) - GAP_NM, out=inward)
    inward[tissue.owner[box] != neurite] = -np.inf
    fine = np.nonzero(inward > -10)
    values = inward[fine]
    return tuple(f + s.start for f, s in zip(fine, box, strict=True)), values


def _grey(inward: np.ndarray, where: list[np.ndarray], spine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of two membranes, matrix and cristae; ``inward`` and ``where`` in nm."""
    axis = spine[-1] - spine[0]
    axis = axis / max(np.linalg.norm(axis), 1e-6) + 0.6 * rng.standard_normal(3)
    axis[0] *= 0.5  # steep lamellae: those that lie in the section are not seen
    axis /= np.linalg.norm(axis)
    period = rng.uniform(*CRISTA_SPACING_NM)
    place = sum(w * a for w, a in zip(where, axis, strict=True))
    for wave in rng.standard_normal((3, 3)) / 45:
        place = place + 9 * np.sin(sum(w * a for w, a in zip(where, wave, strict=True)) + rng.uniform(0, 2 * np.pi))
    lamella = np.exp(-0.5 * ((((place / period) % 1) - 0.5) * period / 7) ** 2)
    inner = 1 / (1 + np.exp(-(inward - 11) / 2))
    outer = np.exp(-0.5 * ((inward - 3) / 5) ** 2) + 0.7 * np.exp(-0.5 * ((inward - 18) / 4.5) ** 2)
    return 50 * outer + inner * (rng.normal(80, 8) + rng.choice([-55, 35]) * lamella)
