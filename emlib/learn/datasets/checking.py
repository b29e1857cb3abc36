"""Look at every file of a split once: what is wrong with it, and what its masks mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from emlib.annotations.classes import CLASSES_FILE
from emlib.errors import UserError
from emlib.learn.datasets.images import read_grey, read_mask
from emlib.learn.datasets.mask_classes import id_counts, unknown_ids
from emlib.learn.datasets.mask_levels import Foreground, foreground, levels
from emlib.learn.datasets.resampling import Zoom
from emlib.learn.datasets.split import MASKS, SectionFiles, Split, patch_problem, size_problem
from emlib.threads import map_threads

SHOWN = 20  # problems that an error spells out

Decoded = tuple[np.ndarray, dict[str, np.ndarray]]  # the EM and the stored masks of a section


@dataclass
class Looked:
    """What came of a look at a split.

    Attributes
    ----------
    split : Split
    problems, warnings : list of str
    rules : dict of Foreground
        By organelle; none with index masks.
    decoded : list of Decoded
        The sections in their order, if they were to be kept.
    """

    split: Split
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rules: dict[str, Foreground] = field(default_factory=dict)
    decoded: list[Decoded | None] = field(default_factory=list)


def look_at(split: Split, patch_size: int | None = None, *, keep: bool = False, zoom: Zoom | None = None) -> Looked:
    """Decode all sections and masks of a split.

    Parameters
    ----------
    split : Split
    patch_size : int, optional
        Side of the patches in pixels; sections must not be smaller, at the size that ``zoom`` gives them.
    keep : bool
        Return what was decoded.
    zoom : Zoom, optional
        What the sections will be resampled by; here it is only reckoned with.
    """
    each = map_threads(lambda section: _look(section, split, patch_size, keep, zoom), split.sections)
    looked = Looked(split, [problem for one in each for problem in one.problems])
    if keep:
        looked.decoded = [one.decoded for one in each]
    (_judge_organelles if split.classes is None else _judge_classes)(looked, each)
    return looked


def refuse(problems: Sequence[str]) -> None:
    """Raise a `UserError` that lists all problems, if there are any."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        listed = "; ".join(f"({i}) {problem}" for i, problem in enumerate(problems[:SHOWN], start=1))
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{len(problems)} problems in the data: {listed}{more}")


def decode(section: SectionFiles, split: Split) -> Decoded:
    """Return the EM and the stored masks of one section.

    Raises
    ------
    UserError
        If a file cannot be read any more, or a mask is missing or of another size.
    """
    found = _look(section, split, None, True, None)
    refuse(found.problems)
    return found.decoded


@dataclass
class _Seen:
    """One section: its problems, the values (of ids the numbers of pixels) that its readable masks hold."""

    name: str
    problems: list[str] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    decoded: Decoded | None = None


def _look(section: SectionFiles, split: Split, patch_size: int | None, keep: bool, zoom: Zoom | None) -> _Seen:
    seen, image, stored = _Seen(section.name), None, {}
    try:
        image = read_grey(section.raw)
        shape = image.shape if zoom is None else zoom.shape(image.shape)
        if patch_size and (problem := patch_problem(patch_size, shape, section.raw)):
            seen.problems.append(problem)
    except UserError as error:
        seen.problems.append(str(error))
    for name, folder in split.mask_folders.items():
        path = section.masks.get(name)
        if path is None:
            what = "mask" if name == MASKS else f"mask of {name}"
            seen.problems.append(f"{section.raw} has no {what}; add {folder / section.name}.*, or remove the section")
            continue
        try:
            mask = stored[name] = read_mask(path)
            if split.classes is not None:
                seen.counts = id_counts(mask, path)
                if problem := unknown_ids(seen.counts, split.classes, split.ignore, path):
                    seen.problems.append(problem)
            else:
                seen.values[name] = _levels(mask, split.ignore)
        except UserError as error:
            seen.problems.append(str(error))
            continue
        if image is not None and mask.shape != image.shape:
            seen.problems.append(size_problem(path, mask.shape, section.raw, image.shape))
    if keep and not seen.problems:
        seen.decoded = image, stored
    return seen


def _levels(mask: np.ndarray, ignore: int | None) -> np.ndarray:
    """The values of a mask without the one that says that nobody annotated."""
    values = levels(mask)
    if ignore is None or mask.dtype.kind == "f":
        return values
    kept = values[values != ignore]
    return kept if len(kept) else np.zeros(1, mask.dtype)


def _judge_organelles(looked: Looked, each: list[_Seen]) -> None:
    """From which value on masks are foreground, decided over all sections of an organelle."""
    for organelle in looked.split.organelles:
        folder = looked.split.folder / organelle
        names = [seen.name for seen in each if organelle in seen.values]
        values = [seen.values[organelle] for seen in each if organelle in seen.values]
        try:
            rule = looked.rules[organelle] = foreground(values, str(folder), names)
        except UserError as error:
            looked.problems.append(str(error))
            continue
        if not rule.binary:
            grey = sum(len(v) > 2 for v in values) or len(values)
            looked.warnings.append(
                f"{folder}: {grey} of {len(values)} masks are not binary; foreground is from half range on"
            )
        elif values and rule.lowest == np.inf:
            looked.warnings.append(
                f"{folder}: all {len(values)} masks are empty; nothing can be learnt or measured of it"
            )


def _judge_classes(looked: Looked, each: list[_Seen]) -> None:
    """Which classes have no pixel, and that they have no names."""
    split = looked.split
    path = split.folder.parent / CLASSES_FILE
    if not path.is_file():
        told = ", ".join(f"{one.name} (id {one.id})" for one in split.classes.classes[:12])
        more = f" … ({len(split.classes.classes)} in all)" if len(split.classes.classes) > 12 else ""
        looked.warnings.append(f"there is no {path}; classes are made from the ids of the masks: {told}{more}")
    there = {id for seen in each for id in seen.counts}
    if absent := [one.name for one in split.classes.classes if one.id not in there]:
        looked.warnings.append(
            f"{split.folder / MASKS}: no pixel of {', '.join(absent)}; nothing can be learnt or measured of it"
        )
