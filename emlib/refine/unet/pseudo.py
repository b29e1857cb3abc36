"""What the network is told to find: pseudo-labels of a segmentation where they are sure, corrected sections elsewhere.

Targets are planes of 0 (neurite), 1 (boundary) and 255 (not known).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.volumes.labelled import along
from emlib.refine.corrections import Corrections
from emlib.refine.examples import background_of
from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import ZYX


def learnt_axes(voxel_size_nm: ZYX) -> tuple[int, ...]:
    """Return the axes across which planes are learnt and predicted: all three where voxels are near cubes, else z.

    Examples
    --------
    >>> learnt_axes((10, 10, 10)), learnt_axes((40, 8, 8))
    ((0, 1, 2), (0,))
    """
    return (0, 1, 2) if near_isotropic(voxel_size_nm) else (0,)


def pseudo_targets(
    labels: np.ndarray, boundaries: np.ndarray, axes: Sequence[int], *, certain: float, band_px: int
) -> tuple[np.ndarray, ...]:
    """Make targets of a segmentation, known where it and the boundary probability agree.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    boundaries : (Z, Y, X) float array in [0, 1]
    axes : sequence of int
        From `learnt_axes`.
    certain : float in [0.5, 1)
        Least probability of a boundary, and of neurite, that is sure.
    band_px : int
        See `emlib.refine.examples.background_of`; the band lies in the plane.

    Returns
    -------
    tuple of uint8 arrays
        For each axis (N, A, B): planes across it.

    Examples
    --------
    >>> labels, boundary = np.array([[[1, 1, 2, 2, 2]]]), np.array([[[0.1, 0.9, 0.5, 0.5, 0.0]]])
    >>> pseudo_targets(labels, boundary, (0,), certain=0.6, band_px=2)[0][0, 0].tolist()
    [0, 1, 255, 255, 0]
    """
    found = []
    for axis in axes:
        planes, probability = along(labels, axis), along(boundaries, axis)
        targets = np.full(planes.shape, UNKNOWN, np.uint8)
        for plane, likely, target in zip(planes, probability, targets, strict=True):
            border = background_of(plane, band_px)
            target[border & (likely >= certain)] = 1
            target[~border & (likely <= 1 - certain)] = 0
        found.append(targets)
    return tuple(found)


def corrected_targets(corrections: Corrections, band_px: int, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Make targets of corrected sections, and hold out a strip of each.

    Parameters
    ----------
    corrections : Corrections
    band_px : int
    held_out : float
        Width of a strip, along x, as a share of the section. Sections have theirs at different places.

    Returns
    -------
    learnt, held : (K, Y, X) uint8 arrays
        The same targets, not known in the strips, and nowhere else.
    """
    targets = np.stack([background_of(labels, band_px) for labels in corrections.labels]).astype(np.uint8)
    learnt, held = targets.copy(), np.full_like(targets, UNKNOWN)
    width = targets.shape[2]
    strip = max(1, round(held_out * width))
    count = max(1, round(1 / held_out))
    for number in range(len(targets)):
        first = round(((2 * number + 1) % count) / count * width)  # neighbouring sections have strips far apart
        here = slice(min(first, width - strip), min(first, width - strip) + strip)
        learnt[number][:, here] = UNKNOWN
        held[number][:, here] = targets[number][:, here]
    return learnt, held
