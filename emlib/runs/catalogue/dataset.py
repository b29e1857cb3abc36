"""What is known of a public data set: where it comes from, what may be done with it, which files it consists of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Conversion = Callable[[Sequence[Path]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Piece:
    """One file of a data set.

    Attributes
    ----------
    path : str
        Relative to the data set's folder, with ``/``.
    sha256 : str
        Of the file's bytes, or with ``decoded`` of the array in it (`array_sha256`): the copy whose checksum is kept
        here was then encoded anew, and another encoding of the same values is as good.
    shape : tuple of int
    dtype : str
    decoded : bool
    remote : tuple of str
        The files at the source that it is made from, relative to an address of the data set; empty for ``path``.
    convert : function or None
        Takes the source's files in the order of ``remote`` and returns the arrays that they may stand for, since not
        every source says how it stores masks; the checksum tells which one it is. None if the file is taken as it is.
    """

    path: str
    sha256: str
    shape: tuple[int, ...]
    dtype: str = "uint8"
    decoded: bool = False
    remote: tuple[str, ...] = ()
    convert: Conversion | None = None


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes
    ----------
    name, what : str
    source, licence, citation : str
        Printed, and written beside the data.
    voxel_size_nm : tuple of float
        (z, y, x).
    splits : str
        As published, in words.
    mib : float
        Size of all files.
    pieces : tuple of Piece
    bases : tuple of str
        Addresses that end in ``/``, tried in this order; empty where the source's files cannot be named.
    no_address : str
        Why ``bases`` is empty.
    note : str
        What else a user of the data should know.
    """

    name: str
    what: str
    source: str
    licence: str
    citation: str
    voxel_size_nm: tuple[float, float, float]
    splits: str
    mib: float
    pieces: tuple[Piece, ...]
    bases: tuple[str, ...] = ()
    no_address: str = ""
    note: str = ""


def array_sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and values in C order.

    Examples
    --------
    >>> array_sha256(np.zeros((2, 3), np.uint8))[:12]
    'b3fddf4095cb'
    >>> array_sha256(np.zeros((3, 2), np.uint8)) == array_sha256(np.zeros((2, 3), np.uint8))
    False
    """
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
    digest.update(array)
    return digest.hexdigest()


def table_of_checksums(text: str) -> dict[str, str]:
    """Read lines ``path sha256`` into a dict."""
    return dict(line.split() for line in text.split("\n") if line.strip())
