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
