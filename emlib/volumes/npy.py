"""NumPy arrays: ``.npy``, memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import find_axes
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import Box, VolumeSource


def open_npy(path: Path) -> VolumeSource:
    """Open a ``.npy`` file; the voxel size comes from the sidecar ``<name>.json`` if one lies beside it.

    Raises
    ------
    UserError
        If the file holds pickled Python objects, which could run code, or not three axes.
    """
    array = _map(path)
    axes = find_axes(array.shape, None, str(path))

    def read(box: Box) -> np.ndarray:
        return np.array(axes.read(_map(path), box))

    sidecar = _sidecar(path)
    notes = {"synthetic": sidecar["synthetic"]} if sidecar.get("synthetic") else {}
    return VolumeSource(str(path), axes.shape, array.dtype, read, voxel_size(sidecar.get("voxel_size_nm")), notes=notes)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array; ``.npy`` has no room for a voxel size (see the sidecar that `open_npy` reads)."""
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


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
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"), parse_int=float)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
