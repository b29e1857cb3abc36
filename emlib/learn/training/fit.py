"""Train a multi-expert model, or one expert alone, on a domain: what ``train.py`` and ``single_org_train.py`` call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from emlib.errors import UserError
from emlib.learn.datasets.domain import Split, check_splits, find_split
from emlib.learn.datasets.patches import PatchBatches
from emlib.learn.datasets.sections import grey_statistics, open_sections
from emlib.learn.losses import parse_loss
from emlib.learn.models.build import build_model, count_parameters
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.presets import Preset
from emlib.learn.training.device import resolve_precision, start_fabric
from emlib.learn.training.loop import train
from emlib.learn.training.recipe import recipe_flags
from emlib.learn.training.settings import TrainPaths, TrainResult
from emlib.learn.training.validation import SectionScores, tiles_within
from emlib.learn.transforms import PRESETS as AUGMENTS
from emlib.runs.artefacts import plain, write_text
from emlib.runs.catalogue import DATASETS
from emlib.runs.lock import run_lock

SMALLEST_PATCH = 32  # pixels; 2 × 2 are left of it at a sixteenth of the resolution
NOT_KEPT = {"data_root", "out_path", "threads", "organelle", "voxel_size"}  # in a checkpoint, among its settings
# What may differ from the training that is resumed: how long it goes on, and what computes it.
FREE = {"epochs", "patience", "time_budget", "device", "precision", "workers", "memory_format"}


def fit_experts(
    data_root: str | Path,
    domain: str,
    out_path: str | Path,
    recipe: Preset,
    *,
    organelles: Sequence[str] | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    half: bool = False,
    resume: bool = False,
    quiet: bool = False,
    flags: dict[str, Any] | None = None,
) -> TrainResult:
    """Train on the train sections of a domain, choose the best epoch on its val sections.

    Parameters
    ----------
    data_root, domain
        Sections are ``<data_root>/<domain>/{train,val}/{raw,<organelle>…}/NN.png``.
    out_path : path
        The best model; the rest lies in `TrainPaths.folder`.
    recipe : Preset
        See `emlib.learn.training.recipe.make_recipe`.
    organelles : names, optional
        Default: all folders of masks.
    voxel_size_nm : (z, y, x), optional
        Kept with the model. Default: that of the public data set of this name, else unknown.
    half : bool
        Store the weights of the best model as float16.
    resume : bool
        Go on from ``last.pth``; without one the training begins.
    quiet : bool
        Print nothing.
    flags : dict, optional
        More lines for ``args.yaml``, by the names of flags.

    Returns
    -------
    TrainResult

    Raises
    ------
    UserError
        If sections or masks are missing or do not fit, ``last.pth`` belongs to another training, or what
        `emlib.learn.training.loop.train` raises.
    """
    quiet = quiet or _helps()
    note = _drop if quiet else _print
    paths = _paths(out_path)
    train_split = find_split(data_root, domain, "train", organelles)
    val_split = find_split(data_root, domain, "val", train_split.organelles)
    if recipe.patches.size < SMALLEST_PATCH:
        raise UserError(f"--patch_size is at least {SMALLEST_PATCH}, as networks halve it again and again")
    for warning in check_splits([train_split, val_split], recipe.patches.size):
        note(f"warning: {warning}")
    parse_loss(recipe.loss)  # what is wrong with it is told before other processes are started
    flags = {"data_root": data_root, "domain": domain, "out_path": out_path, **(flags or {}), **recipe_flags(recipe)}
    record = {name: value for name, value in flags.items() if name not in NOT_KEPT}
    record = plain({**record, "organelles": train_split.organelles})
    with nullcontext() if _helps() else run_lock(paths.folder):
        state = _state_to_resume(paths, record, note) if resume else None
        if not resume and paths.last.exists():
            note(f"note: {paths.last} of an earlier training will be replaced; --resume would go on with it")
        if not _helps():
            write_text(paths.folder / "args.yaml", _yaml(flags))
        about = {"voxel_size_nm": _voxel_size(domain, voxel_size_nm), "settings": record}
        return _fit(train_split, val_split, recipe, paths, about, half, state, note, progress=not quiet)


def _fit(
    train_split: Split,
    val_split: Split,
    recipe: Preset,
    paths: TrainPaths,
    about: dict[str, Any],
    half: bool,
    state: dict[str, Any] | None,
    note: Callable[[str], None],
    progress: bool,
) -> TrainResult:
    """Put data, network and loss together and train; ``about`` goes into every checkpoint."""
    sections, held_out = open_sections(train_split), open_sections(val_split)
    normalisation = grey_statistics(sections) if recipe.normalise else Normalisation()
    torch.manual_seed(recipe.training.seed)
    architecture = {**recipe.architecture, "organelles": list(train_split.organelles)}
    model = build_model(architecture)
    fabric = start_fabric(recipe.training, note)
    batches = PatchBatches(
        sections,
        recipe.patches,
        normalisation=normalisation,
        seed=recipe.training.seed,
        augment=None if recipe.augment == "none" else AUGMENTS[recipe.augment],
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    weights = organelle_weights(batches.class_balance()) if recipe.organelle_balance else None
    bf16 = resolve_precision(recipe.training.precision, fabric.device.type, _drop) == "bf16"
    note(
        f"{train_split.domain}: {len(sections)} train and {len(held_out)} val sections, "
        f"{', '.join(train_split.organelles)}; {count_parameters(model):,} parameters; "
        f"{batches.steps_per_epoch} steps in an epoch; {fabric.device.type}, {'bf16' if bf16 else 'fp32'}"
    )

    def save(path: Path, network: nn.Module, scores: dict[str, float], training: dict[str, Any] | None) -> None:
        what = {"architecture": architecture, "normalisation": normalisation, **about}
        save_checkpoint(path, network, **what, metrics=scores, training=training, half=half and training is None)

    return train(
        model,
        batches,
        SectionScores(held_out, normalisation, fabric.device, tiles_within(recipe.patches)),
        parse_loss(recipe.loss, organelle_weights=weights),
        recipe.training,
        paths=paths,
        save=save,
        fabric=fabric,
        resume=state,
        note=note,
        progress=progress,
    )


def organelle_weights(balance: np.ndarray) -> list[float]:
    """Return weights that rise as organelles get rarer, with the inverse root of their share of pixels; mean 1.

    Examples
    --------
    >>> organelle_weights(np.array([0.25, 0.01]))
    [0.3333, 1.6667]
    """
    raw = 1 / np.sqrt(np.maximum(balance, 1e-4))  # one without pixels must not outweigh all others
    return [float(w) for w in np.round(raw / raw.mean(), 4)]


def _print(line: str) -> None:
    """Print a line at once, also into a file that somebody watches."""
    print(line, flush=True)


def _drop(line: str) -> None:
    """Take a line for the user and drop it."""


def _helps() -> bool:
    """Whether this process was started by the first one of a training on several devices."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("RANK", "LOCAL_RANK"))


def _paths(out_path: str | Path) -> TrainPaths:
    path = Path(out_path).expanduser()
    if path.is_dir():
        raise UserError(f"--out_path {path} is a folder; name a file in it, such as {path / 'model.pth'}")
    paths = TrainPaths(path)
    if paths.folder.exists() and not paths.folder.is_dir():
        raise UserError(
            f"--out_path {path}: the folder {paths.folder} is needed beside it and is a file; choose another"
        )
    return paths


def _state_to_resume(paths: TrainPaths, record: dict[str, Any], note: Callable[[str], None]) -> dict[str, Any] | None:
    """What ``last.pth`` holds, checked against what is to be trained; None where there is none."""
    if not paths.last.exists():
        note(f"note: nothing to resume, there is no {paths.last}; the training begins")
        return None
    checkpoint = load_checkpoint(paths.last)
    if checkpoint.training is None:
        raise UserError(f"{paths.last} is a model without the state of its training; leave --resume out to train anew")
    before = checkpoint.settings
    for name in sorted(set(record) - FREE):
        if before.get(name) != record[name]:
            raise UserError(
                f"--resume: {paths.last} was trained with --{name} {before.get(name)}, now it is {record[name]}; give "
                "the flags it was started with, or train anew to another --out_path"
            )
    return checkpoint.training


def _voxel_size(domain: str, given: Sequence[float] | None) -> tuple[float, float, float] | None:
    known = given or (DATASETS[domain].voxel_size_nm if domain in DATASETS else None)
    return None if known is None else tuple(float(nm) for nm in known)


def _yaml(flags: dict[str, Any]) -> str:
    """Flags as a file for ``--config``; those without a value are left out."""
    given = {name: value for name, value in plain(flags).items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
