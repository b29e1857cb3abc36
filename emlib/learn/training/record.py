"""What is kept of how a training was asked for, and whether a training that goes on is still the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from emlib.errors import UserError
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.training.settings import TrainPaths
from emlib.learn.transforms import AugmentSettings
from emlib.runs.artefacts import plain

# In args.yaml, not among the settings of a checkpoint: where things lie, what they take, how they are stored and drawn.
NOT_KEPT = {"data_root", "out_path", "threads", "organelle", "voxel_size", "half", "memory_gb", "contact_sheet"}
NOT_KEPT |= {"volume", "labels"}
# What may differ from the training that is resumed: how long it goes on, and what computes it.
FREE = {"epochs", "patience", "time_budget", "device", "precision", "workers", "memory_format"}


def kept_settings(
    flags: Mapping[str, Any], organelles: Sequence[str], augment: AugmentSettings | None
) -> dict[str, Any]:
    """Return the settings that a checkpoint keeps, as JSON values.

    Parameters
    ----------
    flags : mapping
        By the names of flags.
    organelles : names
        In the order of the channels.
    augment : AugmentSettings, optional
        What ``--augment`` came to, since a file of that name may change.
    """
    left_out = NOT_KEPT if flags.get("resample_nm") is None else NOT_KEPT - {"voxel_size"}  # else it scales the images
    record = {name: value for name, value in flags.items() if name not in left_out}
    changes = None if augment is None else asdict(augment)
    return plain({**record, "organelles": list(organelles), "augmentation": changes})


def state_to_resume(
    paths: TrainPaths, record: Mapping[str, Any], fingerprints: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return what ``last.pth`` holds, checked against what is to be trained; None where there is none.

    Parameters
    ----------
    paths : TrainPaths
    record : mapping
        From `kept_settings`.
    fingerprints : mapping
        Of the data as they are now, by ``domain/split``.
    note : callable
        Takes a line for the user.

    Raises
    ------
    UserError
        If the training was started with other flags, or on other files.
    """
    if not paths.last.exists():
        note(f"note: nothing to resume, there is no {paths.last}; the training begins")
        return None
    checkpoint = load_checkpoint(paths.last)
    if checkpoint.training is None:
        raise UserError(f"{paths.last} is a model without the state of its training; leave --resume out to train anew")
    before = checkpoint.settings
    for name in sorted(set(record) - FREE):
        if name == "augmentation" and name not in before:
            continue  # an emlib that did not keep it
        if before.get(name) != record[name]:
            raise UserError(
                f"--resume: {paths.last} was trained with {_differing(name, before.get(name), record[name])}; give the "
                "flags it was started with, or train anew to another --out_path"
            )
    known = before.get("data", {})
    if changed := [part for part, now in fingerprints.items() if known.get(part, now) != now]:
        raise UserError(
            f"--resume: the images or masks of {', '.join(changed)} are not those that {paths.last} was trained on; "
            "put the old ones back, or train anew to another --out_path"
        )
    return checkpoint.training


def flags_yaml(flags: Mapping[str, Any]) -> str:
    """Return flags as a file for ``--config``; those without a value are left out."""
    given = {name: value for name, value in plain(dict(flags)).items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


def _differing(name: str, before: Any, now: Any) -> str:
    """One flag then and now."""
    if name != "augmentation":
        return f"--{name} {before}, now it is {now}"
    changed = [key for key in (now or {}) if (before or {}).get(key) != now[key]]
    return f"another augmentation (--augment differs in {', '.join(changed) or 'all'})"
