"""The flags of a run in blocks."""

from __future__ import annotations

import argparse

from emlib.errors import UserError
from emlib.runs.cli import PRESETS, positive


def add_blocks(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say in which blocks, by whom and with how much memory a run is carried out."""
    group = parser.add_argument_group("volumes larger than memory")
    voxels = {"type": positive(int), "nargs": 3, "metavar": ("X", "Y", "Z")}
    group.add_argument("--blocks", help="work in blocks of this size, on the whole volume without --cutout", **voxels)
    group.add_argument("--workers", type=positive(int), metavar="N", help="processes for the blocks (default: 1)")
    group.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="the workers of this Dask scheduler instead")
    gigabytes = {"type": positive(float), "metavar": "GB"}
    group.add_argument("--memory_gb", help="budget of all processes (default: 3/4 of what is free)", **gigabytes)
    group.add_argument("--npy", choices=("always", "never", "auto"), help="also .npy files (default: where they fit)")


def check_blocks(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together.

    Raises
    ------
    UserError
    """
    given = [name for name in ("workers", "scheduler", "memory_gb", "npy") if getattr(args, name) is not None]
    if given and not args.blocks and args.rerun is None:
        raise UserError(f"--{given[0]} goes with --blocks X Y Z, which says in which blocks the volume is worked on")
    if args.workers and args.scheduler:
        raise UserError("--scheduler has workers of its own; leave --workers out")
    if args.blocks and args.cutouts:
        raise UserError("--cutouts is for small boxes in memory; leave --blocks out, or run one place at a time")


def cutout_of(args: argparse.Namespace) -> tuple[int, int, int] | None:
    """Return the size of the cutout, X Y Z; None is all of a file, in blocks."""
    if args.cutout or not args.blocks or args.preset != "none" or "://" in (args.dataset or "://"):
        return tuple(args.cutout or PRESETS[args.preset])
    return None
