"""Is what remains after alignment something that translation could not remove?

1. Cut each aligned section into 3 × 3 to 6 × 6 tiles and estimate the shift of each tile against the section before.
2. Fit what a rotation or a stretch of the section would do to them: shifts that grow linearly from the centre.
3. Where that fit stands far above its own error, say so, and name the section.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from emlib.stages.phase_correlation import Band, match, spectrum
from emlib.threads import map_threads

_LEAST_TILE = 48  # pixels; smaller tiles hold too little to be matched alone
_LEAST_PX = 0.75  # effect at the middle of the outer tiles that is worth a word
_CHANCE = 0.01  # how often a stack without rotation or stretch may be accused, over all its pairs
_TILE = 160  # pixels; tissue moves by itself over shorter distances, so more tiles average more of that out
_KINDS = ("rotation", "stretch along y", "stretch along x", "shear")


@dataclass(frozen=True)
class TranslationCheck:
    """What is left after translation.

    Attributes
    ----------
    explained : bool
        False if rotation, stretch or shear remains.
    residual_px : float
        Median shift of the tiles that could be matched; NaN if none could.
    sections : tuple of int
        Sections that are turned or stretched against the one before, worst first.
    message : str
        One line, empty if translation explains the residual.
    """

    explained: bool
    residual_px: float
    sections: tuple[int, ...]
    message: str


def check_translation(aligned: np.ndarray, band: Band | None = None, min_reliability: float = 0.2) -> TranslationCheck:
    """Tell whether translation explains how neighbouring sections disagree.

    Parameters
    ----------
    aligned : (Z, Y, X) float array in [0, 1]
        From :func:`emlib.stages.align.align`.
    band : Band, optional
        Spatial frequencies to compare; those of :class:`emlib.stages.align.AlignSettings` if not given.
    min_reliability : float
        Tiles matched less reliably than this are left out.

    Returns
    -------
    TranslationCheck
        ``explained`` is True where sections are too few or too small (3 tiles of 48 pixels) to tell.

    Notes
    -----
    A rotation of a lone section shows as two opposite rotations, against the section before and the one after. Local
    disagreement without a linear trend (tissue that changed, folds) counts as explained: no rigid motion mends it.
    """
    band = Band() if band is None else band
    if len(aligned) < 2 or _tiles(aligned.shape[1:]) is None:
        return TranslationCheck(True, float("nan"), (), "")
    return judge_shifts(tile_shifts(aligned, band), aligned.shape[1:], min_reliability)


def _tiles(shape: tuple[int, int]) -> tuple[list[int], list[tuple[int, int]]] | None:
    """Sides and corners of the tiles of a section; None if it is too small."""
    across = int(np.clip(min(shape) // _TILE, 3, 6))
    side = [n // across for n in shape]
    if min(side) < _LEAST_TILE:
        return None
    return side, [(i * side[0], j * side[1]) for i in range(across) for j in range(across)]


def tile_shifts(sections: np.ndarray, band: Band) -> list[np.ndarray]:
    """Compare the tiles of each section with those of the one before, if sections are large enough.

    Returns
    -------
    list of (T, 3) array
        For each pair of neighbours and each tile ``dy, dx`` in pixels and how reliable they are.
    """
    layout = _tiles(sections.shape[1:])
    if layout is None:
        return []
    side, corners = layout

    def tiles(section: np.ndarray) -> list[np.ndarray]:
        return [spectrum(section[y : y + side[0], x : x + side[1]], band) for y, x in corners]

    spectra = map_threads(tiles, sections)

    def compare(z: int) -> np.ndarray:
        found = [match(a, b, tuple(side), band, min(side) / 4) for a, b in zip(spectra[z - 1], spectra[z], strict=True)]
        return np.array([(m.dy, m.dx, 1 - m.chance / m.peak if m.peak > 0 else 0) for m in found])

    return map_threads(compare, range(1, len(sections)))


def judge_shifts(found: list[np.ndarray], shape: tuple[int, int], min_reliability: float) -> TranslationCheck:
    """Tell from what `tile_shifts` found in a whole stack whether translation explains it."""
    layout = _tiles(shape)
    if not found or layout is None:
        return TranslationCheck(True, float("nan"), (), "")
    depth, corners = len(found) + 1, layout[1]
    where = np.array(corners) - np.mean(corners, axis=0)
    lengths, fits = {}, []
    for z, shifts in zip(range(1, depth), found, strict=True):
        good = shifts[:, 2] >= min_reliability
        lengths[z] = np.hypot(*shifts[good, :2].T)
        # Moving tiles onto the section before is the opposite of how the section was deformed.
        fits.append((z, *_linear(where[good], -shifts[good, :2], _CHANCE / (4 * (depth - 1)))))
    matched = np.concatenate(list(lengths.values()))
    residual = float(np.median(matched)) if len(matched) else float("nan")

    reach = float(np.hypot(*where[0]))  # from the centre of the section to that of a corner tile
    flagged = sorted(
        (
            (abs(c[k]) * reach, k, z, c[k])
            for z, c, least in fits
            for k in range(4)
            if abs(c[k]) > max(least[k], _LEAST_PX / reach)
        ),
        reverse=True,
    )
    if not flagged:
        return TranslationCheck(True, residual, (), "")
    _, kind, z, size = flagged[0]
    sections = tuple(dict.fromkeys(entry[2] for entry in flagged))
    opposite = [f for f in flagged if f[1] == kind and abs(f[2] - z) == 1 and f[3] * size < 0]
    if opposite:  # the section between the two pairs is the odd one out
        lone = min(z, opposite[0][2])
        size = size if lone == z else -size
        place = f"at section {lone}"
    else:
        place = f"from section {z} on"
    amount = f"{np.degrees(abs(size)):.1f}°" if kind == 0 else f"{100 * abs(size):.1f} %"
    message = (
        f"residual after translation is {np.median(lengths[z]):.1f} px and grows from the centre "
        f"({_KINDS[kind]} of about {amount} {place}, {len(sections)} of {depth - 1} pairs affected): "
        "translation does not explain it"
    )
    return TranslationCheck(False, residual, sections, message)


def _linear(where: np.ndarray, shifts: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotation, stretch along y and x and shear that explain shifts at places, and what each would reach by chance.

    The rotation is in radians, the others are relative; a common shift is fitted along. Huber weights keep tiles that
    matched at a wrong place from counting. Too few places give zeros.
    """
    count = len(where)
    if count < 6:
        return np.zeros(4), np.full(4, np.inf)
    y, x = where.T
    zero, one = np.zeros(count), np.ones(count)
    design = np.concatenate(
        [
            np.stack([-x, y, zero, x, one, zero], axis=1),
            np.stack([y, zero, x, y, zero, one], axis=1),
        ]
    )
    values = shifts.T.ravel()
    weight = np.ones(len(values))
    for _ in range(10):
        normal = np.linalg.inv(design.T @ (weight[:, None] * design))
        solution = normal @ design.T @ (weight * values)
        misfit = np.abs(values - design @ solution)
        limit = 2 * max(float(np.median(misfit)), 0.01)
        weight = np.minimum(1, limit / np.maximum(misfit, 1e-12))
    freedom = weight.sum() - 6
    if freedom < 3:
        return np.zeros(4), np.full(4, np.inf)
    variance = max(float((weight * misfit**2).sum()) / freedom, 1e-4)  # tiles are matched to 0.01 px at best
    error = np.sqrt(variance * np.diag(normal))
    return solution[:4], stdtrit(freedom, 1 - chance / 2) * error[:4]
