"""Losses for masks that may overlap: one logit per pixel and organelle, and sums of losses written as text.

Targets are (B, E, Y, X), 0 or 1; NaN means that nobody annotated the pixel, and it counts for nothing. Means over
organelles can be weighted, so that a rare one is not drowned; only the ratios of the weights matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from emlib.errors import UserError, nearest

SMOOTH = 1.0  # pixels; keeps Dice defined and its gradient finite where an organelle is absent
Weights = Sequence[float] | torch.Tensor | None


def dice_loss(
    logits: torch.Tensor, targets: torch.Tensor, organelle_weights: Weights = None, batch: bool = False
) -> torch.Tensor:
    """Return 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1), the mean over images and organelles.

    Parameters
    ----------
    logits : (B, E, Y, X) float tensor
        p is their sigmoid.
    targets : (B, E, Y, X) float tensor
        In [0, 1]; NaN is left out. An image without annotated pixels of an organelle is left out of the mean.
    organelle_weights : (E,) floats, optional
    batch : bool
        Sum over the pixels of all images instead of each image's.

    Notes
    -----
    Sums run over the pixels of one image and organelle, as in the MExConn code; Milletari et al. 2016 square the terms
    of the denominator.

    Examples
    --------
    >>> truth = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    >>> round(dice_loss(torch.full((1, 1, 2, 2), 0.0), truth).item(), 6)
    0.4
    """
    targets, known = _annotated(targets)
    probability = torch.sigmoid(logits.float())
    if known is not None:
        probability = probability * known
    pixels = (0, 2, 3) if batch else (2, 3)
    overlap, total = (probability * targets).sum(pixels), (probability + targets).sum(pixels)
    losses = (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).reshape(-1, logits.shape[1])
    present = None if known is None else known.flatten(2).any(2)
    if batch and present is not None:
        present = present.any(0, keepdim=True)
    return _mean(losses, present, organelle_weights)


def batch_dice_loss(logits: torch.Tensor, targets: torch.Tensor, organelle_weights: Weights = None) -> torch.Tensor:
    """Return the Dice loss of all images of a batch together; arguments as for `dice_loss`.

    An organelle that most patches do not show is not taught to be nowhere, as it is where each empty patch counts as
    much as a full one.
    """
    return dice_loss(logits, targets, organelle_weights, batch=True)


def bce_loss(logits: torch.Tensor, targets: torch.Tensor, organelle_weights: Weights = None) -> torch.Tensor:
    """Return the binary cross-entropy in nats, the mean over annotated pixels; arguments as for `dice_loss`.

    Examples
    --------
    >>> round(bce_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)
    0.6931
    """
    targets, known = _annotated(targets)
    return _mean(_cross_entropy(logits, targets), known, organelle_weights)


def focal_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    organelle_weights: Weights = None,
    alpha: float = 0.8,
    gamma: float = 2.0,
    balanced: bool = False,
) -> torch.Tensor:
    """Return the cross-entropy times α (1 - q)^γ, where q is the probability given to the truth; mean over pixels.

    Parameters
    ----------
    logits, targets, organelle_weights
        As for `dice_loss`.
    alpha : float
        Weight of all pixels, as in the MExConn code; with ``balanced`` that of the foreground, and the background's is
        ``1 - alpha``, as in Lin et al. 2017.
    gamma : float, 0 or above
        How much pixels that are right already count less.
    balanced : bool

    Examples
    --------
    >>> round(focal_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item(), 4)  # 0.8 · 0.5² · ln 2
    0.1386
    """
    targets, known = _annotated(targets)
    entropy = _cross_entropy(logits, targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets) if balanced else alpha
    return _mean(weight * (-torch.expm1(-entropy)) ** gamma * entropy, known, organelle_weights)


def balanced_focal_loss(logits: torch.Tensor, targets: torch.Tensor, organelle_weights: Weights = None) -> torch.Tensor:
    """Return the focal loss of Lin et al. 2017 with α 0.8, γ 2; arguments as for `dice_loss`."""
    return focal_loss(logits, targets, organelle_weights, balanced=True)


def paper_loss(logits: torch.Tensor, targets: torch.Tensor, organelle_weights: Weights = None) -> torch.Tensor:
    """Return Dice + focal + cross-entropy, the loss of MExConn; arguments as for `dice_loss`."""
    return sum(loss(logits, targets, organelle_weights) for loss in (dice_loss, focal_loss, bce_loss))


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, Weights], torch.Tensor]] = {
    "dice": dice_loss,
    "batch_dice": batch_dice_loss,
    "focal": focal_loss,
    "balanced_focal": balanced_focal_loss,
    "bce": bce_loss,
    "paper": paper_loss,
}


class LossSum(nn.Module):
    """A weighted sum of losses: called with logits and targets (B, E, Y, X), returns a scalar.

    Parameters
    ----------
    terms : sequence of (float, str)
        Factor, and name in `LOSSES`.
    organelle_weights : (E,) floats above zero, optional

    Raises
    ------
    ValueError
        If a weight of an organelle is not above zero.
    """

    def __init__(self, terms: Sequence[tuple[float, str]], organelle_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.terms = tuple(terms)
        weights = None if organelle_weights is None else torch.as_tensor(organelle_weights, dtype=torch.float32)
        if weights is not None and not bool((weights > 0).all() and torch.isfinite(weights).all()):
            raise ValueError(f"weights of organelles are above zero, not {weights.tolist()}")
        self.register_buffer("organelle_weights", weights, persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return sum(factor * LOSSES[name](logits, targets, self.organelle_weights) for factor, name in self.terms)

    def extra_repr(self) -> str:
        return " + ".join(f"{factor:g}*{name}" for factor, name in self.terms)


def parse_loss(text: str, organelle_weights: Sequence[float] | None = None) -> LossSum:
    """Return the loss that a text names.

    Parameters
    ----------
    text : str
        Names in `LOSSES` joined by ``+``, each with a factor before it or none: ``dice+0.5*focal+bce``.
    organelle_weights : (E,) floats above zero, optional

    Raises
    ------
    UserError
        If a name is unknown (the nearest is told) or a factor is no number above zero.

    Examples
    --------
    >>> parse_loss("dice + 0.5*focal")
    LossSum(1*dice + 0.5*focal)
    """
    terms = []
    for term in re.split(r"(?<!\d[eE])\+", text):  # the + of 1e+2 joins nothing
        factor, star, name = term.rpartition("*")
        name = name.strip().lower()
        if not name:
            raise UserError(f"the loss {text[:80]!r} lacks a name; write it like dice+0.5*focal+bce")
        if name not in LOSSES:
            raise UserError(f"there is no loss {name[:40]!r}; {nearest(name[:40], [*LOSSES])}")
        terms.append((_factor(factor, text) if star else 1.0, name))
    return LossSum(terms, organelle_weights)


def _factor(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"the loss {text[:80]!r}: {number.strip()[:20]!r} is no number above 0")
    return value


def _annotated(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Targets with 0 for NaN, and where they are known; None where all are, which is the usual case and saves time."""
    targets = targets.float()
    unknown = torch.isnan(targets)
    return (targets.masked_fill(unknown, 0), ~unknown) if unknown.any() else (targets, None)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each pixel, in float32 also under a lower precision."""
    return functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")


def _mean(losses: torch.Tensor, known: torch.Tensor | None, organelle_weights: Weights) -> torch.Tensor:
    """Mean over what is known, weighted by organelle (axis 1); 0 where nothing is."""
    if known is None and organelle_weights is None:
        return losses.mean()
    weights = torch.ones_like(losses) if known is None else known.to(losses.dtype)
    if organelle_weights is not None:
        by_organelle = torch.as_tensor(organelle_weights, dtype=losses.dtype, device=losses.device)
        if by_organelle.shape != (losses.shape[1],):
            raise ValueError(f"{losses.shape[1]} organelles need as many weights, not {tuple(by_organelle.shape)}")
        weights = weights * by_organelle.reshape(1, -1, *[1] * (losses.ndim - 2))
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1)
