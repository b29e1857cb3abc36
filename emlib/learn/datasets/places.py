"""Which patches an epoch shows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.domain import patch_problem
from emlib.learn.datasets.sections import Sections

SAMPLINGS = ("grid", "random")
BALANCED_SHARE = 0.5  # of the crops of a balanced epoch; the others come from anywhere
KEPT = 4096  # positive pixels remembered per section and organelle, evenly spread
PLACES, SAMPLES = 1, 2  # streams of random numbers that never meet


@dataclass(frozen=True)
class PatchSettings:
    """How patches are cut.

    Attributes
    ----------
    size : int
        Side of a patch in pixels.
    stride : int
        From one patch of the grid to the next, in pixels.
    batch_size : int
        Patches per step and process.
    sampling : str
        ``grid``: every place of the grid once per epoch, shuffled; ``random``: crops from anywhere.
    patches_per_epoch : int, optional
        Default: as many as the grid has places.
    balance : bool
        With ``random``: half of the crops lie around a pixel of an organelle, each organelle as often as the others,
        so that rare ones are seen.
    """

    size: int = 256
    stride: int = 128
    batch_size: int = 8
    sampling: str = "grid"
    patches_per_epoch: int | None = None
    balance: bool = False

    def __post_init__(self):
        for name in ("size", "stride", "batch_size", "patches_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} of patches must be at least 1, got {value}")
        if self.sampling not in SAMPLINGS:
            raise UserError(f"there is no sampling {self.sampling!r} of patches; choose from {', '.join(SAMPLINGS)}")


class PatchPlaces:
    """The places of the patches of every epoch.

    Parameters
    ----------
    sections : Sections
    settings : PatchSettings
    seed : int

    Raises
    ------
    UserError
        If a patch is larger than a section.
    """

    def __init__(self, sections: Sections, settings: PatchSettings, seed: int):
        self._sections, self._settings, self._seed = sections, settings, seed
        for index, name in enumerate(sections.names):
            if problem := patch_problem(settings.size, sections.shape(index), name):
                raise UserError(problem)
        self.grid = np.concatenate([self._section_grid(index) for index in range(len(sections))])
        self.count = settings.patches_per_epoch or len(self.grid)
        self._positive = self._find_positive() if settings.sampling == "random" and settings.balance else []

    def epoch(self, epoch: int) -> np.ndarray:
        """Return (N, 3) int: section, first row and first column of each patch, in their order.

        Sections that do not fit in memory together are visited in groups that do, so that each is decoded once.
        """
        rng = np.random.default_rng([self._seed, PLACES, epoch])
        if self._settings.sampling == "grid":
            rounds = -(-self.count // len(self.grid))
            order = np.concatenate([rng.permutation(len(self.grid)) for _ in range(rounds)])
            places = self.grid[order[: self.count]]
        else:
            places = self._random(rng)
        if self._sections.resident >= len(self._sections):
            return places
        group = rng.permutation(len(self._sections)) // self._sections.resident
        return places[np.argsort(group[places[:, 0]], kind="stable")]

    def _section_grid(self, index: int) -> np.ndarray:
        """Places 0, stride, 2 stride … and one flush with the far border."""
        size, stride = self._settings.size, self._settings.stride
        rows, columns = (
            np.unique([*range(0, length - size + 1, stride), length - size]) for length in self._sections.shape(index)
        )
        return np.stack(np.meshgrid(index, rows, columns, indexing="ij"), axis=-1).reshape(-1, 3)

    def _random(self, rng: np.random.Generator) -> np.ndarray:
        """Crops from anywhere, sections by their area; balanced ones around a pixel of an organelle."""
        shapes = np.array([self._sections.shape(index) for index in range(len(self._sections))])
        area = shapes.prod(axis=1)
        section = rng.choice(len(shapes), self.count, p=area / area.sum())
        corner = rng.integers(0, shapes[section] - self._settings.size + 1)
        places = np.column_stack([section, corner])
        if not self._positive:
            return places
        size = self._settings.size
        for sample in np.flatnonzero(rng.random(self.count) < BALANCED_SHARE):
            weights, pixels = self._positive[rng.integers(len(self._positive))]
            at = rng.choice(len(weights), p=weights)
            row, column = np.unravel_index(rng.choice(pixels[at]), shapes[at])
            first = np.array([row, column]) - size // 2 + rng.integers(-(size // 4), size // 4 + 1, 2)
            places[sample] = at, *np.clip(first, 0, shapes[at] - size)
        return places

    def _find_positive(self) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """For each organelle that has any: the share of its pixels in each section, and some of them, flat."""
        counts = np.zeros((len(self._sections.organelles), len(self._sections)))
        kept: list[list[np.ndarray]] = [[] for _ in self._sections.organelles]
        for index in range(len(self._sections)):
            for organelle, mask in enumerate(self._sections.masks(index)):
                pixels = np.flatnonzero(mask)
                counts[organelle, index] = len(pixels)
                kept[organelle].append(pixels[:: -(-len(pixels) // KEPT) or 1].copy())
        return [(row / row.sum(), pixels) for row, pixels in zip(counts, kept, strict=True) if row.any()]
