"""Recipes by name: architecture, patches, augmentation, loss and optimiser that belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from emlib.learn.datasets.places import PatchSettings
from emlib.learn.training.settings import TrainSettings

# What --head names: (network of `emlib.learn.models.build`)
HEADS = {name: name for name in ("unet", "pspnet", "deeplabv3plus", "upernet")} | {"experts": "experts-backbone"}
HEAD_BACKBONE = "resnet18"
HEAD_LOSS = "ce+dice"
HEAD_LR = 1e-3  # the presets' networks take three times as much, deep encoders from scratch do not


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes
    ----------
    architecture : dict
        For `emlib.learn.models.build.build_model`, without organelles and activation, which the data decide.
    patches : PatchSettings
    augment : str
        For `emlib.learn.transforms.read_augment`.
    loss : str
        For `emlib.learn.losses.parse_loss`.
    training : TrainSettings
    class_weights : "auto", tuple of float or None
        Of organelles or classes in the loss; auto weighs rare ones more.
    normalise : bool
        Subtract the mean grey of the training sections and divide by its standard deviation.
    weights : str, optional
        What the backbone begins with, for `emlib.learn.models.pretrained.load_backbone`; None: at random.
    """

    architecture: dict[str, Any]
    patches: PatchSettings
    augment: str
    loss: str
    training: TrainSettings
    class_weights: str | tuple[float, ...] | None = None
    normalise: bool = True
    weights: str | None = None


_LAPTOP = Preset(
    architecture={"name": "experts-laptop"},
    patches=PatchSettings(size=256, stride=128, batch_size=8, sampling="random", balance=True),
    augment="light",
    loss="batch_dice+bce",
    training=TrainSettings(
        epochs=40,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=1e-2,
        warmup=0.05,
        ema=0.99,
        clip=5.0,
        channels_last=True,  # a twentieth faster in float32; the paper's network is a quarter slower with it
    ),
)

PRESETS = {
    "laptop": _LAPTOP,
    # wider, for an hour of a processor or minutes of a GPU: then it pays to vary the patches more
    "desktop": replace(
        _LAPTOP,
        architecture={
            "name": "experts-laptop",
            "widths": (32, 64, 128, 192),
            "expert_widths": (24, 32, 48, 64),
        },
        augment="strong",
        training=replace(_LAPTOP.training, epochs=20, ema=0.995),
    ),
    "paper": Preset(
        architecture={"name": "experts-paper"},
        patches=PatchSettings(size=256, stride=128, batch_size=8, sampling="grid"),
        augment="none",
        loss="paper",
        training=TrainSettings(
            epochs=20, optimizer="adam", lr=1e-4, weight_decay=0.0, warmup=0.0, schedule="constant", ema=0.0, clip=0.0
        ),
        normalise=False,
    ),
}


def with_head(recipe: Preset, head: str, backbone: str = HEAD_BACKBONE) -> Preset:
    """Return a recipe whose network is a head on an encoder of timm, with the loss and learning rate of such.

    Parameters
    ----------
    recipe : Preset
    head : str
        A key of `HEADS`.
    backbone : str
        A name that timm knows.

    Examples
    --------
    >>> with_head(PRESETS["laptop"], "upernet").architecture
    {'name': 'upernet', 'backbone': 'resnet18'}
    """
    training = replace(recipe.training, lr=min(recipe.training.lr, HEAD_LR))
    architecture = {"name": HEADS[head], "backbone": backbone}
    return replace(recipe, architecture=architecture, loss=HEAD_LOSS, training=training)


def head_of(recipe: Preset) -> str | None:
    """Return the name in `HEADS` of a recipe's network; None for a preset's own."""
    name = recipe.architecture["name"] if "backbone" in recipe.architecture else None
    return next((head for head, network in HEADS.items() if network == name), None)
