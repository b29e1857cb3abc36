"""Batches of patches of a labelled volume: each a pure function of seed, epoch and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.patches import Batch, EpochBatches, leave_ctrl_c, reflected_crop
from emlib.learn.datasets.places import PLACES, SAMPLES, PatchSettings
from emlib.learn.datasets.unannotated import augment_masks, with_nan
from emlib.learn.normalisation import Normalisation, unit_grey
from emlib.learn.transforms import AugmentSettings, find_grey_range, margin
from emlib.learn.volumes.labelled import LabelledVolume


class VolumeBatches:
    """Batches for `emlib.learn.training.loop.train`: crops from anywhere, along any of the volume's axes.

    Parameters
    ----------
    sections : LabelledVolume
        Where a section is smaller than a patch, it is mirrored.
    settings : PatchSettings
        Of ``sampling`` only ``random`` is known here, and boundaries need no balance: they are everywhere.
    normalisation : Normalisation
        Applied after augmentation.
    seed : int
    augment : AugmentSettings, optional
        All sections of a patch are changed alike; where there are flips, their order is reversed as often as not.
    rank, world : int
        As for `emlib.learn.datasets.patches.PatchBatches`.

    Attributes
    ----------
    steps_per_epoch, patches_per_epoch : int
        By default as many patches as cover every voxel once along every axis.
    """

    def __init__(
        self,
        sections: LabelledVolume,
        settings: PatchSettings,
        *,
        normalisation: Normalisation,
        seed: int = 0,
        augment: AugmentSettings | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.sections, self.settings, self.normalisation = sections, settings, normalisation
        self.seed, self.augment, self.rank, self.world = seed, augment, rank, world
        self._grey = (0.0, 1.0) if augment is None else find_grey_range(sections.em)
        covering = -(-sections.em.size * len(sections.axes) // settings.size**2)
        self.patches_per_epoch = settings.patches_per_epoch or covering
        self.steps_per_epoch = -(-self.patches_per_epoch // (settings.batch_size * world))
        self._planned: tuple[int, np.ndarray] | None = None

    def batch(self, epoch: int, step: int) -> Batch:
        """Cut one batch.

        Parameters
        ----------
        epoch, step : int
            From 0; the step below ``steps_per_epoch``.

        Returns
        -------
        images : (B, C, P, P) float32 tensor
            Normalised grey of sections and their neighbours.
        targets : (B, 1, P, P) float32 tensor of 0 and 1
            Of the section in the middle; NaN where nobody annotated.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of {self.steps_per_epoch}")
        size, volume = self.settings.size, self.sections
        wide = size if self.augment is None else margin(self.augment, size)
        border = (wide - size) // 2
        samples, places = self._samples(epoch, step)
        images = np.empty((len(places), volume.sections, wide, wide), np.float32)
        targets = np.empty((len(places), 1, wide, wide), np.uint8)
        for i, (axis, index, row, column, turned) in enumerate(places):
            grey = reflected_crop(volume.image(axis, index), row - border, column - border, wide)
            images[i] = unit_grey(grey[::-1] if turned and self._reverses else grey)
            targets[i] = reflected_crop(volume.target(axis, index), row - border, column - border, wide)
        grey, masks = torch.from_numpy(images), torch.from_numpy(targets)
        if self.augment is None:
            masks = with_nan(masks)
        else:
            rngs = [np.random.default_rng([self.seed, SAMPLES, epoch, sample]) for sample in samples]
            grey, masks = augment_masks(grey, masks, self.augment, rngs, size, [self._grey] * len(places))
        return torch.from_numpy(self.normalisation.apply(grey.numpy())), masks

    def describe(self, epoch: int, step: int) -> str:
        """Name the patches of a batch by axis, section, and first row and column before augmentation."""
        _, places = self._samples(epoch, step)
        first = (self.sections.first_z, 0, 0)
        return "; ".join(
            f"{'zyx'[axis]} {index + first[axis]} at ({row}, {column})" for axis, index, row, column, _ in places
        )

    def loader(
        self, epoch: int, first_step: int = 0, workers: int = 0, device: torch.device | str | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, from a step on; see `PatchBatches.loader`."""
        steps = range(first_step, self.steps_per_epoch)
        batches = (self.batch(epoch, step) for step in steps)
        if workers:
            own = torch.Generator()
            batches = DataLoader(
                EpochBatches(self, epoch),
                None,
                sampler=steps,
                num_workers=workers,
                generator=own,
                worker_init_fn=leave_ctrl_c,
            )
        for images, targets in batches:
            yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def class_balance(self) -> np.ndarray:
        """Return the fraction of the annotated voxels that lie on boundaries, (1,) float64."""
        counts = np.bincount(self.sections.targets.ravel(), minlength=UNKNOWN + 1)
        return np.array([counts[1] / max(counts[0] + counts[1], 1)])

    @property
    def _reverses(self) -> bool:
        return self.augment is not None and self.augment.flip > 0

    def _samples(self, epoch: int, step: int) -> tuple[range, np.ndarray]:
        """Numbers of the patches of a batch within their epoch, and (B, 5) axis, section, row, column, reversed."""
        first = (step * self.world + self.rank) * self.settings.batch_size
        samples = range(first, first + self.settings.batch_size)
        return samples, self._plan(epoch).take(samples, axis=0, mode="wrap")

    def _plan(self, epoch: int) -> np.ndarray:
        if self._planned is None or self._planned[0] != epoch:
            rng = np.random.default_rng([self.seed, PLACES, epoch])
            shapes = np.array([self.sections.shape(axis) for axis in range(3)])
            axis = rng.choice(self.sections.axes, self.patches_per_epoch)
            room = shapes[axis] - (1, self.settings.size, self.settings.size)
            # where there is no room, the patch reaches beyond the section as far on one side as on the other
            place = np.where(room >= 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
            self._planned = epoch, np.column_stack([axis, place, rng.integers(0, 2, len(axis))])
        return self._planned[1]
