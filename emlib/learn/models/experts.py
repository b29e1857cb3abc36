"""The multi-expert network for a laptop: most accuracy per second of a processor.

It keeps the plan of the published one, a shared encoder and an expert for each organelle, and spends less on it:

1. Stem: 2×2 pixels become four channels, so that no convolution runs at full resolution.
2. Encoder: a residual block at each level, 2×2 max-pooling between levels.
3. Each expert: at every level a 1×1 convolution narrows the encoder's output, the level below is added, and one 3×3
   convolution follows, as in a feature pyramid.
4. Output: four logits for each 2×2 pixels, laid out as pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from emlib.learn.models.multi_expert import Edit, MultiExpert, pad_to_multiple

STEM = 2  # pixels on a side that become channels


class LaptopExperts(MultiExpert):
    """Shared encoder from half resolution down and one narrow decoder per organelle.

    Parameters
    ----------
    organelles : sequence of str
        One expert each.
    widths : sequence of int
        Channels of the levels of the encoder: half, quarter, eighth … of the resolution.
    expert_widths : sequence of int
        Channels of an expert at the same levels.
    in_channels : int
        Grey values of a pixel.

    Raises
    ------
    ValueError
        If widths and expert widths are not of one length, or one of them is below 1.

    Notes
    -----
    Purely convolutional, so that a tile and the whole section give the same away from the tile's edge. Residual blocks
    after He et al. 2016, the experts after the feature pyramid of Lin et al. 2017, sub-pixel output after Shi et al.
    2016.

    Examples
    --------
    >>> model = LaptopExperts(["membranes", "synapses"], widths=(4, 8), expert_widths=(4, 4)).eval()
    >>> model(torch.zeros(1, 1, 17, 30)).shape
    torch.Size([1, 2, 17, 30])
    """

    def __init__(
        self,
        organelles: Sequence[str],
        widths: Sequence[int] = (24, 48, 96, 160),
        expert_widths: Sequence[int] = (16, 24, 32, 48),
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        if len(widths) != len(expert_widths) or not widths or min(*widths, *expert_widths, in_channels) < 1:
            raise ValueError(f"widths {list(widths)} and expert_widths {list(expert_widths)} are one count per level")
        self.organelles = tuple(organelles)
        self.level_channels = tuple(widths)
        sources = (in_channels * STEM**2, *widths[:-1])
        self.encoder = nn.ModuleList(_Residual(a, b) for a, b in zip(sources, widths, strict=True))
        self.decoders = nn.ModuleList(_Expert(self.level_channels, tuple(expert_widths)) for _ in self.organelles)

    def encode(self, x: torch.Tensor, edit: Edit | None = None) -> list[torch.Tensor]:
        """Return the output of each level, shallow to deep, of a padded image.

        Parameters
        ----------
        x : (B, 1, Y, X) float tensor
            Padded at its lower and right edge to multiples of the deepest level's pixel.
        edit : callable, optional
            ``edit(level, features)`` replaces a level's output before the experts and the next level see it.
        """
        features = []
        x = functional.pixel_unshuffle(pad_to_multiple(x, STEM * 2 ** (len(self.encoder) - 1)), STEM)
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if level else x)
            x = x if edit is None else edit(level, x)
            features.append(x)
        return features


class _Residual(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x), inplace=True)


class _Expert(nn.Module):
    def __init__(self, widths: tuple[int, ...], expert_widths: tuple[int, ...]) -> None:
        super().__init__()
        finer = list(pairwise(expert_widths))
        self.laterals = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, expert_widths, strict=True))
        self.ups = nn.ModuleList(nn.Conv2d(deep, fine, 1, bias=False) for fine, deep in finer)
        self.convs = nn.ModuleList(nn.Conv2d(fine, fine, 3, padding=1, bias=False) for fine, _ in finer)
        self.norms = nn.ModuleList(nn.BatchNorm2d(fine) for fine, _ in finer)
        self.out_conv = nn.Conv2d(expert_widths[0], STEM**2, 3, padding=1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        x = self.laterals[-1](features[-1])
        for level in reversed(range(len(self.ups))):
            x = functional.interpolate(self.ups[level](x), scale_factor=2, mode="nearest")
            x = functional.relu(x + self.laterals[level](features[level]), inplace=True)
            x = functional.relu(self.norms[level](self.convs[level](x)), inplace=True)
        return functional.pixel_shuffle(self.out_conv(x), STEM)
