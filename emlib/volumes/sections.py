"""A folder of sections: one PNG or TIFF image per section, in natural order (2 before 10)."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock

import numpy as np

from emlib.errors import UserError
from emlib.threads import map_threads
from emlib.volumes.atomic import atomic_path
from emlib.volumes.reading import reading
from emlib.volumes.tiff import check_grey, opened, read_page
from emlib.volumes.volume import Box, VolumeSource

SUFFIXES = (".png", ".tif", ".tiff")


def open_sections(folder: Path) -> VolumeSource:
    """Open a folder of sections; size and type come from the first, the others are checked as they are read.

    Raises
    ------
    UserError
        If the folder holds no sections, or both PNG and TIFF; on reading, if a section differs from the first in size
        or type, is in colour, or cannot be decoded.
    """
    paths = list_sections(folder)
    whole = (slice(0, 0), slice(0, 0))
    (height, width), dtype, palette = _read_section(paths[0], *whole)[1:]

    def read(box: Box) -> np.ndarray:
        def read_one(path: Path) -> np.ndarray:
            part, shape, kind, _ = _read_section(path, box[1], box[2])
            if shape != (height, width):
                raise UserError(
                    f"sections differ in size: {paths[0]} is {height} × {width}, {path} is {shape[0]} × {shape[1]} "
                    "(height × width); crop or pad them to one size"
                )
            if kind != dtype:
                raise UserError(f"sections differ in type: {paths[0]} is {dtype}, {path} is {kind}; convert them alike")
            return part

        return np.stack(map_threads(read_one, paths[box[0]]))

    notes = {"first_section": paths[0].name, "last_section": paths[-1].name} | ({"palette": True} if palette else {})
    return VolumeSource(str(folder), (len(paths), height, width), dtype, read, notes=notes)


def list_sections(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order, hidden files left out."""
    paths = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise UserError(f"{folder} holds no sections; a stack is a folder of {' '.join(SUFFIXES)} images, one each")
    if len({p.suffix.lower() == ".png" for p in paths}) > 1:
        raise UserError(f"{folder} holds both PNG and TIFF images; keep the sections alone in their folder")
    return sorted(paths, key=_natural)


def write_sections(folder: Path, array: np.ndarray) -> None:
    """Write an 8-bit or 16-bit volume as ``section_0000.png`` …; PNG has no room for a voxel size."""
    from PIL import Image

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for z, section in enumerate(array):
            Image.fromarray(section).save(temporary / f"section_{z:04d}.png")


def _natural(path: Path) -> tuple:
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), path.name


def _read_section(path: Path, rows: slice, columns: slice) -> tuple[np.ndarray, tuple[int, int], np.dtype, bool]:
    """Return rows × columns of one image, its whole (height, width), its dtype and whether it has a palette."""
    with reading(path):
        read = _read_png if path.suffix.lower() == ".png" else _read_tiff
        return read(path, rows, columns)


def _read_tiff(path: Path, rows: slice, columns: slice) -> tuple[np.ndarray, tuple[int, int], np.dtype, bool]:
    with opened(path) as tif:
        if len(tif.pages) > 1:
            raise UserError(f"{path} holds {len(tif.pages)} images; a folder has one section per file")
        page = tif.pages.first
        check_grey(page, path)
        part = read_page(page, rows, columns, Lock()) if rows.stop else np.zeros((0, 0), page.dtype)
        return part, (page.imagelength, page.imagewidth), page.dtype, page.photometric.name == "PALETTE"


def _read_png(path: Path, rows: slice, columns: slice) -> tuple[np.ndarray, tuple[int, int], np.dtype, bool]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # Pillow takes a 20 000 × 20 000 section for an attack
    with Image.open(path, formats=("PNG",)) as image:
        if image.mode not in _PNG_DTYPES:
            kind = "RGB" if image.mode.startswith("RGB") else f"in mode {image.mode}"
            raise UserError(f"{path} is {kind}; convert it to grey without transparency")
        part = np.asarray(image)[rows, columns] if rows.stop else np.zeros((0, 0))
        dtype = np.dtype(_PNG_DTYPES[image.mode])
        return part.astype(dtype), (image.height, image.width), dtype, image.mode == "P"


_PNG_DTYPES = {"L": "uint8", "P": "uint8", "1": "bool", "I;16": "uint16", "I": "int32"}
