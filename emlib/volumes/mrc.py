"""MRC: ``.mrc .rec .map .st``, memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import find_axes
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

IMOD_STAMP = 1146047817
NM_PER_ANGSTROM = 0.1


def open_mrc(path: Path) -> VolumeSource:
    """Open an MRC file.

    Mode 0 is signed 8-bit by the standard; IMOD wrote it unsigned for decades and marks that in the header, which
    counts here. A voxel size of 0 in the header means that it is unknown.
    """
    import mrcfile

    header = _read_header(path)
    dtype = mrcfile.utils.data_dtype_from_header(header)
    if int(header.mode) == 0 and _unsigned_bytes(header):
        dtype = np.dtype(np.uint8)
    shape = mrcfile.utils.data_shape_from_header(header)
    start = header.nbytes + max(int(header.nsymbt), 0)
    axes = find_axes(shape, _axis_names(header, len(shape)), str(path))

    def read(box: Box) -> np.ndarray:
        return np.array(axes.read(np.memmap(path, dtype, "r", start, shape), box))

    _ = np.memmap(path, dtype, "r", start, shape)  # a file shorter than its header says is found now, not after hours
    return VolumeSource(str(path), axes.shape, dtype, read, _voxel_size_nm(header), piece=(1, 1, 1))


def write_mrc(path: Path, array: np.ndarray, voxel_size_nm: ZYX) -> None:
    """Write an 8-bit, 16-bit or float32 volume; uint8 is shifted by -128 into the signed mode 0 of the standard."""
    import mrcfile

    if array.dtype == np.uint8:
        array = (array ^ 0x80).view(np.int8)

    with atomic_path(path) as temporary, mrcfile.new(temporary, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(array))
        mrc.set_volume()
        z, y, x = (size / NM_PER_ANGSTROM for size in voxel_size_nm)
        mrc.voxel_size = (x, y, z)


def _read_header(path: Path) -> np.recarray:
    """The first 1024 bytes. `mrcfile` would also read the extended header, whose length may be a damaged 2 GB."""
    from mrcfile.dtypes import HEADER_DTYPE

    with path.open("rb") as file:
        raw = file.read(HEADER_DTYPE.itemsize)
    if len(raw) < HEADER_DTYPE.itemsize:
        raise UserError(f"{path} is too short for an MRC file ({len(raw)} bytes); copy it again")

    def header(order: str) -> np.recarray:
        return np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order)).reshape(()).view(np.recarray)

    stamp = bytes(header("<").machst)[0]
    if stamp in (0x44, 0x11):
        return header("<" if stamp == 0x44 else ">")
    return header("<" if 0 <= int(header("<").mode) < 128 else ">")  # old files have no machine stamp


def _voxel_size_nm(header: np.recarray) -> ZYX | None:
    cells = [(header.cella[axis], int(header[f"m{axis}"])) for axis in "zyx"]
    if any(count < 1 for _, count in cells):
        return None
    return voxel_size(NM_PER_ANGSTROM * float(f"{float(cell) / count:.6g}") for cell, count in cells)


def _unsigned_bytes(header) -> bool:
    imod = header.extra2.tobytes()[40:48]  # bytes 152–159 of the file: IMOD's stamp and its flags; 1 is "signed"
    stamp, flags = np.frombuffer(imod, dtype=np.dtype("i4").newbyteorder(header.mode.dtype.byteorder))
    return bool(stamp == IMOD_STAMP and not flags & 1)


def _axis_names(header, ndim: int) -> list[str] | None:
    """Names of the stored axes from mapc, mapr, maps (1 = x, 2 = y, 3 = z); None if the header leaves them out."""
    order = [int(header.maps), int(header.mapr), int(header.mapc)]
    if ndim != 3 or sorted(order) != [1, 2, 3]:
        return None
    return ["?xyz"[axis] for axis in order]
