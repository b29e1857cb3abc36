"""From a preset and the flags that change it to the recipe of a training, and back to flags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emlib.errors import UserError
from emlib.learn.presets import PRESETS, Preset

PATCH_FLAGS = {"patch_size": "size", "stride": "stride", "batch_size": "batch_size", "sampling": "sampling"}
PATCH_FLAGS |= {"patches_per_epoch": "patches_per_epoch"}
TRAIN_FLAGS = {name: name for name in "epochs patience optimizer lr weight_decay warmup schedule ema clip".split()}
TRAIN_FLAGS |= {name: name for name in "device precision devices workers seed".split()}
TRAIN_FLAGS |= {"time_budget": "time_budget_min"}
MEMORY_FORMATS = {"auto": None, "contiguous": False, "channels_last": True}


def make_recipe(preset: str, flags: dict[str, Any]) -> Preset:
    """Return a preset with some of its values changed.

    Parameters
    ----------
    preset : str
        A name in `emlib.learn.presets.PRESETS`.
    flags : dict
        By the names of the command line's flags; None leaves the preset's value, other names are passed over.

    Raises
    ------
    UserError
        If there is no such preset.

    Examples
    --------
    >>> make_recipe("laptop", {"batch_size": 2, "lr": 0.5, "epochs": None}).training.lr
    0.5
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    recipe, given = PRESETS[preset], {name: value for name, value in flags.items() if value is not None}
    patches = {PATCH_FLAGS[name]: value for name, value in given.items() if name in PATCH_FLAGS}
    training = {TRAIN_FLAGS[name]: value for name, value in given.items() if name in TRAIN_FLAGS}
    if given.get("no_ema"):
        training["ema"] = 0.0
    if "memory_format" in given:
        training["channels_last"] = MEMORY_FORMATS[given["memory_format"]]
    return replace(
        recipe,
        patches=replace(recipe.patches, **patches),
        training=replace(recipe.training, **training),
        **{name: given[name] for name in ("augment", "loss") if name in given},
    )


def recipe_flags(recipe: Preset) -> dict[str, Any]:
    """Return the flags that say all of a recipe that flags can say; `make_recipe` turns them back."""
    formats = {value: name for name, value in MEMORY_FORMATS.items()}
    return {
        **{flag: getattr(recipe.patches, name) for flag, name in PATCH_FLAGS.items()},
        "augment": recipe.augment,
        "loss": recipe.loss,
        **{flag: getattr(recipe.training, name) for flag, name in TRAIN_FLAGS.items()},
        "memory_format": formats[recipe.training.channels_last],
    }
