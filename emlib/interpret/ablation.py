"""What happens to each expert when channels of the encoder are taken away.

Everything below the edit is computed once and kept; at the deepest level only the decoders run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from emlib.interpret.sampling import Sample
from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.measure.masks.pixels import pixel_scores

KINDS = ("zero", "mean")  # what takes the place of a channel
Edit = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Effect:
    """What an edit did, one value for each expert that was asked for.

    Attributes
    ----------
    dice : (E,) float64 array
        Pooled Dice over the annotated pixels of the patches, logits from 0 on being foreground.
    change : (E,) float64 array
        Mean over patches and pixels of |logit after − logit before|.
    """

    dice: np.ndarray
    change: np.ndarray


class Probe:
    """A network and patches, with all that does not change from one edit to the next.

    Parameters
    ----------
    model : nn.Module
        With ``organelles``, ``encode(x, edit)`` and ``decode(features, experts)``; in eval mode.
    sample : Sample
    batch_size : int
        Patches at once; results depend on it by rounding alone.
    device : torch device

    Attributes
    ----------
    channels : tuple of int
        Of each level, from the shallowest.
    baseline : Effect
        Of the network as it is.
    """

    def __init__(
        self, model: nn.Module, sample: Sample, *, batch_size: int = 8, device: torch.device | str = "cpu"
    ) -> None:
        self.model, self.experts = model, tuple(range(len(model.organelles)))
        self._batches: list[tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]] = []
        sums: list[torch.Tensor] = []
        for first in range(0, len(sample.images), batch_size):
            images = torch.from_numpy(sample.images[first : first + batch_size]).to(device)
            images = images.contiguous(memory_format=torch.channels_last)
            masks = sample.masks[first : first + batch_size]
            truth, known = (torch.from_numpy(one).to(device) for one in (masks == 1, masks != UNKNOWN))
            with torch.inference_mode():
                features = model.encode(images)
                logits = model.decode(features)
            if logits.shape != truth.shape:
                raise ValueError(f"the network gives {tuple(logits.shape)} for masks of {tuple(truth.shape)}")
            means = [f.double().mean((2, 3)).sum(0) for f in features]
            sums = [a + b for a, b in zip(sums, means, strict=True)] if sums else means
            self._batches.append((images, features, truth, known, logits))
        self._means = [(total / len(sample.images)).float() for total in sums]
        self.channels = tuple(len(mean) for mean in self._means)
        self.baseline = self._measure(lambda images, features, experts: self.model.decode(features), self.experts)

    def without(
        self, channels: Sequence[int], *, kind: str = "zero", level: int = -1, experts: Sequence[int] | None = None
    ) -> Effect:
        """Take channels of one level away.

        Parameters
        ----------
        channels : indices
        kind : {"zero", "mean"}
            What takes their place: zero, or each channel's own mean over all patches and places.
        level : int
            From the shallowest; -1 is the deepest, where the encoder need not run again.
        experts : indices, optional
            Which experts to look at (default: all).
        """
        level %= len(self.channels)
        index = torch.as_tensor(list(map(int, channels)), device=self._means[level].device)
        values = self._means[level][index] if kind == "mean" else torch.zeros_like(self._means[level][index])

        def edit(feature: torch.Tensor) -> torch.Tensor:
            feature = feature.clone()
            feature[:, index] = values.to(feature.dtype)[None, :, None, None]
            return feature

        return self.edited(edit, level=level, experts=experts)

    def edited(self, edit: Edit, *, level: int = -1, experts: Sequence[int] | None = None) -> Effect:
        """Replace the output of one level by a function of it."""
        level %= len(self.channels)
        deepest = level == len(self.channels) - 1

        def logits(images: torch.Tensor, features: list[torch.Tensor], wanted: Sequence[int]) -> torch.Tensor:
            if deepest:
                features = [*features[:-1], edit(features[-1])]
            else:
                features = self.model.encode(images, edit=lambda at, t: edit(t) if at == level else t)
            return self.model.decode(features, experts=list(wanted))

        return self._measure(logits, self.experts if experts is None else tuple(experts))

    def _measure(self, logits: Callable[..., torch.Tensor], experts: tuple[int, ...]) -> Effect:
        counts, change, pixels = np.zeros((len(experts), 4)), np.zeros(len(experts)), 0
        wanted = list(experts)
        with torch.inference_mode():
            for images, features, truth, known, before in self._batches:
                after = logits(images, features, experts)
                truth, known, before = truth[:, wanted], known[:, wanted], before[:, wanted]
                found = (after >= 0) & known
                sums = (t.sum((0, 2, 3)).cpu().numpy() for t in (found & truth, truth, found, known))
                both, true, pred, judged = sums
                counts += np.stack([both, pred - both, true - both, judged - true - pred + both], axis=1)
                size = truth[:, 0].numel()
                change += (after - before).abs().mean((0, 2, 3)).double().cpu().numpy() * size
                pixels += size
        return Effect(pixel_scores(counts)["dice"], change / pixels)


def single_channels(probe: Probe, level: int = -1, *, progress: bool = False) -> dict[str, np.ndarray]:
    """Set each channel of a level to zero, one at a time: the exact reference for the estimates by gradient.

    Parameters
    ----------
    probe : Probe
    level : int
        From the shallowest; -1 is the deepest.
    progress : bool
        Show a bar.

    Returns
    -------
    dict of (E, C) float64 arrays
        ``ablation``: mean |change of the logits|; what the estimates are held against, since it needs no truth and does
        not saturate. ``ablation_dice``: pooled Dice before − after, positive where the channel helps.

    Notes
    -----
    Ablation of single units as in Morcos et al. 2018, "On the importance of single directions for generalization".
    """
    channels = tqdm(range(probe.channels[level]), desc="single channels", disable=not progress, leave=False)
    effects = [probe.without([c], level=level) for c in channels]
    return {
        "ablation": np.stack([effect.change for effect in effects], axis=1),
        "ablation_dice": np.stack([probe.baseline.dice - effect.dice for effect in effects], axis=1),
    }
