"""A data set for training on disk: which files it has, in one of two layouts.

- ``<data_root>/<domain>/{train,val,test}/{raw,<organelle>…}/NN.png``: one folder of masks per organelle; organelles may
  overlap.
- ``<data_root>/<domain>/{train,val,test}/{raw,masks}/NN.png``: index masks, whose pixel values are ids of classes that
  exclude each other; ``<data_root>/<domain>/classes.yaml`` names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from emlib.annotations.classes import Classes
from emlib.errors import UserError, nearest
from emlib.evaluation.mask_inputs import RAW, organelle_folders
from emlib.learn.datasets.checking import look_at, refuse
from emlib.learn.datasets.mask_classes import find_classes
from emlib.learn.datasets.split import MASKS, SectionFiles, Split
from emlib.volumes.sections import list_sections

SPLITS = ("train", "val", "test")


def find_split(
    data_root: str | Path,
    domain: str,
    split: str,
    organelles: Iterable[str] | None = None,
    *,
    ignore_index: int | None = None,
    classes: Classes | None = None,
) -> Split:
    """Find the files of one split of a data set.

    Parameters
    ----------
    data_root : path
        The folder of the data sets.
    domain : str
        The folder of one of them.
    split : str
        ``train``, ``val`` or ``test``.
    organelles : names, optional
        Default: every folder of images beside ``raw``. None at all (``()``) leaves the masks alone. With index masks
        all classes are taken, and naming others is an error.
    ignore_index : int, optional
        The value of pixels that nobody annotated. Default: that of ``classes.yaml``, if any.
    classes : Classes, optional
        Those of the data set, where they are known already. Else they are read from ``classes.yaml``, and without that
        file made from the ids of the masks of all splits: for this alone something is decoded here.

    Raises
    ------
    UserError
        If the data set, the split, ``raw`` or an organelle does not exist (what exists is told), it has both layouts
        at once, or two files have one name. Missing masks are left to `check_splits`, which lists them all.
    """
    folder = _domain_folder(Path(data_root).expanduser(), domain) / split
    if not (folder / RAW).is_dir():
        has = ", ".join(splits_of(folder.parent))
        raise UserError(
            f"{folder.parent} has no {split}/{RAW}; it has {has}: every split needs a folder of its sections"
        )
    found = organelle_folders(str(folder))
    asked = None if organelles is None else tuple(dict.fromkeys(organelles))
    if MASKS in found and _means_classes(folder, found, asked):
        classes = classes or find_classes(folder.parent, splits_of(folder.parent), ignore_index)
        names = _class_names(classes, asked, folder)
        ignore = classes.ignore if ignore_index is None else ignore_index
        return Split(domain, split, folder, names, _sections(folder, {MASKS: found[MASKS]}), classes, ignore)
    names = tuple(found) if asked is None else asked
    if not found and (names or asked is None):
        raise UserError(f"{folder} has no masks; put those of each organelle in a folder beside {RAW}")
    for name in names:
        if name not in found:
            raise UserError(f"{folder} has no masks of {name!r}; {nearest(name, list(found))}")
        if name == "average":
            raise UserError(f"no organelle can be called average, as the mean over organelles is; rename {found[name]}")
    sections = _sections(folder, {name: found[name] for name in names})
    return Split(domain, split, folder, names, sections, None, ignore_index)


def check_splits(splits: Sequence[Split], patch_size: int | None = None) -> list[str]:
    """Decode every section and mask once and look for whatever training or testing would trip over.

    Who opens the sections afterwards calls `emlib.learn.datasets.sections.open_splits` instead, which does both and
    decodes once.

    Parameters
    ----------
    splits : sequence of Split
    patch_size : int, optional
        Side of the patches in pixels; sections must not be smaller.

    Returns
    -------
    list of str
        Warnings: masks that are not binary, organelles or classes without a single pixel, classes without names.

    Raises
    ------
    UserError
        One that lists all problems: sections smaller than a patch or in colour, masks that are missing, of another
        size, without a section, or no masks, ids that are no class, and files that cannot be read.
    """
    looked = [look_at(split, patch_size) for split in splits]
    refuse([problem for each in looked for problem in (*each.problems, *extra_masks(each.split))])
    return list(dict.fromkeys(warning for each in looked for warning in each.warnings))


def extra_masks(split: Split) -> list[str]:
    """Say which masks have no section."""
    there = {section.name for section in split.sections}
    return [
        f"{folder} has a mask {name}, but {split.folder / RAW} has no such section; rename or remove it"
        for folder in split.mask_folders.values()
        for name in sorted(files_by_name(folder).keys() - there)
    ]


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


def splits_of(folder: Path) -> list[str]:
    """Which splits a data set has."""
    return [split for split in SPLITS if (folder / split / RAW).is_dir()]


def _means_classes(folder: Path, found: dict[str, Path], asked: tuple[str, ...] | None) -> bool:
    """Whether a split with a folder ``masks`` is of the layout with index masks."""
    others = [name for name in found if name != MASKS]
    if not others:
        return asked != ()
    if asked is not None and all(name in found for name in asked):
        return False
    raise UserError(
        f"{folder} has class ids in {MASKS} and folders of organelles ({', '.join(others[:6])}); move one kind away, "
        "or name folders with --organelles"
    )


def _class_names(classes: Classes, asked: tuple[str, ...] | None, folder: Path) -> tuple[str, ...]:
    """The classes of index masks; others than all of them cannot be asked for."""
    for name in asked or ():
        if name not in classes.names:
            raise UserError(f"{folder} has no class {name!r}; {nearest(name, list(classes.names))}")
    if asked is not None and not set(classes.names[1:]) <= set(asked):
        raise UserError(
            f"{folder} has index masks, whose classes are learnt together ({', '.join(classes.names)}); leave "
            "--organelles out, or make a folder of each with convert_annotations.py --from index-mask --to organelles"
        )
    return classes.names


def _sections(folder: Path, mask_folders: dict[str, Path]) -> tuple[SectionFiles, ...]:
    """Sections of a split with the masks that belong to them by name."""
    raw = files_by_name(folder / RAW)
    masks = {name: files_by_name(path) for name, path in mask_folders.items()}
    return tuple(
        SectionFiles(stem, path, {name: masks[name][stem] for name in masks if stem in masks[name]})
        for stem, path in raw.items()
    )


def _domain_folder(root: Path, domain: str) -> Path:
    """The folder of a data set, or an error that names those there are."""
    fetch = "put one there with fetch_data.py (fetch_data.py --list), or name its folder with --data_root"
    if not root.is_dir():
        raise UserError(f"no such folder: {root}; {fetch}")
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and splits_of(path))
    if domain in there:
        return root / domain
    if not there:
        raise UserError(f"{root} holds no data set (DOMAIN/train/{RAW} …); {fetch}")
    raise UserError(f"{root} holds no data set {domain!r}; {nearest(domain, there)}")
