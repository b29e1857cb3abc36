"""Which image goes into train, val and test: by fractions and a seed, by a file, or as the input is divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emlib.annotations.classes import read_yaml
from emlib.annotations.files import SPLITS, natural
from emlib.errors import UserError, nearest
from emlib.volumes.reading import reading

NAMES = ("train", "val", "test")
DEFAULT = (0.7, 0.15, 0.15)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that are no shares of one whole.

    Raises
    ------
    UserError
        If one is below 0 or they do not add up to 1.
    """
    told = " ".join(f"{value:g}" for value in fractions)
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):  # so that NaN is refused too
        raise UserError(
            f"--split {told} adds up to {sum(fractions):g}; give train, val and test shares that add up to 1"
        )


def share_out(names: Sequence[str], fractions: Sequence[float] = DEFAULT, seed: int = 0) -> dict[str, str]:
    """Draw the split of each name.

    Parameters
    ----------
    names : sequence of str
        Their order does not matter.
    fractions : (train, val, test)
        Rounded by largest remainder; a split with a share gets at least one image as long as there are enough, train
        first, then val.
    seed : int

    Examples
    --------
    >>> drawn = share_out([f"{i:02d}" for i in range(10)])
    >>> [list(drawn.values()).count(split) for split in ("train", "val", "test")]
    [7, 2, 1]
    """
    check_fractions(fractions)
    ordered = sorted(names, key=natural)
    np.random.default_rng(seed).shuffle(ordered)
    exact = np.asarray(fractions, float) * len(ordered)
    counts = np.floor(exact + 1e-9).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: len(ordered) - counts.sum()]:
        counts[index] += 1
    for index in range(3):  # nobody with a share goes without, if the largest split can spare one
        if fractions[index] > 0 and counts[index] == 0 and counts.max() > 1:
            counts[np.argmax(counts)] -= 1
            counts[index] += 1
    drawn = dict(zip(ordered, np.repeat(NAMES, counts).tolist(), strict=True))
    return {name: drawn[name] for name in names}


def read_split_file(path: str | Path) -> dict[str, str]:
    """Read which image is in which split: CSV with the columns ``name,split``, or YAML ``train: [00, 01]``.

    Raises
    ------
    UserError
        If it cannot be read, has another form, names an unknown split, or an image twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: --split_file {path}")
    pairs = _csv_pairs(path) if path.suffix.lower() == ".csv" else _yaml_pairs(path)
    found: dict[str, str] = {}
    for name, split in pairs:
        if split.lower() not in SPLITS:
            raise UserError(f"--split_file {path}: no split is called {split!r}; {nearest(split, NAMES)}")
        if found.setdefault(name, SPLITS[split.lower()]) != SPLITS[split.lower()]:
            raise UserError(f"--split_file {path} puts {name} into {found[name]} and {split}; choose one")
    return found


def by_file(names: Sequence[str], wanted: dict[str, str], path: object) -> dict[str, str]:
    """Return the split of each name as the file has it; suffixes of image files do not matter.

    Raises
    ------
    UserError
        If the file lacks a name.
    """
    stems = {Path(name).with_suffix("").as_posix() if "." in name else name: split for name, split in wanted.items()}
    for name in names:
        if name not in wanted and name not in stems:
            raise UserError(f"--split_file {path} does not say where {name} goes; {nearest(name, list(wanted))}")
    return {name: wanted.get(name) or stems[name] for name in names}


def _csv_pairs(path: Path) -> list[tuple[str, str]]:
    import pandas as pd

    with reading(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"name", "split"} <= set(table.columns):
        raise UserError(f"--split_file {path} has no columns name and split; it has {', '.join(table.columns)}")
    return list(zip(table["name"], table["split"], strict=True))


def _yaml_pairs(path: Path) -> list[tuple[str, str]]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise UserError(f'--split_file {path} must hold lists of names, \'train: ["00", "01"]\', val and test')
    pairs = [(name, str(split)) for split, names in content.items() for name in names]
    if wrong := [name for name, _ in pairs if not isinstance(name, str)]:  # YAML reads 01 as the number 1
        raise UserError(f"--split_file {path}: the name {wrong[0]!r} is no text; put names of digits in quotes")
    return pairs
