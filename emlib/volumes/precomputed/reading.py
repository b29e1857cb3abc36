"""Read a precomputed volume: one of its scales, box by box."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.precomputed.address import asking, find_place, library, reaching
from emlib.volumes.reading import reading
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import Box, VolumeSource

KINDS = ("image", "segmentation")


def open_precomputed(
    name: str,
    *,
    resolution: int = 0,
    timeout_s: float = 30.0,
    labels: bool = False,
    fill_missing: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> VolumeSource:
    """Open a precomputed volume; its description is read, and no voxel.

    Parameters
    ----------
    name : str
        ``precomputed://`` and a folder or an address (see `emlib.volumes.precomputed.address`).
    resolution : int
        Which of its scales, in the order of the description; 0 is the finest.
    timeout_s : float
        For each request, in seconds.
    labels : bool
        Whether ids are wanted; a segmentation is refused otherwise.
    fill_missing : bool
        Read chunks that are not there as zeros; they are an error otherwise.
    note : function of a line
        Told once that chunks are missing.

    Returns
    -------
    VolumeSource
        Voxel (0, 0, 0) is the first one of the scale; ``notes["voxel_offset"]`` (z, y, x) is where it lies in voxels
        of the data set and ``notes["offset_nm"]`` the same in nm.

    Raises
    ------
    UserError
        If the place cannot be reached, holds no precomputed volume, has no such scale or several channels, or holds
        ids where an image is wanted. ``read`` raises where a chunk is missing, or not of the shape that is said.
    """
    ts, place, context = library(), find_place(name), asking(timeout_s)
    with reading(name), reaching(name, timeout_s):
        info = _read_info(ts, name, place, context, timeout_s)
        scale = _scale(info, name, resolution, labels)
        spec = {"driver": "neuroglancer_precomputed", "kvstore": place, "scale_index": resolution}

        def opened(filled: bool) -> Any:
            asked = spec | {"fill_missing_data_reads": filled}
            return ts.open(asked, context=context, read=True).result(timeout=timeout_s)

        array = opened(False)
    if array.domain[3].size != 1:
        raise UserError(f"{name} has {array.domain[3].size} channels; a volume has one")
    x, y, z = array.domain.origin[:3]
    size = voxel_size(reversed(scale["resolution"]))
    notes: dict[str, Any] = {"resolution": resolution}
    if any((z, y, x)):
        notes["voxel_offset"] = [int(z), int(y), int(x)]
        if size is not None:
            notes["offset_nm"] = [first * side for first, side in zip((z, y, x), size, strict=True)]

    voxels = _Voxels(name, array, partial(opened, True) if fill_missing else None, note)

    def read(box: Box) -> np.ndarray:
        first = zip(box, (z, y, x), strict=True)
        zs, ys, xs = (slice(part.start + start, part.stop + start) for part, start in first)
        with reaching(name, timeout_s):
            return voxels.read(np.s_[xs, ys, zs, 0]).T

    shape = tuple(int(length) for length in reversed(array.shape[:3]))
    return VolumeSource(name, shape, array.dtype.numpy_dtype, read, size, notes=notes)


def _read_info(ts: Any, name: str, place: str, context: Any, timeout_s: float) -> dict[str, Any]:
    store = ts.KvStore.open(place, context=context).result(timeout=timeout_s)
    found = store.read("info").result(timeout=timeout_s)
    if found.state != "value":
        raise UserError(f"{name} holds no file info, so it is no precomputed volume; name the folder that holds it")
    info = json.loads(found.value)
    if not isinstance(info, dict) or info.get("type") not in KINDS or not isinstance(info.get("scales"), list):
        raise UserError(f"{name}: its info describes no volume (image or segmentation); name the folder of a volume")
    return info


def _scale(info: dict[str, Any], name: str, resolution: int, labels: bool) -> dict[str, Any]:
    scales = info["scales"]
    if resolution >= len(scales):
        sizes = ", ".join(f"{n}: {' × '.join(f'{r:g}' for r in s['resolution'])}" for n, s in enumerate(scales))
        raise UserError(f"{name} has no --resolution {resolution}; there is {sizes} nm (x y z)")
    if info["type"] == "segmentation" and not labels:
        raise UserError(f"{name} is a segmentation: it holds ids, no grey values; name an image, or use it as labels")
    return scales[resolution]


class _Voxels:
    """The voxels of a scale, x first; ``fill`` opens them anew with zeros where chunks are missing."""

    def __init__(self, name: str, array: Any, fill: Callable[[], Any] | None, note: Callable[[str], None]) -> None:
        self.name, self.array, self.fill, self.note = name, array, fill, note
        self.filled: Any = None

    def read(self, box: tuple) -> np.ndarray:
        try:
            return np.asarray(self.array[box].read().result())
        except Exception as error:  # whatever the store raises: it tells by its words
            if not str(error).startswith("NOT_FOUND"):
                raise
            chunk = str(error).split("stored at ")[-1].removesuffix(" is missing")
            if self.fill is None:
                raise UserError(
                    f"{self.name}: a chunk is missing ({chunk}); copy the volume again, or let run_pipeline.py "
                    "--fill_missing take such chunks as empty"
                ) from error
        if self.filled is None:
            self.note(f"{self.name}: chunks are missing, {chunk} is the first; they are taken as empty")
            self.filled = self.fill()
        return np.asarray(self.filled[box].read().result())
