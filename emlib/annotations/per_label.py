"""Formats without labels: the folder of a file names the label of what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from emlib.annotations.files import KINDS, SPLITS, key_of, split_of
from emlib.errors import UserError

Files = list[tuple[Path, str]]  # files of one image, each with its label


def group_by_image(
    paths: Sequence[Path], root: Path, label: str | None, image_of: Callable[[str], str] = str
) -> dict[tuple[str | None, str], Files]:
    """Group files by (split, image): ``train/mitochondria/00.csv`` is of image 00 of train, label mitochondria.

    Parameters
    ----------
    paths : sequence of Path
    root : Path
        The input folder.
    label : str, optional
        The label of files that lie in no folder of a label.
    image_of : function
        Gives the key of the image from that of a file.

    Raises
    ------
    UserError
        If a file has no label.
    """
    images: dict[tuple[str | None, str], Files] = {}
    for path in paths:
        relative = path.relative_to(root)
        named = [part for part in relative.parts[:-1] if part.lower() not in SPLITS and part.lower() not in KINDS]
        folder = named[0] if named else label
        if folder is None:
            raise UserError(
                f"{path} says no label; put the files of each label in a folder of its name, or give --label NAME"
            )
        below = "/".join([*named[1:], relative.name])
        images.setdefault((split_of(relative), image_of(key_of(below))), []).append((path, folder))
    return images
