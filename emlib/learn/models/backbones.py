"""Backbones: which networks of timm can be encoders, and how each is asked to take images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from emlib.errors import UserError, nearest
from emlib.learn.models.torchvision_operators import declare_missing_operators

declare_missing_operators()
import timm  # noqa: E402  which imports torchvision
from timm.layers import LayerNorm2d  # noqa: E402, F401


@dataclass(frozen=True)
class Family:
    """What networks of one module of timm have in common.

    Attributes
    ----------
    plain : bool
        Tokens of one size from the first block to the last (ViT), not a pyramid.
    dilates : bool
        Can trade stride for dilation (timm's ``output_stride``).
    options : mapping
        Arguments of ``timm.create_model`` that let images of any size in.
    """

    plain: bool = False
    dilates: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


_WINDOWS = Family(options={"dynamic_img_size": True})
_PLAIN = Family(plain=True, options={"dynamic_img_size": True})

# Modules of timm whose networks say what each stage gives (channels, stride) and take any size of image. Left out is
# what has a fixed grid of positions or windows (BEiT, MaxViT, LeViT), no stride of 4 or 8, or stages inside stages.
_DILATE = """
byobnet convnext cspnet cspnext efficientnet inception_next nfnet regnet res2net resnest resnet resnetv2 sknet
xception_aligned
"""
_DO_NOT = """
davit densenet dla dpn edgenext efficientvit_mit fasternet fastvit focalnet ghostnet hardcorenas hgnet hieradet_sam2
mambaout metaformer mobilenetv3 mobilevit nextvit pvt_v2 rdnet repghost repvit rexnet senet starnet swiftformer tiny_vit
vgg vovnet
"""
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(_DILATE.split(), Family(dilates=True)),
    **dict.fromkeys(_DO_NOT.split(), Family()),
    "swin_transformer": _WINDOWS,
    "swin_transformer_v2": _WINDOWS,
    "swin_transformer_v2_cr": _WINDOWS,
    "deit": _PLAIN,
    "eva": _PLAIN,
    "vision_transformer": _PLAIN,
    "xcit": Family(plain=True),
}


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names of backbones, in natural order.

    Parameters
    ----------
    pattern : str
        As of a shell; a name without wildcards finds itself or nothing.

    Examples
    --------
    >>> list_backbones("resnet1*t"), list_backbones("vit_tiny_patch16_224"), list_backbones("nonsense*")
    (['resnet10t', 'resnet14t'], ['vit_tiny_patch16_224'], [])
    """
    return timm.list_models(pattern, module=[*FAMILIES])


def backbone_family(name: str) -> Family:
    """Return what is known of the family of a backbone.

    Parameters
    ----------
    name : str
        Of `list_backbones`, with or without a tag of pretrained weights (``resnet18.a1_in1k``).

    Raises
    ------
    UserError
        If there is no such backbone; the most similar names are told.

    Examples
    --------
    >>> backbone_family("vit_tiny_patch16_224.augreg_in21k").plain, backbone_family("resnet18").dilates
    (True, True)
    """
    bare = str(name).partition(".")[0]
    module = timm.model_entrypoint(bare).__module__.rpartition(".")[2] if timm.is_model(bare) else ""
    if module not in FAMILIES:
        hint = nearest(bare[:60], list_backbones())
        raise UserError(f"there is no backbone {str(name)[:60]!r}; {hint} (python train.py --list-backbones '*')")
    return FAMILIES[module]


def new_backbone(
    name: str, in_channels: int = 1, output_stride: int | None = None, pretrained: bool = False
) -> nn.Module:
    """Return a network of timm without its classifier, with random weights unless asked otherwise.

    Parameters
    ----------
    name : str
        As for `backbone_family`.
    in_channels : int
    output_stride : int, optional
        8 or 16: dilate what comes after. Families that cannot be dilated do not look at it.
    pretrained : bool
        Take the weights that timm knows for it, from its cache or by downloading them.

    Raises
    ------
    UserError
        As `backbone_family`.
    ValueError
        If timm cannot build it.
    """
    family = backbone_family(name)
    options = dict(family.options)
    if output_stride is not None and family.dilates:
        options["output_stride"] = output_stride
    try:
        return timm.create_model(name, pretrained=pretrained, in_chans=in_channels, num_classes=0, **options)
    except (AssertionError, KeyError, RuntimeError, TypeError) as error:
        if pretrained:  # what is wrong then is more often the weights
            raise
        raise ValueError(f"timm cannot build {name}: {error}") from error
