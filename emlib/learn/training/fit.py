"""Train a network on data sets of sections or on a labelled volume: what the scripts that train call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.datasets.split import SMALLEST_PATCH
from emlib.learn.losses import parse_loss
from emlib.learn.models.build import build_model, count_parameters
from emlib.learn.models.checkpoint import save_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.presets import Preset
from emlib.learn.training.class_weights import loss_weights
from emlib.learn.training.contact_sheet import write_contact_sheet
from emlib.learn.training.data import DataSettings, TrainingData
from emlib.learn.training.device import resolve_precision, start_fabric
from emlib.learn.training.launched import helps
from emlib.learn.training.loop import train
from emlib.learn.training.recipe import recipe_flags
from emlib.learn.training.record import flags_yaml, kept_settings, state_to_resume
from emlib.learn.training.settings import TrainPaths, TrainResult
from emlib.learn.transforms import AugmentSettings, read_augment
from emlib.learn.volumes.data import VolumeDataSettings, VolumeTraining
from emlib.runs.artefacts import write_text
from emlib.runs.lock import run_lock


def fit(
    data: DataSettings | VolumeDataSettings,
    out_path: str | Path,
    recipe: Preset,
    *,
    half: bool = False,
    resume: bool = False,
    contact_sheet: int = 16,
    quiet: bool = False,
    flags: dict[str, Any] | None = None,
) -> TrainResult:
    """Train on the train sections of the data, choose the best epoch on their val sections.

    Parameters
    ----------
    data : DataSettings or VolumeDataSettings
        Sections are ``<root>/<domain>/{train,val}/{raw,<organelle>…}/NN.png``, or have index masks in ``masks``; or a
        volume and its neurite labels.
    out_path : path
        The best model; the rest lies in `TrainPaths.folder`.
    recipe : Preset
        See `emlib.learn.training.recipe.make_recipe`.
    half : bool
        Store the weights of the best model as float16.
    resume : bool
        Go on from ``last.pth``; without one the training begins.
    contact_sheet : int
        Patches drawn in ``augmentation.png`` before the first step; 0 draws none.
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
        If sections or masks are missing or do not fit, ``last.pth`` belongs to another training or other data, or what
        `emlib.learn.training.loop.train` raises.
    """
    quiet = quiet or helps()
    note = _drop if quiet else _print
    paths = _paths(out_path)
    if recipe.patches.size < SMALLEST_PATCH:
        raise UserError(f"--patch_size is at least {SMALLEST_PATCH}, as networks halve it again and again")
    parse_loss(recipe.loss)  # what is wrong with it is told before anything is decoded
    augment = read_augment(recipe.augment)
    opened = data.open(recipe.patches.size, note)
    flags = {**data.flags, "out_path": out_path, **(flags or {}), **recipe_flags(recipe)}
    record = kept_settings(flags, opened.organelles, augment)
    with nullcontext() if helps() else run_lock(paths.folder):
        state = state_to_resume(paths, record, opened.fingerprints, note) if resume else None
        if not resume and paths.last.exists():
            note(f"note: {paths.last} of an earlier training will be replaced; --resume would go on with it")
        if not helps():
            write_text(paths.folder / "args.yaml", flags_yaml(flags))
        settings = {**record, **opened.about, "data": opened.fingerprints}
        about = {"voxel_size_nm": opened.voxel_size_nm, "settings": settings}
        sheet = 0 if state is not None or helps() else contact_sheet
        return _fit(opened, recipe, augment, paths, about, half, state, sheet, note, progress=not quiet)


def _fit(
    data: TrainingData | VolumeTraining,
    recipe: Preset,
    augment: AugmentSettings | None,
    paths: TrainPaths,
    about: dict[str, Any],
    half: bool,
    state: dict[str, Any] | None,
    sheet: int,
    note: Callable[[str], None],
    progress: bool,
) -> TrainResult:
    """Put data, network and loss together and train; ``about`` goes into every checkpoint."""
    normalisation = data.normalisation() if recipe.normalise else Normalisation()
    channels = {"organelles": list(data.organelles), "activation": data.activation}
    architecture = {**recipe.architecture, **channels, **data.network}
    model = _network(architecture, recipe, state)
    fabric = start_fabric(recipe.training, note)
    batches = data.batches(
        recipe.patches,
        normalisation=normalisation,
        seed=recipe.training.seed,
        augment=augment,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    balance = batches.class_balance() if recipe.class_weights == "auto" else None  # takes a look at every mask
    weights = loss_weights(recipe.class_weights, balance, data.organelles, data.activation)
    loss = parse_loss(recipe.loss, weights, data.activation, data.organelles)
    bf16 = resolve_precision(recipe.training.precision, fabric.device.type, _drop) == "bf16"
    what, *more = data.lines(batches)
    note(
        f"{what}; {count_parameters(model):,} parameters; {batches.steps_per_epoch} steps in an epoch; "
        f"{fabric.device.type}, {'bf16' if bf16 else 'fp32'}"
    )
    for line in more:
        note(line)
    if weights is not None:
        told = ", ".join(f"{name} {weight:g}" for name, weight in zip(data.organelles, weights, strict=True))
        note(f"weights in the loss: {told}")
    if sheet:
        write_contact_sheet(paths.folder, batches, data.about["colours"], sheet)

    def save(path: Path, network: nn.Module, scores: dict[str, float], training: dict[str, Any] | None) -> None:
        what = {"architecture": architecture, "normalisation": normalisation, **about}
        save_checkpoint(path, network, **what, metrics=scores, training=training, half=half and training is None)

    return train(
        model,
        batches,
        data.scores(normalisation, fabric.device, recipe.patches),
        loss,
        recipe.training,
        paths=paths,
        save=save,
        fabric=fabric,
        resume=state,
        note=note,
        progress=progress,
    )


def _network(architecture: dict[str, Any], recipe: Preset, state: dict[str, Any] | None) -> nn.Module:
    """The network with its first weights; those of a training that goes on are loaded later."""
    torch.manual_seed(recipe.training.seed)
    model = build_model(architecture)
    if recipe.weights is not None and state is None:
        from emlib.learn.models.pretrained import load_backbone  # heavy: timm

        load_backbone(model, recipe.weights)
    return model


def _print(line: str) -> None:
    """Print a line at once, also into a file that somebody watches."""
    print(line, flush=True)


def _drop(line: str) -> None:
    """Take a line for the user and drop it."""


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
