"""Scores of a network on whole sections, pooled over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.datasets.sections import Sections
from emlib.learn.inference import TileSettings, predict_section
from emlib.learn.normalisation import Normalisation
from emlib.learn.training.failures import memory_told
from emlib.measure.masks.pixels import pixel_counts, pixel_scores

TILES = TileSettings()
TRUE = [0, 2]  # of the counts of `pixel_counts`: true positives and false negatives
FOREGROUND = 0.5  # probability from which on a pixel belongs to an organelle


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
    """Validation for `emlib.learn.training.loop.train`: called with a network, returns its scores.

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
        """Return ``iou`` and ``dice``, means over organelles, and ``iou/NAME``, ``dice/NAME``, in [0, 1].

        Pixels of all sections are counted together, as in the pooled protocol of `emlib.measure.masks.scores`. An
        organelle without a pixel in any section cannot be measured: its scores are NaN and stay out of the means.

        Raises
        ------
        UserError
            If no organelle has a pixel in any section.
        """
        names = tuple(self.sections.organelles)
        counts = np.zeros((len(names), 4), np.int64)
        with memory_told("validating"):
            for index in range(len(self.sections)):
                image, truth = self.sections.image(index), self.sections.masks(index)
                found = predict_section(model, image, self.normalisation, self.tiles, device=self.device)
                for k in range(len(names)):
                    counts[k] += pixel_counts(truth[k] > 0, found[k] >= FOREGROUND)
        scores = pixel_scores(counts)
        present = counts[:, TRUE].sum(axis=1) > 0
        if not present.any():
            raise UserError(f"{self.sections.split.folder}: all masks are empty, so no epoch can be measured")
        result = {measure: float(scores[measure][present].mean()) for measure in ("iou", "dice")}
        for measure in ("iou", "dice"):
            scores[measure] = np.where(present, scores[measure], np.nan)
            result |= {f"{measure}/{name}": float(value) for name, value in zip(names, scores[measure], strict=True)}
        return result
