"""Synapses at contacts of two neurites: T-bar, dense cleft, postsynaptic density and a cloud of vesicles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlib.volumes.phantom.grid import Grid
from emlib.volumes.phantom.stain import VESICLE_NM, Painter, draw_vesicles
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM

TBAR_HEIGHT_NM, TBAR_WIDTH_NM = 60.0, 100.0  # pedestal and platform of the fly's presynaptic density
PATCH_NM = (85.0, 150.0)  # radius of the dense contact
APART_NM = 280.0  # least distance between synapses


def draw_synapses(
    painter: Painter, inner: tuple[np.ndarray, np.ndarray], per_um3: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw synapses, with their vesicles, where two neurites touch.

    Parameters
    ----------
    painter : Painter
    inner : two (3,) arrays
        Corners in nm of the box that positions keep to.
    per_um3 : float
        Density that is aimed at; crowded or thin tissue may hold fewer.
    rng : numpy Generator

    Returns
    -------
    clefts : (Z, Y, X) int32 array
        Row of ``positions`` plus one, 0 elsewhere.
    positions : (S, 3, 3) float array
        Of the cleft and of a point in the presynaptic and the postsynaptic neurite, (z, y, x) in nm, in the middle of
        sections.
    """
    tissue, grid, sections = painter.tissue, painter.tissue.grid, painter.sections
    clefts = np.zeros(sections.shape, np.int32)
    found: list[np.ndarray] = []
    goal = max(1, round(per_um3 * float(np.prod(inner[1] - inner[0])) * 1e-9)) if per_um3 > 0 else 0
    tries = rng.uniform(inner[0], inner[1], (6000 + 1500 * goal, 3))
    voxel, _ = grid.locate(tries)
    # a contact is a voxel within 5 nm of the wall between two neurites
    for site in tries[tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM < 5]:
        if len(found) >= goal:
            break
        if any(np.linalg.norm(site - other[0]) < APART_NM for other in found):
            continue
        contact = _contact(painter, site, inner)
        if contact is None:
            continue
        found.append(contact.positions)
        _draw_junction(painter, contact, clefts, len(found), rng)
        _draw_cloud(painter, contact, rng)
    return clefts, np.array(found).reshape(-1, 3, 3)


@dataclass
class Contact:
    """A place where one neurite can be presynaptic to another; ``normal`` points into the first."""

    positions: np.ndarray
    normal: np.ndarray
    pre: int
    post: int


def _contact(painter: Painter, site: np.ndarray, inner: tuple[np.ndarray, np.ndarray]) -> Contact | None:
    """Judge a contact: flat enough, deep enough for a T-bar, both partners visible in the sections; else None."""
    tissue, grid = painter.tissue, painter.tissue.grid
    box = grid.window(site - 70, site + 70)
    owner = tissue.owner[box]
    at, _ = grid.locate(site[None])
    pre, post = int(tissue.owner.reshape(-1)[at[0]]), int(tissue.neighbour.reshape(-1)[at[0]])
    first, second = owner == pre, owner == post
    if first.sum() + second.sum() < 0.75 * owner.size or min(first.sum(), second.sum()) < 0.15 * owner.size:
        return None
    centres = [
        np.array([grid.centres(a, box[a])[i].mean() for a, i in enumerate(np.nonzero(m))]) for m in (first, second)
    ]
    normal = centres[0] - centres[1]
    normal /= np.linalg.norm(normal)
    steps = [site + 45 * normal, site - 42 * normal, site + 75 * normal]
    # positions are given in whole sections, so that is where they have to be right
    site, steps[0], steps[1] = (_to_section(painter.sections, p) for p in (site, *steps[:2]))
    if any((p < inner[0]).any() or (p > inner[1]).any() for p in steps[:2]):
        return None
    voxel, _ = grid.locate(np.array([*steps, site]))
    depth = tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM
    if (tissue.owner.reshape(-1)[voxel[:3]] != [pre, post, pre]).any() or (depth[:3] < [25, 16, 35]).any():
        return None
    if depth[3] > 10:
        return None
    if painter.in_mitochondrion(np.array(steps)).any():
        return None
    return Contact(np.array([site, *steps[:2]]), normal, pre, post)


def _to_section(sections: Grid, point: np.ndarray) -> np.ndarray:
    """Move a point in nm to the middle of its section."""
    z = np.floor((point[0] - sections.origin[0]) / sections.pitch[0])
    return np.array([(z + 0.5) * sections.pitch[0] + sections.origin[0], point[1], point[2]])


def _draw_junction(painter: Painter, contact: Contact, clefts: np.ndarray, name: int, rng: np.random.Generator) -> None:
    """Dense cleft, postsynaptic density, active zone and T-bar."""
    tissue, grid = painter.tissue, painter.tissue.grid
    site = contact.positions[0]
    size = rng.uniform(*PATCH_NM)
    box = grid.window(site - size - 40, site + size + 40)
    offset = [grid.centres(a, box[a]) - site[a] for a in range(3)]
    offset = np.meshgrid(*offset, indexing="ij")
    distance = np.sqrt(sum(o**2 for o in offset))
    height = sum(o * n for o, n in zip(offset, contact.normal, strict=True))
    aside = np.sqrt(np.maximum(distance**2 - height**2, 0))
    owner, neighbour = tissue.owner[box], tissue.neighbour[box]
    depth = tissue.depth[box] * np.float32(DEPTH_STEP_NM)
    pre, post = owner == contact.pre, owner == contact.post
    facing = (pre & (neighbour == contact.post)) | (post & (neighbour == contact.pre))
    patch = np.clip((size - distance) / 30, 0, 1) * facing
    grey = 42 * patch * np.exp(-((depth / 9) ** 2))
    grey += 62 * patch * post * np.exp(-0.5 * ((depth - 15) / 9) ** 2)
    zone = np.clip((0.6 * size - distance) / 25, 0, 1) * facing
    grey += 50 * zone * pre * np.exp(-0.5 * ((depth - 11) / 7) ** 2)
    pedestal = (aside < 16) & (height < TBAR_HEIGHT_NM)
    platform = (aside < TBAR_WIDTH_NM / 2) & (np.abs(height - TBAR_HEIGHT_NM) < 10)
    grey += 95 * (pre & (height > 0) & (pedestal | platform))
    fine = np.nonzero(grey > 1)
    painter.shade(tuple(f + s.start for f, s in zip(fine, box, strict=True)), grey[fine])
    fine = np.nonzero((patch > 0.3) & (depth < 14))
    voxel, share = painter.share(tuple(f + s.start for f, s in zip(fine, box, strict=True)))
    clefts.reshape(-1)[voxel[share >= 0.4]] = name


def _draw_cloud(painter: Painter, contact: Contact, rng: np.random.Generator) -> None:
    """A cloud of vesicles that do not overlap, around the T-bar."""
    tissue = painter.tissue
    centre = contact.positions[0] + 70 * contact.normal
    tries = centre + rng.standard_normal((900, 3)) * rng.uniform(80, 150)
    voxel, inside = tissue.grid.locate(tries)
    inside &= tissue.owner.reshape(-1)[voxel] == contact.pre
    inside &= tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM > VESICLE_NM / 2 + 8
    inside &= ~painter.in_mitochondrion(tries)
    inside &= np.linalg.norm(tries - contact.positions[0] - TBAR_HEIGHT_NM * contact.normal, axis=1) > 55
    tries = tries[inside]
    goal = rng.integers(20, 80)
    kept = np.empty((0, 3))
    for point in tries:
        if len(kept) == goal:
            break
        if not len(kept) or ((kept - point) ** 2).sum(axis=1).min() > (VESICLE_NM + 4) ** 2:
            kept = np.vstack([kept, point])
    draw_vesicles(painter, kept, contact.pre, rng)
