"""Edits of neurite labels as pure functions: each looks at the labels and returns what would change, a `Delta`.

None of them writes: `emlib.proofread.session` puts the delta into the journal first and into the labels after that.
``within`` is a box that is known to hold all of the neurite; without it the whole volume is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cc3d
import numpy as np

from emlib.errors import UserError
from emlib.proofread.boxes import Box, slices, whole
from emlib.proofread.deltas import Delta, make_delta, make_run_delta
from emlib.proofread.pieces import label_runs
from emlib.threads import map_threads
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class Edit:
    """What is to be done, as buttons, keys and tests say it.

    Attributes
    ----------
    operation : str
        A name in `emlib.proofread.operations.OPERATIONS`.
    arguments : dict
        What it takes; JSON values, or arrays of voxels.

    Examples
    --------
    >>> Edit("merge", {"keep": 3, "gone": 8}).operation
    'merge'
    """

    operation: str
    arguments: dict[str, Any] = field(default_factory=dict)


def find_voxels(labels: np.ndarray, neurite: int, within: Box | None = None, z: int | None = None) -> np.ndarray:
    """Find the voxels of a neurite.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    neurite : int
    within : box, optional
    z : int, optional
        This section alone.

    Returns
    -------
    (N,) int64 array
        C-order indices in the whole volume, ascending.
    """
    z0, z1, y0, y1, x0, x1 = within or whole(labels.shape)
    _, height, width = labels.shape
    sections = range(z0, z1) if z is None else range(max(z, z0), min(z + 1, z1))

    def one(section: int) -> np.ndarray:
        y, x = np.divmod(np.flatnonzero(labels[section, y0:y1, x0:x1] == neurite), max(1, x1 - x0))
        return (section * height + y + y0) * width + x + x0

    found = map_threads(one, sections)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def relabel(labels: np.ndarray, neurite: int, to: int, within: Box | None = None, z: int | None = None) -> Delta | None:
    """Give all voxels of a neurite, or those of section ``z``, another id; 0 deletes them."""
    runs = label_runs(labels, neurite, within, z)
    return make_run_delta(labels.shape, runs.start, runs.end, neurite, to)


def merge(labels: np.ndarray, keep: int, gone: int, within: Box | None = None) -> Delta | None:
    """Give the voxels of ``gone`` to ``keep``; ``within`` holds ``gone``."""
    return relabel(labels, gone, keep, within)


def delete(labels: np.ndarray, neurite: int, within: Box | None = None, z: int | None = None) -> Delta | None:
    """Turn a neurite, or its part in section ``z``, into background."""
    return relabel(labels, neurite, 0, within, z)


def paint(labels: np.ndarray, voxels: Any, neurite: int, over: int | None = None) -> Delta | None:
    """Give voxels to a neurite; 0 erases.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    voxels : (N, 3) int array of z, y, x
        In any order; one may come twice.
    neurite : int
    over : int, optional
        Only voxels that have this label now: 0 paints on background alone, another id keeps to that neurite.

    Raises
    ------
    UserError
        If a voxel lies outside of the volume.
    """
    places = np.unique(np.ravel_multi_index(tuple(inside(labels.shape, voxels).T), labels.shape))
    old = labels.reshape(-1)[places]
    if over is not None:
        places, old = places[old == over], old[old == over]
    return make_delta(labels.shape, places, old, neurite) if len(places) else None


def new_id(
    labels: np.ndarray, at: Sequence[int], to: int, within: Box | None = None, z: int | None = None
) -> Delta | None:
    """Give the connected piece at a voxel an id of its own.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    at : z, y, x
    to : int
        The id.
    within : box, optional
    z : int, optional
        The piece within this section alone, which must be that of ``at``.

    Returns
    -------
    Delta or None
        None if nothing but this piece has the label (within the section, with ``z``): it is a neurite of its own.

    Notes
    -----
    Voxels that share a corner are connected, so that a piece is not cut where a thin neurite runs aslant.
    """
    neurite = int(labels[tuple(at)])
    box = within or whole(labels.shape)
    if z is not None:
        box = (z, z + 1, *box[2:])
    mask = labels[slices(box)] == neurite
    pieces = cc3d.connected_components(mask, connectivity=26)
    start = box[::2]
    mine = pieces == pieces[tuple(a - b for a, b in zip(at, start, strict=True))]
    if np.array_equal(mine, mask):
        return None
    return make_delta(labels.shape, _whole_places(mine, box, labels.shape), neurite, to)


def fill(
    labels: np.ndarray, neurite: int, within: Box | None = None, z: int | None = None, over: int | None = None
) -> Delta | None:
    """Close the holes of a neurite: what it encloses becomes part of it.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    neurite : int
    within : box, optional
    z : int, optional
        Holes of this section; without it those of the volume, which are closed on all sides, z included.
    over : int, optional
        Only voxels that have this label now; 0 leaves enclosed neurites alone.

    Notes
    -----
    A hole has no way to the faces of the box over voxels that share a face. What touches the border of the volume may
    go on beyond it and is no hole.
    """
    box = within or whole(labels.shape)
    if z is not None:
        box = (z, z + 1, *box[2:])
    crop = labels[slices(box)]
    outside = crop != neurite
    pieces = cc3d.connected_components(outside if z is None else outside[0], connectivity=6 if z is None else 4)
    pieces = pieces.reshape(crop.shape)
    hole = np.ones(int(pieces.max(initial=0)) + 1, bool)
    hole[0] = False
    for axis in range(3) if z is None else (1, 2):
        for face in (0, -1):
            hole[np.unique(np.take(pieces, face, axis=axis))] = False
    chosen = hole[pieces]
    if over is not None:
        chosen &= crop == over
    places = _whole_places(chosen, box, labels.shape)
    return make_delta(labels.shape, places, crop[chosen], neurite) if len(places) else None


def brush(
    shape: tuple[int, int, int], path: Any, radius_nm: float, voxel_size_nm: ZYX, flat: bool = True
) -> np.ndarray:
    """Return the voxels that a stroke of a round brush covers.

    Parameters
    ----------
    shape : (Z, Y, X) of the volume
    path : (N, 3) array of z, y, x in voxels
        The stroke; between its points the brush moves in a straight line, so that a quick one has no gaps.
    radius_nm : float
        The voxels on the path itself are always covered.
    voxel_size_nm : (z, y, x) in nm
    flat : bool
        A disk in the sections of the path; otherwise a ball.

    Returns
    -------
    (N, 3) int64 array of z, y, x
        Inside of the volume, none twice.

    Examples
    --------
    >>> brush((1, 3, 5), [[0, 1, 1], [0, 1, 3]], 0, (40, 8, 8)).tolist()
    [[0, 1, 1], [0, 1, 2], [0, 1, 3]]
    """
    path = np.atleast_2d(np.asarray(path, np.float64))
    line = [path[:1]]
    for start, end in pairwise(path):
        steps = max(1, int(np.ceil(np.abs(end - start).max())))
        line.append(start + (end - start) * np.arange(1, steps + 1)[:, None] / steps)
    centres = np.unique(np.rint(np.concatenate(line)).astype(np.int64), axis=0)
    reach = [int(radius_nm // size) for size in voxel_size_nm]
    if flat:
        reach[0] = 0
    around = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    around = around[((around * np.asarray(voxel_size_nm)) ** 2).sum(1) <= radius_nm**2]
    voxels = np.unique((centres[:, None] + around).reshape(-1, 3), axis=0)
    return voxels[((voxels >= 0) & (voxels < shape)).all(1)]


def inside(shape: tuple[int, int, int], voxels: Any) -> np.ndarray:
    """Return voxels as an (N, 3) int64 array of z, y, x, all of which lie in the volume.

    Raises
    ------
    UserError
        If one does not, or they are no such list.
    """
    try:
        given = np.asarray(voxels, np.float64)
    except (TypeError, ValueError):
        given = np.zeros(0)
    if given.ndim != 2 or given.shape[1] != 3 or not len(given) or (given != np.rint(given)).any():
        raise UserError("voxels are given as a list of whole numbers z y x; this is none")
    out = ((given < 0) | (given >= shape)).any(1)
    if out.any():
        z, y, x = given[out][0].astype(int)
        raise UserError(
            f"z={z}, y={y}, x={x} lies outside of the volume {tuple(shape)} (z, y, x); choose a place in it"
        )
    return given.astype(np.int64)


def _whole_places(mask: np.ndarray, box: Box, shape: tuple[int, int, int]) -> np.ndarray:
    """Indices in the whole volume of what is set in the mask of a box."""
    z, y, x = np.nonzero(mask)
    return ((z + box[0]) * shape[1] + y + box[2]) * shape[2] + x + box[4]
