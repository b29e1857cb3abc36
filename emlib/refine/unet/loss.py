"""The loss of the self-training: cross-entropy and Dice, in which each pixel has its own weight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class WeightedLoss(nn.Module):
    """Binary cross-entropy plus Dice of the pixels of a batch, corrected ones weighing more.

    Parameters
    ----------
    corrected_weight : float
        Of a corrected pixel; one of a pseudo-label weighs 1, one that is not known nothing.

    Notes
    -----
    Called with logits (B, 1, Y, X) and targets (B, 2, Y, X): pseudo-labels and corrections, 0, 1 or NaN. What is
    corrected counts alone. Dice is taken over the batch with the weights in both of its sums, so that a patch without
    a boundary does not count as much as a full one.

    Examples
    --------
    >>> logits, nothing = torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1, 2), torch.nan)
    >>> truth = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> round(WeightedLoss(5.0)(logits, torch.cat([nothing, truth], 1)).item(), 3)  # ln 2 + 1 - (5 + 1) / (10 + 1)
    1.148
    """

    def __init__(self, corrected_weight: float) -> None:
        super().__init__()
        self.corrected_weight = corrected_weight

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits[:, 0].float()
            pseudo, corrected = targets[:, 0], targets[:, 1]
            known = ~corrected.isnan()
            target = torch.where(known, corrected, pseudo)
            weight = torch.where(known, self.corrected_weight, (~pseudo.isnan()).float())
            target = target.nan_to_num(0.0)
            entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            bce = (weight * entropy).sum() / weight.sum().clamp_min(1.0)
            probability = torch.sigmoid(logits)
            overlap = (weight * probability * target).sum()
            total = (weight * (probability + target)).sum()
            return bce + 1 - (2 * overlap + 1) / (total + 1)
