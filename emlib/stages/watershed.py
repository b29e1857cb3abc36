"""Watershed fragments: small pieces that do not cross a membrane, to be joined by agglomeration.

1. Smooth the boundary probability a little.
2. Seeds: its local minima within a window; plateaus make one seed.
3. Flood the smoothed probability from the seeds: in 3D when near isotropic, section by section otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bioimage_cpp.segmentation import label, watershed
from scipy import ndimage

from emlib.stages.boundaries import near_isotropic, smooth
from emlib.threads import map_threads
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class FragmentSettings:
    """How fine the fragments are; chosen on the data named in ``BoundarySettings``."""

    smooth_nm: float = 7.0  # sigma of the smoothing before seeds are sought
    seed_window_nm: float = 70.0  # a seed is the lowest point in a window of this width


def watershed_fragments(
    boundaries: np.ndarray, voxel_size_nm: ZYX, settings: FragmentSettings | None = None
) -> np.ndarray:
    """Cut a volume into fragments along its boundaries.

    Parameters
    ----------
    boundaries : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    settings : FragmentSettings

    Returns
    -------
    (Z, Y, X) int32 array
        Every voxel belongs to a fragment, numbered from 1. In anisotropic volumes a fragment lies in one section and
        ids rise with the section.

    Notes
    -----
    Seeded watershed after Meyer 1994, as implemented by bioimage-cpp.
    """
    settings = settings or FragmentSettings()
    relief = smooth(np.asarray(boundaries, dtype=np.float32), settings.smooth_nm, voxel_size_nm)
    window = seed_window(voxel_size_nm, settings)
    if near_isotropic(voxel_size_nm):
        return _flood(relief, window)
    sections = map_threads(lambda section: _flood(section, window[1:]), relief)
    first = np.cumsum([0, *(int(section.max()) for section in sections[:-1])])
    return np.stack([section + np.int32(offset) for section, offset in zip(sections, first, strict=True)])


def seed_window(voxel_size_nm: ZYX, settings: FragmentSettings) -> list[int]:
    """Sides (z, y, x) in voxels, odd, of the window in which a seed is the lowest point."""
    return [max(3, round(settings.seed_window_nm / size) | 1) for size in voxel_size_nm]


def _flood(relief: np.ndarray, window: list[int]) -> np.ndarray:
    """Watershed of one 2D or 3D relief from its local minima."""
    minima = ndimage.minimum_filter(relief, size=window) == relief
    return watershed(relief, label(minima).astype(np.int32))
