"""Recipes by name: architecture, patches, augmentation, loss and optimiser that belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from emlib.learn.datasets.patches import PatchSettings
from emlib.learn.training.settings import TrainSettings


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes
    ----------
    architecture : dict
        For `emlib.learn.models.build.build_model`, without the organelles.
    patches : PatchSettings
    augment : str
        A name in `emlib.learn.transforms.PRESETS`, or "none".
    loss : str
        For `emlib.learn.losses.parse_loss`.
    training : TrainSettings
    organelle_balance : bool
        Weigh rare organelles more in the loss.
    normalise : bool
        Subtract the mean grey of the training sections and divide by its standard deviation.
    """

    architecture: dict[str, Any]
    patches: PatchSettings
    augment: str
    loss: str
    training: TrainSettings
    organelle_balance: bool = False
    normalise: bool = True


_LAPTOP = Preset(
    architecture={"name": "experts-laptop"},
    patches=PatchSettings(size=256, stride=128, batch_size=8, sampling="random", balance=True),
    augment="light",
    loss="batch_dice+bce",
    training=TrainSettings(epochs=40, optimizer="adamw", lr=3e-3, weight_decay=1e-2, warmup=0.05, ema=0.99, clip=5.0),
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
