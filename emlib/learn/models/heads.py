"""Decoders: from features at several strides to logits of the image's size.

The decoders are those of segmentation_models_pytorch. What it puts after them is replaced: its enlargement aligns
corners, which moves features by an amount that depends on the size of the image, so that a tile would not give what the
whole section gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from emlib.learn.models.torchvision_operators import declare_missing_operators

declare_missing_operators()
from segmentation_models_pytorch.base.initialization import (  # noqa: E402  timm and torchvision come with it
    initialize_decoder,
    initialize_head,
)
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder  # noqa: E402
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder  # noqa: E402
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder  # noqa: E402
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder  # noqa: E402

UNET_WIDTHS = (16, 8, 4, 2, 1)  # channels of the stages of a U-Net's decoder, deep to shallow, over the last's
ATROUS_RATES = (6, 12, 18)  # of DeepLab v3+ at stride 16; twice that at 8 (Chen et al. 2018)


@dataclass(frozen=True)
class HeadKind:
    """A decoder, and what it asks of the encoder.

    Attributes
    ----------
    make : callable
        ``make(channels, strides, width)`` returns the decoder: features, with one in front for each stride that is
        missing before the first, to (B, width, Y / stride, X / stride).
    width : int
        Channels it gives by default.
    strides : tuple of int
        Of the features it takes. The last is replaced by the encoder's output stride if ``dilates``.
    stride : int
        Of what it gives; 0 for the last of its features.
    kernel : int
        Side of the convolution that makes logits of it.
    dilates : bool
        Whether it asks for a dilated encoder.
    """

    make: Callable[[Sequence[int], Sequence[int], int], nn.Module]
    width: int
    strides: tuple[int, ...]
    stride: int
    kernel: int
    dilates: bool = False


class Head(nn.Module):
    """A decoder and the convolution to logits.

    Parameters
    ----------
    name : str
        A key of `HEADS`.
    channels, strides : sequences of int
        Of the features.
    outputs : int
        Channels of the logits.
    width : int, optional
        Channels that the decoder gives; those of its other stages grow with it. Default: `HeadKind.width`.

    Raises
    ------
    ValueError
        If ``width`` is below 1.
    """

    def __init__(
        self, name: str, channels: Sequence[int], strides: Sequence[int], outputs: int, width: int | None = None
    ) -> None:
        super().__init__()
        kind = HEADS[name]
        width = kind.width if width is None else width
        if width < 1:
            raise ValueError(f"the width of the decoder is at least 1 channel, not {width}")
        self.missing = strides[0].bit_length() - 1  # strides from 1 that the decoder expects and does not look at
        self.enlarge = kind.stride or strides[-1]
        self.decoder = kind.make(channels, strides, width)
        self.final = nn.Conv2d(width, outputs, kind.kernel, padding=kind.kernel // 2)
        _normalise_single_places(self.decoder)
        initialize_decoder(self.decoder)
        initialize_head(self.final)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits (B, outputs, Y, X) of the padded image's size."""
        first = features[0]
        whole = [first.new_empty(first.shape[0], 0, 2 * first.shape[2], 2 * first.shape[3])]  # its size is looked at
        x = self.final(self.decoder([*whole * self.missing, *features]))
        if self.enlarge == 1:
            return x
        return functional.interpolate(x, scale_factor=self.enlarge, mode="bilinear", align_corners=False)


def _unet(channels: Sequence[int], strides: Sequence[int], width: int) -> nn.Module:
    return UnetDecoder([0, *channels], [width * factor for factor in UNET_WIDTHS])


def _upernet(channels: Sequence[int], strides: Sequence[int], width: int) -> nn.Module:
    decoder = UPerNetDecoder([0, 0, *channels], decoder_channels=width)
    for block in decoder.psp.blocks:
        block[0] = MeansOfParts(block[0].output_size)
    return decoder


def _pspnet(channels: Sequence[int], strides: Sequence[int], width: int) -> nn.Module:
    decoder = PSPDecoder([*channels], out_channels=width)
    decoder.psp.blocks = nn.ModuleList(_Context(block.pool_size, block.pool[1]) for block in decoder.psp.blocks)
    return decoder


def _deeplabv3plus(channels: Sequence[int], strides: Sequence[int], width: int) -> nn.Module:
    rates = [rate * 16 // strides[-1] for rate in ATROUS_RATES]
    decoder = DeepLabV3PlusDecoder(
        [0, 0, *channels],
        encoder_depth=5,
        out_channels=width,
        atrous_rates=rates,
        output_stride=16,
        aspp_separable=True,
        aspp_dropout=0.5,
    )
    decoder.up = nn.Upsample(scale_factor=strides[-1] // strides[0], mode="bilinear", align_corners=False)
    return decoder


def _normalise_single_places(decoder: nn.Module) -> None:
    """Normalise over channels what is pooled to one place: over a batch of one there is nothing to normalise."""
    for block in [module for module in decoder.modules() if isinstance(module, nn.Sequential)]:
        if len(block) and getattr(block[0], "output_size", None) == 1:
            for parent in block.modules():
                for name, child in parent.named_children():
                    if isinstance(child, nn.BatchNorm2d):
                        setattr(parent, name, nn.GroupNorm(1, child.num_features))


class MeansOfParts(nn.Module):
    """Means of n × n parts of an image: adaptive average pooling, written so that it can be exported.

    ONNX has no such operator for images whose size is not known or not a multiple of n. Overlaps are PyTorch's.

    Examples
    --------
    >>> MeansOfParts(2)(torch.arange(6.0).reshape(1, 1, 2, 3)).tolist()
    [[[[0.5, 1.5], [3.5, 4.5]]]]
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, n, n) means of (B, C, Y, X)."""
        rows, columns = (self._weights(x, axis) for axis in (2, 3))
        return rows @ x @ columns.transpose(0, 1)

    def _weights(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Share of each place of an axis in each part, (n, length)."""
        length, part = x.shape[axis], torch.arange(self.output_size, device=x.device)[:, None]
        first, stop = part * length // self.output_size, ((part + 1) * length - 1) // self.output_size + 1
        place = torch.arange(length, device=x.device)[None]
        return ((place >= first) & (place < stop)).to(x.dtype) / (stop - first).to(x.dtype)


class _Context(nn.Module):
    """A block of a PSPNet: means of parts, a convolution, and back to the size of the input."""

    def __init__(self, parts: int, conv: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(MeansOfParts(parts), conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(self.block(x), x.shape[2:], mode="bilinear", align_corners=True)


HEADS = {
    "unet": HeadKind(_unet, width=16, strides=(2, 4, 8, 16, 32), stride=1, kernel=3),
    "pspnet": HeadKind(_pspnet, width=512, strides=(8,), stride=0, kernel=3, dilates=True),
    "deeplabv3plus": HeadKind(_deeplabv3plus, width=256, strides=(4, 16), stride=4, kernel=1, dilates=True),
    "upernet": HeadKind(_upernet, width=128, strides=(4, 8, 16, 32), stride=4, kernel=1),
}
