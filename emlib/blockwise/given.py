"""Boundaries or labels of a file, read in layers and moved like the sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emlib.blockwise.engine import Engine, Here
from emlib.blockwise.grid import name
from emlib.blockwise.sections import Outcome, layers
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.stages.align import apply_shifts
from emlib.volumes.companions import as_probability, open_labels, open_probability, same_box
from emlib.volumes.volume import Box, Volume

LARGEST, STAGE = "largest_label", "neurites"


def boundaries_of_file(engine: Engine, spec: str, like: Volume, shifts: pd.DataFrame) -> None:
    """Write ``boundaries`` as `emlib.volumes.companions.read_probability` reads them, moved like the sections."""
    place = _start(same_box(open_probability(spec), like))
    engine.site.create("boundaries", np.float32)
    engine.run("boundaries", probability_layer, (spec, place, _moves(shifts)), layers(engine.site))


def labels_of_file(engine: Engine, spec: str, like: Volume, shifts: pd.DataFrame) -> None:
    """Write ``neurites`` as `emlib.volumes.companions.read_labels` reads them, moved like them; count voxels."""
    place, carrier = _start(same_box(open_labels(spec), like)), engine.carrier
    if spec.startswith("bossdb://"):
        engine.carrier = Here()  # one client, one cache
    try:
        told = engine.run(LARGEST, largest_layer, (spec, place), layers(engine.site))
        high = max(one["high"] for one in told)
        if high >= 2**63:
            raise UserError(f"{spec} holds the label {high}; labels must lie in 0 … 2^63-1")
        engine.site.create("neurites", np.int32 if high < 2**31 else np.int64)
        engine.run(STAGE, label_layer, (spec, place, _moves(shifts)), layers(engine.site))
    finally:
        engine.carrier = carrier


def probability_layer(site: Site, shared: tuple[str, list[int], list[list[float]]], box: Box) -> Outcome:
    """Read and move the probability of a layer; ``shared`` is the file, where the volume lies in it, and the shifts."""
    spec, start, moves = shared
    given = as_probability(open_probability(spec).read(_at(box, start)), spec)
    return [site.write("boundaries", box, apply_shifts(given, _shifts(moves, box)))], {}


def largest_layer(site: Site, shared: tuple[str, list[int]], box: Box) -> Outcome:
    """Tell the largest label of a layer."""
    spec, start = shared
    return [], {"high": int(open_labels(spec).read(_at(box, start)).max())}


def label_layer(site: Site, shared: tuple[str, list[int], list[list[float]]], box: Box) -> Outcome:
    """Read and move the labels of a layer; what enters at the border is background. Its table counts their voxels."""
    spec, start, moves = shared
    given = open_labels(spec).read(_at(box, start)).astype(site.open("neurites").dtype)
    moved = apply_shifts(given, _shifts(moves, box), order=0, fill=0)
    ids, voxels = np.unique(moved, return_counts=True)
    return [site.write("neurites", box, moved), site.write_table(STAGE, name(box), ids=ids, voxels=voxels)], {}


def sizes_of_labels(site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Return the neurites (N,) that `labels_of_file` wrote, ascending, and the voxels (N,) of each."""
    ids, voxels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for box in layers(site):
        stored = site.read_table(STAGE, name(box))
        ids, index = np.unique(np.concatenate([ids, stored["ids"]]), return_inverse=True)
        voxels = np.bincount(index, np.concatenate([voxels, stored["voxels"]]), len(ids)).astype(np.int64)
    return ids[ids > 0], voxels[ids > 0]


def _start(box: Box) -> list[int]:
    return [side.start for side in box]


def _at(box: Box, start: list[int]) -> Any:
    return tuple(slice(side.start + first, side.stop + first) for side, first in zip(box, start, strict=True))


def _moves(shifts: pd.DataFrame) -> list[list[float]]:
    return shifts[["dy", "dx"]].to_numpy().tolist()


def _shifts(moves: list[list[float]], box: Box) -> pd.DataFrame:
    return pd.DataFrame(moves[box[0]], columns=["dy", "dx"])
