"""Cut a neurite in two or more along the boundary between seeds.

1. Keep of each seed what lies in the neurite.
2. A connected piece of the neurite with one seed goes to it whole; one without any keeps the id.
3. Flood the boundary probability from the seeds in each piece that has several: in their section, or in 3D. Where it is
   level, as where two neurites were merged for want of a membrane, the nearer seed comes first.
4. The part of the first seed keeps the id, the others get new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.proofread.boxes import Box, slices
from emlib.proofread.deltas import Delta, make_run_delta
from emlib.proofread.edits import inside
from emlib.proofread.flooding import Piece, flood
from emlib.proofread.pieces import Runs, connected, cut_runs, label_runs, touching_runs
from emlib.volumes.volume import ZYX

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
    See `emlib.proofread.flooding`.
    """
    if len(seeds) < 2:
        raise UserError(f"a split needs two seeds or more, not {len(seeds)}; click or paint one in each part")
    marked = [_inside_neurite(labels, seed, number, neurite, z) for number, seed in enumerate(seeds, 1)]
    seed_at, first = np.unique(
        np.concatenate([np.ravel_multi_index(tuple(voxels.T), labels.shape) for voxels in marked]), return_index=True
    )
    number = np.repeat(np.arange(1, len(seeds) + 1), [len(voxels) for voxels in marked])[first]  # the first one wins
    if gone := set(range(1, len(seeds) + 1)) - set(number.tolist()):
        raise UserError(f"seed {min(gone)} lies wholly under another seed; paint it elsewhere")
    runs = label_runs(labels, neurite, within, z)
    group = connected(len(runs.start), *touching_runs(runs, labels.shape))
    seed_group = group[np.searchsorted(runs.end, seed_at, "right")]
    part = np.ones(int(group.max()) + 1, np.int64)
    part[seed_group] = number
    contested = [piece for piece in np.unique(seed_group) if len(set(number[seed_group == piece].tolist())) > 1]
    rest = ~np.isin(group, contested)
    found = [(runs.keep(rest), part[group[rest]])]
    for piece in contested:
        own, mine = runs.keep(group == piece), seed_group == piece
        found.append(_flooded(own, seed_at[mine], number[mine], labels.shape, boundary, voxel_size_nm))
    start, end, owner = (
        np.concatenate(column) for column in zip(*((r.start, r.end, which) for r, which in found), strict=True)
    )
    changed = np.flatnonzero(owner > 1)
    changed = changed[np.argsort(start[changed])]
    after = np.array([neurite, neurite, *new_ids], np.int64)[owner[changed]]
    return make_run_delta(labels.shape, start[changed], end[changed], neurite, after)


def _flooded(
    runs: Runs, seed_at: np.ndarray, number: np.ndarray, shape: tuple[int, int, int], boundary, voxel_size_nm: ZYX
) -> tuple[Runs, np.ndarray]:
    """The runs of a piece with several seeds, cut where the seed changes, and the seed of each."""
    box = runs.box(shape)
    local = runs.within(box, shape)
    relief = boundary(box) if callable(boundary) else boundary[slices(box)]
    size = (box[1] - box[0], box[3] - box[2], box[5] - box[4])
    piece = Piece(size, local, np.asarray(relief).reshape(-1)[local.places()], voxel_size_nm)
    which = np.searchsorted(runs.end, seed_at, "right")
    marked = runs.first[which] + seed_at - runs.start[which]
    return cut_runs(runs, flood(piece, marked, number.astype(np.int32)))


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
