"""Batches of patches cut from sections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from emlib.learn.datasets.joined import JoinedSections
from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.mirroring import reflected_crop
from emlib.learn.datasets.places import PatchPlaces, PatchSettings
from emlib.learn.datasets.sections import Sections
from emlib.learn.datasets.seeded_batches import SeededBatches
from emlib.learn.normalisation import unit_grey
from emlib.learn.transforms import find_grey_range


class PatchBatches(SeededBatches):
    """Batches for training.

    Parameters
    ----------
    sections : Sections or JoinedSections
    settings : PatchSettings
    **how
        As for `emlib.learn.datasets.seeded_batches.SeededBatches`.

    Attributes
    ----------
    shares : (D,) float array
        Of the patches that come from each data set.

    Raises
    ------
    UserError
        If a patch is larger than a section.
    """

    def __init__(self, sections: Sections | JoinedSections, settings: PatchSettings, **how: Any):
        self.sections = sections
        self._places = PatchPlaces(sections, settings, how.get("seed", 0))
        self.shares = self._places.shares
        super().__init__(settings, self._places.count, **how)
        self._grey = [] if self.augment is None else [each for part in sections.parts for each in _grey_ranges(part)]

    @property
    def exclusive(self) -> bool:
        """Whether the channels are classes that exclude each other."""
        return self.sections.activation == "softmax"

    def cut(self, place: np.ndarray, border: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut a patch and its masks, see `SeededBatches.cut`."""
        index, row, column = place
        box = row - border, column - border, side
        grey = unit_grey(reflected_crop(self.sections.image(index), *box))[None]
        return grey, reflected_crop(self.sections.masks(index), *box)

    def places(self, epoch: int) -> np.ndarray:
        """Return (N, 3) int: section, first row and first column of each patch."""
        return self._places.epoch(epoch)

    def grey_ranges(self, places: np.ndarray) -> Sequence[tuple[float, float]]:
        """Return between which grey the data sets lie that patches come from."""
        return [self._grey[index] for index in places[:, 0]]

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


def _grey_ranges(sections: Sections) -> list[tuple[float, float]]:
    """Between which grey the sections of a data set lie: the same for each of them."""
    return [find_grey_range(sections.image(index) for index in range(len(sections)))] * len(sections)
