"""How well a network agrees with what it did not learn from, after each epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.inference import predict_stack
from emlib.learn.normalisation import Normalisation
from emlib.learn.volumes.labelled import NAME
from emlib.measure.masks.pixels import pixel_counts, pixel_scores
from emlib.refine.validation import auc


class Agreement:
    """Scores of a network on planes of which the known pixels are held out.

    Parameters
    ----------
    planes : K arrays (C, Y, X) uint8
        Grey of planes and their neighbours.
    targets : (K, Y, X) uint8 array
        0, 1, and 255 for pixels that are not judged by.
    normalisation : Normalisation
    device : torch.device or str
    """

    def __init__(
        self,
        planes: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        normalisation: Normalisation,
        device: torch.device | str = "cpu",
    ) -> None:
        self.planes, self.targets, self.normalisation, self.device = planes, targets, normalisation, device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return ``iou`` and ``dice`` of the boundary at probability 0.5, and ``auc``, all pixels counted together."""
        truths, found = [], []
        for plane, target in zip(self.planes, self.targets, strict=True):
            known = target != UNKNOWN
            found.append(predict_stack(model, plane, self.normalisation, device=self.device)[0][known])
            truths.append(target[known] == 1)
        truth, probability = np.concatenate(truths), np.concatenate(found)
        told = pixel_scores(np.array([pixel_counts(truth, probability >= 0.5)]))
        iou, dice = (float(told[name][0]) for name in ("iou", "dice"))
        return {"iou": iou, "dice": dice, "auc": auc(truth, probability), f"iou/{NAME}": iou}
