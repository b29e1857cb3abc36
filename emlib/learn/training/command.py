"""What ``train.py`` and ``single_org_train.py`` do once their flags are parsed."""

from __future__ import annotations

import argparse
import sys

from emlib.learn.training.fit import fit_experts
from emlib.learn.training.recipe import make_recipe
from emlib.learn.training.settings import TrainPaths, TrainResult
from emlib.runs import cli

NAMES = ("preset", "organelle", "organelles", "voxel_size", "threads")


def train_from_flags(args: argparse.Namespace) -> int:
    """Train as the flags of `emlib.learn.training.flags.add_training` say.

    Returns
    -------
    int
        Exit code: 0, or 130 if interrupted.

    Raises
    ------
    UserError
        As `fit_experts`.
    """
    flags = vars(args)
    organelles = [args.organelle] if "organelle" in flags else args.organelles
    result = fit_experts(
        args.data_root,
        args.domain,
        args.out_path,
        make_recipe(args.preset, flags),
        organelles=organelles,
        voxel_size_nm=args.voxel_size,
        half=args.half,
        resume=args.resume,
        quiet=args.quiet,
        flags={name: flags[name] for name in NAMES if name in flags},
    )
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
