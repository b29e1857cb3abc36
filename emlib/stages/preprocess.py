"""Denoise and equalise each section of an EM volume.

1. Scale the grey values of the stored type to [0, 1].
2. Per section: a light Gaussian against shot noise, then contrast-limited adaptive histogram equalisation (CLAHE).
3. A section without contrast is left as it is: equalising would only bring out its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi
from skimage.exposure import equalize_adapthist

from emlib.threads import map_threads

_FLAT = 2 / 255  # a section with less contrast holds nothing that equalising could bring out but noise


@dataclass(frozen=True)
class PreprocessSettings:
    """What ``preprocess`` does to each section."""

    sigma_px: float = 0.7  # Gaussian against shot noise, in pixels of the section; 0 switches it off
    clip_limit: float = 0.01  # CLAHE: highest share of a tile's pixels in one grey level; 0 switches it off
    tiles: int = 8  # CLAHE: contextual regions along each axis of a section


def preprocess(volume: np.ndarray, settings: PreprocessSettings = PreprocessSettings()) -> np.ndarray:
    """Denoise each section and equalise its contrast.

    Parameters
    ----------
    volume : (Z, Y, X) array
        Grey values as stored; an integer type counts as its full range, a float as [0, 1].
    settings : PreprocessSettings

    Returns
    -------
    (Z, Y, X) float32 array in [0, 1]
        Sections are treated each for itself. A section without contrast stays constant.

    Raises
    ------
    ValueError
        If ``volume`` is not three-dimensional, is empty, is constant, or holds NaN or infinity.

    Notes
    -----
    CLAHE follows Zuiderveld 1994 in the implementation of scikit-image: 0.1 s for a section of 1024² and 5 ms for one
    of 256² on one core; threads gain little, because most of it runs in Python.

    Examples
    --------
    >>> volume = np.random.default_rng(0).integers(90, 160, (2, 32, 32), dtype=np.uint8)
    >>> result = preprocess(volume)
    >>> result.dtype.name, float(result.min()), float(result.max())
    ('float32', 0.0, 1.0)
    """
    volume = np.asarray(volume)
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"preprocess needs a (Z, Y, X) volume with voxels, got shape {volume.shape}")
    if not np.isfinite(volume).all():
        raise ValueError("the volume holds NaN or infinity")
    if volume.min() == volume.max():
        raise ValueError(f"the volume is constant (every voxel is {volume.flat[0]}); there is nothing to see in it")

    out = np.empty(volume.shape, np.float32)

    def one(z: int) -> None:
        out[z] = preprocess_section(volume[z], settings)

    map_threads(one, range(len(volume)))
    return out


def preprocess_section(section: np.ndarray, settings: PreprocessSettings = PreprocessSettings()) -> np.ndarray:
    """Denoise and equalise one (Y, X) section as ``preprocess`` does; float32 in [0, 1]."""
    return _equalise(_unit_range(section), settings)


def _unit_range(section: np.ndarray) -> np.ndarray:
    """Grey values as float32 in [0, 1], by the range of the type, so that sections keep their relation."""
    if section.dtype == bool:
        return section.astype(np.float32)
    if np.issubdtype(section.dtype, np.integer):
        info = np.iinfo(section.dtype)
        return (section.astype(np.float32) - info.min) / np.float32(float(info.max) - info.min)
    return np.clip(section, 0, 1).astype(np.float32)


def _equalise(section: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """Gaussian, then CLAHE, of one (Y, X) float32 section in [0, 1]."""
    if section.min() == section.max():
        return section  # CLAHE would divide by a range of zero
    smooth = ndi.gaussian_filter(section, settings.sigma_px) if settings.sigma_px > 0 else section
    np.clip(smooth, 0, 1, out=smooth)  # rounding of the filter
    if settings.clip_limit <= 0 or np.ptp(smooth) < _FLAT:
        return smooth
    kernel = [max(n // settings.tiles, 1) for n in smooth.shape]
    return equalize_adapthist(smooth, kernel_size=kernel, clip_limit=settings.clip_limit).astype(np.float32)
