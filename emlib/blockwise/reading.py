"""The volume as it was given, read in layers into ``raw`` as uint8, by the rule that the whole volume would follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from emlib.blockwise.engine import Engine, Here
from emlib.blockwise.grid import name
from emlib.blockwise.sections import layers
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.stages.align import misalign
from emlib.volumes.grey import PERCENTILES, to_uint8
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Box, VolumeSource

COUNT, COPY = "grey", "cutout"
DIGIT = 16  # bits that are counted at once


@dataclass(frozen=True)
class Place:
    """Which box of which volume; a worker opens it anew.

    Attributes
    ----------
    spec : str
    start : (z, y, x)
        First voxel of the box in the volume.
    fill_missing : bool
        Take chunks that are not there as empty.
    """

    spec: str
    start: tuple[int, int, int]
    fill_missing: bool = False


_given: dict[str, VolumeSource] = {}  # opened by this process already: what is made or fetched on demand


@lru_cache(maxsize=1)
def _opened(spec: str, fill_missing: bool) -> VolumeSource:
    return open_volume(spec, fill_missing=fill_missing)


def _read(place: Place, box: Box) -> np.ndarray:
    source = _given.get(place.spec) or _opened(place.spec, place.fill_missing)
    return source.read(tuple(slice(side.start + at, side.stop + at) for side, at in zip(box, place.start, strict=True)))


def copy_volume(
    engine: Engine,
    source: VolumeSource,
    start: Sequence[int],
    moves: list[list[float]] | None = None,
    fill_missing: bool = False,
) -> dict[str, Any]:
    """Copy a box of a volume into ``raw``.

    Parameters
    ----------
    engine : Engine
    source : VolumeSource
    start : (z, y, x)
    moves : list of (dy, dx), optional
        Shifts that are added to the sections on purpose.
    fill_missing : bool
        Take chunks of a file that are not there as empty.

    Returns
    -------
    dict
        How grey values became uint8, as `emlib.volumes.grey.to_uint8` says it.

    Raises
    ------
    UserError
        If the box holds a single grey value, NaN or infinite values.
    """
    boxes, place = layers(engine.site), Place(source.uri, tuple(start), fill_missing)
    inside = source.uri.startswith(("sample://", "bossdb://", "precomputed://"))  # made or fetched here, once
    carrier = engine.carrier
    _given[place.spec] = source
    if inside:
        engine.carrier = Here()
    try:
        rule, scale = grey_rule(engine, source, place, boxes)
        told = engine.run(COPY, copy_layer, (place, scale, moves), boxes)
    finally:
        engine.carrier = carrier
        _given.pop(place.spec, None)
    low, high = min(one["low"] for one in told), max(one["high"] for one in told)
    if low == high:
        raise UserError(f"{source.uri} holds a single grey value in this cutout; choose another --offset X Y Z")
    return rule


def copy_layer(
    site: Site, shared: tuple[Place, list[float] | None, list[list[float]] | None], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Copy a layer of sections; ``shared`` is the place, black and white of a rescaling, and shifts to add."""
    place, scale, moves = shared
    voxels = _read(place, box)
    if scale is None:
        grey = to_uint8(voxels, place.spec)[0]
    else:
        black, white = scale
        gain = 255 / (white - black)
        wide = np.clip(voxels.astype(np.float64), black, white)
        grey = np.rint((wide - black) * gain).astype(np.uint8)
    low, high = int(grey.min()), int(grey.max())
    if moves is not None:
        grey = misalign(grey, np.array(moves[box[0]]))
    return [site.write("raw", box, grey)], {"low": low, "high": high}


def grey_rule(
    engine: Engine, source: VolumeSource, place: Place, boxes: Sequence[Box]
) -> tuple[dict[str, Any], list[float] | None]:
    """How grey values become uint8: the rule for the record, and black and white if they are rescaled.

    Black and white are the percentiles of the whole box, exact: values are counted by their leading digits, and those
    that share these by the digits that follow.
    """
    dtype = source.dtype
    if dtype in (np.uint8, np.int8, bool):
        return to_uint8(np.zeros((1, 1, 1), dtype), source.uri)[1], None
    if dtype.kind not in "iuf":
        raise UserError(f"{source.uri} holds {dtype}, which are no grey values; convert it to 8-bit or 16-bit")
    count = int(np.prod(engine.site.shape))
    wanted = []
    for share in PERCENTILES:
        at = share / 100 * (count - 1)
        wanted += [int(np.floor(at)), min(int(np.floor(at)) + 1, count - 1)]
    wanted += [0, count - 1]
    values = _ranked(engine, place, boxes, _key_type(dtype), dtype, wanted)
    ends = [
        _between(values[2 * k], values[2 * k + 1], share / 100 * (count - 1)) for k, share in enumerate(PERCENTILES)
    ]
    rule = f"linear, percentiles {PERCENTILES[0]} and {PERCENTILES[1]} to 0 and 255"
    if not ends[1] > ends[0]:
        ends, rule = [float(values[4]), float(values[5])], "linear, minimum and maximum to 0 and 255"
    if not ends[1] > ends[0]:
        raise UserError(f"{source.uri} holds a single grey value {ends[0]:g} in this cutout; choose another --offset")
    return {"rule": rule, "black": ends[0], "white": ends[1]}, ends


def _between(low: Any, high: Any, at: float) -> float:
    """What NumPy's percentile gives between two neighbours in rank."""
    share = at - np.floor(at)
    low, high = float(low), float(high)
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def _key_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{max(dtype.itemsize, 2)}")


def _keys(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Unsigned numbers in the order of the values."""
    bits = 8 * kind.itemsize
    if values.dtype.kind == "f":
        raw = np.ascontiguousarray(values).view(kind)
        sign = kind.type(1 << (bits - 1))
        return np.where(raw & sign, ~raw, raw | sign)
    if values.dtype.kind == "i":
        return values.astype(f"i{kind.itemsize}").view(kind) ^ kind.type(1 << (bits - 1))
    return values.astype(kind)


def _values(keys: np.ndarray, kind: np.dtype, dtype: np.dtype) -> np.ndarray:
    """The values of such numbers."""
    bits = 8 * kind.itemsize
    sign = kind.type(1 << (bits - 1))
    if dtype.kind == "f":
        return np.where(keys & sign, keys & ~sign, ~keys).view(dtype)
    if dtype.kind == "i":
        return (keys ^ sign).view(f"i{kind.itemsize}")
    return keys


def _ranked(
    engine: Engine, place: Place, boxes: Sequence[Box], kind: np.dtype, dtype: np.dtype, ranks: Sequence[int]
) -> list[Any]:
    """The values of these ranks (0 is the lowest) among all voxels."""
    bits = 8 * kind.itemsize
    known = [(0, rank) for rank in ranks]  # leading digits so far, and the rank among those that share them
    for shift in range(bits - DIGIT, -1, -DIGIT):
        prefixes = sorted({prefix for prefix, _ in known})
        told = engine.run(f"{COUNT}{shift}", count_layer, (place, shift, prefixes), boxes)
        bad = sum(one["bad"] for one in told)
        if bad:
            raise UserError(f"{place.spec} holds {bad} NaN or infinite voxels; replace or crop them")
        tables = [engine.site.read_table(f"{COUNT}{shift}", name(box))["counts"] for box in boxes]
        total = np.cumsum(np.sum(tables, axis=0), axis=1)
        further = []
        for prefix, rank in known:
            row = total[prefixes.index(prefix)]
            digit = int(np.searchsorted(row, rank, side="right"))
            further.append((prefix << DIGIT | digit, rank - (int(row[digit - 1]) if digit else 0)))
        known = further
    return list(_values(np.array([key for key, _ in known], kind), kind, dtype))


def count_layer(
    site: Site, shared: tuple[Place, int, list[int]], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Count the digit at a shift, for each of the leading digits that matter."""
    place, shift, prefixes = shared
    voxels = _read(place, box)
    kind = _key_type(voxels.dtype)
    counts, bad = np.zeros((len(prefixes), 1 << DIGIT), np.int64), 0
    for section in voxels:
        if section.dtype.kind == "f":
            bad += int((~np.isfinite(section)).sum())
        keys = _keys(section, kind).ravel()
        top = 8 * kind.itemsize - DIGIT == shift
        for row, prefix in enumerate(prefixes):
            own = keys if top else keys[keys >> kind.type(shift + DIGIT) == kind.type(prefix)]
            digits = (own >> kind.type(shift)) & kind.type((1 << DIGIT) - 1)
            counts[row] += np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)
    return [site.write_table(f"{COUNT}{shift}", name(box), counts=counts)], {"bad": bad}
