"""Networks of a backbone and a decoder: one decoder for all organelles, or one for each.

The encoder is any backbone of `emlib.learn.models.backbones.list_backbones`, the decoder one of
`emlib.learn.models.heads.HEADS`. Weights are random (`emlib.learn.models.pretrained.load_backbone` gives the encoder
others), images of any size are mirrored to multiples of 32 pixels, and logits cut back to the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from emlib.errors import UserError, nearest
from emlib.learn.models.backbones import backbone_family
from emlib.learn.models.heads import HEADS, Head
from emlib.learn.models.multi_expert import Edit, MultiExpert
from emlib.learn.models.pyramid import Pyramid


class _Encoded(MultiExpert):
    """What a backbone's networks have in common: the encoder that their decoder asks for."""

    def __init__(
        self, head: str, organelles: Sequence[str], backbone: str, in_channels: int, output_stride: int | None
    ) -> None:
        super().__init__()
        self.organelles = tuple(organelles)
        strides = _strides(head, backbone, output_stride)
        self.encoder = Pyramid(backbone, in_channels, strides, HEADS[head].dilates)
        self.level_channels = self.encoder.channels

    def encode(self, x: torch.Tensor, edit: Edit | None = None) -> list[torch.Tensor]:
        """Return the features that the decoder takes, shallow to deep; `edit` as for `Pyramid`."""
        return self.encoder(x, edit)


class _Segmenter(_Encoded):
    """One decoder with a channel for each organelle or class."""

    head = ""

    def __init__(
        self,
        organelles: Sequence[str],
        backbone: str = "resnet18",
        in_channels: int = 1,
        width: int | None = None,
        output_stride: int | None = None,
    ) -> None:
        super().__init__(self.head, organelles, backbone, in_channels, output_stride)
        self.decoder = Head(self.head, self.level_channels, self.encoder.strides, len(self.organelles), width)

    def decode(self, features: Sequence[torch.Tensor], experts: Sequence[int] | None = None) -> torch.Tensor:
        """Return the logits (B, E, Y, X) of all organelles, or of those numbered, on the padded grid."""
        logits = self.decoder(features)
        return logits if experts is None else logits[:, list(experts)]


class Unet(_Segmenter):
    """U-Net: features of five strides, joined from deep to shallow, and a last stage at the image's own resolution.

    Parameters
    ----------
    organelles : sequence of str
        One channel each.
    backbone : str
        Of `list_backbones`.
    in_channels : int
        Grey values of a pixel.
    width : int, optional
        Channels of the decoder's last stage; the first has 16 times as many. Default 16.

    Raises
    ------
    UserError
        If there is no such backbone.
    ValueError
        If it cannot be built.

    Notes
    -----
    After Ronneberger et al. 2015. With a convolutional backbone a tile and the whole section give the same away from
    the tile's edge.

    Examples
    --------
    >>> model = Unet(["membranes", "synapses"], "test_resnet", width=2).eval()
    >>> model(torch.zeros(1, 1, 33, 47)).shape
    torch.Size([1, 2, 33, 47])
    """

    head = "unet"

    def __init__(
        self, organelles: Sequence[str], backbone: str = "resnet18", in_channels: int = 1, width: int | None = None
    ) -> None:
        super().__init__(organelles, backbone, in_channels, width)


class UperNet(Unet):
    """UPerNet: pooled context on the deepest stride, a feature pyramid from 32 to 4, all strides joined.

    Parameters as for `Unet`; ``width`` is that of every stage of the decoder, by default 128.

    Notes
    -----
    After Xiao et al. 2018. The context is pooled over the whole input, so that a tile gives not quite what the whole
    section gives.
    """

    head = "upernet"


class PspNet(_Segmenter):
    """PSPNet: the deepest features with their means over the whole, quarters, ninths and thirty-sixths of the image.

    Parameters as for `Unet`; ``width`` is by default 512, and

    output_stride : 8 or 16
        Of the deepest features. Backbones that can be dilated give their deepest stage at this stride (default 8, as
        published); others give the last stage of stride 16, plain transformers their tokens enlarged to it.

    Notes
    -----
    After Zhao et al. 2017. Not purely convolutional: means are taken over the input, so that what is predicted for a
    pixel depends on what else the tile holds. Logits are enlarged from the output stride; thin membranes suffer.
    """

    head = "pspnet"


class DeepLabV3Plus(_Segmenter):
    """DeepLab v3+: dilated convolutions of three rates on the deepest features, refined with those of stride 4.

    Parameters as for `PspNet`; ``width`` is by default 256, ``output_stride`` 16.

    Notes
    -----
    After Chen et al. 2018. One of the branches is the mean over the whole input, so that a tile gives not quite what
    the whole section gives.
    """

    head = "deeplabv3plus"


class BackboneExperts(_Encoded):
    """A shared backbone and an expert for each organelle.

    Parameters
    ----------
    organelles : sequence of str
        One expert each.
    backbone, in_channels, width
        As for `Unet`.
    decoder : str
        What an expert is: a key of `emlib.learn.models.heads.HEADS`.
    output_stride : 8 or 16, optional
        As for `PspNet`, for decoders that ask for it.

    Examples
    --------
    >>> model = BackboneExperts(["membranes", "synapses"], "test_resnet", width=2).eval()
    >>> features = model.encode(torch.zeros(1, 1, 32, 64))
    >>> model.decode(features, experts=[1]).shape
    torch.Size([1, 1, 32, 64])
    """

    def __init__(
        self,
        organelles: Sequence[str],
        backbone: str = "resnet18",
        in_channels: int = 1,
        decoder: str = "unet",
        width: int | None = None,
        output_stride: int | None = None,
    ) -> None:
        if decoder not in HEADS:
            raise UserError(f"there is no decoder {str(decoder)[:60]!r}; {nearest(str(decoder)[:60], [*HEADS])}")
        super().__init__(decoder, organelles, backbone, in_channels, output_stride)
        self.decoders = nn.ModuleList(
            Head(decoder, self.level_channels, self.encoder.strides, 1, width) for _ in self.organelles
        )


def _strides(head: str, backbone: str, output_stride: int | None) -> tuple[int, ...]:
    """What the decoder asks for, as far as the backbone can give it."""
    kind, family = HEADS[head], backbone_family(backbone)
    if not kind.dilates:
        if output_stride is not None:
            raise ValueError(f"{head} uses all strides of its backbone; leave output_stride out")
        return kind.strides
    if output_stride not in (None, 8, 16):
        raise ValueError(f"output_stride is 8 or 16, not {output_stride!r}")
    own = kind.strides[-1] if output_stride is None else output_stride
    return (*kind.strides[:-1], own if family.plain or family.dilates else 16)
