"""Batches of patches, each a pure function of seed, epoch and step, wherever the patches come from."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from emlib.learn.datasets.places import SAMPLES, PatchSettings
from emlib.learn.datasets.unannotated import augment_masks, with_nan
from emlib.learn.normalisation import Normalisation
from emlib.learn.transforms import AugmentSettings, margin

Batch = tuple[torch.Tensor, torch.Tensor]


class SeededBatches(ABC):
    """Batches for `emlib.learn.training.loop.train`.

    Parameters
    ----------
    settings : PatchSettings
    patches_per_epoch : int
    normalisation : Normalisation
        Applied after augmentation.
    seed : int
        Of the order of patches, the random crops and the augmentation.
    augment : AugmentSettings, optional
        Default: patches as they are.
    rank, world : int
        This process and their number: the patches of a step are shared out in order, so that ``world`` processes see
        together what one with a ``world`` times larger batch sees, and each reads its own alone.

    Attributes
    ----------
    steps_per_epoch : int
        The last batch is filled with the first patches of the epoch.
    patches_per_epoch : int
    """

    def __init__(
        self,
        settings: PatchSettings,
        patches_per_epoch: int,
        *,
        normalisation: Normalisation,
        seed: int = 0,
        augment: AugmentSettings | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.settings, self.patches_per_epoch, self.normalisation = settings, patches_per_epoch, normalisation
        self.seed, self.augment, self.rank, self.world = seed, augment, rank, world
        self.steps_per_epoch = -(-patches_per_epoch // (settings.batch_size * world))
        self._planned: tuple[int, np.ndarray] | None = None

    @abstractmethod
    def cut(self, place: np.ndarray, border: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut one patch with what augmentation needs around it.

        Parameters
        ----------
        place : int array
            A row of `places`.
        border : int
            Pixels above and left of the place.
        side : int
            Of what is cut, in pixels.

        Returns
        -------
        grey : (C, side, side) float32 array in [0, 1]
        masks : (E, side, side) uint8 array of 0, 1, and 255 where nobody annotated
        """

    @abstractmethod
    def places(self, epoch: int) -> np.ndarray:
        """Return the places of all patches of an epoch, one a row, the same at every call."""

    @abstractmethod
    def grey_ranges(self, places: np.ndarray) -> Sequence[tuple[float, float]]:
        """Return between which grey the data of each place lie; asked for where patches are augmented."""

    @abstractmethod
    def describe(self, epoch: int, step: int) -> str:
        """Name the patches of a batch, as `batch` numbers them."""

    @property
    def exclusive(self) -> bool:
        """Whether the channels are classes that exclude each other."""
        return False

    @property
    def process_start(self) -> str | None:
        """How worker processes are started, in the words of `multiprocessing`; None as this system does."""
        return None

    def batch(self, epoch: int, step: int) -> Batch:
        """Cut one batch.

        Parameters
        ----------
        epoch, step : int
            From 0; the step below ``steps_per_epoch``.

        Returns
        -------
        images : (B, C, P, P) float32 tensor
            Normalised grey; the channels are a section and its neighbours.
        masks : (B, E, P, P) float32 tensor of 0 and 1
            Of the section in the middle; NaN where nobody annotated.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of {self.steps_per_epoch}")
        size = self.settings.size
        side = size if self.augment is None else margin(self.augment, size)
        samples, places = self._samples(epoch, step)
        cut = [self.cut(place, (side - size) // 2, side) for place in places]
        grey, masks = (torch.from_numpy(np.stack(each)) for each in zip(*cut, strict=True))
        if self.augment is None:
            masks = with_nan(masks)
        else:
            rngs = [np.random.default_rng([self.seed, SAMPLES, epoch, sample]) for sample in samples]
            ranges = self.grey_ranges(places)
            grey, masks = augment_masks(grey, masks, self.augment, rngs, size, ranges, exclusive=self.exclusive)
        return torch.from_numpy(self.normalisation.apply(grey.numpy())), masks

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
                multiprocessing_context=self.process_start,
            )
        for images, masks in batches:
            yield images.to(device, non_blocking=True), masks.to(device, non_blocking=True)

    def _samples(self, epoch: int, step: int) -> tuple[range, np.ndarray]:
        """Numbers of the patches of a batch within their epoch, and their places."""
        first = (step * self.world + self.rank) * self.settings.batch_size
        samples = range(first, first + self.settings.batch_size)
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self.places(epoch)
        return samples, self._planned[1].take(samples, axis=0, mode="wrap")


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
