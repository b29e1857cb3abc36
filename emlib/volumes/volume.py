"""What a volume is: an array with axes (z, y, x), its voxel size in nm, and where it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from emlib.volumes.phantom import Phantom

Box = tuple[slice, slice, slice]
ZYX = tuple[float, float, float]
NEAR_ISOTROPIC = 2.0  # z up to twice the in-plane voxel size: filters, fragments and distances are 3D


@dataclass(frozen=True)
class VolumeSource:
    """A volume that is opened but not yet read.

    Attributes
    ----------
    uri : str
        As the user named it.
    shape : (Z, Y, X) in voxels
    dtype : numpy dtype of the stored voxels
    read : function of three slices
        Returns that part as a (z, y, x) array in the stored dtype and reads no more of the file than the format allows.
    voxel_size_nm : (z, y, x) in nm, or None if the file does not say
    truth : Phantom or None
        Full ground truth, for synthetic volumes only.
    notes : dict
        Anything about the origin that the record of a run should keep; JSON values.
    piece : (z, y, x) in voxels, or None if nobody knows
        What is read and decoded at least to get at one voxel: 1 1 1 where files are mapped, a chunk, a section.
    """

    uri: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Callable[[Box], np.ndarray]
    voxel_size_nm: ZYX | None = None
    truth: Phantom | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    piece: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Volume:
    """A piece of a volume in memory.

    Attributes
    ----------
    array : (Z, Y, X) array
    voxel_size_nm : (z, y, x) in nm
    offset : (z, y, x) in voxels of the source
    source : dict
        Provenance as JSON values: uri, shape and dtype of the source, how grey values were rescaled.
    truth : Phantom or None
    """

    array: np.ndarray
    voxel_size_nm: ZYX
    offset: tuple[int, int, int] = (0, 0, 0)
    source: dict[str, Any] = field(default_factory=dict)
    truth: Phantom | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X) in voxels."""
        return self.array.shape

    @property
    def anisotropy(self) -> float:
        """Section thickness divided by the mean in-plane voxel size."""
        return anisotropy(self.voxel_size_nm)


def anisotropy(voxel_size_nm: ZYX) -> float:
    """Section thickness divided by the mean in-plane voxel size; 1 is isotropic.

    Examples
    --------
    >>> anisotropy((50, 4, 4))
    12.5
    """
    z, y, x = voxel_size_nm
    return float(2 * z / (y + x))


def near_isotropic(voxel_size_nm: ZYX) -> bool:
    """Whether a volume is processed in 3D (z up to twice the in-plane voxel size) rather than section by section.

    Examples
    --------
    >>> near_isotropic((10, 10, 10)), near_isotropic((40, 4, 4))
    (True, False)
    """
    return anisotropy(voxel_size_nm) <= NEAR_ISOTROPIC
