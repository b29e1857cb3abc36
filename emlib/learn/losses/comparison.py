"""Logits beside targets: what all losses need of the two, computed once for those that are summed.

Targets are (B, E, Y, X), 0 or 1; NaN means that nobody annotated the pixel, and it counts for nothing. With sigmoid
each organelle is asked for itself; with softmax the channels are classes, background first, exactly one of them is 1,
and a pixel is left out if any channel is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch.nn import functional

ACTIVATIONS = ("sigmoid", "softmax")
Weights = Sequence[float] | torch.Tensor | None


class Comparison:
    """The logits and the targets of a batch.

    Parameters
    ----------
    logits : (B, E, Y, X) float tensor
        Lower precisions are raised to float32; float64 stays.
    targets : (B, E, Y, X) tensor
        0 or 1; NaN is left out.
    organelle_weights : (E,) floats, optional
        Of organelles, or of classes; only their ratios matter.
    activation : str
        ``sigmoid`` or ``softmax``.

    Attributes
    ----------
    targets : (B, E, Y, X) float tensor
        With 0 for NaN.
    known : (B, E, Y, X) bool tensor, (B, 1, Y, X) with softmax, or None
        Where somebody annotated; None where everybody did, which is the usual case and saves time.

    Raises
    ------
    ValueError
        If the shapes differ, there is no such activation, or softmax has but one class.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        organelle_weights: Weights = None,
        activation: str = "sigmoid",
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"there is no activation {activation!r}; choose from {', '.join(ACTIVATIONS)}")
        if logits.ndim != 4 or logits.shape != targets.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} are not both (B, E, Y, X)"
            )
        self.softmax = activation == "softmax"
        if self.softmax and logits.shape[1] < 2:
            raise ValueError("softmax needs two classes or more, the background among them")
        self.logits = logits if logits.dtype == torch.float64 else logits.float()
        targets = targets.to(self.logits.dtype)
        unknown = torch.isnan(targets)
        self.targets, self.known = targets, None
        if unknown.any():
            unknown = unknown.any(1, keepdim=True) if self.softmax else unknown
            self.targets, self.known = targets.masked_fill(unknown, 0), ~unknown
        self._weights = organelle_weights

    @cached_property
    def probability(self) -> torch.Tensor:
        """Probability of each organelle or class, (B, E, Y, X)."""
        return self._log_softmax.exp() if self.softmax else torch.sigmoid(self.logits)

    @cached_property
    def entropy(self) -> torch.Tensor:
        """Cross-entropy of each pixel in nats: (B, E, Y, X) with sigmoid, (B, 1, Y, X) with softmax."""
        if not self.softmax:
            return functional.binary_cross_entropy_with_logits(self.logits, self.targets, reduction="none")
        return -self._log_softmax.gather(1, self.targets.argmax(1, keepdim=True))

    @cached_property
    def _log_softmax(self) -> torch.Tensor:
        return functional.log_softmax(self.logits, 1)

    def known_only(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, E, Y, X) values with 0 for pixels that are left out."""
        return values if self.known is None else values * self.known

    def pixel_mean(self, losses: torch.Tensor) -> torch.Tensor:
        """Mean over the pixels that count.

        Parameters
        ----------
        losses : (B, E, Y, X) float tensor, or (B, 1, Y, X) with softmax
            In the latter case a pixel has the weight of its true class.
        """
        if losses.shape[1] == self.logits.shape[1] or self._weights is None:
            return weighted_mean(losses, self.known, self.organelle_weights(losses.ndim))
        weights = (self.targets * self.organelle_weights(losses.ndim)).sum(1, keepdim=True)
        return weighted_mean(losses, self.known, weights)

    def organelle_mean(self, losses: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Mean of (N, E) losses by weight, over those that are ``present``, (N, E) bool."""
        return weighted_mean(losses, present, self.organelle_weights(losses.ndim))

    def annotated(self, batch: bool) -> torch.Tensor | None:
        """Which organelles have annotated pixels, (B, E) bool or, of the ``batch``, (1, E); None where all have."""
        if self.known is None:
            return None
        annotated = self.known.flatten(2).any(2).expand(self.logits.shape[:2])
        return annotated.any(0, keepdim=True) if batch else annotated

    def organelle_weights(self, dimensions: int) -> torch.Tensor | None:
        """Weights along axis 1 of a tensor of so many dimensions; None where all are equal.

        Raises
        ------
        ValueError
            If there are not as many as organelles.
        """
        if self._weights is None:
            return None
        weights = torch.as_tensor(self._weights, dtype=self.logits.dtype, device=self.logits.device)
        if weights.shape != (self.logits.shape[1],):
            raise ValueError(f"{self.logits.shape[1]} organelles need as many weights, not {tuple(weights.shape)}")
        return weights.reshape(1, -1, *[1] * (dimensions - 2))


def weighted_mean(losses: torch.Tensor, known: torch.Tensor | None, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of losses over what is known; 0 where nothing is.

    Parameters
    ----------
    losses : float tensor
    known, weights : tensors that broadcast to ``losses``, or None
        None counts all, and all alike.

    Examples
    --------
    >>> weighted_mean(torch.tensor([1.0, 4.0]), None, torch.tensor([2.0, 1.0])).item()
    2.0
    """
    if known is None and weights is None:
        return losses.mean()
    shares = torch.ones_like(losses) if known is None else known.to(losses.dtype).expand_as(losses)
    if weights is not None:
        shares = shares * weights
    total = shares.sum()
    return (losses * shares).sum() / torch.where(total > 0, total, 1)
