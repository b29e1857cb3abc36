"""Whether the files of a data set are there, whole, and alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.runs.catalogue.dataset import DataSet, Piece, array_sha256
from emlib.volumes.atomic import left_by_system
from emlib.volumes.reading import reading

SOURCE_NOTE = "SOURCE.md"


def decode(path: Path) -> np.ndarray:
    """Read a PNG image (Y, X) or a TIFF stack (Z, Y, X) whole.

    Raises
    ------
    UserError
        If it cannot be decoded.
    """
    with reading(path):
        if path.suffix == ".png":
            from PIL import Image

            with Image.open(path, formats=("PNG",)) as image:
                return np.asarray(image)
        import tifffile

        return tifffile.imread(path)


def find_fault(path: Path, piece: Piece, *, checksum: bool = True) -> str | None:
    """Compare a file with what is known of it.

    Parameters
    ----------
    path : Path
    piece : Piece
    checksum : bool
        False looks at size and type alone, which takes no time.

    Returns
    -------
    str or None
        What is wrong, to be put behind the file's name; None if the file is right.
    """
    if not path.is_file():
        return "is no file" if path.exists() else "is missing"
    try:
        shape, dtype = _header(path)
        if (shape, dtype) != (piece.shape, piece.dtype):
            return f"holds {_size(shape)} {dtype} in place of {_size(piece.shape)} {piece.dtype}"
        if not checksum:
            return None
        if piece.decoded and array_sha256(decode(path)) != piece.sha256:
            return "does not hold the published values (the SHA-256 of its array differs)"
        if not piece.decoded and _file_sha256(path) != piece.sha256:
            return "is not the published file (its SHA-256 differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except UserError as error:
        denied = isinstance(error.__cause__, PermissionError)
        return "cannot be read (no permission)" if denied else "is damaged or cut short"
    return None


def check_layout(dataset: DataSet, folder: Path) -> None:
    """Check that ``folder`` holds each file of the data set, in its size and type, and no other file.

    Raises
    ------
    UserError
        With the first file that is missing, of another size or type, or foreign.
    """
    for piece in dataset.pieces:
        if fault := find_fault(folder / piece.path, piece, checksum=False):
            raise UserError(f"{folder / piece.path} {fault}; run fetch_data.py {dataset.name} --output {folder} again")
    check_alone(dataset, folder)


def check_alone(dataset: DataSet, folder: Path) -> None:
    """Check that ``folder`` holds nothing but the data set, since every image in it would be read as a part of it.

    Hidden files, and those that Windows leaves in any folder, do no harm and may stay.

    Raises
    ------
    UserError
        With the first foreign file.
    """
    known = {piece.path for piece in dataset.pieces} | {SOURCE_NOTE}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        inside = path.relative_to(folder)
        if path.is_file() and inside.as_posix() not in known and not any(map(left_by_system, inside.parts)):
            raise UserError(f"{path} is no part of {dataset.name}; move it away or choose another --output")


def _header(path: Path) -> tuple[tuple[int, ...], str]:
    """Size and type of an image or a stack, its values left unread."""
    with reading(path):
        if path.suffix == ".png":
            from PIL import Image

            with Image.open(path, formats=("PNG",)) as image:
                return (image.height, image.width), {"L": "uint8", "1": "bool"}.get(image.mode, image.mode)
        import tifffile

        with tifffile.TiffFile(path) as tif:
            return tuple(tif.series[0].shape), tif.series[0].dtype.name


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
