"""The files of one part of a data set, and what is said when they do not fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emlib.annotations.classes import Classes

MASKS = "masks"  # the folder of index masks, and their name among the masks of a section
SMALLEST_PATCH = 32  # pixels; 2 × 2 are left of it at a sixteenth of the resolution


@dataclass(frozen=True)
class SectionFiles:
    """The files of one section.

    Attributes
    ----------
    name : str
    raw : Path
        The EM.
    masks : dict of Path
        By organelle, or the index mask as ``masks``; one whose file is missing is not there.
    """

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
        Holds ``raw`` and one folder per organelle, or ``raw`` and ``masks``.
    organelles : tuple of str
        In the order asked for, else by name; of index masks the names of the classes, background first.
    sections : tuple of SectionFiles
        In natural order of their names (2 before 10).
    classes : Classes, optional
        Of index masks; None with one folder per organelle.
    ignore : int, optional
        The stored value of pixels that nobody annotated.
    """

    domain: str
    split: str
    folder: Path
    organelles: tuple[str, ...]
    sections: tuple[SectionFiles, ...]
    classes: Classes | None = None
    ignore: int | None = None

    @property
    def activation(self) -> str:
        """``softmax`` where classes exclude each other, ``sigmoid`` where organelles may overlap."""
        return "sigmoid" if self.classes is None else "softmax"

    @property
    def mask_folders(self) -> dict[str, Path]:
        """The folders of masks, by the names that `SectionFiles.masks` has for them."""
        names = self.organelles if self.classes is None else (MASKS,)
        return {name: self.folder / name for name in names}


def size_problem(mask: Path, mask_shape: tuple[int, int], raw: Path, shape: tuple[int, int]) -> str:
    """Say that a mask and its section differ in size."""
    sizes = ["{} × {}".format(*size) for size in (mask_shape, shape)]
    return f"{mask} is {sizes[0]}, {raw} is {sizes[1]} (height × width); crop, pad or resample one"


def patch_problem(size: int, shape: tuple[int, int], section: object) -> str | None:
    """Say that a patch is larger than a section; None if it fits."""
    if size <= min(shape):
        return None
    sizes = "{} × {}".format(*shape)
    least = min(shape)
    advice = (
        f"use --patch_size {least} or less"
        if least >= SMALLEST_PATCH
        else f"leave it out, as {SMALLEST_PATCH} px is the least"
    )
    return f"a patch of {size} px is larger than section {section} ({sizes}); {advice}"
