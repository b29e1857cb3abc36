"""What a trained network and a data set have in common: the organelles, or classes, that one predicts and one shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from emlib.errors import UserError
from emlib.learn.datasets.split import Split
from emlib.learn.models.checkpoint import Checkpoint


def in_common(
    split: Split, checkpoint: Checkpoint, asked: Sequence[str] | None, note: Callable[[str], None]
) -> tuple[str, ...]:
    """Name the organelles that both have, in the order of the data set, and say what is left out.

    Parameters
    ----------
    split : Split
        With the organelles that were asked for, else all.
    checkpoint : Checkpoint
        Trained on one data set or several: its organelles are those of all of them.
    asked : names, optional
        What the user named; the model must have all of it.
    note : callable
        Takes a line for the user. Of a background, which is no organelle, nothing is said.

    Returns
    -------
    tuple of str
        Of classes that exclude each other the background is among them, if both have one of that name.

    Raises
    ------
    UserError
        If there is none, or the model lacks one that was asked for.
    """
    nothing = background(split, checkpoint)
    has = f"the model {checkpoint.path} has {', '.join(checkpoint.organelles)}"
    both = tuple(name for name in split.organelles if name in checkpoint.organelles)
    lacking = [name for name in split.organelles if name not in checkpoint.organelles and name not in nothing]
    if not set(both) - nothing:
        unnamed = all(name.startswith("expert_") for name in checkpoint.organelles)
        advice = "name its experts in their order with --organelles" if unnamed else "use data with masks of these"
        raise UserError(f"{has}; the data set {split.domain} has {', '.join(split.organelles)}: {advice}")
    if lacking and asked:
        raise UserError(f"{has}, and not {', '.join(lacking)}; leave it out of --organelles")
    if lacking:
        note(f"note: left out, as {has} alone: {', '.join(lacking)}")
    if spare := [name for name in checkpoint.organelles if not asked and name not in {*split.organelles, *nothing}]:
        note(f"note: left out, as {split.folder} has no masks of it: {', '.join(spare)}")
    return both


def background(split: Split, checkpoint: Checkpoint) -> frozenset[str]:
    """Name what is nothing: the first class of a network, or of a data set, whose classes exclude each other."""
    first = []
    if getattr(checkpoint.model, "activation", "sigmoid") == "softmax":
        first.append(checkpoint.organelles[0])
    if split.classes is not None:
        first.append(split.organelles[0])
    return frozenset(first)


def with_organelles(split: Split, names: Sequence[str]) -> Split:
    """The split with the masks of these organelles alone; index masks hold all classes and stay as they are."""
    return split if split.classes is not None else replace(split, organelles=tuple(names))
