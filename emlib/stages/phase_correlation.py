"""Sub-pixel translation between two sections, with every section transformed once.

1. Find what a section shows: blank patches (masked, torn, saturated) are set to the mean and leave no edge.
2. Taper the borders, transform, keep a band of frequencies: the low ones carry charging and illumination, the high ones
   noise that no two sections share. Only the block of the spectrum inside the band is kept, so a pair costs little.
3. Correlate two spectra; from the highest sample climb to the top of the correlation, read between the samples.
4. Correlate once more with the second section turned by 180°: same grey values and texture, but it cannot match. The
   highest peak of that says what chance gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from scipy import ndimage as ndi

_BLANK = 0.1  # a patch whose texture is below this share of the section's is blank


@dataclass(frozen=True)
class Band:
    """Which spatial frequencies of a section are compared."""

    fine_px: float = 2.0  # sigma of the Gaussian that suppresses finer structure, pixels
    coarse_px: float = 20.0  # sigma of the Gaussian whose smooth background is subtracted, pixels
    whiten: float = 0.3  # 0 plain cross-correlation, 1 phase correlation, between: spectrum divided by |F|**whiten
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
    block = max(1, min(8, min(section.shape) // 8))
    texture = np.zeros_like(section)
    texture[1:] += (section[1:] - section[:-1]) ** 2
    texture[:, 1:] += (section[:, 1:] - section[:, :-1]) ** 2
    spare = [(0, -n % block) for n in section.shape]
    padded = np.pad(texture, spare, mode="edge") if any(after for _, after in spare) else texture
    energy = padded.reshape(padded.shape[0] // block, block, -1, block).mean(axis=(1, 3))
    textured = energy[energy > 1e-9]
    if textured.size == 0:
        return np.zeros_like(section)
    blank = energy <= _BLANK**2 * np.median(textured)
    if not blank.any() or block == 1:
        return np.ones_like(section)
    # The blocks at the edge of a patch hold the cut, which would look like structure: leave them out and fade.
    weight = 1 - ndi.maximum_filter(blank.astype(np.float32), 3)
    weight *= ndi.uniform_filter(weight, 3, mode="nearest")
    return np.repeat(np.repeat(weight, block, 0), block, 1)[: section.shape[0], : section.shape[1]]


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


def match(first: np.ndarray, second: np.ndarray, shape: tuple[int, int], band: Band, reach: float) -> Match:
    """Find the shift of the second section that fits the first.

    Parameters
    ----------
    first, second : complex64 arrays
        From :func:`spectrum`, with the same ``band``.
    shape : (Y, X) of the sections in pixels
    band : Band
    reach : float
        Largest shift looked at along each axis, pixels.

    Returns
    -------
    Match
        ``dy, dx`` in pixels, to be applied to the second section, positive down and right.

    Notes
    -----
    As Guizar-Sicairos et al. 2008: the highest sample of the correlation, refined with the Fourier sum between the
    samples. Where they evaluate the sum on a finer grid, Newton steps go to its top, so nothing is rounded to a grid.
    The tapered borders overlap less the larger the shift, which would pull the top towards zero; the sum is therefore
    divided by the overlap of the two tapers.
    """
    height, width = _grid(shape, band)
    cross = first * second.conj()
    near, dy, dx = _within(fft.irfft2(cross, s=(height, width)), shape, reach)
    chance = _within(fft.irfft2(first * second, s=(height, width)), shape, reach)[0].max() * height * width
    if not near.any():
        return Match(0.0, 0.0, 0.0, float(chance))
    row, column = np.unravel_index(np.argmax(near), near.shape)
    y, x, peak = _climb(cross, float(dy[row]), float(dx[column]), shape, height, band.taper)
    return Match(y, x, peak, float(chance))


def _within(surface: np.ndarray, shape: tuple[int, int], reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of a correlation surface up to ``reach`` pixels, and the shifts of its rows and columns in pixels."""
    shifts = [_signed(n) * (full / n) for n, full in zip(surface.shape, shape, strict=True)]
    inside = [
        np.flatnonzero(np.abs(s) <= max(reach, full / n))
        for s, n, full in zip(shifts, surface.shape, shape, strict=True)
    ]
    return surface[np.ix_(*inside)], shifts[0][inside[0]], shifts[1][inside[1]]


def _climb(
    cross: np.ndarray, y: float, x: float, shape: tuple[int, int], height: int, taper: float
) -> tuple[float, float, float]:
    """Go from a sample of the correlation to the top next to it; return its place in pixels and its height."""
    wy = 2j * np.pi * _signed(height) / shape[0]
    wx = 2j * np.pi * np.arange(cross.shape[1]) / shape[1]
    half = _hermitian(cross.shape[1])
    # Half a sample along each axis is where the top can be; a whole one allows for a slanting ridge.
    step = np.array([shape[0] / height, shape[1] / (2 * (cross.shape[1] - 1))])
    start = at = np.array([y, x])
    best, most, change = (y, x, 0.0), -np.inf, np.zeros(2)
    for _ in range(12):
        # Columns first, for the value and its first two derivatives along x at once. einsum, not BLAS: matrices this
        # narrow gain nothing from its threads, which get into the way of ours.
        ex = half * np.exp(wx * at[1])
        rows = np.einsum("vu,uk->vk", cross, np.stack([ex, wx * ex, wx * wx * ex], axis=1).astype(np.complex64))
        ey = np.exp(wy * at[0])
        sums = (np.stack([ey, wy * ey, wy * wy * ey]) @ rows).real
        value = float(sums[0, 0])
        overlap, fall = zip(*(_overlap(n, taper, float(a)) for n, a in zip(shape, at, strict=True)), strict=True)
        if value / np.prod(overlap) > most:
            best, most = (float(at[0]), float(at[1]), value), value / np.prod(overlap)
            slope = np.array([sums[1, 0], sums[0, 1]]) - value * np.array(fall)
            bend = np.array([[sums[2, 0], sums[1, 1]], [sums[1, 1], sums[0, 2]]])
            if bend[0, 0] >= 0 or np.linalg.det(bend) <= 0:
                break  # not under a dome: keep what there is
            change = -np.linalg.solve(bend, slope)
        else:
            change = change / 2  # stepped over the top
        if np.abs(change).max() < 1e-3:
            break
        at = np.clip(np.array(best[:2]) + change, start - step, start + step)
    return best


def _overlap(length: int, taper: float, shift: float) -> tuple[float, float]:
    """What two tapers share at a shift in pixels, 1 at none, and the slope of its logarithm."""
    at = np.arange(1 - length, length)
    shared, slope = _overlaps(length, taper)
    value = float(np.interp(shift, at, shared))
    return value, float(np.interp(shift, at, slope)) / value


@lru_cache(maxsize=16)
def _overlaps(length: int, taper: float) -> tuple[np.ndarray, np.ndarray]:
    window = _taper(length, taper)
    shared = np.correlate(window, window, mode="full") / (window @ window)
    shared = np.maximum(shared, 0.05)  # where little is shared there is nothing to correct by
    return shared, np.gradient(shared) if length > 1 else np.zeros(1)


def _signed(n: int) -> np.ndarray:
    """0, 1, … and the negative half, in the order of the transform."""
    return np.fft.fftfreq(n, 1 / n)


def _taper(length: int, taper: float) -> np.ndarray:
    # As scipy.signal.windows.tukey(length + 2, 2 * taper)[1:-1], whose import alone takes longer than the alignment.
    side = np.arange(1, length + 1) / (length + 1)
    edge = np.clip(np.minimum(side, 1 - side) / max(min(taper, 0.5), 1e-12), 0, 1)
    return (1 - np.cos(np.pi * edge)) / 2


@lru_cache(maxsize=8)
def _window(shape: tuple[int, int], taper: float) -> np.ndarray:
    y, x = (_taper(n, taper) for n in shape)
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
