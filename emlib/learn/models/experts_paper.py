"""The published multi-expert network: one encoder, one decoder for each organelle.

Modules have the names and shapes of MExConn's, so that its weights can be taken over (`emlib.learn.models.mexconn`).

1. Encoder: a residual block at each level, 2×2 max-pooling between levels.
2. Each expert: from the deepest level up, a 2×2 transposed convolution, the encoder's output of that level put before
   it, a residual block; then a 1×1 convolution to one logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from emlib.learn.models.multi_expert import Edit, MultiExpert, pad_to_multiple

REDUCTION = 16  # channels of a block over those of its squeeze


class PaperExperts(MultiExpert):
    """Shared encoder and one full decoder per organelle, at plain resolution.

    Parameters
    ----------
    organelles : sequence of str
        One expert each.
    widths : sequence of int
        Channels of the levels of the encoder, shallow to deep.
    in_channels : int
        Grey values of a pixel.
    dropout : float
        Share of the channels that is dropped between the two convolutions of a block, in training.

    Raises
    ------
    ValueError
        If there is not at least one level of at least one channel, or ``dropout`` is not in [0, 1].

    Notes
    -----
    3,629,707 parameters with three experts. Residual blocks after He et al. 2016, squeeze and excitation after Hu et
    al. 2018, dropout of whole channels after Tompson et al. 2015.

    Examples
    --------
    >>> model = PaperExperts(["membranes", "synapses"], widths=(4, 8)).eval()
    >>> model(torch.zeros(1, 1, 17, 30)).shape
    torch.Size([1, 2, 17, 30])
    """

    def __init__(
        self,
        organelles: Sequence[str],
        widths: Sequence[int] = (32, 64, 128, 256),
        in_channels: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or in_channels < 1:
            raise ValueError(f"widths are counts of channels, one for each level, not {list(widths)}")
        self.organelles = tuple(organelles)
        self.level_channels = tuple(widths)
        self.encoder = _Encoder(in_channels, self.level_channels, dropout)
        self.decoders = nn.ModuleList(_Decoder(self.level_channels[::-1], dropout) for _ in self.organelles)

    def encode(self, x: torch.Tensor, edit: Edit | None = None) -> list[torch.Tensor]:
        """Return the output of each level, shallow to deep, of a padded image.

        Parameters
        ----------
        x : (B, 1, Y, X) float tensor
            Padded at its lower and right edge to multiples of the pooling.
        edit : callable, optional
            ``edit(level, features)`` replaces a level's output before the experts and the next level see it.
        """
        features = []
        x = pad_to_multiple(x, 2 ** (len(self.level_channels) - 1))
        for level, block in enumerate(self.encoder.layers):
            x = block(self.encoder.pool(x) if level else x)
            x = x if edit is None else edit(level, x)
            features.append(x)
        return features


class _Encoder(nn.Module):
    def __init__(self, in_channels: int, widths: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        sources = (in_channels, *widths[:-1])
        self.layers = nn.ModuleList(_Block(a, b, dropout) for a, b in zip(sources, widths, strict=True))
        self.pool = nn.MaxPool2d(2)


class _Decoder(nn.Module):
    def __init__(self, widths: tuple[int, ...], dropout: float) -> None:
        """`widths` deep to shallow."""
        super().__init__()
        steps = list(pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps)
        self.dec_convs = nn.ModuleList(_Block(2 * b, b, dropout) for _, b in steps)
        self.out_conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        x = features[-1]
        for up, block, skip in zip(self.ups, self.dec_convs, reversed(features[:-1]), strict=True):
            x = block(torch.cat([skip, up(x)], dim=1))
        return self.out_conv(x)


class _Block(nn.Module):
    """Two 3×3 convolutions, their output weighted by channel and added to the input; nothing follows the sum."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = _SqueezeExcitation(channels)
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.dropout(functional.relu(self.bn1(self.conv1(x))))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return self.se(inner) + self.shortcut(x)


class _SqueezeExcitation(nn.Module):
    """Weigh each channel by a number in (0, 1) that the means of all channels decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // REDUCTION, 1)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.sigmoid(self.fc2(functional.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * weight[:, :, None, None]
