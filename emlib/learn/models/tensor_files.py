"""PyTorch files read without trust: tensors and plain values come out, or one line that says why not."""

from __future__ import annotations

import errno
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from emlib.errors import UserError


def read_tensors(path: Path, wanted: str = "give another file") -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU, without making any other object or running any code.

    Parameters
    ----------
    path : Path
    wanted : str
        What the user should give instead; ends the message of an error.

    Raises
    ------
    UserError
        If it cannot be read, is no such file, is damaged or cut short, or holds Python objects other than tensors,
        numbers, strings, lists, tuples and dicts.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of formats that it then refuses
            _check_zip(file, path.stat().st_size)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes PyTorch raise anything at all
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a length cut short leads to
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        what = "is no checkpoint, or is damaged or cut short"
        if "GLOBAL" in str(error):
            what = "holds Python objects other than weights, which are never loaded"
        raise UserError(f"{path} {what}; {wanted}") from error


def _check_zip(file: BinaryIO, size: int) -> None:
    """Refuse what PyTorch would read: flipped bits, and entries that unfold to more than the file."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
                raise ValueError("its entries are compressed")
            if archive.testzip() is not None:
                raise ValueError("an entry does not match its checksum")
    file.seek(0)
