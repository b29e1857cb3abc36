"""Batches of patches of a labelled volume, along any of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emlib.learn.datasets.places import PLACES, PatchSettings
from emlib.learn.datasets.seeded_batches import SeededBatches
from emlib.learn.normalisation import unit_grey
from emlib.learn.transforms.grey_range import WHOLE, counted_grey_range
from emlib.learn.volumes.counts import count_values
from emlib.learn.volumes.labelled import LabelledVolume

MOST = 2**17  # patches in an epoch, unless told otherwise: a terabyte would make epochs of weeks


class VolumeBatches(SeededBatches):
    """Batches for `emlib.learn.training.loop.train`: crops from anywhere, along any of the volume's axes.

    All sections of a patch are changed alike by augmentation; where there are flips, their order is reversed as often
    as not.

    Parameters
    ----------
    sections : LabelledVolume
        Where a section is smaller than a patch, it is mirrored.
    settings : PatchSettings
        Of ``sampling`` only ``random`` is known here, and boundaries need no balance: they are everywhere.
        ``patches_per_epoch`` is by default as many as cover every voxel once along every axis, at most 131 072.
    **how
        As for `emlib.learn.datasets.seeded_batches.SeededBatches`.
    """

    def __init__(self, sections: LabelledVolume, settings: PatchSettings, **how: Any):
        self.sections = sections
        covering = -(-int(np.prod(sections.em.shape, dtype=np.int64)) * len(sections.axes) // settings.size**2)
        super().__init__(settings, settings.patches_per_epoch or min(covering, MOST), **how)
        self._grey = WHOLE
        if self.augment is not None:
            self._grey = counted_grey_range(sections.grey_counts)

    @property
    def process_start(self) -> str | None:
        """How worker processes are started: afresh where tensorstore reads, which does not survive a fork."""
        read = (getattr(self.sections.em, "source", None), getattr(self.sections.targets, "labels", None))
        return "spawn" if any(one is not None and one.uri.startswith("precomputed://") for one in read) else None

    def cut(self, place: np.ndarray, border: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut a patch and its targets, see `SeededBatches.cut`."""
        axis, index, row, column, turned = map(int, place)
        part = (row - border, column - border), (side, side)
        grey = unit_grey(self.sections.image(axis, index, *part))
        reverses = turned and self.augment is not None and self.augment.flip > 0
        return grey[::-1] if reverses else grey, self.sections.target(axis, index, *part)

    def places(self, epoch: int) -> np.ndarray:
        """Return (N, 5) int: axis, section, first row and column, and whether the order of sections is reversed."""
        rng = np.random.default_rng([self.seed, PLACES, epoch])
        shapes = np.array([self.sections.shape(axis) for axis in range(3)])
        axis = rng.choice(self.sections.axes, self.patches_per_epoch)
        room = shapes[axis] - (1, self.settings.size, self.settings.size)
        # where there is no room, the patch reaches beyond the section as far on one side as on the other
        place = np.where(room >= 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
        return np.column_stack([axis, place, rng.integers(0, 2, len(axis))])

    def grey_ranges(self, places: np.ndarray) -> Sequence[tuple[float, float]]:
        """Return between which grey the volume lies."""
        return [self._grey] * len(places)

    def describe(self, epoch: int, step: int) -> str:
        """Name the patches of a batch by axis, section, and first row and column before augmentation."""
        _, places = self._samples(epoch, step)
        first = (self.sections.first_z, 0, 0)
        return "; ".join(
            f"{'zyx'[axis]} {index + first[axis]} at ({row}, {column})" for axis, index, row, column, _ in places
        )

    def class_balance(self) -> np.ndarray:
        """Return the fraction of the annotated voxels that lie on boundaries, (1,) float64."""
        counts = count_values(self.sections.targets, self.sections.first_z)
        return np.array([counts[1] / max(counts[0] + counts[1], 1)])
