"""One kind of encoder from any backbone: features at fixed strides of an image of one or more grey values.

1. What the backbone gives at a stride (pixels of the image between two of its values) is taken as it is.
2. Stride 2 is synthesised where the backbone starts at 4, with one convolution of the image.
3. A plain vision transformer has tokens of one stride; they are enlarged and pooled to the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from emlib.learn.models.backbones import LayerNorm2d, backbone_family, new_backbone
from emlib.learn.models.multi_expert import Edit, pad_to_multiple

MULTIPLE = 32  # sides of the padded image, so that every stride divides them
DETAIL = 32  # channels of the stride that is synthesised from the image


class Pyramid(nn.Module):
    """Features of an image at several strides.

    Parameters
    ----------
    backbone : str
        Of `emlib.learn.models.backbones.list_backbones`. Its weights are random.
    in_channels : int
    strides : sequence of int
        Powers of 2 from 2 to 32, rising. Stages of the backbone beyond the last are not built.
    dilate : bool
        Let the last stride hold the backbone's deepest stage, dilated, where its family can be dilated.

    Attributes
    ----------
    channels : tuple of int
        Of each stride.
    net : nn.Module
        The network of timm, its parameters by timm's names.

    Raises
    ------
    UserError
        If there is no such backbone.
    ValueError
        If it cannot be built, or does not give a stride.

    Notes
    -----
    The pyramid of a plain transformer is the "simple feature pyramid" of Li et al. 2022 (ViTDet): all strides from 4
    come from the last block, enlarged by transposed convolutions or pooled. Patches of 14 pixels are taken for 16 of
    an image made smaller. Attention sees the whole image; all else here is convolution.

    Examples
    --------
    >>> pyramid = Pyramid("test_resnet", strides=(2, 4)).eval()
    >>> [tuple(f.shape) for f in pyramid(torch.zeros(1, 1, 32, 64))]
    [(1, 32, 16, 32), (1, 32, 8, 16)]
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int = 1,
        strides: Sequence[int] = (2, 4, 8, 16, 32),
        dilate: bool = False,
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"an image has at least 1 channel, not {in_channels}")
        family = backbone_family(backbone)
        self.backbone, self.in_channels, self.strides = backbone, in_channels, tuple(strides)
        self.output_stride = self.strides[-1] if dilate and family.dilates else None
        self.plain = family.plain
        self.net = self.new_net()
        own = self._stages()
        lacking = set(self.strides) - set(own) - {2}
        if lacking and not self.plain:
            raise ValueError(f"{backbone} has no stage of stride {min(lacking)}, only of {sorted(own)}")
        self.levels = {} if self.plain else {s: own[s] for s in self.strides if s in own}
        self._prune()
        channels = {s: self.net.feature_info[i]["num_chs"] for s, i in self.levels.items()}
        if self.plain:
            self.from_tokens = nn.ModuleDict()
            for stride in [s for s in self.strides if s > 2]:
                layers, channels[stride] = _rescale_tokens(self.net.num_features, self.token_stride, stride)
                self.from_tokens[str(stride)] = layers
        if self.strides[0] == 2 and 2 not in channels:
            self.detail, channels[2] = _detail(in_channels), DETAIL
        self.channels = tuple(channels[s] for s in self.strides)

    def new_net(self, pretrained: bool = False) -> nn.Module:
        """Return the network of timm anew and whole, with other weights; see `take_net`."""
        return new_backbone(self.backbone, self.in_channels, self.output_stride, pretrained)

    def take_net(self, net: nn.Module) -> None:
        """Put a network of `new_net` in place of the present one."""
        self.net = net.to(next(self.net.parameters()).device)
        self._prune()

    def fix_size(self, rows: int, columns: int) -> None:
        """Keep the positions of a plain transformer for images of one size, exact there and a little off elsewhere.

        Without it positions are resampled for every image, which exporters to ONNX may not know how to do. Weights
        change their shape: do it to a copy. Other backbones have nothing to keep.
        """
        if self.plain and hasattr(self.net, "set_input_size"):
            sides = (-(-side // MULTIPLE) * MULTIPLE // self.token_stride * self.patch for side in (rows, columns))
            self.net.set_input_size(img_size=tuple(sides))

    def forward(self, x: torch.Tensor, edit: Edit | None = None) -> list[torch.Tensor]:
        """Return features, one (B, C, Y / stride, X / stride) for each stride.

        Parameters
        ----------
        x : (B, in_channels, Y, X) float tensor
            Padded at its lower and right edge to multiples of 32.
        edit : callable, optional
            ``edit(level, features)`` replaces a level's output before the decoder and the backbone's next stage see
            it. A level that is synthesised has no next stage, nor has any level of a plain transformer.
        """
        x = pad_to_multiple(x, MULTIPLE)
        found = self._from_tokens(x) if self.plain else {}
        if 2 in self.strides and 2 not in self.levels:
            found[2] = self.detail(x)
        if edit is not None:
            found = {stride: edit(self.strides.index(stride), found[stride]) for stride in sorted(found)}
        if self.levels:
            found |= self._from_stages(x, edit)
        return [found[stride] for stride in self.strides]

    def _stages(self) -> dict[int, int]:
        """Which entry of the backbone's stages is the last of a stride."""
        return {info["reduction"]: index for index, info in enumerate(self.net.feature_info)}

    def _prune(self) -> None:
        """Take off what no stride needs: later stages, the classifier, and norms that follow the last stage."""
        last = [len(self.net.feature_info) - 1] if self.plain else [*self.levels.values()]
        if last:
            self.net.prune_intermediate_layers(last, prune_norm=not self.plain)
        if self.plain:
            size = self.net.patch_embed.patch_size
            self.patch = size[0] if isinstance(size, (tuple, list)) else int(size)
            self.token_stride = 2 ** round(math.log2(self.patch))

    def _from_tokens(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        if self.patch != self.token_stride:
            size = [side // self.token_stride * self.patch for side in x.shape[-2:]]
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        tokens = self.net.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]
        return {int(stride): layers(tokens) for stride, layers in self.from_tokens.items()}

    def _from_stages(self, x: torch.Tensor, edit: Edit | None) -> dict[int, torch.Tensor]:
        edited: dict[int, torch.Tensor] = {}
        hooks = [] if edit is None else [self._hook(edit, edited, *level) for level in self.levels.items()]
        try:
            maps = self.net.forward_intermediates(
                x, indices=[*self.levels.values()], stop_early=True, intermediates_only=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        return dict(zip(self.levels, maps, strict=True)) | edited

    def _hook(
        self, edit: Edit, edited: dict[int, torch.Tensor], stride: int, index: int
    ) -> torch.utils.hooks.RemovableHandle:
        """Edit the output of a stage on its way to the next; some backbones keep channels last."""
        last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"

        def replace(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            features = output.permute(0, 3, 1, 2) if last else output
            edited[stride] = edit(self.strides.index(stride), features)
            return edited[stride].permute(0, 2, 3, 1) if last else edited[stride]

        return self.net.get_submodule(self.net.feature_info[index]["module"]).register_forward_hook(replace)


def _detail(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, DETAIL, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(DETAIL), nn.ReLU()
    )


def _rescale_tokens(channels: int, token_stride: int, stride: int) -> tuple[nn.Sequential, int]:
    """Layers from tokens to features of another stride, and their channels: halved with each enlargement."""
    layers: list[nn.Module] = []
    while token_stride > stride:
        layers += [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2), LayerNorm2d(channels // 2), nn.GELU()]
        channels, token_stride = channels // 2, token_stride // 2
    if layers:  # as published, nothing follows the last enlargement
        layers = layers[:-2]
    while token_stride < stride:
        layers.append(nn.MaxPool2d(2))
        token_stride *= 2
    return nn.Sequential(*layers), channels
