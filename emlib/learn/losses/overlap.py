"""Losses of overlap: Dice and Tversky, by image or over a batch.

An organelle that an image does not show has 1 - ½ / (½ + α Σ p), with α = ½ for Dice: 0 if nothing is predicted, nearly
1 if a little is. Over a batch, organelles are taught to be nowhere only where no image shows them. With softmax all
classes count alike, the background among them.
"""

from __future__ import annotations

import torch

from emlib.learn.losses.comparison import Comparison

SMOOTH = 0.5  # pixels; keeps the ratio defined and its gradient finite where an organelle is absent


def tversky_loss(both: Comparison, alpha: float = 0.3, beta: float = 0.7, batch: bool = False) -> torch.Tensor:
    """Return 1 - (TP + ½) / (TP + α FP + β FN + ½), the mean over images and organelles.

    Parameters
    ----------
    both : Comparison
    alpha, beta : float
        What a false and what a missed pixel costs; half and half is Dice.
    batch : bool
        Sum over the pixels of all images instead of each image's.

    Notes
    -----
    Salehi et al. 2017 (Tversky loss function for image segmentation using 3D fully convolutional deep networks) found
    α 0.3, β 0.7 best for lesions that fill little of an image. TP, FP and FN are sums of probabilities.

    Examples
    --------
    >>> truth = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    >>> round(tversky_loss(Comparison(torch.zeros(1, 1, 2, 2), truth)).item(), 6)  # 1 - 1.5 / (1 + 0.3 + 0.7 + 0.5)
    0.4
    """
    pixels = (0, 2, 3) if batch else (2, 3)
    probability = both.known_only(both.probability)
    hit, predicted, true = (probability * both.targets).sum(pixels), probability.sum(pixels), both.targets.sum(pixels)
    rest = alpha * (predicted - hit) + beta * (true - hit)
    losses = (1 - (hit + SMOOTH) / (hit + rest + SMOOTH)).reshape(-1, both.logits.shape[1])
    return both.organelle_mean(losses, both.annotated(batch))


def dice_loss(both: Comparison, batch: bool = False) -> torch.Tensor:
    """Return 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1), the mean over images and organelles.

    Parameters
    ----------
    both : Comparison
        An image without annotated pixels of an organelle is left out of the mean.
    batch : bool
        Sum over the pixels of all images instead of each image's.

    Notes
    -----
    Sums run over the pixels of one image and organelle, as in the MExConn code; Milletari et al. 2016 square the terms
    of the denominator.

    Examples
    --------
    >>> truth = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    >>> round(dice_loss(Comparison(torch.zeros(1, 1, 2, 2), truth)).item(), 6)
    0.4
    """
    pixels = (0, 2, 3) if batch else (2, 3)
    probability = both.known_only(both.probability)
    overlap, total = (probability * both.targets).sum(pixels), (probability + both.targets).sum(pixels)
    losses = (1 - (overlap + SMOOTH) / (total / 2 + SMOOTH)).reshape(-1, both.logits.shape[1])
    return both.organelle_mean(losses, both.annotated(batch))


def batch_dice_loss(both: Comparison) -> torch.Tensor:
    """Return the Dice loss of all images of a batch together.

    An organelle that most patches do not show is not taught to be nowhere, as it is where each empty patch counts as
    much as a full one.
    """
    return dice_loss(both, batch=True)
