"""Which patches an epoch shows, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.joined import JoinedSections
from emlib.learn.datasets.sections import Sections
from emlib.learn.datasets.split import patch_problem

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
        With ``random``: half of the crops lie around a pixel of an organelle (of a class other than background), each
        as often as the others of its data set, so that rare ones are seen.
    domain_weights : tuple of float, optional
        Shares of the patches from each of several data sets; only their ratios matter. Default: as many as the grid
        has places in each.
    """

    size: int = 256
    stride: int = 128
    batch_size: int = 8
    sampling: str = "grid"
    patches_per_epoch: int | None = None
    balance: bool = False
    domain_weights: tuple[float, ...] | None = None

    def __post_init__(self):
        for name in ("size", "stride", "batch_size", "patches_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} of patches must be at least 1, got {value}")
        if self.sampling not in SAMPLINGS:
            raise UserError(f"there is no sampling {self.sampling!r} of patches; choose from {', '.join(SAMPLINGS)}")
        if self.domain_weights is not None and not all(0 < weight < np.inf for weight in self.domain_weights):
            raise UserError(f"weights of data sets are numbers above 0, not {' '.join(map(str, self.domain_weights))}")


class PatchPlaces:
    """The places of the patches of every epoch.

    Parameters
    ----------
    sections : Sections or JoinedSections
    settings : PatchSettings
    seed : int

    Attributes
    ----------
    count : int
        Of the patches of an epoch.
    shares : (D,) float array
        Of the patches that come from each data set; their sum is 1.

    Raises
    ------
    UserError
        If a patch is larger than a section, or there are not as many weights as data sets.
    """

    def __init__(self, sections: Sections | JoinedSections, settings: PatchSettings, seed: int):
        self._sections, self._settings, self._seed = sections, settings, seed
        for index, name in enumerate(sections.names):
            if problem := patch_problem(settings.size, sections.shape(index), name):
                raise UserError(problem)
        self._part = np.repeat(np.arange(len(sections.parts)), [len(part) for part in sections.parts])
        grids = [self._section_grid(index) for index in range(len(sections))]
        ends = np.cumsum([len(part) for part in sections.parts])
        self._grids = [np.concatenate(grids[end - len(p) : end]) for end, p in zip(ends, sections.parts, strict=True)]
        places = np.array([len(grid) for grid in self._grids], float)
        self.count = settings.patches_per_epoch or int(places.sum())
        weights = places if settings.domain_weights is None else np.array(settings.domain_weights)
        if len(weights) != len(places):
            raise UserError(f"{len(places)} data sets need as many --domain_weights, not {len(weights)}")
        self.shares = weights / weights.sum()
        self._positive = self._find_positive() if settings.sampling == "random" and settings.balance else {}

    def epoch(self, epoch: int) -> np.ndarray:
        """Return (N, 3) int: section, first row and first column of each patch, in their order.

        Sections that do not fit in memory together are visited in groups that do, so that each is decoded once.
        """
        rng = np.random.default_rng([self._seed, PLACES, epoch])
        places = self._from_grid(rng) if self._settings.sampling == "grid" else self._random(rng)
        if all(part.resident >= len(part) for part in self._sections.parts):
            return places
        # When each patch is due, as a share of the epoch: data sets stay mixed while each is gone through by groups.
        due = np.empty(len(places))
        first = 0
        for number, part in enumerate(self._sections.parts):
            group = rng.permutation(len(part)) // part.resident
            own = np.flatnonzero(self._part[places[:, 0]] == number)
            within = group[places[own, 0] - first] + np.arange(len(own)) / max(len(own), 1)
            due[own] = within / (group.max() + 1)
            first += len(part)
        return places[np.argsort(due, kind="stable")]

    def _section_grid(self, index: int) -> np.ndarray:
        """Places 0, stride, 2 stride … and one flush with the far border."""
        size, stride = self._settings.size, self._settings.stride
        rows, columns = (
            np.unique([*range(0, length - size + 1, stride), length - size]) for length in self._sections.shape(index)
        )
        return np.stack(np.meshgrid(index, rows, columns, indexing="ij"), axis=-1).reshape(-1, 3)

    def _from_grid(self, rng: np.random.Generator) -> np.ndarray:
        """Every place of the grid once, or as often as the shares of the data sets ask for."""
        chosen = []
        for grid, count in zip(self._grids, whole_shares(self.shares, self.count), strict=True):
            rounds = -(-count // len(grid))
            order = np.concatenate([rng.permutation(len(grid)) for _ in range(max(rounds, 1))])
            chosen.append(grid[order[:count]])
        return chosen[0] if len(chosen) == 1 else rng.permutation(np.concatenate(chosen))

    def _random(self, rng: np.random.Generator) -> np.ndarray:
        """Crops from anywhere, sections of a data set by their area; balanced ones around a pixel of an organelle."""
        shapes = np.array([self._sections.shape(index) for index in range(len(self._sections))])
        area = shapes.prod(axis=1)
        chance = self.shares[self._part] * area / np.bincount(self._part, area)[self._part]
        section = rng.choice(len(shapes), self.count, p=chance / chance.sum())
        corner = rng.integers(0, shapes[section] - self._settings.size + 1)
        places = np.column_stack([section, corner])
        if not self._positive:
            return places
        size = self._settings.size
        for sample in np.flatnonzero(rng.random(self.count) < BALANCED_SHARE):
            found = self._positive[self._part[section[sample]]]
            if not found:
                continue
            sections, weights, pixels = found[rng.integers(len(found))]
            at = rng.choice(len(weights), p=weights)
            index = sections[at]
            row, column = np.unravel_index(rng.choice(pixels[at]), shapes[index])
            first = np.array([row, column]) - size // 2 + rng.integers(-(size // 4), size // 4 + 1, 2)
            places[sample] = index, *np.clip(first, 0, shapes[index] - size)
        return places

    def _find_positive(self) -> dict[int, list[tuple[range, np.ndarray, list[np.ndarray]]]]:
        """For each data set, of each organelle that it has any of: its sections, the share of the organelle's pixels in
        each of them, and some of these pixels, flat.
        """
        sections, first, found = self._sections, 0, {}
        foreground = range(1 if sections.activation == "softmax" else 0, len(sections.organelles))
        for number, part in enumerate(sections.parts):
            own = range(first, first + len(part))
            counts = np.zeros((len(foreground), len(part)))
            kept: list[list[np.ndarray]] = [[] for _ in foreground]
            for at in range(len(part)):
                masks = part.masks(at)
                for row, organelle in enumerate(foreground):
                    pixels = np.flatnonzero(masks[organelle] == 1)
                    counts[row, at] = len(pixels)
                    kept[row].append(pixels[:: -(-len(pixels) // KEPT) or 1].copy())
            found[number] = [
                (own, row / row.sum(), pixels) for row, pixels in zip(counts, kept, strict=True) if row.any()
            ]
            first += len(part)
        return found


def whole_shares(shares: np.ndarray, count: int) -> np.ndarray:
    """Return whole numbers in the ratio of ``shares``, which sum to 1; the sum is ``count``.

    Examples
    --------
    >>> whole_shares(np.array([0.25, 0.25, 0.5]), 10).tolist()
    [3, 2, 5]
    """
    exact = shares * count
    whole = np.floor(exact + 1e-9).astype(int)
    most = np.argsort(whole - exact, kind="stable")  # the largest remainders get what is left
    whole[most[: count - whole.sum()]] += 1
    return whole
