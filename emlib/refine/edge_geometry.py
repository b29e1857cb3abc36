"""Where fragments and their contacts lie and how they are shaped: sizes, centres, extents, directions.

All comes from sums over voxels or faces of 1, of the coordinates and of their products, in half voxels, in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from emlib.stages.agglomerate import RegionGraph, face_areas
from emlib.volumes.volume import ZYX, Box

_SLAB = 2**21  # voxels that are summed at once


class Shapes(NamedTuple):
    """Size, place and shape of N things.

    Attributes
    ----------
    size : (N,) array
        Volume in nm³, or area in nm².
    centre : (N, 3) array
        In nm along z, y, x.
    extent : (N, 3) array
        Standard deviation in nm along the principal axes, longest first.
    axes : (N, 3, 3) array
        The principal axes as unit vectors (z, y, x): ``axes[n, k]`` belongs to ``extent[n, k]``.
    """

    size: np.ndarray
    centre: np.ndarray
    extent: np.ndarray
    axes: np.ndarray


def fragment_shapes(fragments: np.ndarray, count: int, voxel_size_nm: ZYX) -> Shapes:
    """Measure fragments.

    Parameters
    ----------
    fragments : (Z, Y, X) integer array
        Ids from 0 to ``count`` - 1.
    count : int
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    Shapes
        A row for each id; size 0 where it does not occur.
    """
    return shapes_of_fragments(fragment_sums(fragments, count), voxel_size_nm)


def fragment_sums(fragments: np.ndarray, count: int, first: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """Sum over the voxels of each id 1, the coordinates, and their products, in half voxels.

    These are whole numbers, so that the sums of parts of a volume add up to those of the whole, to the last bit.

    Parameters
    ----------
    fragments : (Z, Y, X) integer array
        Ids from 0 to ``count`` - 1.
    count : int
    first : (z, y, x)
        Where the array begins in the volume, in voxels.

    Returns
    -------
    (10, count) float64 array
        Of 1, z, y, x, zz, yy, xx, zy, zx, yx.
    """
    sums = np.zeros((10, count))
    for slab in slabs_of(fragments.shape):
        ids = fragments[slab].ravel().astype(np.intp)
        z, y, x = (2.0 * (np.arange(side.start, side.stop) + at) + 1 for side, at in zip(slab, first, strict=True))
        z, y, x = (np.broadcast_to(axis, fragments[slab].shape).ravel() for axis in np.ix_(z, y, x))
        sums += np.array([np.bincount(ids, w, count) for w in _products(z, y, x)])
    return sums


def shapes_of_fragments(sums: np.ndarray, voxel_size_nm: ZYX) -> Shapes:
    """Shapes from the sums of `fragment_sums`."""
    return _shapes(sums, np.prod(voxel_size_nm), voxel_size_nm)


def slabs_of(shape: tuple[int, int, int]) -> Iterator[Box]:
    """Cut a volume into slabs of whole sections, so that no copy of it is made."""
    step = max(1, _SLAB // (shape[1] * shape[2]))
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0])), slice(0, shape[1]), slice(0, shape[2])


def _products(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> Iterator[np.ndarray | None]:
    """What is summed: 1, z, y, x, zz, yy, xx, zy, zx, yx."""
    yield None
    yield from (z, y, x)
    for a, b in ((z, z), (y, y), (x, x), (z, y), (z, x), (y, x)):
        yield a * b


def contact_shapes(graph: RegionGraph, fragments: np.ndarray, voxel_size_nm: ZYX) -> tuple[Shapes, np.ndarray]:
    """Measure contacts.

    Parameters
    ----------
    graph : RegionGraph
    fragments : (Z, Y, X) integer array
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    Shapes
        A row for each edge of the graph.
    across_z : (E,) array in [0, 1]
        Share of the area whose faces look along z.
    """
    sums = contact_sums(graph.rag.uv_ids(), graph.rag.number_of_nodes, fragments)
    return shapes_of_contacts(sums, voxel_size_nm)


def contact_sums(
    ends: np.ndarray,
    count: int,
    fragments: np.ndarray,
    first: Sequence[int] = (0, 0, 0),
    core: Box | None = None,
) -> np.ndarray:
    """Sum over the faces of each contact what `fragment_sums` sums over voxels, for faces across z, y and x apart.

    Parameters
    ----------
    ends : (E, 2) integer array
        Ids of each contact, the smaller one first, in ascending order.
    count : int
    fragments : (Z, Y, X) integer array
        Ids from 0 to ``count`` - 1.
    first : (z, y, x)
        Where the array begins in the volume, in voxels.
    core : three slices, optional
        Faces between a voxel of this part and the next one along each axis are summed; of the whole array by default.

    Returns
    -------
    (3, 10, E) float64 array
    """
    keys = ends[:, 0].astype(np.int64) * count + ends[:, 1]
    core = core or tuple(slice(0, n) for n in fragments.shape)
    sums = np.zeros((3, 10, len(ends)))
    for axis in range(3):
        length = min(core[axis].stop, fragments.shape[axis] - 1)
        here = tuple(slice(s.start, length) if k == axis else s for k, s in enumerate(core))
        ahead = tuple(slice(s.start + 1, length + 1) if k == axis else s for k, s in enumerate(core))
        low, high = fragments[here], fragments[ahead]
        places = np.nonzero(low != high)
        a, b = (ids[places].astype(np.int64) for ids in (low, high))
        edge = np.searchsorted(keys, np.minimum(a, b) * count + np.maximum(a, b))
        z, y, x = (
            2.0 * (place + side.start + at) + (2 if which == axis else 1)
            for which, (place, side, at) in enumerate(zip(places, here, first, strict=True))
        )
        sums[axis] = [np.bincount(edge, w, len(ends)) for w in _products(z, y, x)]
    return sums


def shapes_of_contacts(sums: np.ndarray, voxel_size_nm: ZYX) -> tuple[Shapes, np.ndarray]:
    """Shapes, and the share of the area across z, from the sums of `contact_sums`."""
    z, y, x = face_areas(voxel_size_nm)
    moments = z * sums[0] + y * sums[1] + x * sums[2]
    return _shapes(moments, 1.0, voxel_size_nm), z * sums[0, 0] / np.maximum(moments[0], 1e-9)


def _shapes(moments: np.ndarray, unit: float, voxel_size_nm: ZYX) -> Shapes:
    """Shapes from sums of 1, of coordinates in half voxels and of their products, weighted by size / ``unit``."""
    half = np.array(voxel_size_nm) / 2
    count = np.maximum(moments[0], 1e-9)
    z, y, x, zz, yy, xx, zy, zx, yx = moments[1:] / count
    spread = np.empty((len(count), 3, 3))
    rows = ((0, 0, zz - z * z), (1, 1, yy - y * y), (2, 2, xx - x * x))
    for i, j, value in (*rows, (0, 1, zy - z * y), (0, 2, zx - z * x), (1, 2, yx - y * x)):
        spread[:, i, j] = spread[:, j, i] = value * (half[i] * half[j])
    spread += np.diag(np.square(voxel_size_nm)) / 12  # a voxel has an extent of its own
    values, vectors = np.linalg.eigh(spread)  # ascending, vectors in columns
    extent = np.sqrt(np.maximum(values[:, ::-1], 0))
    centre = np.stack([z, y, x], axis=1) * half
    return Shapes(moments[0] * unit, centre, extent, np.swapaxes(vectors, 1, 2)[:, ::-1])
