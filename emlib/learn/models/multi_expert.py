"""What networks with a shared encoder and one decoder for each organelle have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

Edit = Callable[[int, torch.Tensor], torch.Tensor]


class MultiExpert(nn.Module):
    """Decode with all experts or some; a network adds ``encode(x, edit)`` and the module list ``decoders``."""

    def decode(self, features: Sequence[torch.Tensor], experts: Sequence[int] | None = None) -> torch.Tensor:
        """Return the logits (B, E, Y, X) of all experts, or of those numbered, on the padded grid."""
        chosen = range(len(self.decoders)) if experts is None else experts
        return torch.cat([self.decoders[k](features) for k in chosen], dim=1)

    def forward(self, x: torch.Tensor, edit: Edit | None = None) -> torch.Tensor:
        """Return logits (B, E, Y, X) of an image (B, 1, Y, X); `edit` as for `encode`."""
        return self.decode(self.encode(x, edit))[..., : x.shape[-2], : x.shape[-1]]


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirror the lower and right edge of (…, Y, X), again if need be, until both sizes are multiples.

    Examples
    --------
    >>> pad_to_multiple(torch.arange(3.0).reshape(1, 1, 1, 3).expand(1, 1, 4, 3), 4)[0, 0, 0]
    tensor([0., 1., 2., 1.])
    """
    down, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    while down or right:  # a mirror reaches as far as a size less one
        rows, columns = min(down, x.shape[-2] - 1), min(right, x.shape[-1] - 1)
        x = functional.pad(x, (0, columns, 0, rows), mode="reflect")
        down, right = down - rows, right - columns
    return x
