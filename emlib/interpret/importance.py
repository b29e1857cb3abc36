"""How much each encoder channel matters to each expert, by gradients: one pass forward, one back per expert.

Exact values, for comparison, are in `emlib.interpret.ablation`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

GRADIENT, ATTRIBUTION = "gradient", "gradient_x_activation"


def gradient_importance(
    model: nn.Module, images: np.ndarray, *, batch_size: int = 8, device: torch.device | str = "cpu"
) -> dict[str, list[np.ndarray]]:
    """Return the importance of every channel at every encoder level.

    Parameters
    ----------
    model : nn.Module
        With ``organelles``, ``encode(x, edit)`` and ``decode(features, experts)``; in eval mode.
    images : (P, 1, S, S) float32 array
    batch_size : int
        Patches at once; the result depends on it by rounding alone.
    device : torch device

    Returns
    -------
    dict of lists, one (E, C) float64 array per level from the shallowest
        ``gradient``: mean over patches and places of |∂ Σ logits / ∂ channel|, where the sum runs over all pixels of
        one expert: importance as published with the multi-expert model, a saliency map (Simonyan et al. 2014).
        ``gradient_x_activation``: mean over patches of |mean over places of channel · ∂ Σ logits / ∂ channel|, the
        first-order estimate of what setting the channel to zero does (Molchanov et al. 2017).

    Notes
    -----
    A gradient grows when a channel is scaled down, and says nothing of how far the channel ever moves; a channel
    that is always zero can have a large one. That is why it is compared with ablation.
    """
    experts = range(len(model.organelles))
    sums: dict[str, list[np.ndarray]] = {}
    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for first in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[first : first + batch_size]).to(device)
            features = _features(model, batch)
            parts = [_expert(model, features, e, last=e == experts[-1]) for e in experts]
            for name in (GRADIENT, ATTRIBUTION):
                stacked = [np.stack(level) for level in zip(*(part[name] for part in parts), strict=True)]
                sums[name] = [a + b for a, b in zip(sums[name], stacked, strict=True)] if name in sums else stacked
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return {name: [level / len(images) for level in levels] for name, levels in sums.items()}


def _features(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of all levels as nodes of one graph, so that what passes through deeper levels counts."""
    return model.encode(batch, edit=lambda level, t: t if t.requires_grad else t.detach().requires_grad_())


def _expert(model: nn.Module, features: list[torch.Tensor], expert: int, last: bool) -> dict[str, list[np.ndarray]]:
    """Sums over the patches of a batch, one (C,) float64 array per level."""
    total = model.decode(features, experts=[expert]).sum()
    slopes = torch.autograd.grad(total, features, retain_graph=not last, allow_unused=True)
    result = {GRADIENT: [], ATTRIBUTION: []}
    for feature, slope in zip(features, slopes, strict=True):
        slope = torch.zeros_like(feature) if slope is None else slope
        result[GRADIENT].append(slope.abs().mean((2, 3)).double().sum(0).cpu().numpy())
        result[ATTRIBUTION].append((slope * feature.detach()).mean((2, 3)).abs().double().sum(0).cpu().numpy())
    return result
