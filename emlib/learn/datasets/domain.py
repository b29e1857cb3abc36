"""A data set for training on disk: ``<data_root>/<domain>/{train,val,test}/{raw,<organelle>…}/NN.png``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emlib.errors import UserError, nearest
from emlib.evaluation.mask_inputs import RAW, organelle_folders
from emlib.learn.datasets.images import read_grey, read_mask
from emlib.learn.datasets.mask_levels import foreground, levels
from emlib.threads import map_threads
from emlib.volumes.sections import list_sections

SPLITS = ("train", "val", "test")
SHOWN = 20  # problems that an error spells out


@dataclass(frozen=True)
class SectionFiles:
    """The files of one section: EM, and a mask per organelle; one whose file is missing is not in ``masks``."""

    name: str
    raw: Path
    masks: dict[str, Path]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes
    ----------
    domain, split : str
    folder : Path
        Holds ``raw`` and one folder per organelle.
    organelles : tuple of str
        In the order asked for, else by name.
    sections : tuple of SectionFiles
        In natural order of their names (2 before 10).
    """

    domain: str
    split: str
    folder: Path
    organelles: tuple[str, ...]
    sections: tuple[SectionFiles, ...]


def find_split(data_root: str | Path, domain: str, split: str, organelles: Iterable[str] | None = None) -> Split:
    """Find the files of one split of a data set; nothing is decoded.

    Parameters
    ----------
    data_root : path
        The folder of the data sets.
    domain : str
        The folder of one of them.
    split : str
        ``train``, ``val`` or ``test``.
    organelles : names, optional
        Default: every folder of images beside ``raw``. None at all (``()``) leaves the masks alone.

    Raises
    ------
    UserError
        If the data set, the split, ``raw`` or an organelle does not exist (what exists is told), or two files have
        one name. Missing masks are left to `check_splits`, which lists them all.
    """
    folder = _domain_folder(Path(data_root).expanduser(), domain) / split
    if not (folder / RAW).is_dir():
        has = ", ".join(_splits(folder.parent))
        raise UserError(
            f"{folder.parent} has no {split}/{RAW}; it has {has}: every split needs a folder of its sections"
        )
    found = organelle_folders(str(folder))
    names = tuple(dict.fromkeys(found if organelles is None else organelles))
    if not found and (names or organelles is None):
        raise UserError(f"{folder} has no masks; put those of each organelle in a folder beside {RAW}")
    for name in names:
        if name not in found:
            raise UserError(f"{folder} has no masks of {name!r}; {nearest(name, list(found))}")
        if name == "average":
            raise UserError(f"no organelle can be called average, as the mean over organelles is; rename {found[name]}")
    raw = files_by_name(folder / RAW)
    masks = {name: files_by_name(found[name]) for name in names}
    sections = tuple(
        SectionFiles(stem, path, {name: masks[name][stem] for name in names if stem in masks[name]})
        for stem, path in raw.items()
    )
    return Split(domain, split, folder, names, sections)


def check_splits(splits: Sequence[Split], patch_size: int | None = None) -> list[str]:
    """Decode every section and mask once and look for whatever training or testing would trip over.

    Parameters
    ----------
    splits : sequence of Split
    patch_size : int, optional
        Side of the patches in pixels; sections must not be smaller.

    Returns
    -------
    list of str
        Warnings: masks that are not binary, organelles without a single pixel.

    Raises
    ------
    UserError
        One that lists all problems: sections smaller than a patch or in colour, masks that are missing, of another
        size, without a section, or no masks, and files that cannot be read.
    """
    problems, warnings = [], []
    for split in splits:
        found, noted = _check_split(split, patch_size)
        problems += found
        warnings += noted
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        listed = "; ".join(f"({i}) {problem}" for i, problem in enumerate(problems[:SHOWN], start=1))
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{len(problems)} problems in the data: {listed}{more}")
    return warnings


def _check_split(split: Split, patch_size: int | None) -> tuple[list[str], list[str]]:
    """Problems and warnings of one split."""
    looked = map_threads(lambda section: _look(section, split, patch_size), split.sections)
    problems, warnings = [problem for found, _ in looked for problem in found], []
    for organelle in split.organelles:
        folder = split.folder / organelle
        extra = files_by_name(folder).keys() - {section.name for section in split.sections}
        problems += [
            f"{folder} has a mask {name}, but {split.folder / RAW} has no such section; rename or remove it"
            for name in sorted(extra)
        ]
        names = [s.name for s, (_, found) in zip(split.sections, looked, strict=True) if organelle in found]
        values = [found[organelle] for _, found in looked if organelle in found]
        try:
            rule = foreground(values, str(folder), names)
        except UserError as error:
            problems.append(str(error))
            continue
        if not rule.binary:
            grey = sum(len(v) > 2 for v in values) or len(values)
            warnings.append(f"{folder}: {grey} of {len(values)} masks are not binary; foreground is from half range on")
        elif values and rule.lowest == np.inf:
            warnings.append(f"{folder}: all {len(values)} masks are empty; nothing can be learnt or measured of it")
    return problems, warnings


def _look(section: SectionFiles, split: Split, patch_size: int | None) -> tuple[list[str], dict[str, np.ndarray]]:
    """Problems of one section, and the values that its readable masks hold."""
    problems, values, shape = [], {}, None
    try:
        shape = read_grey(section.raw).shape
        if patch_size and (problem := patch_problem(patch_size, shape, section.raw)):
            problems.append(problem)
    except UserError as error:
        problems.append(str(error))
    for organelle in split.organelles:
        path = section.masks.get(organelle)
        if path is None:
            problems.append(
                f"{section.raw} has no mask of {organelle}; add {split.folder / organelle / section.name}.*"
            )
            continue
        try:
            mask = read_mask(path)
        except UserError as error:
            problems.append(str(error))
            continue
        values[organelle] = levels(mask)
        if shape and mask.shape != shape:
            problems.append(size_problem(path, mask.shape, section.raw, shape))
    return problems, values


def size_problem(mask: Path, mask_shape: tuple[int, int], raw: Path, shape: tuple[int, int]) -> str:
    """Say that a mask and its section differ in size."""
    sizes = ["{} × {}".format(*size) for size in (mask_shape, shape)]
    return f"{mask} is {sizes[0]}, {raw} is {sizes[1]} (height × width); crop, pad or resample one"


def patch_problem(size: int, shape: tuple[int, int], section: object) -> str | None:
    """Say that a patch is larger than a section; None if it fits."""
    if size <= min(shape):
        return None
    sizes = "{} × {}".format(*shape)
    return f"a patch of {size} px is larger than section {section} ({sizes}); use --patch_size {min(shape)} or less"


def files_by_name(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by the stems of their names, in natural order.

    Raises
    ------
    UserError
        If there are none, PNG beside TIFF, or two of one name.
    """
    paths = list_sections(folder)
    if twice := [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]:
        raise UserError(f"{folder} has several files for the section {', '.join(twice[:8])}; keep one of each")
    return {path.stem: path for path in paths}


def _domain_folder(root: Path, domain: str) -> Path:
    """The folder of a data set, or an error that names those there are."""
    fetch = "put one there with fetch_data.py (fetch_data.py --list), or name its folder with --data_root"
    if not root.is_dir():
        raise UserError(f"no such folder: {root}; {fetch}")
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and _splits(path))
    if domain in there:
        return root / domain
    if not there:
        raise UserError(f"{root} holds no data set (DOMAIN/train/{RAW} …); {fetch}")
    raise UserError(f"{root} holds no data set {domain!r}; {nearest(domain, there)}")


def _splits(folder: Path) -> list[str]:
    """Which splits a data set has."""
    return [split for split in SPLITS if (folder / split / RAW).is_dir()]
