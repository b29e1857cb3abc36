"""What ``fetch_data.py`` does for each of its commands, and what it prints."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from emlib.errors import UserError
from emlib.runs.catalogue import DATASETS, MADE_HERE, find_dataset
from emlib.runs.fetching import count_present, fetch
from emlib.volumes.atomic import remove_stale

DEFAULT = Path("data")
DOMAIN = "phantom-sections"  # so that both kinds of phantom can lie in data/


def print_list(folder: Path = DEFAULT) -> None:
    """Print the data sets: size, what of them lies in ``folder``, licence."""
    rows = [("name", "files", "MiB", "copy", "licence")]
    for name, dataset in DATASETS.items():
        there, all_of_it = count_present(dataset, folder / name), len(dataset.pieces)
        copy = "no" if not there else str(folder / name) if there == all_of_it else f"{there} of {all_of_it} files"
        rows.append((name, str(all_of_it), f"{dataset.mib:.1f}", copy, dataset.licence))
    made = [str(folder / name) for name in (MADE_HERE, DOMAIN) if any((folder / name).glob("*"))]
    rows.append((MADE_HERE, "–", "–", " ".join(made) or "no", "synthetic, made on this machine"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fetch_public(args: Namespace) -> None:
    """Put the public data set ``args.name`` in place.

    Raises
    ------
    UserError
        If the flags do not fit it, or it cannot be had.
    """
    if not args.name:
        raise UserError(f"name what to put in place: {', '.join([*DATASETS, MADE_HERE])}; --list says more")
    if args.zarr:
        raise UserError("--zarr goes with a volume: bossdb://… or precomputed://…, or a file of one")
    dataset = find_dataset(args.name)
    _refuse(args, ("domain", "shape", "voxel_size", "damaged_section"), f"{MADE_HERE}, not with {dataset.name}")
    if args.local and args.mirror:
        raise UserError("--from copies and --mirror downloads; give one of them")
    folder = args.output or DEFAULT / dataset.name

    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr)

    if not args.quiet:
        print(f"{dataset.name}: {dataset.what}", f"licence: {dataset.licence}", f"cite: {dataset.citation}", sep="\n")
    done = fetch(
        dataset,
        folder,
        local=args.local,
        mirrors=[args.mirror] if args.mirror else [],
        timeout_s=args.network_timeout,
        quiet=args.quiet,
        warn=warn,
    )
    for path in done.replaced:
        warn(f"{folder / path} was not the published file and has been replaced")
    if not args.quiet:
        new, kept = len(done.placed) + len(done.replaced), len(done.kept)
        print(f"splits: {dataset.splits}")
        print(f"{new} files {'copied' if args.local else 'downloaded'}, {kept} were there; all checked in {folder}")
        print(f"written: {done.note}")


def copy_volume(args: Namespace) -> None:
    """Copy the volume ``args.name`` into OME-Zarr; done again after an interruption, it goes on where it was.

    Raises
    ------
    UserError
        If the flags do not fit, or the volume cannot be read or written.
    """
    _refuse(args, ("domain", "shape", "damaged_section"), f"{MADE_HERE}, not with a volume")
    _refuse(args, ("local", "mirror"), "public data sets, not with a volume")
    if args.zarr is None:
        raise UserError(f"{args.name} is a volume; say with --zarr OUT.zarr where to copy it to")
    from emlib.volumes.bossdb import BossOptions  # slow
    from emlib.volumes.ingest import CopySettings, copy_to_zarr
    from emlib.volumes.open import open_volume

    def note(line: str) -> None:
        if not args.quiet:
            print(line, file=sys.stderr)

    boss = BossOptions(timeout_s=args.network_timeout, resolution=args.resolution, config_file=args.boss_config)
    how = {"boss": boss, "labels": args.labels, "fill_missing": args.fill_missing, "note": note}
    source = open_volume(args.name, **how)
    for line in source.notes.get("messages", ()):
        note(line)
    settings = CopySettings(args.cutout, args.offset, args.voxel_size, args.labels, args.zarr_version)
    done = copy_to_zarr(source, args.zarr, settings, quiet=args.quiet)
    if not args.quiet:
        again = f", {done.kept} of them from before" if done.kept else ""
        print(f"{done.blocks} blocks{again}; levels {', '.join(' × '.join(map(str, s[::-1])) for s in done.levels)}")
        print(f"written: {args.zarr}")


def make_phantom_files(args: Namespace) -> None:
    """Make the phantom, as a volume or as sections for training.

    Raises
    ------
    UserError
        If the flags do not fit it, or the phantom refuses their values.
    """
    _refuse(args, ("local", "mirror"), f"public data sets; {MADE_HERE} is made on this machine")
    from emlib.volumes.phantom_files import domain_settings, phantom_settings, write_domain, write_phantom  # slow

    settings_of, write = (domain_settings, write_domain) if args.domain else (phantom_settings, write_phantom)
    settings = settings_of(args.shape, args.voxel_size, args.seed, args.damaged_section)
    folder = args.output or DEFAULT / (DOMAIN if args.domain else MADE_HERE)
    remove_stale(folder)
    written = write(settings, folder)
    if not args.quiet:
        print(*(f"written: {path}" for path in written), sep="\n")


def _refuse(args: Namespace, names: tuple[str, ...], belongs_to: str) -> None:
    """Refuse flags that would have no effect."""
    for name in names:
        if getattr(args, name) not in (None, False):
            raise UserError(f"--{'from' if name == 'local' else name} goes with {belongs_to}")
