"""A volume through a network of sections: along one axis, or along all three and averaged.

1. Along an axis each section, with the neighbours that the network asks for, is predicted tile by tile (see
   `emlib.learn.inference`); a box alone gives the same bytes (`emlib.learn.volumes.box_prediction`).
2. What the axes say of a voxel is averaged: mistakes of sections cut along z are others than those of sections cut
   along x, while membranes are in the same place.
3. Where voxels are not those of the model's training, each section is resampled on its way in and out, and neighbours
   are taken as far away as they were in the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from emlib.learn.normalisation import Normalisation
from emlib.learn.tiles import TileSettings
from emlib.learn.volumes.box_prediction import average, predict_planes
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
    everything = tuple(slice(0, n) for n in em.shape)
    how = {"sections": sections, "resampling": resampling, "tiles": tiles, "device": device}

    def planes(axis: int) -> Iterator[np.ndarray]:
        return predict_planes(model, lambda box: em[box], em.shape, everything, axis, normalisation, **how)

    trains = model.training
    model.to(device).eval()  # once, not with each section
    try:
        return average(planes, axes, em.shape, tick, np.float16).astype(np.float16, copy=False)
    finally:
        model.train(trains)


def section_count(shape: tuple[int, int, int], axes: Sequence[int]) -> int:
    """Return how many sections a prediction goes through.

    Examples
    --------
    >>> section_count((10, 20, 30), (0, 1, 2))
    60
    """
    return sum(shape[axis] for axis in axes)
