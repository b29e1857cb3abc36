"""Sub-pixel translation between two sections, with every section transformed once.

1. Find what a section shows: blank patches (masked, torn, saturated) are set to the mean and leave no edge.
2. Taper the borders, transform, keep a band of frequencies: the low ones carry charging and illumination, the high ones
   noise that no two sections share. Only the block of the spectrum inside the band is kept, so a pair costs little.
3. Correlate two spectra; the highest peak on the grid is refined by a Fourier sum on a finer grid around it.
4. Correlate once more with the second section turned by 180°: same grey values and texture, but it cannot match. The
   highest peak of that says what chance gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy import ndimage as ndi
from scipy.signal.windows import tukey

_BLANK = 0.1  # a patch whose texture is below this share of the section's is blank


@dataclass(frozen=True)
class Band:
    """Which spatial frequencies of a section are compared."""

    fine_px: float = 2.0  # sigma of the Gaussian that suppresses finer structure, pixels
    coarse_px: float = 10.0  # sigma of the Gaussian whose smooth background is subtracted, pixels
    whiten: float = 0.5  # 0 plain cross-correlation, 1 phase correlation, between: spectrum divided by |F|**whiten
    taper: float = 0.25  # share of the section over which the borders fade out


@dataclass(frozen=True)
class Match:
    """How one section fits another: shift of the second onto the first, and how sure that is."""

    dy: float
    dx: float
    peak: float  # correlation at that shift, at most 1
    chance: float  # the highest correlation with the second section turned by 180°


def visible(section: np.ndarray) -> np.ndarray:
    """Weight of each pixel: 1 where the section shows texture, 0 in blank patches, smooth between.

    Parameters
    ----------
    section : (Y, X) float32 array

    Returns
    -------
    (Y, X) float32 array in [0, 1]
    """
    step = 4 if min(section.shape) >= 128 else 1
    box = min(15, max(3, min(section.shape) // 4))
    texture = section - ndi.uniform_filter(section, 5, mode="nearest")
    energy = ndi.uniform_filter(texture * texture, box, mode="nearest")[::step, ::step]
    seen = energy[energy > 1e-9]
    if seen.size == 0:
        return np.zeros_like(section)
    blank = energy <= _BLANK**2 * np.median(seen)
    if not blank.any():
        return np.ones_like(section)
    # The box reaches over the edge of a patch, so the blank part found is too small by half a box; another box of
    # fading keeps the cut itself from looking like structure.
    margin = 2 * (box // (2 * step)) + 1
    weight = 1 - ndi.maximum_filter(blank.astype(np.float32), 2 * margin + 1)
    weight = ndi.uniform_filter(weight, 2 * margin + 1, mode="nearest") ** 2
    return np.repeat(np.repeat(weight, step, 0), step, 1)[: section.shape[0], : section.shape[1]]


def spectrum(section: np.ndarray, band: Band = Band()) -> np.ndarray:
    """Transform of a section inside the band, at unit energy.

    Parameters
    ----------
    section : (Y, X) float array
    band : Band

    Returns
    -------
    (V, U // 2 + 1) complex64 array
        Low-frequency block of ``rfft2``; all zero for a section without structure.
    """
    section = np.asarray(section, np.float32)
    weight = visible(section)
    total = weight.sum()
    if total <= 0:
        return np.zeros(_transfer(section.shape, band).shape, np.complex64)
    weight = weight * _window(section.shape, band.taper)
    mean = float((section * weight).sum() / max(weight.sum(), 1e-9))
    full = fft.rfft2((section - mean) * weight)
    height, width = _grid(section.shape, band)
    block = full[_signed(height).astype(int), : width // 2 + 1] * _transfer(section.shape, band)
    if band.whiten:
        size = np.abs(block)
        block = block * np.maximum(size, 1e-6 * size.max() + 1e-20) ** -band.whiten
    energy = np.sqrt((_hermitian(block.shape[1]) * np.abs(block) ** 2).sum())
    return (block / energy if energy > 0 else block * 0).astype(np.complex64)


def match(first: np.ndarray, second: np.ndarray, shape: tuple[int, int], band: Band, reach: float, upsample: int) -> Match:
    """Find the shift of the second section that fits the first.

    Parameters
    ----------
    first, second : complex64 arrays
        From :func:`spectrum`, with the same ``band``.
    shape : (Y, X) of the sections in pixels
    reach : float
        Largest shift looked at along each axis, pixels.
    upsample : int
        Grid of the refined peak, 1 / pixel; a parabola through the highest three values reads between the lines.

    Returns
    -------
    Match
    """
    height, width = _grid(shape, band)
    cross = first * second.conj()
    surface = fft.irfft2(cross, s=(height, width)) * (height * width)
    turned = fft.irfft2(first * second, s=(height, width)) * (height * width)
    step = (shape[0] / height, shape[1] / width)
    offsets = [_signed(n) * s for n, s in zip((height, width), step, strict=True)]
    inside = [np.abs(o) <= max(reach, s) for o, s in zip(offsets, step, strict=True)]
    window = np.ix_(*inside)
    near = surface[window]
    chance = float(turned[window].max())
    if not near.any():
        return Match(0.0, 0.0, 0.0, chance)
    at = np.unravel_index(np.argmax(near), near.shape)
    centre = [o[i][k] for o, i, k in zip(offsets, inside, at, strict=True)]

    fine = [np.arange(-np.ceil(s * upsample), np.ceil(s * upsample) + 1) / upsample + c for s, c in zip(step, centre, strict=True)]
    fy = (_signed(height) / shape[0]).astype(np.float32)
    fx = (np.arange(cross.shape[1]) / shape[1]).astype(np.float32)
    left = np.exp(2j * np.pi * np.outer(fine[0], fy)).astype(np.complex64)
    right = (np.exp(2j * np.pi * np.outer(fx, fine[1])) * _hermitian(cross.shape[1])[:, None]).astype(np.complex64)
    peak = (left @ cross @ right).real
    at = np.unravel_index(np.argmax(peak), peak.shape)
    dy = fine[0][at[0]] + _vertex(peak[:, at[1]], at[0]) / upsample
    dx = fine[1][at[1]] + _vertex(peak[at[0]], at[1]) / upsample
    return Match(float(dy), float(dx), float(peak[at]), chance)


def _vertex(values: np.ndarray, k: int) -> float:
    """Offset, in samples, of the top of the parabola through the values around index ``k``."""
    if k in (0, len(values) - 1):
        return 0.0
    a, b, c = (float(v) for v in values[k - 1 : k + 2])
    bend = a - 2 * b + c
    return float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _signed(n: int) -> np.ndarray:
    """0, 1, … and the negative half, in the order of the transform."""
    return np.fft.fftfreq(n, 1 / n)


@lru_cache(maxsize=8)
def _window(shape: tuple[int, int], taper: float) -> np.ndarray:
    y, x = (tukey(n + 2, min(1.0, 2 * taper))[1:-1] for n in shape)
    return np.outer(y, x).astype(np.float32)


@lru_cache(maxsize=8)
def _hermitian(columns: int) -> np.ndarray:
    """Weights of the columns of a half spectrum in a sum over the whole one (no Nyquist column is kept)."""
    weight = np.full(columns, 2, np.float32)
    weight[0] = 1
    return weight


def _grid(shape: tuple[int, int], band: Band) -> tuple[int, int]:
    """Size (V, U) of the smallest grid that carries the band; the correlation is first read on it."""
    # At three standard deviations of the low-pass its transfer is 1 %: nothing beyond is worth keeping.
    limit = min(0.5, 3 / (2 * np.pi * max(band.fine_px, 1e-6)))
    return tuple(min(n, fft.next_fast_len(max(4, int(np.ceil(2 * limit * n))), real=True)) for n in shape)


@lru_cache(maxsize=8)
def _transfer(shape: tuple[int, int], band: Band) -> np.ndarray:
    """The band-pass on the kept block of the half spectrum, (V, U // 2 + 1) float32."""
    height, width = _grid(shape, band)
    fy, fx = _signed(height)[:, None] / shape[0], np.arange(width // 2 + 1)[None] / shape[1]
    square = (2 * np.pi) ** 2 * (fy**2 + fx**2)
    transfer = np.exp(-square * band.fine_px**2 / 2) * (1 - np.exp(-square * band.coarse_px**2 / 2))
    # The Nyquist row and column have no partner of opposite sign in the block.
    if height % 2 == 0:
        transfer[height // 2] = 0
    if width % 2 == 0:
        transfer[:, -1] = 0
    return transfer.astype(np.float32)
