"""Scores of a network on sections of a labelled volume, pooled over its axes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.inference import predict_stack
from emlib.learn.normalisation import Normalisation
from emlib.learn.tiles import TileSettings
from emlib.learn.training.failures import memory_told
from emlib.learn.volumes.labelled import NAME, LabelledVolume
from emlib.measure.masks.pixels import pixel_counts, pixel_scores

MOST = 24  # sections of each axis that are looked at: enough to tell epochs apart, and quick
WINDOW = 1024  # pixels: of larger sections a part is looked at, another one in each


class VolumeScores:
    """Scores for `emlib.learn.training.loop.train`.

    Parameters
    ----------
    volume : LabelledVolume
    normalisation : Normalisation
    device : torch.device or str
    """

    def __init__(
        self, volume: LabelledVolume, normalisation: Normalisation, device: torch.device | str = "cpu"
    ) -> None:
        self.volume, self.normalisation, self.device = volume, normalisation, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return ``iou``, ``dice``, ``f1`` and ``accuracy`` of the voxels on boundaries, in [0, 1].

        Up to 24 sections of each axis, evenly spread, each predicted for itself, or 1024² pixels of it; voxels that
        nobody annotated are left out.
        """
        counts = np.zeros(4, np.int64)
        with memory_told("validating"):
            for axis in self.volume.axes:
                depth, *sides = self.volume.shape(axis)
                for index in np.unique(np.linspace(0, depth - 1, min(depth, MOST)).round().astype(int)).tolist():
                    part = _window(axis, index, sides)
                    image, truth = self.volume.image(axis, index, *part), self.volume.target(axis, index, *part)[0]
                    found = predict_stack(model, image, self.normalisation, TileSettings(), self.device)[0] >= 0.5
                    known = truth != UNKNOWN
                    if known.any():
                        counts += pixel_counts(truth[known] == 1, found[known])
        scores = {name: float(value[0]) for name, value in pixel_scores(counts[None]).items()}
        found = {"iou": scores["iou"], "dice": scores["dice"], "f1": scores["dice"]}
        found["accuracy"] = float((counts[0] + counts[3]) / counts.sum())
        return found | {f"iou/{NAME}": scores["iou"], f"dice/{NAME}": scores["dice"]}


def _window(axis: int, index: int, sides: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First pixel and size of what is looked at of a section: where the section is larger, a place of its own."""
    rng = np.random.default_rng([axis, index])
    size = tuple(min(side, WINDOW) for side in sides)
    corner = tuple(int(rng.integers(side - length + 1)) for side, length in zip(sides, size, strict=True))
    return corner, size
