"""Boundary probability from intensity: membranes are dark, and they are thin sheets.

1. Ridge: the largest eigenvalue of the Hessian at the scale of a membrane; high across a dark sheet, low inside dark
   mitochondria, which darkness alone takes for membrane.
2. Darkness: the slightly smoothed grey value.
3. Both standardised over the volume, weighted, and turned into a probability by a logistic function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bioimage_cpp.filters import gaussian_smoothing, hessian_of_gaussian_eigenvalues

from emlib.stages.exact_sums import exact_sums, mean_and_spread
from emlib.threads import map_threads
from emlib.volumes.volume import NEAR_ISOTROPIC as NEAR_ISOTROPIC
from emlib.volumes.volume import ZYX
from emlib.volumes.volume import near_isotropic as near_isotropic


@dataclass(frozen=True)
class BoundarySettings:
    """How grey values become a boundary probability.

    Chosen on fib25-medulla z 0-119, larval-vnc-3d z 0-6, drosophila-vnc train sections and phantom seeds.
    """

    ridge_sigma_nm: float = 14.0  # about the half width of a membrane with its two leaflets
    dark_sigma_nm: float = 12.0
    ridge_weight: float = 1.6
    dark_weight: float = 1.2
    threshold: float = 2.4  # standardised evidence at which the probability is one half


def damaged_sections(volume: np.ndarray) -> np.ndarray:
    """Find the sections that hold a single grey value.

    Parameters
    ----------
    volume : (Z, Y, X) array

    Returns
    -------
    (Z,) bool array
    """
    flat = volume.reshape(len(volume), -1)
    return flat.max(axis=1) == flat.min(axis=1)


def smooth(volume: np.ndarray, sigma_nm: float, voxel_size_nm: ZYX) -> np.ndarray:
    """Gaussian smoothing with a width in nm: in 3D when near isotropic, within sections otherwise.

    Parameters
    ----------
    volume : (Z, Y, X) float32 array
    sigma_nm : float
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    (Z, Y, X) float32 array
    """
    return _filtered(volume, sigma_nm, voxel_size_nm, gaussian_smoothing)


def _ridge(volume: np.ndarray, sigma) -> np.ndarray:
    """Largest eigenvalue of the Hessian, a ridge measure for dark sheets (2D: lines)."""
    return np.ascontiguousarray(hessian_of_gaussian_eigenvalues(volume, sigma)[..., 0])


def _filtered(volume: np.ndarray, sigma_nm: float, voxel_size_nm: ZYX, function) -> np.ndarray:
    sigma = [sigma_nm / size for size in voxel_size_nm]
    if not near_isotropic(voxel_size_nm):
        return np.stack(map_threads(lambda section: function(np.ascontiguousarray(section), sigma[1:]), volume))

    def slab(rows: tuple[int, int, int, int]) -> np.ndarray:
        low, start, stop, high = rows
        return function(np.ascontiguousarray(volume[low:high]), sigma)[start - low : stop - low]

    return np.concatenate(map_threads(slab, slabs(len(volume), sigma[0])))


def slabs(depth: int, sigma: float) -> list[tuple[int, int, int, int]]:
    """Rows (low, start, stop, high) of the slabs in which a near-isotropic volume is filtered, with their margins.

    Slabs with a margin wider than the kernel give the same result as the whole and run on several threads.

    Examples
    --------
    >>> slabs(40, 1.4)
    [(0, 0, 32, 40), (24, 32, 40, 40)]
    """
    margin = int(np.ceil(5 * sigma)) + 1
    step = max(16, 4 * margin)
    starts = range(0, depth, step)
    return [(max(0, at - margin), at, min(depth, at + step), min(depth, at + step + margin)) for at in starts]


def intensity_boundaries(em: np.ndarray, voxel_size_nm: ZYX, settings: BoundarySettings | None = None) -> np.ndarray:
    """Compute the probability that a voxel lies on a membrane, from grey values alone.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
        Preprocessed and aligned, membranes dark.
    voxel_size_nm : (z, y, x) in nm
    settings : BoundarySettings

    Returns
    -------
    (Z, Y, X) float32 array in [0, 1]
        Sections that hold a single grey value get 0.

    Notes
    -----
    The largest Hessian eigenvalue as a measure of sheets follows Sato et al. 2000; it is taken in 3D when the volume
    is near isotropic and within sections otherwise. Standardising makes the weights independent of contrast.
    """
    settings = settings or BoundarySettings()
    em = np.asarray(em, dtype=np.float32)
    damaged = damaged_sections(em)
    if damaged.all():
        return np.zeros_like(em)
    good = em[~damaged] if damaged.any() else em
    ridge, dark = boundary_evidence(good, voxel_size_nm, settings)
    probability = _probability(_standardised(ridge), _standardised(dark), settings)
    if not damaged.any():
        return probability
    result = np.zeros_like(em)
    result[~damaged] = probability
    return result


def boundary_evidence(em: np.ndarray, voxel_size_nm: ZYX, settings: BoundarySettings) -> tuple[np.ndarray, np.ndarray]:
    """Return ridge and smoothed grey value of each voxel, float32, not yet standardised."""
    ridge = _filtered(em, settings.ridge_sigma_nm, voxel_size_nm, _ridge)
    return ridge, smooth(em, settings.dark_sigma_nm, voxel_size_nm)


def filter_reach(sigma_nm: float, voxel_size_nm: ZYX) -> tuple[int, int, int]:
    """Voxels (z, y, x) that a filter of this width looks at on either side, rather too many than too few.

    Examples
    --------
    >>> filter_reach(14, (10, 10, 10)), filter_reach(14, (40, 8, 8))
    ((8, 8, 8), (0, 10, 10))
    """
    z, y, x = (int(np.ceil(5 * sigma_nm / size)) + 1 for size in voxel_size_nm)
    return (z if near_isotropic(voxel_size_nm) else 0), y, x


def boundary_probability(
    ridge: np.ndarray,
    dark: np.ndarray,
    of_ridge: tuple[float, float],
    of_dark: tuple[float, float],
    settings: BoundarySettings,
) -> np.ndarray:
    """Turn the evidence of `boundary_evidence` into a probability, in the place of ``ridge`` and ``dark``.

    ``of_ridge`` and ``of_dark`` are mean and standard deviation over the whole volume.
    """
    return _probability(_standardised(ridge, of_ridge), _standardised(dark, of_dark), settings)


def _probability(ridge: np.ndarray, dark: np.ndarray, settings: BoundarySettings) -> np.ndarray:
    evidence = settings.ridge_weight * ridge - settings.dark_weight * dark - settings.threshold
    return 1 / (1 + np.exp(-evidence))


def _standardised(values: np.ndarray, known: tuple[float, float] | None = None) -> np.ndarray:
    """Shift and scale to mean 0 and standard deviation 1, in place; by those of the whole where they are known."""
    mean, spread = known or mean_and_spread([exact_sums(values)])
    values -= np.float32(mean)
    values /= np.float32(max(spread, 1e-12))
    return values
