"""What neurites hold: mitochondria, synapses with their vesicles, microtubules, reticulum and ribosomes.

Everything is drawn in nm as darkness (grey levels taken off the image), averaged over the voxels of the delivered
sections: a microtubule across the section is a dark dot, one that lies in it a faint line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from emlib.volumes.phantom.grid import Grid
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM, Tissue

VESICLE_DIAMETER_NM = 40.0  # small clear vesicles: 30 to 50 nm in flies and mammals
MICROTUBULE_NM = 25.0  # outer diameter; some 50 per µm² of axon cross-section
TBAR_HEIGHT_NM, TBAR_WIDTH_NM = 60.0, 100.0  # pedestal and platform of the fly's presynaptic density
MITOCHONDRION_LENGTH_NM = (350.0, 1400.0)

SYNAPSE_COLUMNS = ["z", "y", "x", "pre_z", "pre_y", "pre_x", "post_z", "post_y", "post_x"]


@dataclass
class Contents:
    """Organelles on the section grid.

    Attributes
    ----------
    dark : (Z, Y, X) float32 array, grey levels to take off
    mitochondria, vesicles : (Z, Y, X) bool arrays
    clefts : (Z, Y, X) int32 array, row of ``synapses`` plus one
    synapses : (S, 3, 3) float array
        Cleft, presynaptic and postsynaptic position in nm.
    """

    dark: np.ndarray
    mitochondria: np.ndarray
    vesicles: np.ndarray
    clefts: np.ndarray
    synapses: np.ndarray


class Painter:
    """Adds darkness, given on fine voxels or at points, to the section grid.

    Parameters
    ----------
    tissue : Tissue
    sections : Grid
        Its voxels are whole numbers of fine voxels.
    """

    def __init__(self, tissue: Tissue, sections: Grid) -> None:
        self.tissue, self.sections = tissue, sections
        self.factor = np.array(tissue.grid.shape) // sections.shape
        self.dark = np.zeros(sections.shape, np.float32)

    def section_voxel(self, fine: tuple[np.ndarray, ...]) -> np.ndarray:
        """Flat section voxel of each fine voxel."""
        index = [f // k for f, k in zip(fine, self.factor, strict=True)]
        return np.ravel_multi_index(index, self.sections.shape)

    def shade(self, fine: tuple[np.ndarray, ...], grey: np.ndarray) -> None:
        """Take ``grey`` levels off fine voxels."""
        np.add.at(self.dark.reshape(-1), self.section_voxel(fine), (grey / self.factor.prod()).astype(np.float32))

    def share(self, fine: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Section voxels that fine voxels fall into and the share of each that they fill."""
        voxel, count = np.unique(self.section_voxel(fine), return_counts=True)
        return voxel, count / self.factor.prod()

    def dust(self, points: np.ndarray, grey_nm3: float | np.ndarray, neurite: np.ndarray | None, depth_nm: float) -> None:
        """Spread specks of ``grey_nm3`` grey levels times nm³ at (N, 3) points in nm, linearly in the plane.

        Specks outside their neurite (any neurite if None) or nearer than ``depth_nm`` to its surface are dropped.
        """
        voxel, inside = self.tissue.grid.locate(points)
        inside &= self.tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM >= depth_nm
        if neurite is not None:
            inside &= self.tissue.owner.reshape(-1)[voxel] == neurite
        points = points[inside]
        grey = np.broadcast_to(grey_nm3, inside.shape)[inside] / self.sections.voxel_nm3
        place = self.sections.coordinates(points)
        z = np.rint(place[:, 0]).astype(np.int64)
        corner = np.floor(place[:, 1:]).astype(np.int64)
        rest = place[:, 1:] - corner
        corner = np.clip(corner, 0, np.array(self.sections.shape[1:]) - 2)
        base = (z * self.sections.shape[1] + corner[:, 0]) * self.sections.shape[2] + corner[:, 1]
        for dy in (0, 1):
            for dx in (0, 1):
                part = np.abs(1 - dy - rest[:, 0]) * np.abs(1 - dx - rest[:, 1]) * grey
                np.add.at(self.dark.reshape(-1), base + dy * self.sections.shape[2] + dx, part.astype(np.float32))


def fill_tissue(tissue: Tissue, sections: Grid, inner: tuple[np.ndarray, np.ndarray], amounts: Amounts, seed: int) -> Contents:
    """Draw the contents of all neurites.

    Parameters
    ----------
    tissue : Tissue
    sections : Grid
    inner : two (3,) arrays in nm
        Corners of the box that synapse positions keep to.
    amounts : Amounts
    seed : int
    """
    painter = Painter(tissue, sections)
    mitochondria = draw_mitochondria(painter, amounts.mitochondria, np.random.default_rng([seed, 2]))
    rng = np.random.default_rng([seed, 3])
    clefts, synapses, vesicles = draw_synapses(painter, mitochondria, inner, amounts.synapses_per_um3, rng)
    draw_cytoskeleton(painter, np.random.default_rng([seed, 4]))
    return Contents(painter.dark, mitochondria, vesicles, clefts, synapses)


@dataclass(frozen=True)
class Amounts:
    """How much of each: volume fraction of mitochondria, synapses per µm³."""

    mitochondria: float
    synapses_per_um3: float


def draw_mitochondria(painter: Painter, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Mitochondria along the thicker neurites up to a volume fraction; returns their mask on the section grid."""
    tissue, grid = painter.tissue, painter.tissue.grid
    lines = tissue.skeletons
    mask = np.zeros(painter.sections.shape, bool)
    voxel, inside = grid.locate(lines.points)
    deep = inside & (lines.radius > 85) & (tissue.owner.reshape(-1)[voxel] == lines.neurite + 1)
    goal = fraction * mask.size
    filled = 0
    for seat in rng.permutation(np.flatnonzero(deep)):
        if filled >= goal:
            break
        spine, radius = _spine(tissue, int(seat), rng)
        taken = painter.sections.locate(spine)
        if len(spine) < 3 or mask.reshape(-1)[taken[0][taken[1]]].any():
            continue
        fine, inward = _capsule(tissue, spine, radius, int(lines.neurite[seat]) + 1)
        if not len(inward):
            continue
        where = [grid.centres(a)[fine[a]] for a in range(3)]
        painter.shade(fine, _mitochondrion_grey(inward, where, spine, rng))
        solid = inward > 0
        part, share = painter.share(tuple(f[solid] for f in fine))
        mask.reshape(-1)[part[share >= 0.5]] = True
        filled += int((share >= 0.5).sum())
    return mask


def _spine(tissue: Tissue, seat: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Axis points of a mitochondrion around a point of a centre line, and its radius in nm."""
    lines = tissue.skeletons
    curve = np.flatnonzero(lines.curve == lines.curve[seat])
    points = lines.points[curve]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    half = rng.uniform(*MITOCHONDRION_LENGTH_NM) / 2
    radius = float(np.clip(lines.radius[seat] * rng.uniform(0.5, 0.75), 60, 160))
    middle = along[seat - curve[0]]
    at = np.arange(max(0, middle - half), min(along[-1], middle + half), 0.35 * radius)
    side = rng.standard_normal(3)
    side *= max(0, lines.radius[seat] - radius - 25) * rng.random() / np.linalg.norm(side)
    return np.stack([np.interp(at, along, points[:, a]) + side[a] for a in range(3)], axis=1), radius


def _capsule(tissue: Tissue, spine: np.ndarray, radius: float, neurite: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
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
    # keep 18 nm of cytoplasm under the plasma membrane
    np.minimum(inward, tissue.depth[box] * np.float32(DEPTH_STEP_NM) - 18, out=inward)
    inward[tissue.owner[box] != neurite] = -np.inf
    fine = np.nonzero(inward > -10)
    values = inward[fine]
    return tuple(f + s.start for f, s in zip(fine, box, strict=True)), values


def _mitochondrion_grey(inward: np.ndarray, where: list[np.ndarray], spine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of two membranes, matrix and cristae; ``inward`` and ``where`` in nm."""
    axis = spine[-1] - spine[0]
    axis = axis / max(np.linalg.norm(axis), 1e-6) + 0.6 * rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    period = rng.uniform(48, 75)
    place = sum(w * a for w, a in zip(where, axis, strict=True))
    for wave in rng.standard_normal((3, 3)) / 45:
        place = place + 9 * np.sin(sum(w * a for w, a in zip(where, wave, strict=True)) + rng.uniform(0, 2 * np.pi))
    lamella = np.exp(-0.5 * ((((place / period) % 1) - 0.5) * period / 9) ** 2)
    inner = 1 / (1 + np.exp(-(inward - 20) / 3))
    outer = np.exp(-0.5 * ((inward - 3) / 5) ** 2) + 0.7 * np.exp(-0.5 * ((inward - 18) / 4.5) ** 2)
    return 48 * outer + inner * (rng.normal(44, 6) + rng.choice([-30, 26]) * lamella)


def draw_synapses(
    painter: Painter, avoid: np.ndarray, inner: tuple[np.ndarray, np.ndarray], per_um3: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Synapses at contacts of two neurites; returns clefts, positions (S, 3, 3) in nm and vesicles."""
    tissue, grid, sections = painter.tissue, painter.tissue.grid, painter.sections
    clefts = np.zeros(sections.shape, np.int32)
    vesicles = np.zeros(sections.shape, bool)
    found: list[np.ndarray] = []
    goal = max(1, round(per_um3 * float(np.prod(inner[1] - inner[0])) * 1e-9)) if per_um3 > 0 else 0
    tries = rng.uniform(inner[0], inner[1], (6000 + 1500 * goal, 3))
    voxel, _ = grid.locate(tries)
    # a contact is a voxel within 5 nm of the wall between two neurites
    for site in tries[tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM < 5]:
        if len(found) >= goal:
            break
        if any(np.linalg.norm(site - other[0]) < 280 for other in found):
            continue
        contact = _contact(painter, site, avoid, inner)
        if contact is None:
            continue
        found.append(contact.positions)
        _draw_junction(painter, contact, clefts, len(found), rng)
        _draw_vesicles(painter, contact, vesicles, avoid, rng)
    return clefts, np.array(found).reshape(-1, 3, 3), vesicles


@dataclass
class Contact:
    """A place where one neurite can be presynaptic to another; ``normal`` points into the first."""

    positions: np.ndarray
    normal: np.ndarray
    pre: int
    post: int


def _contact(painter: Painter, site: np.ndarray, avoid: np.ndarray, inner: tuple[np.ndarray, np.ndarray]) -> Contact | None:
    """Judge a contact: flat enough, deep enough for a T-bar, both partners visible in the sections; else None."""
    tissue, grid = painter.tissue, painter.tissue.grid
    box = grid.window(site - 70, site + 70)
    owner = tissue.owner[box]
    at, _ = grid.locate(site[None])
    pre, post = int(tissue.owner.reshape(-1)[at[0]]), int(tissue.neighbour.reshape(-1)[at[0]])
    first, second = owner == pre, owner == post
    if first.sum() + second.sum() < 0.75 * owner.size or min(first.sum(), second.sum()) < 0.15 * owner.size:
        return None
    centres = [np.array([grid.centres(a, box[a])[i].mean() for a, i in enumerate(np.nonzero(m))]) for m in (first, second)]
    normal = centres[0] - centres[1]
    normal /= np.linalg.norm(normal)
    steps = [site + 45 * normal, site - 42 * normal, site + 75 * normal]
    steps[:2] = [painter.sections.locate(p[None]) and _to_section(painter.sections, p) for p in steps[:2]]
    site = _to_section(painter.sections, site)
    if any((p < inner[0]).any() or (p > inner[1]).any() for p in steps[:2]):
        return None
    voxel, _ = grid.locate(np.array(steps))
    depth = tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM
    if (tissue.owner.reshape(-1)[voxel] != [pre, post, pre]).any() or (depth < [25, 16, 35]).any():
        return None
    if avoid.reshape(-1)[painter.sections.locate(np.array(steps))[0]].any():
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
    size = rng.uniform(85, 150)
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


def _draw_vesicles(painter: Painter, contact: Contact, mask: np.ndarray, avoid: np.ndarray, rng: np.random.Generator) -> None:
    """A cloud of vesicles that do not overlap, around the T-bar."""
    tissue, sections = painter.tissue, painter.sections
    centre = contact.positions[0] + 70 * contact.normal
    tries = centre + rng.standard_normal((900, 3)) * rng.uniform(80, 150)
    voxel, inside = tissue.grid.locate(tries)
    inside &= tissue.owner.reshape(-1)[voxel] == contact.pre
    inside &= tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM > VESICLE_DIAMETER_NM / 2 + 8
    inside &= ~avoid.reshape(-1)[sections.locate(tries)[0]]
    inside &= np.linalg.norm(tries - contact.positions[0] - TBAR_HEIGHT_NM * contact.normal, axis=1) > 55
    tries = tries[inside]
    goal = rng.integers(15, 60)
    kept = np.empty((0, 3))
    for point in tries:
        if len(kept) == goal:
            break
        if not len(kept) or ((kept - point) ** 2).sum(axis=1).min() > (VESICLE_DIAMETER_NM + 4) ** 2:
            kept = np.vstack([kept, point])
    draw_vesicles(painter, kept, contact.pre, rng)
    radius = VESICLE_DIAMETER_NM / 2
    for point in kept:
        box = sections.window(point - radius, point + radius)
        at = [(sections.centres(a, box[a]) - point[a]) ** 2 for a in range(3)]
        # a section shows the vesicle's outline wherever it holds part of it
        at[0] = np.maximum(np.sqrt(at[0]) - sections.pitch[0] / 4, 0) ** 2
        mask[box] |= at[0][:, None, None] + at[1][:, None] + at[2] <= radius**2


def draw_vesicles(painter: Painter, centres: np.ndarray, neurite: int | np.ndarray, rng: np.random.Generator) -> None:
    """Stain the shells (7 nm thick) of vesicles, and lightly what they hold."""
    specks = 90
    shell = rng.standard_normal((len(centres), specks, 3))
    shell /= np.linalg.norm(shell, axis=2, keepdims=True)
    shell *= np.where(np.arange(specks) < 75, 16.0, 9.0)[None, :, None]
    points = (centres[:, None] + shell).reshape(-1, 3)
    owner = np.repeat(np.broadcast_to(neurite, len(centres)), specks)
    painter.dust(points, 75 * 4 * np.pi * 16**2 * 7 / 75, owner, 4)


def draw_cytoskeleton(painter: Painter, rng: np.random.Generator) -> None:
    """Microtubules and reticulum along the neurites, ribosomes and vesicles everywhere."""
    tissue, lines = painter.tissue, painter.tissue.skeletons
    ends = np.flatnonzero(np.r_[True, np.diff(lines.curve) > 0, True])
    tubes: list[tuple[np.ndarray, int, float]] = []
    for first, last in zip(ends[:-1], ends[1:], strict=True):
        points, radius = lines.points[first:last], lines.radius[first:last]
        if last - first < 4 or lines.neurite[first] < 0:
            continue
        area = np.pi * (np.median(radius) * 1e-3) ** 2
        tangent = np.gradient(points, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
        for ring, count in ((10.0, rng.poisson(55 * area)), (None, rng.poisson(10 * area))):
            for _ in range(count):
                tubes.append((*_tube(points, radius, tangent, ring, rng), int(lines.neurite[first]) + 1))
    if tubes:
        points = np.concatenate([t[0] for t in tubes])
        grey = np.concatenate([t[1] for t in tubes])
        painter.dust(points, grey, np.repeat([t[2] for t in tubes], [len(t[0]) for t in tubes]), 10)
    grid = tissue.grid
    volume = float(np.prod(grid.extent)) * 1e-9
    low, high = np.asarray(grid.origin), np.asarray(grid.origin) + grid.extent
    ribosomes = rng.uniform(low, high, (int(900 * volume), 3))
    points = (ribosomes[:, None] + 7 * rng.standard_normal((len(ribosomes), 5, 3))).reshape(-1, 3)
    strength = np.repeat(rng.exponential(1, len(ribosomes)), 5)
    painter.dust(points, strength * 80 * 4 / 3 * np.pi * 11**3 / 5, None, 14)
    stray = rng.uniform(low, high, (int(25 * volume), 3))
    voxel, _ = grid.locate(stray)
    deep = tissue.depth.reshape(-1)[voxel] * DEPTH_STEP_NM > 26
    draw_vesicles(painter, stray[deep], tissue.owner.reshape(-1)[voxel[deep]], rng)


def _tube(points, radius, tangent, ring, rng) -> tuple[np.ndarray, np.ndarray]:
    """Specks on the wall of a tube beside a centre line: a microtubule, or reticulum (``ring`` None) of varying bore."""
    count = len(points)
    side = rng.standard_normal(3)
    if ring is None:
        side = side + gaussian_filter1d(rng.standard_normal((count, 3)), 2, axis=0) * 2
    side = side - (side * tangent).sum(axis=1, keepdims=True) * tangent
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    path = points + side * (np.sqrt(rng.random()) * 0.85 * radius)[:, None]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    step = 4.0 if ring else 1.5
    start, stop = (0, along[-1]) if ring else np.sort(rng.uniform(0, along[-1], 2))
    at = np.arange(start, stop, step)
    wall = rng.standard_normal((len(at), 3))
    wall /= np.linalg.norm(wall, axis=1, keepdims=True) + 1e-9
    bore = np.full(len(at), ring) if ring else 14 + 10 * (1 + np.sin(at / 90 + rng.uniform(0, 6)))
    specks = np.stack([np.interp(at, along, path[:, a]) for a in range(3)], axis=1) + wall * bore[:, None]
    # wall area of a step of tube times a thickness of 6 nm, stained 75 grey levels
    return specks, 75 * 2 * np.pi * bore * step * 6
