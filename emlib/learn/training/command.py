"""What ``train.py`` and ``single_org_train.py`` do once their flags are parsed."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from emlib.errors import UserError
from emlib.learn.training.data import DataSettings
from emlib.learn.training.fit import fit
from emlib.learn.training.launched import devices_in_all, find_launch, helps
from emlib.learn.training.recipe import lr_warning, make_recipe
from emlib.learn.training.settings import TrainPaths, TrainResult
from emlib.learn.volumes.data import VolumeDataSettings
from emlib.runs import cli

VOLUME_PATCH = 128  # pixels: labelled volumes are small along some axis
NAMES = "preset organelle organelles voxel_size threads ignore_index resample_nm memory_gb contact_sheet half".split()


def train_from_flags(args: argparse.Namespace) -> int:
    """Train as the flags of `emlib.learn.training.flags.add_training` say.

    Returns
    -------
    int
        Exit code: 0, or 130 if interrupted.

    Raises
    ------
    UserError
        As `fit`.
    """
    flags = {**vars(args), "devices": devices_in_all(args.devices, find_launch())}
    data = _data(args)
    if isinstance(data, VolumeDataSettings) and args.patch_size is None:
        flags = {**flags, "patch_size": VOLUME_PATCH}
    recipe = make_recipe(args.preset, flags)
    if not args.quiet and not helps() and (warning := lr_warning(args.preset, recipe)):
        print(f"warning: {warning}", flush=True)
    how = {"half": args.half, "resume": args.resume, "contact_sheet": args.contact_sheet, "quiet": args.quiet}
    try:
        result = fit(data, args.out_path, recipe, **how, flags={name: flags[name] for name in NAMES if name in flags})
    except UserError as error:
        if helps():  # all were started alike and may stumble over the same
            raise UserError(f"process {os.environ.get('RANK', '')}: {error}") from error
        raise
    if not result.main:
        return 0
    if result.interrupted:
        again = cli.command_line() + ("" if args.resume else " --resume")
        print(f"interrupted in {result.place}; to go on: {again}", file=sys.stderr)
        return cli.INTERRUPTED
    if not args.quiet:
        print(*summary_lines(result, TrainPaths(args.out_path)), sep="\n")
    return 0


def summary_lines(result: TrainResult, paths: TrainPaths) -> list[str]:
    """Return what the training came to, and what was written."""
    ended = {
        "all epochs": "all epochs trained",
        "patience": "no better epoch for --patience",
        "time budget": "time is up",
    }
    lines = [f"{ended[result.ended]}, {result.epochs} in all"]
    if best := result.best:
        each = ", ".join(f"{name[4:]} {value:.3f}" for name, value in best.items() if name.startswith("iou/"))
        lines.append(f"best: epoch {best['epoch']}, mean validation IoU {best['iou']:.3f} ({each})")
    names = sorted(
        path.name for path in paths.folder.iterdir() if not path.name.startswith(".") and path.name != "runs"
    )
    return [*lines, f"wrote {paths.best}", f"      {paths.folder}: {', '.join(names)}"]


def _data(args: argparse.Namespace) -> DataSettings | VolumeDataSettings:
    """The data that the flags name."""
    given: dict[str, Any] = vars(args)
    volume = _volume(given)
    if volume is not None:
        return volume
    organelles = [args.organelle] if "organelle" in given else args.organelles
    return DataSettings(
        args.data_root,
        tuple(args.domain),
        None if organelles is None else tuple(organelles),
        None if args.voxel_size is None else tuple(args.voxel_size),
        args.ignore_index,
        args.resample_nm,
        args.memory_gb,
    )


def _volume(given: dict[str, Any]) -> VolumeDataSettings | None:
    """The labelled volume that the flags name; None if they name data sets.

    Raises
    ------
    UserError
        If they name both or neither, or a flag goes with the other.
    """
    own = {name: given.get(name) for name in ("labels", "z", "val_z", "sections", "axes")}
    if given.get("volume") is None:
        if left := [f"--{name}" for name, value in own.items() if value is not None]:
            raise UserError(f"{left[0]} goes with --volume EM, which trains on a labelled volume")
        if given.get("domain") is None:
            raise UserError("name what to train on: --domain NAME, or --volume EM with --labels LABELS")
        return None
    if given.get("domain") is not None:
        raise UserError("give --domain or --volume, not both: a model is trained on data sets or on a labelled volume")
    others = ("organelles", "domain_weights", "resample_nm", "stride")
    if left := [f"--{name}" for name in others if given.get(name) is not None]:
        raise UserError(f"{left[0]} goes with --domain, not with --volume, which learns boundaries alone; leave it out")
    if own["labels"] is None:
        raise UserError("--volume needs the neurite labels of the same voxels: --labels FILE")
    if given.get("sampling") == "grid":
        raise UserError("--sampling grid goes with --domain; of a volume patches are cut anywhere")
    size = given.get("voxel_size")
    return VolumeDataSettings(
        given["volume"],
        own["labels"],
        own["z"] and tuple(own["z"]),
        own["val_z"] and tuple(own["val_z"]),
        size and tuple(size),
        own["sections"],
        own["axes"],
        given.get("ignore_index"),
        given["memory_gb"],
    )
