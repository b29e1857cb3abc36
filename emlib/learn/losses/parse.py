"""Losses by name, and sums of them written as text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import nn

from emlib.errors import UserError, nearest
from emlib.learn.losses.boundary import boundary_loss
from emlib.learn.losses.comparison import ACTIVATIONS, Comparison
from emlib.learn.losses.cross_entropy import balanced_focal_loss, bce_loss, ce_loss, focal_loss
from emlib.learn.losses.lovasz import lovasz_loss
from emlib.learn.losses.overlap import batch_dice_loss, dice_loss, tversky_loss


def paper_loss(both: Comparison) -> torch.Tensor:
    """Return Dice + focal + cross-entropy, the loss of MExConn."""
    return dice_loss(both) + focal_loss(both) + ce_loss(both)


LOSSES: dict[str, Callable[[Comparison], torch.Tensor]] = {
    "ce": ce_loss,
    "dice": dice_loss,
    "batch_dice": batch_dice_loss,
    "focal": focal_loss,
    "balanced_focal": balanced_focal_loss,
    "bce": bce_loss,
    "tversky": tversky_loss,
    "lovasz": lovasz_loss,
    "boundary": boundary_loss,
    "paper": paper_loss,
}


class LossSum(nn.Module):
    """A weighted sum of losses: called with logits and targets (B, E, Y, X), returns a scalar.

    Computed in float32 (float64 if the logits are), also where the network runs in a lower precision.

    Parameters
    ----------
    terms : sequence of (float, str)
        Factor, and name in `LOSSES`.
    organelle_weights : (E,) floats above zero, optional
    activation : str
        ``sigmoid`` or ``softmax``.

    Raises
    ------
    ValueError
        If a weight of an organelle is not above zero, or there is no such activation.
    """

    def __init__(
        self,
        terms: Sequence[tuple[float, str]],
        organelle_weights: Sequence[float] | None = None,
        activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"there is no activation {activation!r}; choose from {', '.join(ACTIVATIONS)}")
        self.terms, self.activation = tuple(terms), activation
        weights = None if organelle_weights is None else torch.as_tensor(organelle_weights, dtype=torch.float32)
        if weights is not None and not bool((weights > 0).all() and torch.isfinite(weights).all()):
            raise ValueError(f"weights of organelles are above zero, not {weights.tolist()}")
        self.register_buffer("organelle_weights", weights, persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            both = Comparison(logits, targets, self.organelle_weights, self.activation)
            return sum(factor * LOSSES[name](both) for factor, name in self.terms)

    def extra_repr(self) -> str:
        terms = " + ".join(f"{factor:g}*{name}" for factor, name in self.terms)
        return terms if self.activation == "sigmoid" else f"{terms}, {self.activation}"


def parse_loss(
    text: str,
    organelle_weights: Sequence[float] | None = None,
    activation: str = "sigmoid",
    class_names: Sequence[str] | None = None,
) -> LossSum:
    """Return the loss that a text names.

    Parameters
    ----------
    text : str
        Names in `LOSSES` joined by ``+``, each with a factor before it or none: ``dice+0.5*focal+bce``.
    organelle_weights : (E,) floats above zero, optional
    activation : str
        ``sigmoid`` (organelles may overlap) or ``softmax`` (classes exclude each other, background first).
    class_names : (E,) names, optional
        Of organelles or classes: there must be as many weights.

    Raises
    ------
    UserError
        If a name is unknown (the nearest is told), a factor is no number above zero, or a class lacks its weight.

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
    if None not in (class_names, organelle_weights) and len(class_names) != len(organelle_weights):
        raise UserError(
            f"the loss has {len(organelle_weights)} weights for {len(class_names)} classes; "
            f"give one for each of {', '.join(class_names)}"
        )
    return LossSum(terms, organelle_weights, activation)


def _factor(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"the loss {text[:80]!r}: {number.strip()[:20]!r} is no number above 0")
    return value
