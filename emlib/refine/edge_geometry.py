"""Where fragments and their contacts lie and how they are shaped: sizes, centres, extents, directions.

All comes from sums over voxels or faces of 1, of the coordinates and of their products, in nm, in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    moments = np.zeros((10, count))
    for slab in slabs_of(fragments.shape):
        ids = fragments[slab].ravel().astype(np.intp)
        sides = (np.arange(side.start, side.stop) for side in slab)
        z, y, x = ((place + 0.5) * size for place, size in zip(sides, voxel_size_nm, strict=True))
        z, y, x = (np.broadcast_to(axis, fragments[slab].shape).ravel() for axis in np.ix_(z, y, x))
        moments += np.array([np.bincount(ids, w, count) for w in _products(z, y, x)])
    return _shapes(moments, np.prod(voxel_size_nm), voxel_size_nm)


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
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    keys = ends[:, 0].astype(np.int64) * count + ends[:, 1]
    area = face_areas(voxel_size_nm)
    moments, across = np.zeros((10, len(ends))), np.zeros(len(ends))
    for axis in range(3):
        before, behind = [slice(None)] * 3, [slice(None)] * 3
        before[axis], behind[axis] = slice(0, -1), slice(1, None)
        low, high = fragments[tuple(before)], fragments[tuple(behind)]
        places = np.nonzero(low != high)
        a, b = (ids[places].astype(np.int64) for ids in (low, high))
        edge = np.searchsorted(keys, np.minimum(a, b) * count + np.maximum(a, b))
        z, y, x = (
            (place + (1.0 if which == axis else 0.5)) * voxel_size_nm[which] for which, place in enumerate(places)
        )
        found = area[axis] * np.array([np.bincount(edge, w, len(ends)) for w in _products(z, y, x)])
        moments += found
        if axis == 0:
            across = found[0]
    return _shapes(moments, 1.0, voxel_size_nm), across / np.maximum(moments[0], 1e-9)


def _shapes(moments: np.ndarray, unit: float, voxel_size_nm: ZYX) -> Shapes:
    """Shapes from the sums of `_products`."""
    count = np.maximum(moments[0], 1e-9)
    z, y, x, zz, yy, xx, zy, zx, yx = moments[1:] / count
    centre = np.stack([z, y, x], axis=1)
    spread = np.empty((len(count), 3, 3))
    rows = ((0, 0, zz - z * z), (1, 1, yy - y * y), (2, 2, xx - x * x))
    for i, j, value in (*rows, (0, 1, zy - z * y), (0, 2, zx - z * x), (1, 2, yx - y * x)):
        spread[:, i, j] = spread[:, j, i] = value
    spread += np.diag(np.square(voxel_size_nm)) / 12  # a voxel has an extent of its own
    values, vectors = np.linalg.eigh(spread)  # ascending, vectors in columns
    extent = np.sqrt(np.maximum(values[:, ::-1], 0))
    return Shapes(moments[0] * unit, centre, extent, np.swapaxes(vectors, 1, 2)[:, ::-1])
