"""From a preset and the flags that change it to the recipe of a training, and back to flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from emlib.errors import UserError, nearest
from emlib.learn.presets import HEAD_BACKBONE, HEADS, PRESETS, Preset, head_of, with_head

PATCH_FLAGS = {"patch_size": "size", "stride": "stride", "batch_size": "batch_size", "sampling": "sampling"}
PATCH_FLAGS |= {"patches_per_epoch": "patches_per_epoch", "domain_weights": "domain_weights"}
TRAIN_FLAGS = {name: name for name in "epochs patience optimizer lr weight_decay warmup schedule ema clip".split()}
TRAIN_FLAGS |= {name: name for name in "device precision devices workers seed".split()}
TRAIN_FLAGS |= {"time_budget": "time_budget_min"}
MEMORY_FORMATS = {"auto": None, "contiguous": False, "channels_last": True}
FAR_LR = 10  # times more or less than the preset's is taken for a slip


def make_recipe(preset: str, flags: Mapping[str, Any]) -> Preset:
    """Return a preset with some of its values changed.

    Parameters
    ----------
    preset : str
        A name in `emlib.learn.presets.PRESETS`.
    flags : mapping
        By the names of the command line's flags; None leaves the preset's value, other names are passed over.

    Raises
    ------
    UserError
        If there is no such preset or head, or a flag lacks the one that it goes with.

    Examples
    --------
    >>> make_recipe("laptop", {"batch_size": 2, "lr": 0.5, "epochs": None}).training.lr
    0.5
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    given = {name: value for name, value in flags.items() if value is not None}
    recipe = _with_network(PRESETS[preset], given)
    patches = {PATCH_FLAGS[name]: _plain(value) for name, value in given.items() if name in PATCH_FLAGS}
    training = {TRAIN_FLAGS[name]: value for name, value in given.items() if name in TRAIN_FLAGS}
    if given.get("no_ema"):
        training["ema"] = 0.0
    if "memory_format" in given:
        training["channels_last"] = MEMORY_FORMATS[given["memory_format"]]
    if "class_weights" in given:
        recipe = replace(recipe, class_weights=class_weights_flag(given["class_weights"]))
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
        "head": head_of(recipe),
        "backbone": recipe.architecture.get("backbone"),
        "weights": recipe.weights,
        **{flag: getattr(recipe.patches, name) for flag, name in PATCH_FLAGS.items()},
        "augment": recipe.augment,
        "loss": recipe.loss,
        "class_weights": recipe.class_weights,
        **{flag: getattr(recipe.training, name) for flag, name in TRAIN_FLAGS.items()},
        "memory_format": formats[recipe.training.channels_last],
    }


def class_weights_flag(value: str | Sequence[Any]) -> str | tuple[float, ...]:
    """Return ``auto``, or weights as floats, from what ``--class_weights`` was given.

    Raises
    ------
    UserError
        If it is neither.

    Examples
    --------
    >>> class_weights_flag(["auto"]), class_weights_flag(["1", "2.5"])
    ('auto', (1.0, 2.5))
    """
    words = [value] if isinstance(value, str) else list(value)
    if words == ["auto"]:
        return "auto"
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        said = " ".join(map(str, words))[:60]
        raise UserError(f"--class_weights {said}: give auto, or a number above 0 for each organelle or class")
    return numbers


def lr_warning(preset: str, recipe: Preset) -> str | None:
    """Say that the learning rate is far from what the preset would use; None if it is not.

    Examples
    --------
    >>> lr_warning("laptop", make_recipe("laptop", {"lr": 1e-4}))[:58]
    '--lr 0.0001 is 30 times below the 0.003 of --preset laptop'
    >>> lr_warning("paper", make_recipe("paper", {"lr": 1e-4}))
    """
    usual = with_head(PRESETS[preset], head_of(recipe)) if head_of(recipe) else PRESETS[preset]
    ratio = recipe.training.lr / usual.training.lr
    if 1 / FAR_LR <= ratio <= FAR_LR:
        return None
    name = f"--preset {preset}" + (f" with --head {head_of(recipe)}" if head_of(recipe) else "")
    below = ratio < 1
    times = f"{1 / ratio if below else ratio:.3g} times {'below' if below else 'above'}"
    may = f"learn little in its {recipe.training.epochs} epochs" if below else "diverge"
    return (
        f"--lr {recipe.training.lr:g} is {times} the {usual.training.lr:g} of {name} and may {may}; leave --lr out to "
        "use that"
    )


def _with_network(recipe: Preset, given: Mapping[str, Any]) -> Preset:
    """The recipe with the network that ``--head``, ``--backbone`` and ``--weights`` name."""
    head, backbone, weights = (given.get(name) for name in ("head", "backbone", "weights"))
    weights = None if weights == "none" else weights
    if head is None:
        for name, value in (("backbone", backbone), ("weights", weights)):
            if value is not None:
                raise UserError(
                    f"--{name} {value} goes with --head {'|'.join(HEADS)}; the presets have their own networks"
                )
        return recipe
    if head not in HEADS:
        raise UserError(f"there is no head {head!r}; {nearest(head, list(HEADS))}")
    return replace(with_head(recipe, head, backbone or HEAD_BACKBONE), weights=weights)


def _plain(value: Any) -> Any:
    """Lists as tuples, which settings hold."""
    return tuple(value) if isinstance(value, list) else value
