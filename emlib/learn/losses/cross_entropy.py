"""Losses pixel by pixel: cross-entropy and focal loss.

The mean is taken over all annotated pixels; a class that no pixel shows has no loss of its own, but every pixel teaches
that it is not there.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from emlib.learn.losses.comparison import Comparison

ALPHA, GAMMA = 0.8, 2.0  # as in the MExConn code; γ also as in Lin et al. 2017


def ce_loss(both: Comparison) -> torch.Tensor:
    """Return the cross-entropy of the activation in nats: binary with sigmoid, of the true class with softmax.

    Examples
    --------
    >>> truth = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    >>> round(ce_loss(Comparison(torch.zeros(1, 2, 1, 1), truth, activation="softmax")).item(), 4)  # ln 2
    0.6931
    """
    return both.pixel_mean(both.entropy)


def bce_loss(both: Comparison) -> torch.Tensor:
    """Return the binary cross-entropy in nats; with softmax that of each class against all the others.

    Examples
    --------
    >>> round(bce_loss(Comparison(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))).item(), 4)
    0.6931
    """
    if not both.softmax:
        return both.pixel_mean(both.entropy)
    odds = one_against_rest(both.logits)
    return both.pixel_mean(functional.binary_cross_entropy_with_logits(odds, both.targets, reduction="none"))


def focal_loss(both: Comparison, alpha: float = ALPHA, gamma: float = GAMMA, balanced: bool = False) -> torch.Tensor:
    """Return the cross-entropy times α (1 - q)^γ, where q is the probability given to the truth; mean over pixels.

    Parameters
    ----------
    both : Comparison
    alpha : float
        Weight of all pixels, as in the MExConn code; with ``balanced`` that of the foreground, and the background's is
        ``1 - alpha``, as in Lin et al. 2017.
    gamma : float, 0 or above
        How much pixels that are right already count less.
    balanced : bool
        With softmax class 0 is the background.

    Examples
    --------
    >>> round(focal_loss(Comparison(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))).item(), 4)  # 0.8 · 0.5² · ln 2
    0.1386
    """
    weight = alpha
    if balanced:
        foreground = 1 - both.targets[:, :1] if both.softmax else both.targets
        weight = (2 * alpha - 1) * foreground + (1 - alpha)
    return both.pixel_mean(weight * (-torch.expm1(-both.entropy)) ** gamma * both.entropy)


def balanced_focal_loss(both: Comparison) -> torch.Tensor:
    """Return the focal loss of Lin et al. 2017 with α 0.8, γ 2."""
    return focal_loss(both, balanced=True)


def one_against_rest(logits: torch.Tensor) -> torch.Tensor:
    """Return logits whose sigmoid is the softmax of ``logits`` over axis 1, without ever taking 1 - p.

    Examples
    --------
    >>> one_against_rest(torch.tensor([[2.0, -1.0]]))
    tensor([[ 3., -3.]])
    """
    classes = range(logits.shape[1])
    rest = [logits[:, [other for other in classes if other != one]].logsumexp(1) for one in classes]
    return logits - torch.stack(rest, 1)
