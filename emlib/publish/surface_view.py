"""Surfaces of neurites as seen from one side: parallel rays, light and shadow, without a 3D library.

1. Labels are sampled on a coarse grid of cubes; of each neurite the voxels at its surface become points.
2. A point moves to where the smoothed neurite ends, and looks the way in which the smoothed neurite falls off.
3. Points are drawn as discs, far ones first; what is seen at each pixel is lit, and darkened at edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

GRID_VOXELS = 1_000_000  # of the coarse grid: memory and time
SMOOTHING = 1.0  # Gaussian, in coarse voxels: stairs of sections vanish, spines of 50 nm stay
MOST_MOVED = 1.0  # coarse voxels that a point moves at most: thin processes keep a surface
DISC = 0.95  # radius of a disc in coarse voxels: neighbours overlap
LIGHT = np.array([-0.45, 0.6, 0.66])  # right, up, towards the viewer
AMBIENT, FAR = 0.5, 0.8  # brightness in the shade, and of what lies farthest away
_AT_ONCE = 10_000  # points whose discs are drawn together: memory
STEP = 3.0  # coarse voxels of depth between neighbouring pixels that count as an edge


@dataclass(frozen=True)
class Cloud:
    """Points on the surface of one neurite.

    Attributes
    ----------
    points, normals : (N, 3) float32 arrays
        In nm and as unit vectors, each (z, y, x).
    """

    points: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class View:
    """A side from which a volume is seen; sections lie flat, the first on top.

    Attributes
    ----------
    azimuth, elevation : float
        Degrees: around the z axis, and above the plane of the sections.
    """

    azimuth: float = 30.0
    elevation: float = 25.0

    def axes(self) -> np.ndarray:
        """Return (3, 3): the directions right, up and towards the viewer as unit vectors (z, y, x)."""
        a, e = np.radians((self.azimuth, self.elevation))
        towards = np.array([-np.sin(e), np.cos(e) * np.cos(a), np.cos(e) * np.sin(a)])
        right = np.array([0.0, -np.sin(a), np.cos(a)])
        # (z, y, x) is a left-handed order of a right-handed frame: the cross product changes its sign.
        return np.stack([right, -np.cross(towards, right), towards])


@dataclass(frozen=True)
class Picture:
    """A picture and how places lie in it.

    Attributes
    ----------
    rgba : (H, W, 4) uint8 array
        Transparent where there is nothing.
    nm_per_pixel : float
    middle_nm : (3,) array
        The place (z, y, x) that lies in the middle of the picture.
    axes : (3, 3) array
        Of the view.
    """

    rgba: np.ndarray
    nm_per_pixel: float
    middle_nm: np.ndarray
    axes: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Return where points, (N, 3) in nm (z, y, x), lie: (N, 3) of x and y in pixels and depth in nm."""
        seen = (np.asarray(points, np.float64) - self.middle_nm) @ self.axes.T
        height, width = self.rgba.shape[:2]
        seen[:, 0] = seen[:, 0] / self.nm_per_pixel + (width - 1) / 2
        seen[:, 1] = (height - 1) / 2 - seen[:, 1] / self.nm_per_pixel
        return seen


def grid_nm(shape: tuple[int, int, int], voxel_size_nm: tuple[float, float, float]) -> float:
    """Return the side of a cube of the coarse grid: no finer than the voxels, and not too many of them.

    Examples
    --------
    >>> round(grid_nm((64, 256, 256), (40, 8, 8)), 1), grid_nm((20, 50, 50), (10, 10, 10))
    (22.1, 10.0)
    """
    volume = float(np.prod(np.multiply(shape, voxel_size_nm)))
    return float(max((volume / GRID_VOXELS) ** (1 / 3), min(voxel_size_nm)))


def surface_clouds(
    labels: np.ndarray, ids: Sequence[int], voxel_size_nm: tuple[float, float, float], side_nm: float
) -> list[Cloud]:
    """Find points on the surfaces of neurites.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
    ids : sequence of int
    voxel_size_nm : (z, y, x)
    side_nm : float
        Of the cubes that the volume is sampled in.

    Returns
    -------
    list of Cloud
        As ``ids``; without points where an id has no voxel on the grid.
    """
    at = []
    for count, size in zip(labels.shape, voxel_size_nm, strict=True):
        places = (np.arange(max(1, round(count * size / side_nm))) + 0.5) * side_nm
        at.append(np.minimum((places / size).astype(np.intp), count - 1))
    coarse = np.stack([labels[z][np.ix_(*at[1:])] for z in at[0]])
    return [_cloud(coarse == one, side_nm) for one in ids]


def _cloud(mask: np.ndarray, side_nm: float) -> Cloud:
    none = np.zeros((0, 3), np.float32)
    box = ndimage.find_objects(mask.view(np.uint8))
    if not box:
        return Cloud(none, none)
    first = np.array([side.start for side in box[0]])
    inner = np.pad(mask[box[0]], 3)
    soft = ndimage.gaussian_filter(inner.astype(np.float32), SMOOTHING, truncate=2.5)
    at = np.nonzero(inner & ~ndimage.binary_erosion(inner))
    slope = np.empty((len(at[0]), 3), np.float32)
    for axis in range(3):
        ahead, behind = ([*at], [*at])
        ahead[axis], behind[axis] = at[axis] + 1, at[axis] - 1
        slope[:, axis] = (soft[tuple(ahead)] - soft[tuple(behind)]) / 2
    steep = np.maximum(np.linalg.norm(slope, axis=1), 1e-6)
    normals = -slope / steep[:, None]
    moved = np.clip((soft[at] - 0.5) / steep, -MOST_MOVED, MOST_MOVED)
    points = (np.column_stack(at) - 3 + first + 0.5 + normals * moved[:, None]) * side_nm
    return Cloud(points.astype(np.float32), normals)


def draw_clouds(
    clouds: Sequence[Cloud],
    colours: np.ndarray,
    extent_nm: tuple[float, float, float],
    side_nm: float,
    view: View,
    pixels: tuple[int, int],
) -> Picture:
    """Draw surfaces as they are seen from one side.

    Parameters
    ----------
    clouds : sequence of Cloud
    colours : (N, 3) array, 0 to 255
    extent_nm : (z, y, x)
        Of the volume, which fills the picture.
    side_nm : float
        Of the grid that the clouds were made on.
    view : View
    pixels : (height, width)

    Returns
    -------
    Picture
    """
    corners = box_corners(extent_nm)
    axes, middle = view.axes(), np.array(extent_nm) / 2
    seen = (corners - middle) @ axes.T
    nm = max(np.ptp(seen[:, 0]) / (0.9 * pixels[1]), np.ptp(seen[:, 1]) / (0.9 * pixels[0]))
    empty = Picture(np.zeros((*pixels, 4), np.uint8), float(nm), middle, axes)
    owner = np.repeat(np.arange(len(clouds), dtype=np.int16), [len(cloud.points) for cloud in clouds])
    if not len(owner):
        return empty
    # Single precision throughout: half of the memory of a picture's parts.
    place = np.concatenate([empty.place(cloud.points).astype(np.float32) for cloud in clouds])
    normals = np.concatenate([cloud.normals for cloud in clouds]) @ axes.T.astype(np.float32)
    front = np.flatnonzero(normals[:, 2] > -0.2)  # the others are behind their own neurite
    order = front[np.argsort(place[front, 2], kind="stable")].astype(np.int32)  # far ones first
    winner = _splat(place[order, :2], DISC * side_nm / nm, pixels)
    shown = winner >= 0
    which = order[winner[shown]]
    depth, ids = np.full(pixels, -np.inf, np.float32), np.full(pixels, -1, np.int16)
    depth[shown], ids[shown] = place[which, 2], owner[which]
    facing = np.zeros(pixels, np.float32)  # the cosine between surface and light
    facing[shown] = normals[which] @ (LIGHT / np.linalg.norm(LIGHT)).astype(np.float32)
    light = _lit(facing, ids, max(1.0, 0.6 * side_nm / nm))
    light[_edges(ids, depth, STEP * side_nm)] *= 0.45
    near = (depth[shown] - seen[:, 2].min()) / max(np.ptp(seen[:, 2]), 1e-9)
    bright = light[shown] * (FAR + (1 - FAR) * np.clip(near, 0, 1))
    empty.rgba[shown, :3] = np.clip(np.asarray(colours, np.float32)[ids[shown]] * bright[:, None], 0, 255)
    empty.rgba[shown, 3] = 255
    return empty


def box_corners(extent_nm: tuple[float, float, float]) -> np.ndarray:
    """Return the eight corners of a volume, (8, 3) in nm."""
    return np.array([[z, y, x] for z in (0, extent_nm[0]) for y in (0, extent_nm[1]) for x in (0, extent_nm[2])])


def _splat(place: np.ndarray, radius: float, pixels: tuple[int, int]) -> np.ndarray:
    """Return the last point whose disc covers each pixel, (H, W); -1 where none does."""
    height, width = pixels
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = np.hypot(dy, dx) <= max(radius, 0.5)
    dy, dx = dy[near], dx[near]
    x, y = np.rint(place).astype(np.int32).T
    inside = (x >= reach) & (x < width - reach) & (y >= reach) & (y < height - reach)
    point, centre, disc = np.flatnonzero(inside), y[inside] * width + x[inside], dy * width + dx
    winner = np.full(height * width, -1, np.int32)
    for first in range(0, len(point), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        # Of several values for one place NumPy keeps the last: the nearest point.
        winner[(centre[part, None] + disc).ravel()] = np.repeat(point[part], len(disc))
    return winner.reshape(pixels)


def _lit(facing: np.ndarray, ids: np.ndarray, blur: float) -> np.ndarray:
    """Brightness of each pixel from how far it faces the light, smoothed within what belongs together."""
    light = np.float32(AMBIENT) + np.float32(1 - AMBIENT) * np.clip(facing, 0, 1)
    result = np.zeros(ids.shape, np.float32)
    for one, box in enumerate(ndimage.find_objects(ids + 1)):
        if box is None:
            continue
        mine = ids[box] == one
        mask = mine.astype(np.float32)
        weight = ndimage.gaussian_filter(mask, blur, mode="constant", truncate=2)
        soft = ndimage.gaussian_filter(light[box] * mask, blur, mode="constant", truncate=2)
        result[box][mine] = soft[mine] / np.maximum(weight[mine], 1e-6)
    return result


def _edges(ids: np.ndarray, depth: np.ndarray, step: float) -> np.ndarray:
    """Pixels in front of an edge: what lies beside them is farther away than this, or there is nothing."""
    edge = np.zeros(ids.shape, bool)
    deep = np.maximum(depth, np.float32(-1e9))
    for axis in (0, 1):
        for shift in (1, -1):
            edge |= deep - np.roll(deep, shift, axis) > step
    return edge & (ids >= 0)
