"""What lies around places in a section: how dark it is there, which neurites come near, and what each of them shows.

Sections are first brought to one sampling, and labels are grown into the gaps that membranes leave, so that neurites
meet. Nothing here decides what a synapse is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi

from emlib.volumes.volume import ZYX

LEAST_CONTRAST = 0.5  # grey values from the median down to the darkest percent, at the least
SPOT = 0.5  # darkness of a vesicle against its cytoplasm
TRUNCATE = 3.0  # Gaussians end at three sigma
NEURITES = 4  # looked at around a place; a section rarely shows more partners


def sampling_step(voxel_size_nm: ZYX, sampling_nm: float) -> list[int]:
    """Return how many pixels, along y and x, are one pixel at a sampling.

    Examples
    --------
    >>> sampling_step((50.0, 4.6, 4.6), 9.2), sampling_step((40.0, 8.0, 8.0), 9.2)
    ([2, 2], [1, 1])
    """
    return [max(1, round(sampling_nm / size)) for size in voxel_size_nm[1:]]


def average(em: np.ndarray, step: list[int]) -> np.ndarray:
    """Return means of blocks of ``step`` pixels of (P, Y, X) sections; what does not fill a block is left out."""
    sy, sx = step
    if sy == sx == 1:
        return em
    planes, h, w = len(em), em.shape[1] // sy, em.shape[2] // sx
    return em[:, : h * sy, : w * sx].reshape(planes, h, sy, w, sx).mean((2, 4))


def pick(section: np.ndarray, step: list[int]) -> np.ndarray:
    """Return the label in the middle of each block of ``step`` pixels of a (Y, X) section."""
    h, w = (n // size * size for n, size in zip(section.shape, step, strict=True))
    return section[step[0] // 2 : h : step[0], step[1] // 2 : w : step[1]]


def darkness(em: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Return darkness below the median of the section ``plain``, in units of its median minus its first percentile."""
    middle, contrast = grey_levels(plain)
    return ((middle - em) / contrast).astype(np.float32)


def grey_levels(plain: np.ndarray) -> tuple[float, float]:
    """Return the median of a (Y, X) section, and how far its first percentile lies below."""
    low, middle = np.percentile(plain[::2, ::2], [1, 50])  # a quarter of the pixels tells as much
    # An equalised section spans half the grey scale or more; in a blander one membranes would pass for densities.
    return middle, max(middle - low, LEAST_CONTRAST)


def grow(section: np.ndarray, voxel_size_nm: ZYX, step: list[int], gap_nm: float) -> np.ndarray:
    """Let labels of a (Y, X) section grow into background, this far along y and x; the larger id wins a tie."""
    px = float(np.mean(np.multiply(step, voxel_size_nm[1:])))
    for _ in range(round(gap_nm / px)):
        if section.all():
            break
        section = np.where(section > 0, section, ndi.maximum_filter(section, 3))
    return section


def blur(dark: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a (Y, X) section by a Gaussian that takes what lies outside for plain cytoplasm.

    A mirrored membrane would look twice as thick.
    """
    return ndi.gaussian_filter(dark, sigma, mode="constant", truncate=TRUNCATE)


def contacts(labels: np.ndarray, radius: int) -> np.ndarray:
    """Return where two different neurites lie in the square of this radius, in any of the planes (P, Y, X)."""
    size = 2 * max(1, radius) + 1
    empty = np.iinfo(labels.dtype).max
    highest = ndi.maximum_filter(labels.max(0), size)
    lowest = ndi.minimum_filter(np.where(labels > 0, labels, empty).min(0), size)
    return highest > lowest


@dataclass(frozen=True)
class Surroundings:
    """The pixels around each of C places of a section, nearest first.

    Attributes
    ----------
    distance_nm : (N,) float array
        Of the pixels from their place.
    ids : (C, N) int array
        Neurites; 0 is none, or outside of the section.
    darkness : (C, N) float array
    inside : (C, N) bool array
        Pixels of the section.
    inner : (C, N) bool array
        Pixels away from other neurites: nearer, membrane is dark.
    """

    distance_nm: np.ndarray
    ids: np.ndarray
    darkness: np.ndarray
    inside: np.ndarray
    inner: np.ndarray

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        dark: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        height_nm: np.ndarray,
        px: float,
        *,
        radius_nm: float,
        rim_nm: float,
    ) -> Surroundings:
        """Cut the surroundings out of the section and its neighbours.

        Parameters
        ----------
        labels, dark : (P, Y, X) arrays
            The section and its neighbours, sampled; labels grown, darkness as from `darkness`.
        y, x : (C,) int arrays
            The places, in sampled pixels.
        height_nm : (P,) float array
            Distance of each plane from the section.
        px : float
            Side of a sampled pixel in nm.
        radius_nm : float
        rim_nm : float
            Cytoplasm nearer than this to another neurite is not `inner`.
        """
        reach = max(1, int(radius_nm / px))
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        numbers = np.arange(len(labels))[:, None, None]
        plane, dy, dx = (np.broadcast_to(a, (len(labels), *dy.shape)).ravel() for a in (numbers, dy, dx))
        distance = np.hypot(np.hypot(dy, dx) * px, height_nm[plane])
        order = np.argsort(distance, kind="stable")
        order = order[distance[order] <= radius_nm]
        plane, dy, dx, distance = plane[order], dy[order], dx[order], distance[order]
        height, width = labels.shape[1:]
        wy, wx = y[:, None] + dy, x[:, None] + dx
        inside = (wy >= 0) & (wy < height) & (wx >= 0) & (wx < width)
        at = np.where(inside, (plane * height + wy) * width + wx, 0)
        ids = np.where(inside, labels.ravel()[at], 0)
        rim = contacts(labels[:1], round(rim_nm / px))  # the neighbours, some 20 nm away, have nearly the same
        return cls(distance, ids, dark.ravel()[at], inside, ~rim.ravel()[at % rim.size])

    def nearest(self, within_nm: float) -> np.ndarray:
        """Return the neurites (C, 4) that come this near, nearest first, 0 where there are no more."""
        left = self.ids[:, self.distance_nm <= within_nm].copy()
        near = np.zeros((len(left), NEURITES), np.int64)
        if not left.size:
            return near
        rows = np.arange(len(left))
        for k in range(NEURITES):
            near[:, k] = left[rows, (left > 0).argmax(1)]
            left[left == near[:, k, None]] = 0
        return near

    def sides(self, near: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look at each of the neurites ``near`` (C, K) around its place.

        Returns
        -------
        share, side_dark, spots : (C, K) float arrays
            Its share of the pixels, their mean darkness, and the share of its inner pixels that are as dark as
            vesicles; 0 where there is no neurite.
        """
        total = np.maximum(self.inside.sum(1), 1)
        share, side_dark, spots = (np.zeros(near.shape) for _ in range(3))
        spotted = self.inner & (self.darkness > SPOT)
        for k in range(near.shape[1] if len(near) else 0):
            mine = (self.ids == near[:, k, None]) & (near[:, k, None] > 0)
            pixels = mine.sum(1)
            share[:, k] = pixels / total
            side_dark[:, k] = np.einsum("ij,ij->i", self.darkness, mine) / np.maximum(pixels, 1)
            spots[:, k] = (mine & spotted).sum(1) / np.maximum((mine & self.inner).sum(1), 20)
        return share, side_dark, spots
