"""Scores of a network on whole sections, pooled over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.datasets.sections import Sections
from emlib.learn.inference import TileSettings, decide, predict_section
from emlib.learn.normalisation import Normalisation
from emlib.learn.training.failures import memory_told
from emlib.measure.masks.pixels import pixel_counts, pixel_scores

TILES = TileSettings()
TRUE = [0, 2]  # of the counts of `pixel_counts`: true positives and false negatives
RIGHT = [0, 3]  # true positives and true negatives
MEASURES = ("iou", "dice")  # for each organelle


def tiles_within(patches: PatchSettings) -> TileSettings:
    """Return tiles that fit where a training on these patches fits, so that smaller ones always help.

    Parameters
    ----------
    patches : PatchSettings

    Returns
    -------
    TileSettings
        The usual ones, or where the patches of a step are few and small, fewer at once and of half the side.

    Examples
    --------
    >>> [tiles_within(PatchSettings(size=size, batch_size=8)).tile for size in (256, 64)]
    [1024, 512]
    """
    room = 2 * patches.batch_size * patches.size**2  # pixels; a gradient holds far more for each than a prediction
    tile = TILES.tile if room >= TILES.tile**2 else TILES.tile // 2
    return replace(TILES, tile=tile, batch_size=min(TILES.batch_size, max(1, room // tile**2)))


class SectionScores:
    """Scores of a network on the sections of one data set.

    Parameters
    ----------
    sections : Sections
    normalisation : Normalisation
        That of the training.
    device : torch.device or str
    tiles : TileSettings
    """

    def __init__(
        self,
        sections: Sections,
        normalisation: Normalisation,
        device: torch.device | str = "cpu",
        tiles: TileSettings = TILES,
    ) -> None:
        self.sections, self.normalisation, self.device, self.tiles = sections, normalisation, device, tiles

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return ``iou``, ``dice``, ``f1`` and ``accuracy``, and ``iou/NAME``, ``dice/NAME``, in [0, 1].

        Pixels of all sections are counted together, as in the pooled protocol of `emlib.measure.masks.scores`; those
        that nobody annotated are left out. ``iou`` and ``dice`` are means over organelles, or over classes without the
        background; ``f1`` of pixels is the same as ``dice``. ``accuracy`` is the share of pixels whose class is right,
        of organelles the mean of theirs. An organelle without a pixel in any section cannot be measured: its scores are
        NaN and stay out of the means.

        Raises
        ------
        UserError
            If no organelle has a pixel in any section.
        """
        counts = self._counts(model)
        exclusive = getattr(model, "activation", "sigmoid") == "softmax"
        first = 1 if exclusive else 0
        names, scored = self.sections.organelles[first:], counts[first:]
        present = scored[:, TRUE].sum(axis=1) > 0
        if not present.any():
            raise UserError(f"{self.sections.split.folder}: all masks are empty, so no epoch can be measured")
        scores = {measure: np.full(len(names), np.nan) for measure in MEASURES}
        for measure, values in pixel_scores(scored[present]).items():
            if measure in scores:
                scores[measure][present] = values
        result = {measure: float(np.mean(scores[measure][present])) for measure in MEASURES}
        result["f1"] = result["dice"]
        known = counts[counts.sum(axis=1) > 0]
        if exclusive:  # a true positive of one class is a pixel whose class is right
            result["accuracy"] = float(known[:, 0].sum() / known[0].sum())
        else:
            result["accuracy"] = float(np.mean(known[:, RIGHT].sum(axis=1) / known.sum(axis=1)))
        for measure in MEASURES:
            result |= {f"{measure}/{name}": float(value) for name, value in zip(names, scores[measure], strict=True)}
        return result

    def _counts(self, model: nn.Module) -> np.ndarray:
        """Counts as of `pixel_counts` for each channel, (E, 4)."""
        counts = np.zeros((len(self.sections.organelles), 4), np.int64)
        activation = getattr(model, "activation", "sigmoid")
        with memory_told("validating"):
            for index in range(len(self.sections)):
                image, masks = self.sections.image(index), self.sections.masks(index)
                found = decide(predict_section(model, image, self.normalisation, self.tiles, self.device), activation)
                for k, truth in enumerate(masks):
                    known = truth != UNKNOWN
                    if known.all():
                        counts[k] += pixel_counts(truth == 1, found[k])
                    elif known.any():
                        counts[k] += pixel_counts(truth[known] == 1, found[k][known])
        return counts


class DomainScores:
    """Validation for `emlib.learn.training.loop.train`: scores of a network on one data set, or on several.

    Parameters
    ----------
    parts : sequence of SectionScores
        One for each data set.
    """

    def __init__(self, parts: Sequence[SectionScores]) -> None:
        self.parts = tuple(parts)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return the scores of a data set alone as `SectionScores` gives them.

        Of several, ``iou``, ``dice``, ``f1`` and ``accuracy`` are means over data sets of their means, and each one's
        are ``iou/DOMAIN/NAME`` …; organelles that a data set has no masks of are left out.
        """
        if len(self.parts) == 1:
            return self.parts[0](model)
        each = {part.sections.split.domain: part(model) for part in self.parts}
        means = [name for name in next(iter(each.values())) if "/" not in name]
        result = {name: float(np.mean([scores[name] for scores in each.values()])) for name in means}
        for measure in MEASURES:
            for part, (domain, scores) in zip(self.parts, each.items(), strict=True):
                for name in part.sections.split.organelles:
                    if (column := f"{measure}/{name}") in scores:
                        result[f"{measure}/{domain}/{name}"] = scores[column]
        return result
