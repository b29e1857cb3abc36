"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """A copy of a network whose weights follow those of the original slowly.

    Parameters
    ----------
    model : nn.Module
        On its device; its weights are changed in place, not replaced.
    decay : float in [0, 1)
        Update t takes ``min(decay, (1 + t) / (10 + t))`` of the average, so that the first weights are soon forgotten.

    Attributes
    ----------
    model : nn.Module
        The copy, in evaluation mode. Running statistics of normalisation layers are averaged too.
    updates : int

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> average = MovingAverage(net, 0.5)
    >>> before = net.weight.item()
    >>> with torch.no_grad():
    ...     _ = net.weight.add_(1)
    >>> average.update()
    >>> round(average.model.weight.item() - before, 4)
    0.9
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        own, new = (list(m.state_dict(keep_vars=True).values()) for m in (self.model, model))
        self._floats = [[t for t in side if t.is_floating_point()] for side in (own, new)]
        self._others = [pair for pair in zip(own, new, strict=True) if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of the original."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(*self._floats, 1 - kept)
        for own, new in self._others:
            own.copy_(new)
