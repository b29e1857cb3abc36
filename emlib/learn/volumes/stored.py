"""A labelled volume that stays in its files: each patch is read where it lies, as the whole volume would have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.learn.volumes.counts import Voxels, blocks_of, looked_at
from emlib.learn.volumes.targets import boundary_targets, targets_reach
from emlib.volumes.companions import open_labels
from emlib.volumes.grey_rule import count_digits, grey_rule, rescale
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, Box, VolumeSource


@dataclass(frozen=True)
class StoredGrey:
    """Sections of EM as uint8, read box by box.

    Attributes
    ----------
    source : VolumeSource
    first, end : int
        Which sections.
    ends : (black, white), optional
        Of a rescaling, see `emlib.volumes.grey_rule.grey_rule`.
    """

    source: VolumeSource
    first: int
    end: int
    ends: tuple[float, float] | None = None

    def __reduce__(self) -> tuple:
        """In another process the file is opened anew."""
        return _grey_again, (self.source.uri, self.first, self.end, self.ends)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.end - self.first, *self.source.shape[1:]

    def __getitem__(self, box: Box) -> np.ndarray:
        """Return the grey of a box, uint8."""
        voxels = self.source.read(_moved(box, self.first))
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise UserError(f"{self.source.uri} holds NaN or infinite voxels; replace or crop them")
        return rescale(voxels, self.ends, self.source.uri)


@dataclass(frozen=True)
class StoredTargets:
    """Targets of sections, made from labels that are read box by box.

    Attributes
    ----------
    labels : VolumeSource
        From `emlib.volumes.companions.open_labels`.
    first, end : int
        Which sections; those beyond are not looked at.
    voxel_size_nm, axes, ignore
        As for `emlib.learn.volumes.targets.boundary_targets`.
    """

    labels: VolumeSource
    first: int
    end: int
    voxel_size_nm: ZYX
    axes: tuple[int, ...]
    ignore: int | None = None

    def __reduce__(self) -> tuple:
        """In another process the file is opened anew."""
        about = (self.first, self.end, self.voxel_size_nm, self.axes, self.ignore)
        return _targets_again, (self.labels.uri, *about)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.end - self.first, *self.labels.shape[1:]

    def __getitem__(self, box: Box) -> np.ndarray:
        """Return the targets of a box, uint8."""
        far = targets_reach(self.voxel_size_nm, self.axes)
        outer = tuple(
            slice(max(0, side.start - reach), min(length, side.stop + reach))
            for side, reach, length in zip(box, far, self.shape, strict=True)
        )
        ids = self.labels.read(_moved(outer, self.first))
        found = boundary_targets(ids, self.voxel_size_nm, self.axes, self.ignore)
        inner = tuple(
            slice(side.start - around.start, side.stop - around.start) for side, around in zip(box, outer, strict=True)
        )
        return found[inner]


def _grey_again(uri: str, *about: Any) -> StoredGrey:
    return StoredGrey(open_volume(uri), *about)


def _targets_again(uri: str, *about: Any) -> StoredTargets:
    return StoredTargets(open_labels(uri), *about)


def open_grey(source: VolumeSource, first: int, end: int) -> StoredGrey:
    """Find how the grey of some sections becomes uint8; of a very large volume from some of its blocks.

    Raises
    ------
    UserError
        If the voxels hold no grey, or a single grey value.
    """
    shape = end - first, *source.shape[1:]
    boxes, advice = looked_at(shape, first), " in these sections; give others with --z, --val_z"

    def count_pass(shift: int, leading: Sequence[int]) -> tuple[np.ndarray, int]:
        total, bad = 0, 0
        for box in boxes:
            counts, more = count_digits(source.read(_moved(box, first)), shift, leading)
            total, bad = total + counts, bad + more
        return total, bad

    count = sum(prod(side.stop - side.start for side in box) for box in boxes)
    return StoredGrey(source, first, end, grey_rule(source.dtype, count, count_pass, source.uri, advice)[1])


def in_memory(voxels: Voxels, first_z: int = 0) -> np.ndarray:
    """Read all voxels, block by block, into a uint8 array."""
    out = np.empty(voxels.shape, np.uint8)
    for box in blocks_of(voxels.shape, first_z):
        out[box] = voxels[box]
    return out


def _moved(box: Box, first: int) -> Box:
    z, y, x = box
    return slice(z.start + first, z.stop + first), y, x
