"""The baseline segmenter: each section by itself, then sections stitched by overlap.

1. Foreground: pixels brighter than a quantile of their section, cleaned by an opening.
2. Seeds: peaks of the distance to the background; watershed of that distance within the foreground.
3. Stitch: labels of neighbouring sections that overlap enough become one, by union-find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bioimage_cpp.distance import distance_transform
from bioimage_cpp.segmentation import label, watershed
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.threads import map_threads
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class BaselineSettings:
    """Settings of the slice-wise baseline; lengths in nm."""

    foreground_quantile: float = 0.35  # darker pixels of a section are background
    opening_nm: float = 10.0  # radius of the opening that removes specks
    seed_window_nm: float = 120.0  # one seed per window
    min_overlap: float = 0.3  # of the smaller label, for two sections' labels to become one


def segment_sections(em: np.ndarray, voxel_size_nm: ZYX, settings: BaselineSettings | None = None) -> np.ndarray:
    """Segment each section by itself into instances.

    Parameters
    ----------
    em : (Z, Y, X) float array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    settings : BaselineSettings

    Returns
    -------
    (Z, Y, X) int32 array
        0 is background; ids are unique across sections.
    """
    settings = settings or BaselineSettings()
    pixel = (voxel_size_nm[1] + voxel_size_nm[2]) / 2
    radius = round(settings.opening_nm / pixel)
    window = max(3, round(settings.seed_window_nm / pixel) | 1)
    disk = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius

    def one(section: np.ndarray) -> np.ndarray:
        foreground = section > np.quantile(section, settings.foreground_quantile)
        if radius:
            foreground = ndimage.binary_opening(foreground, disk)
        if not foreground.any():
            return np.zeros(section.shape, np.int32)
        depth = distance_transform(foreground)
        seeds = (ndimage.maximum_filter(depth, size=window) == depth) & foreground
        return watershed(-depth, label(seeds).astype(np.int32), mask=foreground)

    sections = map_threads(one, np.asarray(em, dtype=np.float32))
    first = np.cumsum([0, *(int(section.max()) for section in sections[:-1])])
    return np.stack(
        [np.where(section > 0, section + offset, 0) for section, offset in zip(sections, first, strict=True)]
    ).astype(np.int32)


def stitch(labels: np.ndarray, min_overlap: float = 0.3) -> np.ndarray:
    """Join labels of neighbouring sections that overlap.

    Parameters
    ----------
    labels : (Z, Y, X) int32 array
        Ids unique across sections, 0 is background.
    min_overlap : float in (0, 1]
        Two labels become one when they share at least this part of the smaller.

    Returns
    -------
    (Z, Y, X) int32 array
        Ids from 1 without gaps, in the order of first appearance of their smallest id.
    """
    count = int(labels.max()) + 1
    if count == 1 or len(labels) < 2:
        return labels.astype(np.int32)
    area = np.bincount(labels.ravel(), minlength=count)
    return stitched(*overlaps(labels), area, min_overlap)[labels]


def overlaps(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels that labels of neighbouring sections share.

    Parameters
    ----------
    labels : (Z, Y, X) int array
        Ids unique across sections, 0 is background.

    Returns
    -------
    pairs : (K, 2) int64 array
        Labels that lie on top of each other, ascending.
    shared : (K,) int64 array
        Pixels.
    """
    count = int(labels.max(initial=0)) + 1
    below, above = labels[:-1].ravel(), labels[1:].ravel()
    touching = (below > 0) & (above > 0)
    pairs, shared = np.unique(below[touching].astype(np.int64) * count + above[touching], return_counts=True)
    return np.stack([pairs // count, pairs % count], axis=1), shared


def stitched(pairs: np.ndarray, shared: np.ndarray, area: np.ndarray, min_overlap: float) -> np.ndarray:
    """Join labels that overlap enough.

    Parameters
    ----------
    pairs, shared
        From `overlaps`.
    area : (N,) int array
        Pixels of each label, from 0.
    min_overlap : float in (0, 1]

    Returns
    -------
    (N,) int32 array
        The neurite of each label, 0 for 0.
    """
    a, b = pairs.T
    same = shared >= min_overlap * np.minimum(area[a], area[b])
    links = coo_array((np.ones(same.sum(), bool), (a[same], b[same])), shape=(len(area),) * 2)
    # Components are numbered by their smallest node, so background (node 0, never linked) stays 0.
    return connected_components(links, directed=False)[1].astype(np.int32)
