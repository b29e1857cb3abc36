"""One pass over a label volume, slab by slab: the sums of every object, whatever its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from emlib.errors import UserError
from emlib.measure.morphometry.crofton import Directions
from emlib.measure.morphometry.sums import Moments, ObjectSums, add_up
from emlib.measure.pieces import Pieces
from emlib.threads import map_threads

SLAB_VOXELS = 1 << 24  # at a time: about 1 GiB with all that is made of them
TABLE_IDS = 1 << 24  # ids up to this are numbered by looking them up, larger ones by sorting
AROUND_NM = 40.0  # how far the grey around an object is looked at: a membrane's or vesicle's width, in the plane


def sums_of_objects(
    labels: Any, lines: Directions, pixel_nm: tuple[float, float], image: Any | None = None
) -> tuple[dict[int, ObjectSums], dict[int, Moments], Counter]:
    """Read labels once and add up what every object has.

    Parameters
    ----------
    labels : (Z, Y, X) integer array, or anything with a shape that gives NumPy arrays for ranges of sections
    lines : Directions
    pixel_nm : (y, x) in nm
    image : as ``labels``, of grey values, optional

    Returns
    -------
    sums : dict of ObjectSums by id
    around : dict of Moments by id
        Of the grey of unlabelled pixels nearest to the object and at most ``AROUND_NM`` from it in their section; with
        an image only, and only for objects with such pixels.
    components : Counter
        Pieces of each id that touch not even by a corner.

    Raises
    ------
    UserError
        If a label is negative.
    """
    sums: dict[int, ObjectSums] = {}
    around: dict[int, Moments] = {}
    pieces = Pieces()
    for first, sections, slab, grey in _slabs(labels, image, lines.reach):
        pieces.add(slab[:sections])
        ids, numbered = number_ids(slab)
        if len(ids) == 1:
            continue  # nothing but background
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            core = sections - box[0].start
            if core <= 0:
                continue  # begins in the section after, which belongs to the next slab
            mask = numbered[box] == number
            inside = None if grey is None else grey[box][:core]
            at = (first + box[0].start, box[1].start, box[2].start)
            part = add_up(mask, min(core, len(mask)), at, inside, lines)
            key = int(ids[number])
            sums[key] = sums[key] + part if key in sums else part
        if grey is not None:
            for number, part in _around(numbered[:sections], grey, pixel_nm).items():
                key = int(ids[number])
                around[key] = around[key] + part if key in around else part
    return sums, around, Counter(pieces.ids()[1:].tolist())


def _slabs(labels: Any, image: Any | None, reach: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray | None]]:
    """Yield (first section, sections, labels of these and of some sections after them, grey of these)."""
    depth, height, width = labels.shape
    thick = max(1, SLAB_VOXELS // max(height * width, 1))
    for first in range(0, depth, thick):
        last = min(first + thick, depth)
        slab = np.ascontiguousarray(labels[first : last + reach])
        slab = slab.astype(slab.dtype.newbyteorder("="), copy=False)
        if slab.dtype.kind == "i" and slab.size and slab.min() < 0:
            raise UserError(f"labels hold {slab.min()}: ids of objects are positive, 0 is background")
        yield first, last - first, slab, None if image is None else np.asarray(image[first:last])


def number_ids(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the ids of an array 1 … N in their order; 0 stays 0.

    Parameters
    ----------
    labels : integer array, not negative

    Returns
    -------
    ids : (N + 1,) array
        The id that each number had; the first is 0.
    numbered : int32 array like ``labels``

    Examples
    --------
    >>> ids, numbered = number_ids(np.array([7, 0, 10**12, 7]))
    >>> ids.tolist(), numbered.tolist()
    ([0, 7, 1000000000000], [1, 0, 2, 1])
    """
    if labels.size and labels.max() < TABLE_IDS:
        there = np.zeros(int(labels.max()) + 1, bool)
        there[labels] = True
        there[0] = True
        ids = np.flatnonzero(there)
        return ids, (np.cumsum(there, dtype=np.int32) - np.int32(1))[labels]
    ids, numbered = np.unique(labels, return_inverse=True)
    missing = int(not (ids.size and ids[0] == 0))
    return np.concatenate([np.zeros(missing, ids.dtype), ids]), (numbered + missing).astype(np.int32)


def _around(numbered: np.ndarray, image: np.ndarray, pixel_nm: tuple[float, float]) -> dict[int, Moments]:
    """Grey of the background beside each object; a pixel between two objects belongs to the nearer one."""
    from skimage.segmentation import expand_labels

    def beside(section: np.ndarray) -> np.ndarray:
        return np.where(section == 0, expand_labels(section, AROUND_NM, spacing=pixel_nm), 0)

    owner = np.stack(map_threads(beside, numbered))
    there = owner > 0
    owner, values = owner[there], image[there].astype(np.float64)
    counts = np.bincount(owner)
    means = np.bincount(owner, values) / np.maximum(counts, 1)
    none = np.zeros((1, 1))  # the spread around an object is not reported
    return {int(n): Moments(int(counts[n]), means[n : n + 1], none) for n in np.flatnonzero(counts)}
