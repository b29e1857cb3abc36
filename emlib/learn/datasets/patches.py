"""Batches of patches cut from sections: each a pure function of seed, epoch and step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from emlib.learn.datasets.joined import JoinedSections
from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.places import SAMPLES, PatchPlaces, PatchSettings
from emlib.learn.datasets.sections import Sections
from emlib.learn.datasets.unannotated import augment_masks, with_nan
from emlib.learn.normalisation import Normalisation, unit_grey
from emlib.learn.transforms import AugmentSettings, find_grey_range, margin

Batch = tuple[torch.Tensor, torch.Tensor]


class PatchBatches:
    """Batches for training.

    Parameters
    ----------
    sections : Sections or JoinedSections
    settings : PatchSettings
    normalisation : Normalisation
        Applied after augmentation.
    seed : int
        Of the order of patches, the random crops and the augmentation.
    augment : AugmentSettings, optional
        Default: patches as they are.
    rank, world : int
        This process and their number: the patches of a step are shared out in order, so that ``world`` processes see
        together what one with a ``world`` times larger batch sees.

    Attributes
    ----------
    steps_per_epoch : int
        The last batch is filled with the first patches of the epoch.
    patches_per_epoch : int
    shares : (D,) float array
        Of the patches that come from each data set.

    Raises
    ------
    UserError
        If a patch is larger than a section.
    """

    def __init__(
        self,
        sections: Sections | JoinedSections,
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
        self._places = PatchPlaces(sections, settings, seed)
        self._grey = [] if augment is None else [each for part in sections.parts for each in _grey_ranges(part)]
        self._planned: tuple[int, np.ndarray] | None = None
        self.patches_per_epoch, self.shares = self._places.count, self._places.shares
        self.steps_per_epoch = -(-self._places.count // (settings.batch_size * world))

    def batch(self, epoch: int, step: int) -> Batch:
        """Cut one batch.

        Parameters
        ----------
        epoch, step : int
            From 0; the step below ``steps_per_epoch``.

        Returns
        -------
        images : (B, 1, P, P) float32 tensor
            Normalised grey.
        masks : (B, E, P, P) float32 tensor of 0 and 1
            NaN where nobody annotated.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of {self.steps_per_epoch}")
        size, wide = self.settings.size, self._source_size()
        samples, places = self._samples(epoch, step)
        images = np.empty((len(places), 1, wide, wide), np.float32)
        masks = np.empty((len(places), len(self.sections.organelles), wide, wide), np.uint8)
        border = (wide - size) // 2
        for i, (index, row, column) in enumerate(places):
            images[i, 0] = unit_grey(reflected_crop(self.sections.image(index), row - border, column - border, wide))
            masks[i] = reflected_crop(self.sections.masks(index), row - border, column - border, wide)
        grey, targets = torch.from_numpy(images), torch.from_numpy(masks)
        if self.augment is None:
            targets = with_nan(targets)
        else:
            rngs = [np.random.default_rng([self.seed, SAMPLES, epoch, sample]) for sample in samples]
            exclusive = self.sections.activation == "softmax"
            ranges = [self._grey[index] for index in places[:, 0]]
            grey, targets = augment_masks(grey, targets, self.augment, rngs, size, ranges, exclusive=exclusive)
        return torch.from_numpy(self.normalisation.apply(grey.numpy())), targets

    def describe(self, epoch: int, step: int) -> str:
        """Name the patches of a batch, as `batch` numbers them.

        Returns
        -------
        str
            The section, and the first row and column of each patch before augmentation.

        Examples
        --------
        Three patches from two sections: ``section 07 at y, x (0, 128), (64, 32); section 11 at y, x (0, 0)``.
        """
        _, places = self._samples(epoch, step)
        corners: dict[str, list[str]] = {}
        for index, row, column in places:
            corners.setdefault(self.sections.names[index], []).append(f"({row}, {column})")
        return "; ".join(f"section {name} at y, x {', '.join(each)}" for name, each in corners.items())

    def loader(
        self, epoch: int, first_step: int = 0, workers: int = 0, device: torch.device | str | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, from a step on.

        Parameters
        ----------
        epoch, first_step : int
        workers : int
            Processes that cut batches ahead; what they cut is the same with any number. 0 cuts in this process.
        device : optional
            Where the batches go.
        """
        steps = range(first_step, self.steps_per_epoch)
        batches = (self.batch(epoch, step) for step in steps)
        if workers:
            own = torch.Generator()  # else the loader draws from the global one, and so changes the dropout after it
            pin = device is not None and torch.device(device).type == "cuda"
            batches = DataLoader(
                EpochBatches(self, epoch),
                None,
                sampler=steps,
                num_workers=workers,
                generator=own,
                pin_memory=pin,
                worker_init_fn=leave_ctrl_c,
            )
        for images, masks in batches:
            yield images.to(device, non_blocking=True), masks.to(device, non_blocking=True)

    def class_balance(self) -> np.ndarray:
        """Return the fraction of the annotated pixels of all sections that belong to each organelle, (E,) float64."""
        return self._balance.copy()

    @cached_property
    def _balance(self) -> np.ndarray:
        known = inside = np.zeros(len(self.sections.organelles), np.int64)
        for index in range(len(self.sections)):
            masks = self.sections.masks(index)
            inside = inside + np.count_nonzero(masks == 1, axis=(1, 2))
            known = known + np.count_nonzero(masks != UNKNOWN, axis=(1, 2))
        return inside / np.maximum(known, 1)

    def _samples(self, epoch: int, step: int) -> tuple[range, np.ndarray]:
        """Numbers of the patches of a batch within their epoch, and (B, 3) section, row, column."""
        first = (step * self.world + self.rank) * self.settings.batch_size
        samples = range(first, first + self.settings.batch_size)
        return samples, self._plan(epoch).take(samples, axis=0, mode="wrap")

    def _plan(self, epoch: int) -> np.ndarray:
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self._places.epoch(epoch)
        return self._planned[1]

    def _source_size(self) -> int:
        """Side of the crop from which augmentation cuts a patch."""
        if self.augment is None:
            return self.settings.size
        return margin(self.augment, self.settings.size)


def _grey_ranges(sections: Sections) -> list[tuple[float, float]]:
    """Between which grey the sections of a data set lie: the same for each of them."""
    return [find_grey_range(sections.image(index) for index in range(len(sections)))] * len(sections)


def leave_ctrl_c(worker: int) -> None:
    """In a worker process: Ctrl-C is for the one that it works for, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class EpochBatches(Dataset):
    """Batches of one epoch by step, for worker processes."""

    def __init__(self, batches: Any, epoch: int):
        self._batches, self._epoch = batches, epoch

    def __len__(self) -> int:
        return self._batches.steps_per_epoch

    def __getitem__(self, step: int) -> Batch:
        return self._batches.batch(self._epoch, step)


def reflected_crop(image: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """Cut a square from the last two axes; what lies outside is the image mirrored at its border pixels.

    Parameters
    ----------
    image : (..., Y, X) array
    row, column : int
        Of the first pixel, perhaps outside.
    size : int
        Side in pixels.

    Returns
    -------
    (..., size, size) array

    Examples
    --------
    >>> reflected_crop(np.arange(4)[None] * np.ones((4, 1), int), 0, -2, 4)[0].tolist()
    [2, 1, 0, 1]
    """
    height, width = image.shape[-2:]
    if row >= 0 and column >= 0 and row + size <= height and column + size <= width:
        return image[..., row : row + size, column : column + size]
    rows, columns = _reflected(row, size, height), _reflected(column, size, width)
    return image.take(rows, axis=-2).take(columns, axis=-1)


def _reflected(first: int, size: int, length: int) -> np.ndarray:
    """Indices of an axis of ``length`` that go to and fro without repeating the border."""
    period = max(2 * (length - 1), 1)
    at = np.arange(first, first + size) % period
    return np.minimum(at, period - at)
