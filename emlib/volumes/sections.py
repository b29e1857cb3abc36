"""A folder of sections: one PNG or TIFF image per section, in natural order (2 before 10)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from emlib.errors import UserError
from emlib.threads import map_threads
from emlib.volumes.atomic import atomic_path
from emlib.volumes.image_file import open_with_pillow
from emlib.volumes.reading import reading
from emlib.volumes.tiff import check_grey, opened, read_page
from emlib.volumes.volume import Box, VolumeSource

SUFFIXES = (".png", ".tif", ".tiff")
DEFLATE = 1032  # how much smaller deflate can make zeros at best (https://zlib.net/zlib_tech.html)
PNG_DTYPES = {"L": "uint8", "P": "uint8", "1": "bool", "I;16": "uint16", "I": "int32"}  # by Pillow's mode


class Header(NamedTuple):
    """What must be alike in all sections."""

    shape: tuple[int, int]
    dtype: np.dtype
    palette: bool


def open_sections(folder: Path) -> VolumeSource:
    """Open a folder of sections; size and type come from the first, the others are checked as they are read.

    Raises
    ------
    UserError
        If the folder holds no sections, or both PNG and TIFF; on reading, if a section differs from the first in size
        or type, is in colour, or cannot be decoded.
    """
    paths = list_sections(folder)
    with _opened(paths[0]) as (first, _):
        height, width = first.shape

    def read(box: Box) -> np.ndarray:
        def read_one(path: Path) -> np.ndarray:
            with _opened(path) as (header, decode):
                _check_alike(paths[0], first, path, header)
                return decode(box[1], box[2])

        return np.stack(map_threads(read_one, paths[box[0]]))

    notes: dict = {"sections": f"{paths[0].name} … {paths[-1].name}"} | ({"palette": True} if first.palette else {})
    if gap := _gap(paths):
        notes["messages"] = [gap]
    return VolumeSource(
        str(folder), (len(paths), height, width), first.dtype, read, notes=notes, piece=(1, height, width)
    )


def list_sections(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order, hidden files left out."""
    paths = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise UserError(f"{folder} holds no sections; a stack is a folder of {' '.join(SUFFIXES)} images, one each")
    if len({p.suffix.lower() == ".png" for p in paths}) > 1:
        raise UserError(f"{folder} holds both PNG and TIFF images; keep the sections alone in their folder")
    if odd := [p for p in paths if not p.is_file()]:  # a pipe would be waited for, for ever
        raise UserError(f"{odd[0]} is no file; move it away, or copy the section itself to its place")
    return sorted(paths, key=_natural)


def _gap(paths: list[Path]) -> str | None:
    """A line for the user if the numbers in the names skip: neurites cannot be followed across lost sections."""
    found = [re.findall(r"\d+", path.stem) for path in paths]
    if not all(found):
        return None
    numbers = [int(digits[-1]) for digits in found]
    steps = [b - a for a, b in pairwise(numbers)]
    if not steps or min(steps) < 1 or max(steps) == min(steps):
        return None
    at = next(i for i, step in enumerate(steps) if step > min(steps))
    pair = f"{paths[at].name} and {paths[at + 1].name}"
    return f"sections are missing, the first between {pair}; they are read as neighbours"


def write_sections(folder: Path, array: np.ndarray) -> None:
    """Write an 8-bit or 16-bit volume as ``section_0000.png`` …; PNG has no room for a voxel size."""
    from PIL import Image

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for z, section in enumerate(array):
            Image.fromarray(section).save(temporary / f"section_{z:04d}.png", compress_level=1)


def _natural(path: Path) -> tuple:
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), path.name


def _check_alike(path: Path, first: Header, other_path: Path, other: Header) -> None:
    if first.shape != other.shape:
        sizes = [f"{p} is {h.shape[0]} × {h.shape[1]}" for p, h in ((path, first), (other_path, other))]
        raise UserError(
            f"sections differ in size: {sizes[0]}, {sizes[1]} (height × width); crop or pad them to one size"
        )
    if first != other:
        kinds = [f"{p} is {h.dtype}{' with a palette' * h.palette}" for p, h in ((path, first), (other_path, other))]
        raise UserError(f"sections differ in type: {kinds[0]}, {kinds[1]}; convert them alike")


Decode = Callable[[slice, slice], np.ndarray]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Header, Decode]]:
    """Yield the header of an image and a function that decodes rows × columns of it."""
    with reading(path), (_opened_png if path.suffix.lower() == ".png" else _opened_tiff)(path) as both:
        yield both


@contextmanager
def _opened_tiff(path: Path) -> Iterator[tuple[Header, Decode]]:
    with opened(path) as tif:
        if len(tif.pages) > 1:
            raise UserError(
                f"{path} holds {len(tif.pages)} images; a folder has one section per file: open the file itself"
            )
        page = tif.pages.first
        check_grey(page, path)
        header = Header((page.imagelength, page.imagewidth), page.dtype, page.photometric.name == "PALETTE")
        yield header, lambda rows, columns: read_page(page, rows, columns, Lock())


@contextmanager
def _opened_png(path: Path) -> Iterator[tuple[Header, Decode]]:
    with open_with_pillow(path, ("PNG",)) as image:
        if image.mode not in PNG_DTYPES:
            kind = "RGB" if image.mode.startswith("RGB") else f"in mode {image.mode}"
            raise UserError(f"{path} is {kind}; convert it to grey without transparency")
        header = Header((image.height, image.width), np.dtype(PNG_DTYPES[image.mode]), image.mode == "P")
        _check_length(path, image)
        yield header, lambda rows, columns: np.asarray(image)[rows, columns].astype(header.dtype)


def _check_length(path: Path, image) -> None:
    """Refuse a file too short to hold what its header claims, before Pillow makes room for that."""
    bits = {"1": 1, "I;16": 16, "I": 16}.get(image.mode, 1)  # a palette may take one bit
    stored = path.stat().st_size
    if image.height * (image.width * bits // 8) > DEFLATE * stored:
        raise UserError(
            f"{path} claims {image.height} × {image.width} pixels in {stored:,} bytes; it breaks off, copy it again"
        )
