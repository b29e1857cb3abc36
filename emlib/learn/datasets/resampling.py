"""Sections at another size of pixels, so that data sets of several resolutions can be learnt together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emlib.learn.datasets.mask_classes import UNKNOWN


@dataclass(frozen=True)
class Zoom:
    """In-plane resampling by a factor for each axis.

    What is left of a pixel at the lower and right border is cut off, so that the factor is exact.

    Attributes
    ----------
    y, x : float
        Pixels afterwards for each pixel before.
    """

    y: float
    x: float

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return (Y, X) afterwards.

        Examples
        --------
        >>> Zoom(0.5, 0.575).shape((1024, 1024))
        (512, 588)
        """
        return max(1, int(shape[0] * self.y + 1e-6)), max(1, int(shape[1] * self.x + 1e-6))

    def grey(self, image: np.ndarray) -> np.ndarray:
        """Return EM at the new size, anti-aliased.

        Parameters
        ----------
        image : (Y, X) uint8 or uint16 array

        Returns
        -------
        (Y', X') array of the same type
            Each pixel is the mean under a triangle as wide as two of its own, or of the old ones where those are wider.

        Examples
        --------
        >>> Zoom(0.5, 0.5).grey(np.full((4, 4), 9, np.uint8)).tolist()
        [[9, 9], [9, 9]]
        """
        moved = self._resized(image.astype(np.float32), Image.Resampling.BILINEAR)
        return np.rint(moved).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)

    def ids(self, mask: np.ndarray) -> np.ndarray:
        """Return class ids (Y, X) at the new size, each that of the nearest pixel."""
        return self._resized(mask.astype(np.int32), Image.Resampling.NEAREST).astype(mask.dtype)

    def planes(self, masks: np.ndarray) -> np.ndarray:
        """Return masks at the new size: 1 where at least half of what is annotated under the triangle is.

        Parameters
        ----------
        masks : (E, Y, X) uint8 array
            0, 1, and 255 where nobody annotated.

        Returns
        -------
        (E, Y', X') uint8 array
            255 where less than half is annotated.
        """
        out = np.empty((len(masks), *self.shape(masks.shape[1:])), np.uint8)
        for plane, mask in zip(out, masks, strict=True):
            inside = self._resized((mask == 1).astype(np.float32), Image.Resampling.BILINEAR)
            unknown = mask == UNKNOWN
            if not unknown.any():
                np.greater_equal(inside, 0.5, out=plane.view(bool))
                continue
            known = self._resized((~unknown).astype(np.float32), Image.Resampling.BILINEAR)
            plane[:] = np.where(known < 0.5, UNKNOWN, inside >= 0.5 * known)
        return out

    def _resized(self, image: np.ndarray, how: Image.Resampling) -> np.ndarray:
        """A float32 or int32 image through Pillow, whose filters widen with the reduction."""
        height, width = self.shape(image.shape)
        box = 0, 0, min(width / self.x, image.shape[1]), min(height / self.y, image.shape[0])
        return np.asarray(Image.fromarray(image).resize((width, height), how, box=box))


def zoom_to(resample_nm: float | None, voxel_size_nm: Sequence[float] | None) -> Zoom | None:
    """Return the resampling that brings pixels to ``resample_nm``; None where there is nothing to do.

    Parameters
    ----------
    resample_nm : float, optional
        Side of a pixel in nm.
    voxel_size_nm : (z, y, x), optional

    Examples
    --------
    >>> zoom_to(8, (50, 4, 4)), zoom_to(8, (50, 8, 8)), zoom_to(8, None)
    (Zoom(y=0.5, x=0.5), None, None)
    """
    if resample_nm is None or voxel_size_nm is None:
        return None
    y, x = (float(nm) / resample_nm for nm in voxel_size_nm[1:])
    return None if y == x == 1 else Zoom(y, x)
