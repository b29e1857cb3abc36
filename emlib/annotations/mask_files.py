"""Images of labels as a format: which masks there are, and how their pixels are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emlib.annotations.classes import CLASSES_FILE, Classes, read_classes
from emlib.annotations.files import list_files, root_of
from emlib.annotations.shapes import Source
from emlib.errors import UserError
from emlib.volumes.image_file import TIFF, open_with_pillow, read_tiff_image
from emlib.volumes.reading import reading

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # without loss: JPEG changes labels
IMAGE_FOLDERS = ("raw", "images", "image", "img")
_ENDING = re.compile(r"[_-](masks?|labels?|seg|gt|cp_masks)$", re.IGNORECASE)  # 00_masks.tif is of image 00


def list_masks(source: Source, what: str) -> list[Path]:
    """Return the masks of the input: images in folders that are not ``raw`` or ``images``.

    Raises
    ------
    UserError
        If there are none.
    """
    root = root_of(source.path)
    found = list_files(source.path, SUFFIXES, what)
    masks = [p for p in found if not {part.lower() for part in p.relative_to(root).parts[:-1]} & set(IMAGE_FOLDERS)]
    if not masks:
        raise UserError(
            f"{source.path} holds no {what}, only images in {'/'.join(IMAGE_FOLDERS[:2])}; add a folder masks"
        )
    return masks


def image_of(key: str) -> str:
    """Return the key of the image that a mask is about.

    Examples
    --------
    >>> image_of("cell1/00_masks"), image_of("01")
    ('cell1/00', '01')
    """
    return _ENDING.sub("", key) or key


def find_classes(source: Source) -> Classes | None:
    """Return ``--classes``, else the ``classes.yaml`` of the input folder, None where there is none."""
    if source.classes is not None:
        return source.classes
    path = root_of(source.path) / CLASSES_FILE
    return read_classes(path) if path.is_file() else None


def read_pixels(path: Path, *, keep_palette: bool) -> np.ndarray:
    """Return the pixels of a mask as they are stored.

    Parameters
    ----------
    path : Path
    keep_palette : bool
        Of an image with a palette return the indices, not the colours.

    Returns
    -------
    (Y, X) or (Y, X, C) array

    Raises
    ------
    UserError
        If it cannot be read, or holds several images.
    """
    with reading(path):
        if path.suffix.lower() in TIFF:
            return read_tiff_image(path, keep_palette=keep_palette, as_shown=False)
        with open_with_pillow(path) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" and not keep_palette else image)


def read_ids(path: Path) -> np.ndarray:
    """Return the (Y, X) whole numbers of a mask; black and white become 0 and 1.

    Raises
    ------
    UserError
        If it is in colour, or holds fractions or numbers below 0.
    """
    array = read_pixels(path, keep_palette=True)
    if array.ndim == 3 and (array[..., :1] == array[..., : min(3, array.shape[-1])]).all():
        array = array[..., 0]  # grey saved as RGB
    if array.ndim != 2:
        raise UserError(f"{path} is in colour, its pixels are no numbers of classes; read it with --from rgb-mask")
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biu" or (array.dtype.kind == "i" and array.size and array.min() < 0):
        raise UserError(f"{path} holds {array.dtype}, not whole numbers from 0 on; save the labels as 8 or 16 bits")
    return array.astype(np.uint8) if array.dtype == bool else array


def pieces(ids: np.ndarray) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yield each piece of each number above 0, in rising order; pixels that touch by side or corner belong together.

    Parameters
    ----------
    ids : (Y, X) array of whole numbers

    Yields
    ------
    number : int
    mask : (h, w) bool array
        Cropped to the box of the piece.
    corner : (row, column)
        Of its first pixel.

    Examples
    --------
    >>> [(n, corner, int(mask.sum())) for n, mask, corner in pieces(np.array([[7, 0, 7], [0, 7, 0], [3, 0, 0]]))]
    [(3, (2, 0), 1), (7, (0, 0), 3)]
    """
    import cc3d

    numbers, dense = np.unique(ids, return_inverse=True)
    dense = dense.reshape(ids.shape).astype(np.uint32) + np.uint32(numbers.size > 0 and numbers[0] != 0)
    numbers = numbers[numbers > 0]
    parts = cc3d.connected_components(dense, connectivity=8)
    found = [(int(dense[box][mask][0]), mask, corner) for box, mask, corner in boxes(parts)]
    for number, mask, corner in sorted(found, key=lambda piece: piece[0]):
        yield int(numbers[number - 1]), mask, corner


def boxes(labels: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray, tuple[int, int]]]:
    """Yield the box, the mask in it, and the first pixel of each number above 0; the numbers have no great gaps."""
    from scipy.ndimage import find_objects

    for number, box in enumerate(find_objects(labels.astype(np.int32, copy=False)), 1):
        if box is not None:
            yield box, labels[box] == number, (box[0].start, box[1].start)
