"""The volume as it was given, read in layers into ``raw`` as uint8, by the rule that the whole volume would follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from emlib.volumes.grey_rule import count_digits, rescale
from emlib.volumes.grey_rule import grey_rule as volume_rule
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Box, VolumeSource

COUNT, COPY = "grey", "cutout"


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
def _opened(spec: str) -> VolumeSource:
    return open_volume(spec)


def _read(place: Place, box: Box, note: Callable[[str], None] = lambda line: None) -> np.ndarray:
    source = _given.get(place.spec)
    if source is None and place.fill_missing:  # a volume speaks once: opened anew, of each layer, whoever reads it
        source = open_volume(place.spec, fill_missing=True, note=note)
    source = source or _opened(place.spec)
    return source.read(tuple(slice(side.start + at, side.stop + at) for side, at in zip(box, place.start, strict=True)))


def copy_volume(
    engine: Engine,
    source: VolumeSource,
    start: Sequence[int],
    moves: list[list[float]] | None = None,
    fill_missing: bool = False,
    note: Callable[[str], None] = lambda line: None,
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
    note : function of a line
        Told once of such chunks, whatever the workers and however often the run was resumed.

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
    if inside or not fill_missing:
        _given[place.spec] = source
    if inside:
        engine.carrier = Here()
    try:
        rule, scale = grey_rule(engine, source, place, boxes)
        told = engine.run(COPY, copy_layer, (place, scale, moves), boxes)
    finally:
        engine.carrier = carrier
        _given.pop(place.spec, None)
    for line in [line for one in told for line in one["notes"]][:1]:  # each layer names the first chunk that it lacks
        note(line)
    low, high = min(one["low"] for one in told), max(one["high"] for one in told)
    if low == high:
        raise UserError(f"{source.uri} holds a single grey value in this cutout; choose another --offset X Y Z")
    return rule


def copy_layer(
    site: Site, shared: tuple[Place, list[float] | None, list[list[float]] | None], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Copy a layer of sections; ``shared`` is the place, black and white of a rescaling, and shifts to add."""
    place, scale, moves = shared
    notes: list[str] = []
    voxels = _read(place, box, notes.append)
    grey = rescale(voxels, scale, place.spec)
    low, high = int(grey.min()), int(grey.max())
    if moves is not None:
        grey = misalign(grey, np.array(moves[box[0]]))
    return [site.write("raw", box, grey)], {"low": low, "high": high, "notes": notes}


def grey_rule(
    engine: Engine, source: VolumeSource, place: Place, boxes: Sequence[Box]
) -> tuple[dict[str, Any], list[float] | None]:
    """How grey values become uint8: the rule for the record, and black and white if they are rescaled.

    Black and white are the percentiles of the whole box, exact: values are counted by their leading digits, and those
    that share these by the digits that follow.
    """
    count = int(np.prod(engine.site.shape))

    def count_pass(shift: int, leading: Sequence[int]) -> tuple[np.ndarray, int]:
        told = engine.run(f"{COUNT}{shift}", count_layer, (place, shift, list(leading)), boxes)
        tables = [engine.site.read_table(f"{COUNT}{shift}", name(box))["counts"] for box in boxes]
        return np.sum(tables, axis=0), sum(one["bad"] for one in told)

    advice = " in this cutout; choose another --offset"
    record, ends = volume_rule(source.dtype, count, count_pass, source.uri, advice)
    return record, None if ends is None else list(ends)


def count_layer(
    site: Site, shared: tuple[Place, int, list[int]], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Count the digit at a shift, for each of the leading digits that matter."""
    place, shift, prefixes = shared
    counts, bad = count_digits(_read(place, box), shift, prefixes)
    return [site.write_table(f"{COUNT}{shift}", name(box), counts=counts)], {"bad": bad}
