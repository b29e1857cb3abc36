"""Where neurites end, from the labels of neurites: what a network of boundaries is taught.

1. A voxel is on a boundary where a neighbour has another label: among the six neighbours of a near-isotropic volume,
   among the four of its section otherwise, since sections of an anisotropic one are too far apart.
2. The boundary is widened until it is as thick as a membrane with its two leaflets.
3. Label 0 is boundary (a membrane that was left unlabelled), unless it is said to mean that nobody annotated it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.volumes.volume import ZYX

THICK_NM = 20.0  # a membrane of each of two neurites and the cleft between; two voxels of 10 nm


def boundary_targets(
    labels: np.ndarray,
    voxel_size_nm: ZYX,
    axes: Sequence[int] = (0, 1, 2),
    ignore: int | None = None,
    thick_nm: float = THICK_NM,
) -> np.ndarray:
    """Mark the voxels on boundaries between labels.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        0 is boundary.
    voxel_size_nm : (z, y, x) in nm
    axes : sequence of int
        Along which neighbours are compared: all three, or (1, 2) for sections that are far apart.
    ignore : int, optional
        The label of voxels that nobody annotated: where they begin there is no boundary.
    thick_nm : float
        How thick a boundary is made, at least the two voxels that touch.

    Returns
    -------
    (Z, Y, X) uint8 array
        1 on a boundary, 0 inside neurites, 255 where nobody annotated.

    Examples
    --------
    >>> boundary_targets(np.array([[[1, 1, 1, 2, 2, 2]]]), (10, 10, 10))
    array([[[0, 0, 1, 1, 0, 0]]], dtype=uint8)
    >>> boundary_targets(np.array([[[1, 1, 1, 0, 0, 2]]]), (10, 10, 10), ignore=0)
    array([[[  0,   0,   0, 255, 255,   0]]], dtype=uint8)
    """
    found = np.zeros(labels.shape, bool)
    unknown = None if ignore is None else labels == ignore
    for axis in axes:
        ahead, behind = (_cut(labels, axis, part) for part in (np.s_[1:], np.s_[:-1]))
        differ = ahead != behind
        if unknown is not None:
            differ &= ~(_cut(unknown, axis, np.s_[1:]) | _cut(unknown, axis, np.s_[:-1]))
        for part in (np.s_[1:], np.s_[:-1]):
            side = _cut(found, axis, part)
            side |= differ
    if ignore != 0:
        found |= labels == 0
    found = _thickened(found, voxel_size_nm, axes, thick_nm)
    targets = found.astype(np.uint8)
    if unknown is not None:
        targets[unknown] = UNKNOWN
    return targets


def targets_reach(voxel_size_nm: ZYX, axes: Sequence[int], thick_nm: float = THICK_NM) -> tuple[int, int, int]:
    """Return how far (z, y, x) the target of a voxel looks at labels, in voxels on either side.

    Examples
    --------
    >>> targets_reach((50, 4, 4), (1, 2)), targets_reach((10, 10, 10), (0, 1, 2))
    ((0, 3, 3), (1, 1, 1))
    """
    far = _widened(voxel_size_nm, axes, thick_nm)
    z, y, x = (1 + max(far[axis], 0) if axis in axes else 0 for axis in range(3))
    return z, y, x


def _widened(voxel_size_nm: ZYX, axes: Sequence[int], thick_nm: float) -> list[int]:
    """By how many voxels on each side what is two voxels thick is widened: those nearest to half of what lacks."""
    return [round((thick_nm / voxel_size_nm[axis] - 2) / 2) if axis in axes else 0 for axis in range(3)]


def _thickened(found: np.ndarray, voxel_size_nm: ZYX, axes: Sequence[int], thick_nm: float) -> np.ndarray:
    """Widen what is two voxels thick."""
    reach = _widened(voxel_size_nm, axes, thick_nm)
    if max(reach) < 1:
        return found
    grid = np.meshgrid(*(np.arange(-max(r, 0), max(r, 0) + 1) / max(r, 1) for r in reach), indexing="ij")
    ball = sum(side**2 for side in grid) <= 1 + 1e-9
    return ndimage.binary_dilation(found, ball)


def _cut(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    """A view of one axis in part."""
    return array[(*[slice(None)] * axis, part)]
