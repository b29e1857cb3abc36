"""Patches for the self-training: each batch a pure function of seed, epoch, step and the pseudo-labels of the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.mirroring import reflected_crop
from emlib.learn.datasets.unannotated import augment_masks, with_nan
from emlib.learn.normalisation import Normalisation, unit_grey
from emlib.learn.transforms import find_grey_range, margin, read_augment
from emlib.learn.volumes.labelled import along, stack
from emlib.refine.unet.settings import SelftrainSettings

_PLACES, _SAMPLES = 41, 42  # set apart what is drawn for places and for augmentation
Batch = tuple[torch.Tensor, torch.Tensor]


class _Place(NamedTuple):
    """A patch: its plane across an axis (a number of ``axes``), first row and column, neighbours in reverse or not."""

    axis: int
    plane: int
    row: int
    column: int
    reverse: bool


class SelftrainBatches:
    """Batches of patches on planes of a volume, what `emlib.learn.training.loop.train` asks of its data.

    Parameters
    ----------
    em : (Z, Y, X) uint8 array
    axes : sequence of int
        From `emlib.refine.unet.pseudo.learnt_axes`.
    pseudo : sequence of uint8 arrays
        From `pseudo_targets`; may be replaced between two epochs.
    corrected : dict of (Y, X) uint8 arrays
        Targets by section; may be empty.
    normalisation : Normalisation
    settings : SelftrainSettings
    seed : int

    Attributes
    ----------
    steps_per_epoch : int
    pseudo : sequence of uint8 arrays
    """

    def __init__(
        self,
        em: np.ndarray,
        axes: Sequence[int],
        pseudo: Sequence[np.ndarray],
        corrected: dict[int, np.ndarray],
        normalisation: Normalisation,
        settings: SelftrainSettings,
        seed: int,
    ) -> None:
        self.em, self.axes, self.pseudo, self.corrected = em, tuple(axes), pseudo, corrected
        self.normalisation, self.settings, self.seed = normalisation, settings, seed
        self.steps_per_epoch = settings.steps
        self.augment = read_augment(settings.augment)
        self._grey = find_grey_range(em)
        self._wide = settings.patch_px if self.augment is None else margin(self.augment, settings.patch_px)

    def batch(self, epoch: int, step: int) -> Batch:
        """Cut one batch.

        Returns
        -------
        images : (B, C, P, P) float32 tensor
            Normalised grey of planes and their neighbours; planes that are smaller than a patch are mirrored.
        targets : (B, 2, P, P) float32 tensor
            Pseudo-labels and corrections: 0, 1, and NaN where not known.
        """
        places, size, count = self._places(epoch, step), self.settings.patch_px, self.settings.sections
        border = (self._wide - size) // 2
        images = np.empty((len(places), count, self._wide, self._wide), np.float32)
        masks = np.full((len(places), 2, self._wide, self._wide), UNKNOWN, np.uint8)
        for number, (axis, plane, row, column, reverse) in enumerate(places):
            box = (row - border, column - border, self._wide)
            grey = reflected_crop(stack(along(self.em, self.axes[axis]), plane, count), *box)
            images[number] = unit_grey(grey[::-1] if reverse else grey)
            masks[number, 0] = reflected_crop(self.pseudo[axis][plane], *box)
            if axis == 0 and plane in self.corrected:
                masks[number, 1] = reflected_crop(self.corrected[plane], *box)
        grey, targets = torch.from_numpy(images), torch.from_numpy(masks)
        if self.augment is None:
            targets = with_nan(targets)
        else:
            rngs = [np.random.default_rng([self.seed, _SAMPLES, epoch, step, i]) for i in range(len(places))]
            grey, targets = augment_masks(grey, targets, self.augment, rngs, size, self._grey)
        return torch.from_numpy(self.normalisation.apply(grey.numpy())), targets

    def loader(
        self, epoch: int, first_step: int = 0, workers: int = 0, device: torch.device | str | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, from a step on; all are cut in this process."""
        for step in range(first_step, self.steps_per_epoch):
            images, targets = self.batch(epoch, step)
            yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def describe(self, epoch: int, step: int) -> str:
        """Name the patches of a batch."""
        names = [
            f"{'zyx'[self.axes[place.axis]]} {place.plane} at {place.row}, {place.column}"
            for place in self._places(epoch, step)
        ]
        return "; ".join(names)

    def _places(self, epoch: int, step: int) -> list[_Place]:
        """Draw where the patches lie: the first ones on corrected sections."""
        rng, settings = np.random.default_rng([self.seed, _PLACES, epoch, step]), self.settings
        count = round(settings.corrected_share * settings.batch_size) if self.corrected else 0
        sections = sorted(self.corrected)
        places = []
        for number in range(settings.batch_size):
            if number < count:
                axis, plane = 0, sections[rng.integers(len(sections))]
            else:
                axis = int(rng.integers(len(self.axes)))
                plane = int(rng.integers(len(self.pseudo[axis])))
            corner = [_first(rng, length, settings.patch_px) for length in self.pseudo[axis].shape[1:]]
            places.append(_Place(axis, int(plane), *corner, reverse=bool(rng.integers(2))))
        return places


def _first(rng: np.random.Generator, length: int, size: int) -> int:
    """The first pixel of a patch along an axis; in the middle where the patch is longer."""
    return int(rng.integers(length - size + 1)) if length >= size else (length - size) // 2
