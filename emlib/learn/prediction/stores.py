"""The arrays of a volume's results: Zarr that is filled block by block, and moved or converted once it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.ome_zarr import create_array, open_array
from emlib.volumes.tiff import write_tiff
from emlib.volumes.volume import ZYX, Box


@dataclass(frozen=True)
class Store:
    """An array on disk of which any block can be written or read.

    Attributes
    ----------
    path : Path
        Of the OME-Zarr image; the array is its level ``0``.
    """

    path: Path

    @property
    def complete(self) -> bool:
        """Whether the array can be opened."""
        return (self.path / "0" / "zarr.json").is_file()

    def create(
        self, shape: tuple[int, int, int], dtype: np.dtype, chunk: tuple[int, int, int], size: ZYX | None
    ) -> None:
        """Make an empty array of zeros, with the voxel size (z, y, x) in nm in its metadata; replaces an older one."""
        shutil.rmtree(self.path, ignore_errors=True)
        with _writing(self.path):
            create_array(self.path, shape, dtype, chunk, voxel_size_nm=size)

    def write(self, box: Box, block: np.ndarray) -> None:
        """Write one block, which begins and ends where chunks do; each chunk is replaced as a whole."""
        with _writing(self.path):
            open_array(self.path, mode="r+")[box] = block

    def read(self, box: Box | None = None) -> np.ndarray:
        """Read a block, or everything."""
        return np.asarray(open_array(self.path)[box if box is not None else ...])


def move_store(store: Store, target: Path) -> None:
    """Give a store that is whole its final name; nothing happens if it has it."""
    if store.path == target:
        return
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(store.path, target)


def convert_store(store: Store, target: Path, size: ZYX | None) -> None:
    """Write the array of a store as a TIFF; the store stays."""
    write_labels(target, store.read(), size)


def write_labels(path: Path, array: np.ndarray, size: ZYX | None) -> None:
    """Write a (Z, Y, X) or (Y, X) array of labels as TIFF, with its voxel size (z, y, x) in nm where it is known."""
    volume = array if array.ndim == 3 else array[None]
    if size is not None:
        write_tiff(path, volume, size)
        return
    import tifffile

    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, volume, photometric="minisblack", metadata={"axes": "ZYX"})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space there or choose another --output"
        ) from error
