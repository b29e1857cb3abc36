"""The images that annotations are about: found by name, and read as grey of 8 or 16 bits."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from emlib.annotations.files import IMAGE_SUFFIXES, SPLITS, hidden, natural
from emlib.annotations.shapes import Annotation
from emlib.errors import UserError
from emlib.volumes.image_file import TIFF, grey_of, open_with_pillow, read_tiff_image, tiff_image_shape
from emlib.volumes.reading import reading

GREY_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "1")


class GreyImage(NamedTuple):
    """(Y, X) uint8 or uint16 pixels, and what was done to get them (empty: nothing)."""

    pixels: np.ndarray
    note: str


class ImageFinder:
    """Finds the image that an annotation names.

    Parameters
    ----------
    folders : list of Path
        Searched with their subfolders.
    beside : bool
        Whether images may lie beside the annotations too; masks are images themselves, and theirs may not.
    """

    def __init__(self, folders: list[Path], *, beside: bool) -> None:
        self.folders = folders
        self.beside = beside
        self._by_stem: dict[str, list[Path]] | None = None
        self._used: set[Path] = set()

    def find(self, annotation: Annotation, split: str | None) -> Path | None:
        """Return the image file, or None if there is none.

        The path from the annotation's own folder comes first, if it leads to a file; then the files of that name in
        the folders, with any image suffix. Of several, the one counts whose folders agree best with the annotation's.

        Raises
        ------
        UserError
            If several agree equally well.
        """
        name = PurePosixPath(annotation.image.replace("\\", "/"))
        exact = annotation.near / name
        if self.beside and exact.suffix.lower() in IMAGE_SUFFIXES and exact.is_file():
            return self._take(exact)
        told = {part.lower() for part in (*name.parts[:-1], *annotation.near.parts)}

        def agreement(path: Path) -> tuple[int, bool, int]:
            parts = {part.lower() for part in path.parts[:-1]}
            return sum(SPLITS.get(part) == split for part in parts if split), path.name == name.name, len(told & parts)

        found = sorted(self._index().get(_stem(name.name), []), key=agreement, reverse=True)
        if len(found) > 1 and agreement(found[0]) == agreement(found[1]):
            raise UserError(
                f"{annotation.where} may be about {found[0]} or {found[1]}; keep one, or name its folder with --images"
            )
        return self._take(found[0]) if found else None

    def unused(self) -> list[Path]:
        """Return the images in the folders that no annotation named, in natural order."""
        there = {path for paths in self._index().values() for path in paths}
        return sorted((path for path in there if path.resolve() not in self._used), key=natural)

    def _take(self, path: Path) -> Path:
        self._used.add(path.resolve())
        return path

    def _index(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            self._by_stem = {}
            found = [(path, folder) for folder in self.folders for path in folder.rglob("*")]
            there = {path for path, folder in found if not hidden(path.relative_to(folder))}
            for path in sorted(there, key=natural):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    self._by_stem.setdefault(_stem(path.name), []).append(path)
        return self._by_stem


def image_size(path: Path | None, data: bytes | None, where: str) -> tuple[int, int]:
    """Return (height, width) of an image file, or of one that an annotation holds; nothing is decoded.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    with reading(path or where):
        if path is not None and path.suffix.lower() in TIFF:
            return tiff_image_shape(path)
        with _pillow(path, data) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: lies on its side
            return (image.width, image.height) if turned else (image.height, image.width)


def read_image(path: Path | None, data: bytes | None, where: str) -> GreyImage:
    """Read an image as grey; 16 bits stay 16 bits, colour becomes its luma (ITU-R BT.601), which the note says.

    Raises
    ------
    UserError
        If it cannot be read, holds several images, or anything but 8 or 16 unsigned bits.
    """
    with reading(path or where):
        if path is not None and path.suffix.lower() in TIFF:
            array = read_tiff_image(path, keep_palette=False)
        else:
            from PIL import ImageOps

            with _pillow(path, data) as image:
                image = ImageOps.exif_transpose(image)
                array = np.asarray(image if image.mode in GREY_MODES else image.convert("RGB"))
    if array.dtype == bool:
        return GreyImage(array * np.uint8(255), "black and white made 0 and 255")
    if array.dtype == np.int32 and array.size and 0 <= array.min() and array.max() <= 65535:
        array = array.astype(np.uint16)  # how Pillow gives 16 bits of some PNG
    if array.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise UserError(f"{path or where} holds {array.dtype}; convert the image to 8-bit or 16-bit grey")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return GreyImage(array, "") if array.ndim == 2 else _to_grey(array, path or where)


def _to_grey(array: np.ndarray, where: object) -> GreyImage:
    """Grey of (Y, X, C) pixels; a fourth channel is opacity and left out."""
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4):
        raise UserError(f"{where} has pixels of shape {array.shape}; save one section per file, grey or RGB")
    colour = array[..., :3] if array.shape[-1] > 2 else array[..., :1]
    if (colour == colour[..., :1]).all():
        return GreyImage(np.ascontiguousarray(colour[..., 0]), "")
    return GreyImage(grey_of(colour), "RGB converted to grey (BT.601 luma)")


def _pillow(path: Path | None, data: bytes | None):
    from PIL import UnidentifiedImageError

    try:
        return open_with_pillow(io.BytesIO(data) if path is None else path)
    except UnidentifiedImageError as error:  # which names an object in memory where there is no file
        raise ValueError("the image is of no known kind") from error


def _stem(name: str) -> str:
    """A file name without folders and, if it has one, image suffix; in small letters."""
    base = PurePosixPath(name).name.lower()
    suffix = PurePosixPath(base).suffix
    return base[: -len(suffix)] if suffix in IMAGE_SUFFIXES else base
