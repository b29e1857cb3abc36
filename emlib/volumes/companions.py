"""Arrays that belong to a volume: label and probability volumes, cut by the same box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.bossdb import BossOptions
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Box, Volume, VolumeSource

CREMI_NO_LABEL = np.uint64(2**64 - 1)


def open_labels(spec: str | Path, boss: BossOptions | None = None) -> VolumeSource:
    """Open a label volume of any input format without reading its voxels.

    Parameters
    ----------
    spec : str or Path
        As for `emlib.volumes.open.open_volume`.
    boss : BossOptions, optional
        Server and cache for a ``bossdb://`` address.

    Returns
    -------
    VolumeSource
        Its ``read`` returns integers in the stored dtype (uint8 for a mask of bool), CREMI's 2⁶⁴-1 ("no label") as 0,
        and raises `UserError` where a label is negative.

    Raises
    ------
    UserError
        If the volume cannot be opened or does not hold integers.
    """
    source = open_volume(spec, labels=True, boss=boss)
    if source.dtype.kind not in "bui":
        raise UserError(
            f"{spec} holds {source.dtype}; labels must be integers: convert it to 16-bit or 32-bit integers"
        )

    def read(box: Box) -> np.ndarray:
        labels = source.read(box)
        if labels.dtype == bool:
            return labels.astype(np.uint8)
        if labels.dtype == np.uint64:
            labels[labels == CREMI_NO_LABEL] = 0
        elif labels.dtype.kind == "i" and labels.size and (low := int(labels.min())) < 0:
            raise UserError(f"{spec} holds the label {low}; labels must not be negative")
        return labels

    return replace(source, read=read, dtype=np.dtype(np.uint8) if source.dtype == bool else source.dtype)


def read_labels(spec: str | Path, like: Volume, boss: BossOptions | None = None) -> np.ndarray:
    """Read the labels that belong to a volume, from any input format.

    Parameters
    ----------
    spec : str or Path
        As for `emlib.volumes.open.open_volume`.
    like : Volume
        The labels are cut by its box. A label volume that already has the shape of the cutout is taken whole; one
        with another ``offset`` in nm than the volume (CREMI) is shifted accordingly.

    Returns
    -------
    (Z, Y, X) int32 array, or int64 where an id is beyond 2³¹
        CREMI's 2⁶⁴-1 ("no label") becomes 0.

    Raises
    ------
    UserError
        If the labels are not integers, negative, or do not cover the box.
    """
    source = open_labels(spec, boss)
    labels = source.read(same_box(source, like))
    high = int(labels.max())
    if high >= 2**63:
        raise UserError(f"{spec} holds the label {high}; labels must lie in 0 … 2^63-1")
    return labels.astype(np.int32 if high < 2**31 else np.int64, copy=False)


def read_probability(spec: str | Path, like: Volume) -> np.ndarray:
    """Read the probability map that belongs to a volume, from any input format.

    Parameters
    ----------
    spec : str or Path
        Axes of length 1 in front or behind (as ilastik writes them) are dropped.
    like : Volume
        Cut by its box, as in `read_labels`.

    Returns
    -------
    (Z, Y, X) float32 array in [0, 1]
        uint8 is divided by 255, uint16 by 65535; floats must already lie in [0, 1].

    Raises
    ------
    UserError
        If there are several channels, values outside of [0, 1] or another type, or the map does not cover the box.
    """
    source = open_probability(spec)
    return as_probability(source.read(same_box(source, like)), spec)


def open_probability(spec: str | Path) -> VolumeSource:
    """Open a probability map without reading its voxels.

    Raises
    ------
    UserError
        If it cannot be opened or its type holds no probabilities.
    """
    source = open_volume(spec)
    if source.dtype not in (np.uint8, np.uint16, bool) and source.dtype.kind != "f":
        raise UserError(f"{spec} holds {source.dtype}; a probability is uint8, uint16, or float in [0, 1]")
    return source


def as_probability(stored: np.ndarray, spec: str | Path) -> np.ndarray:
    """Return stored voxels of a probability map as float32 in [0, 1].

    Raises
    ------
    UserError
        If values lie outside.
    """
    if stored.dtype.kind == "f":
        low, high = float(stored.min()), float(stored.max())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise UserError(f"{spec} holds values from {low:g} to {high:g}; a probability lies in [0, 1]")
        return stored.astype(np.float32, copy=False)
    return stored.astype(np.float32) / np.float32({"uint8": 255, "uint16": 65535, "bool": 1}[stored.dtype.name])


def same_box(source: VolumeSource, like: Volume) -> Box:
    """Return where the box of a volume lies in a source that belongs to it.

    Raises
    ------
    UserError
        If the source does not cover it.
    """
    cutout, whole = tuple(like.shape), tuple(like.source.get("shape", like.shape))
    if source.shape == cutout and whole != cutout:
        return _box((0, 0, 0), cutout)
    shift = _shift(source, like)
    start = tuple(o - s for o, s in zip(like.offset, shift, strict=True))
    covered = all(0 <= s and s + n <= m for s, n, m in zip(start, cutout, source.shape, strict=True))
    if not covered or (source.shape != whole and not any(shift)):
        raise UserError(
            f"{source.uri} has shape {source.shape}, which fits neither the volume {whole} nor its cutout {cutout} "
            f"(z, y, x) at {tuple(like.offset)}; give an array of one of these shapes"
        )
    return _box(start, cutout)


def _shift(source: VolumeSource, like: Volume) -> tuple[int, ...]:
    """By how many voxels the two files' own offsets in nm differ."""
    own = source.notes.get("offset_nm", (0, 0, 0))
    others = like.source.get("file", {}).get("offset_nm", (0, 0, 0))
    return tuple(round((a - b) / v) for a, b, v in zip(own, others, like.voxel_size_nm, strict=True))


def _box(start: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    z, y, x = (slice(first, first + length) for first, length in zip(start, shape, strict=True))
    return z, y, x
