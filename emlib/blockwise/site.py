"""Where a blockwise run keeps what it makes: arrays in Zarr, tables and marks beside them."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.blockwise.grid import Shape, part_of
from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.ome_zarr import create_array, open_array
from emlib.volumes.volume import ZYX, Box

if TYPE_CHECKING:
    import zarr

MAPS = ("mitochondria_probability", "synapse_probability")  # of a network
RESULTS = {
    **{"raw": "raw", "em": "em", "boundaries": "boundaries", "neurites": "labels/neurites"},
    **{name: name for name in MAPS},
}
DEEP, WIDE = 16, 128  # voxels of a chunk along z, and along y and x, at the most: sections are written in layers
OF_SEEN = ("fragments",)  # arrays of the sections that are segmented alone


class DamagedData(UserError):
    """Stored voxels or tables are not as they were written."""


@dataclass(frozen=True)
class Site:
    """A volume that is worked on in blocks; small, so that each task can take it along.

    Attributes
    ----------
    work : str
        Folder of tables, marks and of arrays that no one needs after the run.
    results : str
        The Zarr group with the arrays that are kept: ``raw``, ``em``, ``boundaries``, ``labels/neurites``, and `MAPS`
        where a network told them.
    shape : (Z, Y, X)
    block : (z, y, x)
    voxel_size_nm : (z, y, x) in nm
    offset : (z, y, x)
        First voxel in the volume that it was cut from.
    kept : tuple of int, optional
        The sections that are segmented, if some hold a single grey value and are not; None is all.
    """

    work: str
    results: str
    shape: Shape
    block: Shape
    voxel_size_nm: ZYX
    offset: Shape = (0, 0, 0)
    kept: tuple[int, ...] | None = None

    @property
    def seen(self) -> Shape:
        """Shape of the volume without the sections that hold a single grey value."""
        return self.shape if self.kept is None else (len(self.kept), *self.shape[1:])

    @property
    def place_nm(self) -> ZYX:
        """Where the first voxel lies in the volume that it was cut from, nm."""
        z, y, x = (first * size for first, size in zip(self.offset, self.voxel_size_nm, strict=True))
        return z, y, x

    @property
    def chunk(self) -> Shape:
        """Chunks of arrays that are written in blocks, which consist of whole ones."""
        z, y, x = (min(side, length) for side, length in zip(self.block, self.shape, strict=True))
        return part_of(z, DEEP), part_of(y, WIDE), part_of(x, WIDE)

    def place(self, array: str) -> Path:
        """Where an array lies."""
        if array in RESULTS:
            return Path(self.results) / RESULTS[array]
        return Path(self.work) / "arrays" / array

    def open(self, array: str, mode: str = "r") -> zarr.Array:
        """Open an array: of a result, a chunk that is not there is an error."""
        if array in RESULTS:
            return open_array(self.place(array), mode=mode)
        import zarr

        return zarr.open_array(str(self.place(array)), mode=mode)

    def table(self, stage: str, name: str) -> Path:
        """Where the table of a block lies."""
        return Path(self.work) / stage / f"{name}.npz"

    def create(self, array: str, dtype: Any, *, chunk: Shape | None = None, packed: bool = True) -> None:
        """Make an array of zeros; one that is there with the same shape, type and chunks is left as it is.

        Parameters
        ----------
        array : str
        dtype : NumPy type
        chunk : (z, y, x), optional
            Default: `chunk`.
        packed : bool
            Compress; what changes from voxel to voxel takes longer to compress than to write.
        """
        shape = self.seen if array in OF_SEEN else self.shape
        chunk = tuple(min(c, n) for c, n in zip(chunk or self.chunk, shape, strict=True))
        path = self.place(array)
        try:
            there = self.open(array)
            if (there.shape, there.chunks, there.dtype) == (shape, chunk, np.dtype(dtype)):
                return
        except Exception:  # whatever a damaged or missing store raises
            pass
        if array in RESULTS:
            create_array(path, shape, dtype, chunk, voxel_size_nm=self.voxel_size_nm, translation_nm=self.place_nm)
            return
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        shutil.rmtree(path, ignore_errors=True)
        codecs = [*([ZstdCodec(level=1)] if packed else []), Crc32cCodec()]
        zarr.create_array(str(path), shape=shape, dtype=dtype, chunks=chunk, compressors=codecs, fill_value=0)

    def read(self, array: str, box: Box) -> np.ndarray:
        """Read a box of an array.

        Raises
        ------
        DamagedData
            If a chunk is not as it was written.
        """
        path = self.place(array)
        try:
            return np.asarray(self.open(array)[box])
        except (UserError, ValueError, RuntimeError, OSError) as error:
            where = " ".join(f"{axis} {side.start}-{side.stop}" for axis, side in zip("zyx", box, strict=True))
            raise DamagedData(
                f"{path} cannot be read at {where} ({_one_line(error)}); with --resume what is damaged is made anew"
            ) from error

    def read_seen(self, array: str, box: Box) -> np.ndarray:
        """Read a box whose sections are counted without those that hold a single grey value."""
        if self.kept is None:
            return self.read(array, box)
        sections = np.asarray(self.kept[box[0].start : box[0].stop])
        if not len(sections):
            return self.read(array, (slice(0, 0), *box[1:]))
        whole = self.read(array, (slice(int(sections[0]), int(sections[-1]) + 1), *box[1:]))
        return whole if len(whole) == len(sections) else whole[sections - sections[0]]

    def seen_part(self, box: Box) -> Box:
        """Where a block lies in the volume without the sections that hold a single grey value."""
        if self.kept is None:
            return box
        first, last = np.searchsorted(self.kept, [box[0].start, box[0].stop])
        return (slice(int(first), int(last)), *box[1:])

    def write_seen(self, array: str, box: Box, voxels: np.ndarray) -> dict[str, Any]:
        """Write a block of which ``voxels`` are the sections that are segmented; the others get 0."""
        if self.kept is not None and len(voxels) < box[0].stop - box[0].start:
            part = self.seen_part(box)[0]
            whole = np.zeros((box[0].stop - box[0].start, *voxels.shape[1:]), voxels.dtype)
            whole[np.asarray(self.kept[part.start : part.stop], np.int64) - box[0].start] = voxels
            voxels = whole
        return self.write(array, box, voxels)

    def write(self, array: str, box: Box, voxels: np.ndarray) -> dict[str, Any]:
        """Write a block of whole chunks and return what a mark says of it."""
        stored = self.open(array, "r+")
        voxels = np.ascontiguousarray(voxels, stored.dtype)
        try:
            stored[box] = voxels
        except OSError as error:
            raise UserError(f"cannot write {self.place(array)}: {error.strerror or error}; free space there") from error
        return {"array": array, "box": [[side.start, side.stop] for side in box], "crc": crc(voxels)}

    def write_table(self, stage: str, name: str, **columns: np.ndarray) -> dict[str, Any]:
        """Write the table of a block and return what a mark says of it."""
        path = self.table(stage, name)
        with atomic_path(path) as temporary:
            np.savez(temporary, **columns)
        return {"file": f"{stage}/{path.name}", "crc": crc(path.read_bytes())}

    def read_table(self, stage: str, name: str) -> dict[str, np.ndarray]:
        """Read the table of a block.

        Raises
        ------
        DamagedData
            If it is not as it was written.
        """
        path = self.table(stage, name)
        try:
            with np.load(path) as stored:  # its own checksums are compared here
                return dict(stored)
        except Exception as error:  # zipfile raises anything at all
            raise DamagedData(f"{path} cannot be read ({_one_line(error)}); run it again with --resume") from error

    def save(self, name: str, values: np.ndarray) -> None:
        """Write a column of the whole volume, which tasks map into memory."""
        with atomic_path(Path(self.work) / f"{name}.npy") as temporary:
            np.save(temporary, values)

    def load(self, name: str) -> np.ndarray:
        """Map a column of the whole volume into memory."""
        return np.load(Path(self.work) / f"{name}.npy", mmap_mode="r")


def crc(data: bytes | np.ndarray) -> int:
    """CRC-32 of bytes or of an array."""
    return zlib.crc32(data)


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
