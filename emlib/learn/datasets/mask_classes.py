"""Index masks: which classes their pixels name, and each class as a plane of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emlib.annotations.classes import CLASSES_FILE, Classes, make_classes, read_classes
from emlib.errors import UserError
from emlib.learn.datasets.images import GREY, read_mask
from emlib.learn.datasets.split import MASKS
from emlib.threads import map_threads
from emlib.volumes.sections import list_sections

UNKNOWN = 255  # in the planes of masks: nobody annotated the pixel
MOST_CLASSES = 256  # more ids than these are labels of single objects, not classes


def find_classes(domain: Path, splits: Sequence[str], ignore_index: int | None = None) -> Classes:
    """Return the classes of a data set of index masks.

    Parameters
    ----------
    domain : Path
        Its folder.
    splits : names of its splits
    ignore_index : int, optional
        A value that is no class.

    Returns
    -------
    Classes
        As ``classes.yaml`` has them; without it background and one class for each id in the masks of all splits,
        called ``class_1`` …

    Raises
    ------
    UserError
        If ``classes.yaml`` is wrong, ``ignore_index`` is one of its classes, or the masks are none.
    """
    path = domain / CLASSES_FILE
    if path.is_file():
        classes = read_classes(path)
        if ignore_index in classes.ids:
            name = classes.names[classes.ids.index(ignore_index)]
            raise UserError(
                f"--ignore_index {ignore_index} is the class {name} of {path}; choose a number that is none"
            )
        return classes
    folders = [domain / split / MASKS for split in splits if (domain / split / MASKS).is_dir()]
    paths = [path for folder in folders for path in list_sections(folder)]
    counts = map_threads(lambda path: id_counts(read_mask(path), path), paths)
    ids = sorted({id for found in counts for id in found} - {0, ignore_index})
    if len(ids) >= MOST_CLASSES:
        raise UserError(
            f"the masks of {domain} hold {len(ids)} different ids and there is no {path}; if they are classes, list "
            "them there, if they number single objects, give masks of classes"
        )
    made = make_classes([f"class_{id}" for id in ids])
    return Classes(tuple(replace(one, id=id) for one, id in zip(made.classes, [0, *ids], strict=True)))


def id_counts(mask: np.ndarray, path: Path) -> dict[int, int]:
    """Return how many pixels of an index mask hold each id.

    Raises
    ------
    UserError
        If it holds other than 8 or 16 unsigned bits.

    Examples
    --------
    >>> id_counts(np.array([[0, 2], [2, 2]], np.uint8), Path("00.png"))
    {0: 1, 2: 3}
    """
    if mask.dtype not in GREY:
        raise UserError(f"{path} holds {mask.dtype}; an index mask holds class ids in 8 or 16 unsigned bits")
    counts = np.bincount(mask.ravel())
    return {int(id): int(counts[id]) for id in np.flatnonzero(counts)}


def unknown_ids(counts: dict[int, int], classes: Classes, ignore: int | None, path: Path) -> str | None:
    """Say which ids of a mask are no class, and of how many pixels; None if all are.

    Examples
    --------
    >>> unknown_ids({0: 90, 3: 10}, make_classes(["nucleus"]), None, Path("masks/00.png"))
    'masks/00.png holds the class id 3 (10 pixels), which classes.yaml does not list; add it there, or mend the mask'
    """
    strange = {id: count for id, count in counts.items() if id not in classes.ids and id != ignore}
    if not strange:
        return None
    told = [f"{id} ({count} pixel{'s' * (count != 1)})" for id, count in list(strange.items())[:8]]
    more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
    ids, it = ("id", "it") if len(strange) == 1 else ("ids", "them")
    return (
        f"{path} holds the class {ids} {', '.join(told)}{more}, which {CLASSES_FILE} does not list; add {it} there, or "
        "mend the mask"
    )


def class_planes(mask: np.ndarray, classes: Classes, ignore: int | None) -> np.ndarray:
    """Return one plane for each class.

    Parameters
    ----------
    mask : (Y, X) array of ids
    classes : Classes
    ignore : int, optional
        The id of pixels that nobody annotated.

    Returns
    -------
    (E, Y, X) uint8 array
        1 where the mask holds the id of the class, else 0; `UNKNOWN` in all planes where it holds ``ignore``.

    Examples
    --------
    >>> class_planes(np.array([[0, 1, 255]], np.uint8), make_classes(["nucleus"]), 255).tolist()
    [[[1, 0, 255]], [[0, 1, 255]]]
    """
    planes = np.empty((len(classes.ids), *mask.shape), np.uint8)
    for plane, id in zip(planes, classes.ids, strict=True):
        np.equal(mask, id, out=plane.view(bool))
    if ignore is not None:
        planes[:, mask == ignore] = UNKNOWN
    return planes
