"""NumPy arrays: ``.npy``, memory-mapped, and compared with the checksum of their sidecar when they are read whole."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import find_axes
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import Box, VolumeSource

SHA256 = re.compile("[0-9a-f]{64}")


def open_npy(path: Path) -> VolumeSource:
    """Open a ``.npy`` file; the voxel size comes from the sidecar ``<name>.json`` if one lies beside it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    VolumeSource
        Where the sidecar holds shape, dtype and SHA-256 of the array, as runs write them, shape and dtype are compared
        here, and the voxels once they have all been read: in one piece, or in slabs of whole sections from the first to
        the last. A smaller part cannot be compared.

    Raises
    ------
    UserError
        If the file holds pickled Python objects, which could run code, or not three axes, or is not the array that its
        sidecar describes. ``read`` raises likewise.
    """
    array, sidecar = _map(path), _sidecar(path)
    axes = find_axes(array.shape, None, str(path))
    check = _Checksum(path, array, axes.shape, sidecar) if SHA256.fullmatch(str(sidecar.get("sha256"))) else None

    def read(box: Box) -> np.ndarray:
        part = np.array(axes.read(_map(path), box))
        if check is not None:
            check.see(box, part)
        return part

    notes = {"synthetic": sidecar["synthetic"]} if sidecar.get("synthetic") else {}
    return VolumeSource(
        str(path), axes.shape, array.dtype, read, voxel_size(sidecar.get("voxel_size_nm")), notes=notes, piece=(1, 1, 1)
    )


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all; a voxel size goes into the sidecar that `open_npy` reads.

    Raises
    ------
    UserError
        If it cannot be written.
    ValueError
        If the array holds Python objects.

    Notes
    -----
    `numpy.save` hands the bytes to C, which keeps the last of them in a buffer and says nothing where the disk has no
    room for them (NumPy 2.4): a small array is cut short in silence.
    """
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ValueError("an array of Python objects cannot be written")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


class _Checksum:
    """Compares an array with its sidecar while it is read, each byte hashed once: 0.25 s for 256 MiB."""

    def __init__(self, path: Path, array: np.ndarray, shape: tuple[int, int, int], sidecar: dict[str, Any]) -> None:
        self.path, self.shape, self.expected = path, shape, sidecar["sha256"]
        self.digest, self.seen, self.compared = hashlib.sha256(), 0, False
        for name, value in (("shape", list(array.shape)), ("dtype", str(array.dtype))):
            if sidecar.get(name, value) != value:
                self._refuse(name)

    def see(self, box: Box, part: np.ndarray) -> None:
        """Take what was read, if it is the first or the next slab of whole sections; compare after the last one."""
        if self.compared or part.shape[1:] != self.shape[1:] or box[0].start not in (0, self.seen):
            return
        if box[0].start == 0:
            self.digest = hashlib.sha256()
        self.digest.update(np.ascontiguousarray(part))
        self.seen = box[0].stop
        if self.seen == self.shape[0]:
            self.compared = True
            if self.digest.hexdigest() != self.expected:
                self._refuse("SHA-256")

    def _refuse(self, what: str) -> NoReturn:
        sidecar = self.path.with_suffix(".json")
        raise UserError(
            f"{self.path} is not as it was written: its {what} is not that in {sidecar.name}; make it again, or if you "
            f"changed it on purpose, delete {sidecar}"
        )


def _map(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which are refused; save a plain numeric array"
            ) from error
        raise


def _sidecar(path: Path) -> dict:
    """The JSON beside the array, or an empty dict: it is optional, and its other readers complain if it is broken."""
    if not path.with_suffix(".json").is_file():
        return {}
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"), parse_int=float)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
