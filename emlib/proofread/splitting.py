"""Cut a neurite in two or more along the boundary between seeds.

1. Keep of each seed what lies in the neurite.
2. Flood the boundary probability from the seeds, inside the neurite alone: in the section of the seeds, or in 3D. Where
   it is level, as where two neurites were merged for want of a membrane, the nearer seed comes first.
3. The part of the first seed keeps the id, the others get new ones; pieces that no flood reaches keep it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bioimage_cpp.segmentation import watershed
from scipy.spatial import cKDTree

from emlib.errors import UserError
from emlib.proofread.boxes import Box, box_of, slices
from emlib.proofread.deltas import Delta, make_delta
from emlib.proofread.edits import find_voxels, inside
from emlib.volumes.volume import ZYX

LEVELS, STEPS = 128, 512  # of the probability, and of the slope within each: the watershed tells 65536 heights apart
SEEDS = 1000  # voxels of seeds that distances are taken to
CLICKS = 20  # so few are quicker without a tree
Relief = Callable[[Box], np.ndarray]  # boundary probability of a box


def split(
    labels: np.ndarray,
    boundary: np.ndarray | Relief,
    seeds: Sequence[Any],
    neurite: int,
    new_ids: Sequence[int],
    voxel_size_nm: ZYX = (1.0, 1.0, 1.0),
    within: Box | None = None,
    z: int | None = None,
) -> Delta | None:
    """Cut a neurite between seeds.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    boundary : (Z, Y, X) float array in [0, 1], or a function that returns it for a box
    seeds : list of (N, 3) int arrays of z, y, x
        Two or more, clicked or painted; what lies outside of the neurite is left out, and what two seeds share belongs
        to the first.
    neurite : int
    new_ids : list of int
        One less than there are seeds.
    voxel_size_nm : (z, y, x) in nm
    within : box, optional
    z : int, optional
        Cut this section alone; all seeds lie in it.

    Returns
    -------
    Delta or None

    Raises
    ------
    UserError
        If there are fewer than two seeds, one has no voxel in the neurite (and section), or none is left to it.

    Notes
    -----
    Seeded watershed after Meyer 1994, as implemented by bioimage-cpp, over faces of voxels. That one gives a plateau to
    whichever seed comes last; hence the probability is cut into 128 levels, and each is a slope away from the seeds.
    """
    if len(seeds) < 2:
        raise UserError(f"a split needs two seeds or more, not {len(seeds)}; click or paint one in each part")
    places = find_voxels(labels, neurite, within, z)
    marked = [_inside_neurite(labels, seed, number, neurite, z) for number, seed in enumerate(seeds, 1)]
    box = box_of(places, labels.shape)
    markers = np.zeros([end - start for start, end in zip(box[::2], box[1::2], strict=True)], np.int32)
    mask = labels[slices(box)] == neurite
    for number, voxels in reversed(list(enumerate(marked, 1))):
        markers[tuple((voxels - box[::2]).T)] = number
    if gone := [number for number in range(1, len(seeds) + 1) if not (markers == number).any()]:
        raise UserError(f"seed {gone[0]} lies wholly under another seed; paint it elsewhere")
    relief = _terraces(boundary(box) if callable(boundary) else boundary[slices(box)], mask, markers, voxel_size_nm)
    if z is None:
        parts = watershed(relief, markers, mask=mask)
    else:
        parts = watershed(relief[0], markers[0], mask=mask[0])[None]
    part = parts[mask]
    after = np.array([neurite, neurite, *new_ids], np.int64)[part]
    return make_delta(labels.shape, places, np.full(len(places), neurite), after)


def _terraces(boundary: np.ndarray, mask: np.ndarray, markers: np.ndarray, voxel_size_nm: ZYX) -> np.ndarray:
    """The probability in levels, each with a slope that rises with the distance from the nearest seed; float32."""
    relief = np.zeros(mask.shape, np.float32)
    size = np.asarray(voxel_size_nm, np.float32)
    seeds = np.argwhere(markers) * size
    seeds = seeds[:: -(-len(seeds) // SEEDS)]  # of a long stroke every so many voxels tell as much
    voxels = [axis.astype(np.float32) * scale for axis, scale in zip(np.nonzero(mask), size, strict=True)]
    if len(seeds) <= CLICKS:
        distance = np.full(len(voxels[0]), np.inf, np.float32)
        for seed in seeds:
            np.minimum(distance, sum((axis - at) ** 2 for axis, at in zip(voxels, seed, strict=True)), out=distance)
        distance = np.sqrt(distance)
    else:
        distance, _ = cKDTree(seeds).query(np.stack(voxels, 1))
    slope = np.floor(distance * ((STEPS - 1) / max(distance.max(), 1e-9)))
    level = np.floor(np.clip(np.asarray(boundary[mask], np.float32), 0, 1) * (LEVELS - 1))
    relief[mask] = level * STEPS + slope
    return relief


def _inside_neurite(labels: np.ndarray, seed: Any, number: int, neurite: int, z: int | None) -> np.ndarray:
    """What of a seed lies in the neurite, and in the section that is to be cut."""
    voxels = inside(labels.shape, seed)
    if z is not None and not (voxels[:, 0] == z).any():
        raise UserError(
            f"seed {number} lies in section {voxels[0, 0]}, and section {z} is to be cut; paint all seeds there, or "
            "cut in 3D"
        )
    hit = labels[tuple(voxels.T)]
    kept = voxels[(hit == neurite) & (True if z is None else voxels[:, 0] == z)]
    if not len(kept):
        at = ", ".join(f"{axis}={value}" for axis, value in zip("zyx", voxels[0], strict=True))
        raise UserError(f"seed {number} at {at} lies in neurite {hit[0]}, not in {neurite}; click inside of {neurite}")
    return kept
