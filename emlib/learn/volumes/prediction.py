"""A volume through a network of sections: along one axis, or along all three and averaged.

1. Along an axis each section, with the neighbours that the network asks for, is predicted tile by tile (see
   `emlib.learn.inference.predict_stack`).
2. What the axes say of a voxel is averaged: mistakes of sections cut along z are others than those of sections cut
   along x, while membranes are in the same place.
3. Where voxels are not those of the model's training, each section is resampled on its way in and out, and neighbours
   are taken as far away as they were in the training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from emlib.learn.inference import predict_stack
from emlib.learn.normalisation import Normalisation, unit_grey
from emlib.learn.tiles import TileSettings
from emlib.learn.volumes.labelled import along, stack
from emlib.volumes.volume import ZYX

SAME = 0.05  # a voxel size within 5 % of the model's is taken for the same: augmentation varies it by more


@dataclass(frozen=True)
class Resampling:
    """From the voxels of a volume to those of a model's training.

    Attributes
    ----------
    voxel_size_nm, model_nm : (z, y, x)
        Of the volume, and of the training: z is the distance of sections, y and x are the sides of pixels, whatever
        axis the sections are cut along.
    """

    voxel_size_nm: ZYX
    model_nm: ZYX

    def pixels(self, axis: int) -> tuple[float, float]:
        """Pixels afterwards for each pixel before, (y, x), of sections along an axis."""
        sides = [size for at, size in enumerate(self.voxel_size_nm) if at != axis]
        return sides[0] / self.model_nm[1], sides[1] / self.model_nm[2]

    def step(self, axis: int) -> float:
        """Distance of neighbours, in sections of the volume along an axis."""
        return self.model_nm[0] / self.voxel_size_nm[axis]

    def needed(self, axes: Sequence[int], sections: int) -> bool:
        """Whether anything differs by more than 5 %.

        Examples
        --------
        >>> Resampling((45, 4.6, 4.6), (50, 4.6, 4.5)).needed([0], 1), Resampling((8, 8, 8), (10,) * 3).needed([0], 1)
        (False, True)
        """
        ratios = [ratio for axis in axes for ratio in self.pixels(axis)]
        ratios += [self.step(axis) for axis in axes if sections > 1]
        return any(abs(np.log(ratio)) > np.log1p(SAME) for ratio in ratios)


def predict_along(
    model: nn.Module,
    em: np.ndarray,
    normalisation: Normalisation,
    *,
    sections: int = 1,
    axes: Sequence[int] = (0,),
    resampling: Resampling | None = None,
    tiles: TileSettings | None = None,
    device: torch.device | str = "cpu",
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Predict the probability of each organelle at each voxel.

    Parameters
    ----------
    model : nn.Module
        From (B, sections, Y, X) to logits (B, E, Y, X).
    em : (Z, Y, X) uint8, uint16 or float array
    normalisation : Normalisation
        That of the model's training.
    sections : int
        Odd: how many neighbouring sections the network sees. Beyond the ends the volume is mirrored.
    axes : sequence of int
        Along which sections are cut; the mean over them is returned.
    resampling : Resampling, optional
        Default: voxels as they are.
    tiles : TileSettings, optional
    device : torch.device or str
    tick : function
        Called after each section, `section_count` times in all.

    Returns
    -------
    (E, Z, Y, X) float16 array in [0, 1]
        Same on a CPU with equal threads.

    Raises
    ------
    UserError
        If the model gives what is no number; an `OutOfMemory` if memory runs out.

    Examples
    --------
    >>> model = nn.Conv2d(3, 2, 3, padding=1)
    >>> predict_along(model, np.zeros((4, 20, 30), np.uint8), Normalisation(), sections=3, axes=(0, 1, 2)).shape
    (2, 4, 20, 30)
    """
    trains = model.training
    model.to(device).eval()  # once, not with each section
    try:
        return _predict_along(
            model, em, normalisation, sections, axes, resampling, tiles or TileSettings(), device, tick
        )
    finally:
        model.train(trains)


def _predict_along(
    model: nn.Module,
    em: np.ndarray,
    normalisation: Normalisation,
    sections: int,
    axes: Sequence[int],
    resampling: Resampling | None,
    tiles: TileSettings,
    device: torch.device | str,
    tick: Callable[[], None],
) -> np.ndarray:
    """As `predict_along`, of a network that is where it computes and does not train."""
    total = None
    for axis in axes:
        planes = along(em, axis)
        for index in range(len(planes)):
            if resampling is None:
                found = predict_stack(model, stack(planes, index, sections), normalisation, tiles, device)
            else:
                seen = _neighbours(planes, index, sections, resampling.step(axis))
                zoomed = [max(1, round(n * f)) for n, f in zip(seen.shape[1:], resampling.pixels(axis), strict=True)]
                found = predict_stack(model, _resized(seen, zoomed), normalisation, tiles, device)
                found = _resized(found, planes.shape[1:])
            if total is None:  # one axis is final as it comes, several are summed with more digits
                total = np.zeros((len(found), *em.shape), np.float16 if len(axes) == 1 else np.float32)
            for channel, plane in zip(total, found, strict=True):
                along(channel, axis)[index] += plane if len(axes) == 1 else plane / len(axes)
            tick()
    return total if total.dtype == np.float16 else total.astype(np.float16)


def section_count(shape: tuple[int, int, int], axes: Sequence[int]) -> int:
    """Return how many sections a prediction goes through.

    Examples
    --------
    >>> section_count((10, 20, 30), (0, 1, 2))
    60
    """
    return sum(shape[axis] for axis in axes)


def _neighbours(planes: np.ndarray, index: int, count: int, step: float) -> np.ndarray:
    """A section between neighbours ``step`` sections apart, interpolated between the two nearest, (C, Y, X) float32."""
    last = len(planes) - 1
    found = []
    for at in index + step * (np.arange(count) - count // 2):
        at = abs(at) if last else 0.0
        at = min(max(2 * last - at if at > last else at, 0.0), last)  # mirrored once, then the outermost section
        below = int(at)
        part = np.float32(at - below)
        lower = unit_grey(planes[below])
        found.append(lower if part == 0 else (1 - part) * lower + part * unit_grey(planes[below + 1]))
    return np.stack(found)


def _resized(planes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(C, Y, X) float32 at another size, anti-aliased."""
    if tuple(planes.shape[1:]) == tuple(shape):
        return planes
    size = shape[1], shape[0]
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in planes])
