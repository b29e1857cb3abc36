"""Read a box out of an opened volume: which box, and with which voxel size."""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.grey import to_uint8
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, Box, Volume, VolumeSource

ASSUMED_VOXEL_SIZE_NM = (40.0, 8.0, 8.0)
JITTER = 0.05


def read_cutout(
    source: VolumeSource,
    cutout_xyz: tuple[int, int, int] | None = None,
    offset_xyz: tuple[int, int, int] | None = None,
    seed: int = 0,
    *,
    voxel_size_nm: ZYX | None = None,
    as_grey: bool = True,
) -> Volume:
    """Read a box, and no more than it, out of a volume.

    Parameters
    ----------
    source : VolumeSource
    cutout_xyz : (X, Y, Z) in voxels, optional
        Size of the box; None is everything (from the offset on, if one is given). A box that is larger than the volume
        is clipped to it, and the notes say so.
    offset_xyz : (x, y, z) in voxels, optional
        First voxel of the box. Without it the box lies in the centre, moved by up to ±5 % of the volume's extent per
        axis, drawn from ``seed``: equal seeds see the same place. Boxes of several seeds overlap; those of
        `emlib.volumes.places.spread_places` lie as far apart as can be.
    seed : int
    voxel_size_nm : (z, y, x) in nm, optional
        The user's; wins over the file's. With neither, 40 × 8 × 8 nm is assumed, and the notes say so.
    as_grey : bool
        Convert to uint8 (see `emlib.volumes.grey.to_uint8`) and refuse a volume of one grey value.

    Returns
    -------
    Volume
        Its ``source`` holds ``uri``, ``shape`` and ``dtype`` of the whole, ``sha256`` of the voxels as they were read,
        ``voxel_size_assumed``, ``grey`` and ``notes``, a list of lines for the user; what the file tells besides is
        under ``file``.
        ``truth`` is that of the whole volume, not of the box.

    Raises
    ------
    UserError
        If the cutout is not positive, the offset lies outside, the voxel size is not positive, the box does not fit
        into memory, or the voxels cannot be read.

    Examples
    --------
    >>> ramp = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
    >>> source = VolumeSource("ramp", ramp.shape, ramp.dtype, lambda box: ramp[box], (40, 4, 4))
    >>> read_cutout(source, (3, 2, 1), (5, 4, 3)).array
    array([[[181, 182, 183],
            [189, 190, 191]]], dtype=uint8)
    """
    notes: list[str] = list(source.notes.get("messages", []))
    if as_grey:
        refuse_palette(source)
    size, assumed = size_of_voxels(source, voxel_size_nm, notes)
    box = place_box(source, cutout_xyz, offset_xyz, seed, notes)
    _check_memory(box, source)
    array, offset = source.read(box), tuple(side.start for side in box)
    record: dict[str, Any] = {
        "uri": source.uri,
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array)).hexdigest(),
        "voxel_size_assumed": assumed,
        "notes": notes,
        "file": {key: value for key, value in source.notes.items() if key != "messages"},
    }
    if as_grey:
        if array.min() == array.max():
            what = "" if array.shape == tuple(source.shape) else " in this cutout; choose another --offset X Y Z"
            raise UserError(f"{source.uri} holds a single grey value {array.flat[0]}{what}")
        array, record["grey"] = to_uint8(array, source.uri, offset)
    return Volume(array, size, offset, record, source.truth)


def refuse_palette(source: VolumeSource) -> None:
    """Refuse a volume whose values are numbers of colours.

    Raises
    ------
    UserError
    """
    if source.notes.get("palette"):
        raise UserError(f"{source.uri} has a colour palette, its values are no grey; convert it to 8-bit grey")


def place_box(
    source: VolumeSource,
    cutout_xyz: tuple[int, int, int] | None,
    offset_xyz: tuple[int, int, int] | None,
    seed: int,
    notes: list[str],
) -> Box:
    """Return the box as three slices (z, y, x); a line is added to ``notes`` if it had to be clipped."""
    shape = source.shape
    start = _start(offset_xyz, shape)
    room = shape if start is None else tuple(n - s for n, s in zip(shape, start, strict=True))
    wanted = room if cutout_xyz is None else tuple(int(n) for n in reversed(cutout_xyz))
    size = clipped_size(wanted, room)
    if size != wanted:
        notes.append(
            f"the cutout {_xyz(wanted)} (x y z) reaches beyond the volume of {_xyz(shape)}"
            f"{'' if start is None else f' from offset {_xyz(start)}'}; reading {_xyz(size)}"
        )
    if start is None:
        jitter = np.random.default_rng(seed).uniform(-JITTER, JITTER, 3) * shape
        centre = [round((n - s) / 2 + j) for n, s, j in zip(shape, size, jitter, strict=True)]
        start = tuple(min(max(c, 0), n - s) for c, n, s in zip(centre, shape, size, strict=True))
    z, y, x = (slice(first, first + length) for first, length in zip(start, size, strict=True))
    return z, y, x


def clipped_size(wanted: tuple[int, ...], room: tuple[int, ...]) -> tuple[int, int, int]:
    """Size (z, y, x) of a cutout where there is only so much room.

    Raises
    ------
    UserError
        If a size is not positive.

    Examples
    --------
    >>> clipped_size((64, 256, 256), (100, 200, 300))
    (64, 200, 256)
    """
    if len(wanted) != 3 or min(wanted) < 1:
        raise UserError(f"--cutout {_xyz(wanted)} is not positive; give three sizes X Y Z of at least 1 voxel")
    z, y, x = (min(w, r) for w, r in zip(wanted, room, strict=True))
    return z, y, x


def _start(offset_xyz: tuple[int, int, int] | None, shape: tuple[int, int, int]) -> tuple[int, ...] | None:
    if offset_xyz is None:
        return None
    start = tuple(int(n) for n in reversed(offset_xyz))
    if len(start) != 3 or any(not 0 <= s < n for s, n in zip(start, shape, strict=True)):
        raise UserError(f"--offset {_xyz(start)} (x y z) lies outside of the volume of {_xyz(shape)} voxels")
    return start


def size_of_voxels(source: VolumeSource, users: ZYX | None, notes: list[str]) -> tuple[ZYX, bool]:
    """Return the voxel size (z, y, x) in force in nm, and whether it is assumed, of which ``notes`` get a line.

    Raises
    ------
    UserError
        If it is not positive.
    """
    given = users if users is not None else source.voxel_size_nm
    if given is None:
        z, y, x = ASSUMED_VOXEL_SIZE_NM
        notes.append(f"voxel size not in the file: assumed {z:g} × {y:g} × {x:g} nm (z, y, x); give --voxel_size Z Y X")
        return ASSUMED_VOXEL_SIZE_NM, True
    size = voxel_size(given)
    if size is None:
        where = "--voxel_size" if users is not None else source.uri
        raise UserError(f"{where}: the voxel size {tuple(given)} is not three positive numbers of nm (z, y, x)")
    return size, False


def _check_memory(box: Box, source: VolumeSource) -> None:
    """Stop before the machine swaps itself to death, or is told to by a damaged header."""
    needed = math.prod(side.stop - side.start for side in box) * source.dtype.itemsize
    try:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return
    if needed > present:
        raise UserError(
            f"{source.uri}: the cutout takes {needed / 2**30:.1f} GiB, this machine has {present / 2**30:.1f} GiB of "
            "memory; read less with --cutout X Y Z"
        )


def _xyz(zyx: tuple[int, ...]) -> str:
    return " ".join(str(n) for n in reversed(zyx))
