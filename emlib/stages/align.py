"""Alignment of serial sections by translation.

1. Estimate the shift of every section against its neighbours z-1 … z-reach.
2. Score each estimate; drop those no better than sections that cannot match.
3. Solve all remaining shifts at once, robustly, so that errors do not add up along z.
4. Leave what moves steadily from section to section in place: it is oblique tissue, not misplacement.
5. Move every original section once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from emlib.stages.global_shifts import misplacement, solve_path
from emlib.stages.phase_correlation import Band, Match, match, spectrum
from emlib.threads import map_threads

_SPREAD_PX = 12.0  # how far tiles may scatter, as tissue does, before they lose weight


@dataclass(frozen=True)
class AlignSettings:
    """How sections are compared and how their shifts are solved for."""

    reach: int = 3  # neighbours per section; more resists damaged sections, costs linearly
    max_shift_px: float = 40  # larger shifts between neighbours are not looked for
    min_reliability: float = 0.2  # pairs below are dropped; 0 is what sections that cannot match give
    huber_px: float = 0.5  # a pair that disagrees by more than this with the solution loses weight
    tile_px: int = 96  # pairs are measured by the mean over tiles of this side; sections below two tiles are not
    tissue_sections: int = 32  # shorter stacks cannot tell oblique tissue from misplacement: all movement is undone
    band: Band = field(default_factory=Band)  # which spatial frequencies are compared


def align(volume: np.ndarray, settings: AlignSettings = AlignSettings()) -> tuple[np.ndarray, pd.DataFrame]:
    """Translate each section of a stack onto a common frame.

    Parameters
    ----------
    volume : (Z, Y, X) float array in [0, 1]
    settings : AlignSettings

    Returns
    -------
    aligned : (Z, Y, X) float32 array
        Section z moved by ``shifts.loc[z, ["dy", "dx"]]`` pixels, linear interpolation, edges repeated.
    shifts : DataFrame, one row per section
        As from :func:`estimate_shifts`.

    Raises
    ------
    ValueError
        If ``volume`` is not three-dimensional, is empty or holds NaN or infinity.

    Notes
    -----
    Pairwise shifts follow Guizar-Sicairos et al. 2008 (see :mod:`emlib.stages.phase_correlation`); the joint solution
    is least squares with Huber weights, as in the global alignment of Saalfeld et al. 2012.

    Sections alone cannot tell a stack that was pushed over from neurites that run obliquely. Undoing all movement would
    straighten the neurites and lead hundreds of sections away by tens of pixels, so the movement is split by its
    character (:func:`emlib.stages.global_shifts.misplacement`): what is independent from section to section is undone,
    what persists is kept. A well aligned stack therefore stays where it is, and a slow drift of the microscope stage
    is not undone either. ``tissue_sections`` larger than the stack follows everything.

    Whether rotation or stretch remains is for :func:`emlib.stages.translation_check.check_translation` to say.

    Examples
    --------
    >>> section = np.random.default_rng(0).random((64, 64))
    >>> shifts = align(np.stack([section, np.roll(section, 3, axis=1)]))[1]
    >>> [float(dx) for dx in (shifts["dx"] - shifts.loc[0, "dx"]).round(1)]
    [0.0, -3.0]
    """
    shifts, _ = estimate_shifts(volume, settings)
    return apply_shifts(np.asarray(volume, np.float32), shifts), shifts


def estimate_shifts(volume: np.ndarray, settings: AlignSettings = AlignSettings()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimate the translation of each section.

    Parameters
    ----------
    volume : (Z, Y, X) float array
    settings : AlignSettings

    Returns
    -------
    shifts : DataFrame, one row per section
        ``z``; ``dy, dx`` in pixels, what is to be applied, positive moves content down and right, mean zero;
        ``reliability`` in [0, 1]; ``residual_before_px`` and ``residual_after_px``, how far the sections that it
        touches lie from where they match best (median, NaN where none fits; what remains after is mostly the movement
        of tissue that is kept); ``used``, False where no section fits and the shift is filled in from those around.
    pairs : DataFrame, one row per compared pair
        ``z0, z1, dy, dx, reliability, used``; ``dy, dx`` move section z1 onto z0, pixels.

    Raises
    ------
    ValueError
        If ``volume`` is not three-dimensional, is empty or holds NaN or infinity.
    """
    volume = _checked(volume)
    depth, shape = len(volume), volume.shape[1:]
    index = pair_index(depth, settings)
    pairs = rate_pairs(index, match_pairs(volume, index, settings), settings)
    if measured_by_tiles(shape, settings):
        pairs, coarse = plan_tiles(pairs, depth, settings)
        rows = np.flatnonzero(pairs["used"])
        wanted = pairs.loc[rows, ["z0", "z1"]].to_numpy()
        pairs = add_tiles(pairs, rows, match_tiles(apply_shifts(volume, coarse), wanted, settings), coarse)
    return solve_shifts(pairs, depth, settings), pairs


def pair_index(depth: int, settings: AlignSettings) -> list[tuple[int, int]]:
    """The pairs of sections (z - d, z) that are compared.

    Examples
    --------
    >>> pair_index(3, AlignSettings(reach=2))
    [(0, 1), (1, 2), (0, 2)]
    """
    return [(z - d, z) for d in range(1, settings.reach + 1) for z in range(d, depth)]


def match_pairs(sections: np.ndarray, index: Sequence[tuple[int, int]], settings: AlignSettings) -> list[Match]:
    """Compare pairs of whole (Y, X) sections; ``index`` counts in ``sections``."""
    shape = sections.shape[1:]
    spectra = map_threads(lambda section: spectrum(section, settings.band), sections)
    # Beyond 0.4 of a section too little is shared to match, and the transform wraps around.
    furthest = min(settings.max_shift_px, 0.4 * min(shape))
    return map_threads(lambda p: match(spectra[p[0]], spectra[p[1]], shape, settings.band, furthest), index)


def rate_pairs(index: Sequence[tuple[int, int]], matches: list[Match], settings: AlignSettings) -> pd.DataFrame:
    """Turn all matches of a stack into the table of its pairs, with their reliability and which are used."""
    pairs = pd.DataFrame(index, columns=["z0", "z1"], dtype=np.int64)
    for name in ("dy", "dx"):
        pairs[name] = np.array([getattr(m, name) for m in matches], float)
    pairs["reliability"] = _reliability(matches)
    pairs["used"] = pairs["reliability"] >= settings.min_reliability
    return pairs


def measured_by_tiles(shape: tuple[int, int], settings: AlignSettings) -> bool:
    """Whether sections of this size are large enough for tiles."""
    return min(shape) >= 2 * settings.tile_px


# Pairs are measured anew as the mean over many tiles, each matched by itself. One correlation of whole sections finds
# the most common movement, and that of z to z + 2 is not the sum of the two steps between. A mean over tiles nearly
# adds up, so that a damaged section can be bridged. Far pairs are measured and used only where they bridge.


def plan_tiles(pairs: pd.DataFrame, depth: int, settings: AlignSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs with those marked as used that tiles are to measure, and the moves that come before."""
    path = _path(pairs, depth, settings)[0]
    coarse = pd.DataFrame(np.round(path), columns=["dy", "dx"]).assign(z=np.arange(depth))
    return pairs.assign(used=pairs["used"] & _needed(pairs, depth)), coarse


def match_tiles(moved: np.ndarray, index: np.ndarray, settings: AlignSettings) -> np.ndarray:
    """What is left between pairs of coarsely moved sections, (P, 2) pixels; NaN where no tile tells."""
    side = settings.tile_px
    corners = [np.linspace(0, n - side, round(1.1 * n / side)).astype(int) for n in moved.shape[1:]]
    boxes = [(slice(y, y + side), slice(x, x + side)) for y in corners[0] for x in corners[1]]
    tiles = map_threads(lambda section: [spectrum(section[box], settings.band) for box in boxes], moved)
    furthest = min(settings.max_shift_px, 0.3 * side)

    def mean(pair: tuple[int, int]) -> np.ndarray:
        a, b = pair
        found = [match(s, t, (side, side), settings.band, furthest) for s, t in zip(tiles[a], tiles[b], strict=True)]
        sure = np.array([max(m.peak - m.chance, 0.0) for m in found])
        return _robust_mean(np.array([(m.dy, m.dx) for m in found]), sure)

    return np.array(map_threads(mean, index)).reshape(-1, 2)


def add_tiles(pairs: pd.DataFrame, rows: np.ndarray, residual: np.ndarray, coarse: pd.DataFrame) -> pd.DataFrame:
    """Put what tiles found, on top of the coarse moves, into these rows of the table of pairs."""
    z0, z1 = pairs["z0"].to_numpy()[rows], pairs["z1"].to_numpy()[rows]
    steps = coarse[["dy", "dx"]].to_numpy()
    found = np.isfinite(residual).all(axis=1)
    pairs.loc[rows[found], ["dy", "dx"]] = (residual + steps[z1] - steps[z0])[found]
    return pairs


def _needed(pairs: pd.DataFrame, depth: int) -> np.ndarray:
    """True for neighbours, and for far pairs that span a gap between neighbours without a reliable match."""
    near = pairs[(pairs["z1"] - pairs["z0"] == 1) & pairs["used"]]
    broken = np.ones(depth, int)
    broken[near["z1"]] = 0  # broken[z]: nothing links z - 1 and z
    gaps = np.cumsum(broken)
    return ((pairs["z1"] - pairs["z0"] == 1) | (gaps[pairs["z1"]] > gaps[pairs["z0"]])).to_numpy()


def _robust_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean with Cauchy weights, about the median; NaN without weight."""
    if not (weights > 0).any():
        return np.full(values.shape[1], np.nan)
    centre = np.median(values[weights > 0], axis=0)
    for _ in range(15):
        weight = weights / (1 + ((values - centre) ** 2).sum(axis=1) / _SPREAD_PX**2)
        centre = weight @ values / weight.sum()
    return centre


def _reliability(matches: list[Match]) -> np.ndarray:
    """How far each peak stands above what sections that cannot match give: 0 not at all, towards 1 far above."""
    if not matches:
        return np.zeros(0)
    peak = np.array([m.peak for m in matches])
    chance = np.array([m.chance for m in matches])
    # One turned pair may be lucky or unlucky; the typical one steadies it.
    typical = np.median(chance[peak > 0]) if (peak > 0).any() else 0.0
    level = np.maximum(chance, typical)
    return np.clip(1 - level / np.maximum(peak, 1e-12), 0, 1)


def _path(pairs: pd.DataFrame, depth: int, settings: AlignSettings) -> tuple[np.ndarray, np.ndarray]:
    """Place of each section (Z, 2) from the pairs in use, and which sections (Z,) have one."""
    used = pairs[pairs["used"]]
    z0, z1 = used["z0"].to_numpy(), used["z1"].to_numpy()
    # Tissue changes with distance, and correlates at a false shift when it has changed: far pairs bridge what near
    # ones cannot, and hardly count beside them.
    trust = used["reliability"].to_numpy() ** 2 / (z1 - z0) ** 4
    path = solve_path(z0, z1, used[["dy", "dx"]].to_numpy(), trust, depth, settings.huber_px)
    linked = np.zeros(depth, bool)
    linked[z0] = linked[z1] = True
    if linked.any():
        sections = np.arange(depth)
        for axis in range(2):
            path[~linked, axis] = np.interp(sections[~linked], sections[linked], path[linked, axis])
    return path, linked


def solve_shifts(pairs: pd.DataFrame, depth: int, settings: AlignSettings) -> pd.DataFrame:
    """One shift per section from the pairs in use, and how the sections agree before and after it."""
    used = pairs[pairs["used"]]
    z0, z1 = used["z0"].to_numpy(), used["z1"].to_numpy()
    measured = used[["dy", "dx"]].to_numpy()
    reliability = used["reliability"].to_numpy()
    path, linked = _path(pairs, depth, settings)
    moves = np.zeros((depth, 2))
    if linked.any():
        moves = misplacement(path) if depth >= settings.tissue_sections else path - path.mean(axis=0)

    before = np.hypot(*measured.T)
    after = np.hypot(*(measured - (moves[z1] - moves[z0])).T)
    rows: list[list[int]] = [[] for _ in range(depth)]
    for row in np.argsort(z1 - z0, kind="stable"):  # the nearest first: a section is judged by those it touches
        for z in (z0[row], z1[row]):
            if z1[row] - z0[row] == 1 or not rows[z]:
                rows[z].append(row)

    def median(values: np.ndarray, empty: float) -> list[float]:
        return [float(np.median(values[r])) if len(r) else empty for r in rows]

    return pd.DataFrame(
        {
            "z": np.arange(depth),
            "dy": moves[:, 0],
            "dx": moves[:, 1],
            "reliability": median(reliability, 0.0),
            "residual_before_px": median(before, np.nan),
            "residual_after_px": median(after, np.nan),
            "used": linked,
        }
    )


def apply_shifts(volume: np.ndarray, shifts: pd.DataFrame, *, order: int = 1, fill: str | float = "edge") -> np.ndarray:
    """Move each section by its shift, with one interpolation.

    Parameters
    ----------
    volume : (Z, Y, X) array
    shifts : DataFrame
        Columns ``dy, dx`` in pixels, one row per section; positive moves content down and right.
    order : 1 or 0
        Linear interpolation, or nearest neighbour (for labels).
    fill : 'edge' or number
        What enters at the border.

    Returns
    -------
    (Z, Y, X) array
        The dtype is kept; integers are rounded. Where nothing is to be moved, voxels are returned bit for bit.

    Raises
    ------
    ValueError
        If sections and shifts differ in number, or ``order`` is neither 0 nor 1.
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or len(shifts) != len(volume):
        raise ValueError(f"need one shift per section of a (Z, Y, X) volume, got {len(shifts)} for {volume.shape}")
    if order not in (0, 1):
        raise ValueError(f"order must be 0 (nearest) or 1 (linear), got {order}")
    moves = shifts[["dy", "dx"]].to_numpy(float)
    if order == 0:
        moves = np.floor(moves + 0.5)
    out = np.empty_like(volume)

    def one(z: int) -> None:
        section = volume[z]
        for axis in range(2):
            section = _move(section, moves[z, axis], axis, fill)
        if out.dtype.kind in "iub" and section.dtype != out.dtype:
            section = np.rint(section)
        out[z] = section

    map_threads(one, range(len(volume)))
    return out


def _move(section: np.ndarray, by: float, axis: int, fill: str | float) -> np.ndarray:
    """Move along one axis: whole pixels by slicing, the rest as a weighted sum of two slices."""
    whole = int(np.floor(by))
    part = by - whole
    near = _move_whole(section, whole, axis, fill)
    if part == 0:
        return near
    small = section.dtype.itemsize <= (4 if section.dtype.kind == "f" else 2)
    kind = np.float32 if small else np.float64
    far = _move_whole(section, whole + 1, axis, fill)
    return near.astype(kind) * kind(1 - part) + far.astype(kind) * kind(part)


def _move_whole(section: np.ndarray, by: int, axis: int, fill: str | float) -> np.ndarray:
    if by == 0:
        return section
    length = section.shape[axis]
    source = np.arange(length) - by
    moved = np.take(section, np.clip(source, 0, length - 1), axis=axis)
    if fill != "edge":
        outside = (source < 0) | (source >= length)
        moved[outside if axis == 0 else (slice(None), outside)] = fill
    return moved


def simulate_misalignment(volume: np.ndarray, px: float, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Move each section by a random shift, to show and test alignment.

    Parameters
    ----------
    volume : (Z, Y, X) array
    px : float
        Standard deviation of the shifts along each axis, pixels.
    seed : int

    Returns
    -------
    moved : (Z, Y, X) array, dtype as given
    added : DataFrame
        ``z, dy, dx``: what was added to each section, N(0, ``px``) along each axis; cubic splines, edges repeated.
    """
    volume = np.asarray(volume)
    added = drawn_misalignment(len(volume), px, seed)
    return misalign(volume, added[["dy", "dx"]].to_numpy()), added


def drawn_misalignment(depth: int, px: float, seed: int) -> pd.DataFrame:
    """Draw the shifts of `simulate_misalignment`."""
    added = np.random.default_rng(seed).normal(0, px, (depth, 2))
    return pd.DataFrame({"z": np.arange(depth), "dy": added[:, 0], "dx": added[:, 1]})


def misalign(volume: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Move sections by (dy, dx) pixels, ``added`` being (Z, 2), with cubic splines."""
    moved = np.empty_like(volume)

    def one(z: int) -> None:
        section = volume[z].astype(np.float32)
        spline = ndi.shift(section, added[z], order=3, mode="nearest")
        if np.issubdtype(volume.dtype, np.integer):
            info = np.iinfo(volume.dtype)
            spline = np.clip(np.rint(spline), info.min, info.max)
        else:
            spline = np.clip(spline, section.min(), section.max())
        moved[z] = spline

    map_threads(one, range(len(volume)))
    return moved


def _checked(volume: np.ndarray) -> np.ndarray:
    volume = np.asarray(volume)
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"align needs a (Z, Y, X) volume with voxels, got shape {volume.shape}")
    if not np.isfinite(volume).all():
        raise ValueError("the volume holds NaN or infinity")
    return volume
