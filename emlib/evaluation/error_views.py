"""Where a worst merge or split is, and the piece of the volume that shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emlib.evaluation.label_pass import LabelPair
from emlib.measure.errors import Kind, meeting_place
from emlib.measure.instances import fill_zero
from emlib.publish.figure_errors import ErrorView
from emlib.volumes.volume import Box

SEARCH = (8, 128, 128)  # voxels on each side of a part in which its neighbour is looked for
SHOWN = 100  # pixels on each side of the place in a picture


def locate(errors: pd.DataFrame, kind: Kind, pair: LabelPair, fill: bool) -> pd.DataFrame:
    """Replace the column ``place`` of `worst_errors` by coordinates ``z, y, x`` to look at, in voxels.

    Where the two largest parts of the segment meet, if that is within reach of the second; else a voxel of the second.
    """
    size = pair.voxel_size_nm or (1, 1, 1)
    rows = []
    for row in errors.itertuples():
        at = tuple(int(i) for i in np.unravel_index(row.place, pair.truth.shape))
        box = _around(at, SEARCH, pair.truth.shape)
        found = meeting_place(*_read(pair, box, fill), kind, row.id, (row.first, row.second), size)
        rows.append(at if found is None else tuple(f + side.start for f, side in zip(found, box, strict=True)))
    places = pd.DataFrame(rows, columns=["z", "y", "x"], dtype=np.int64)
    return pd.concat([errors.drop(columns="place").reset_index(drop=True), places], axis=1)


def error_view(row: pd.Series, kind: Kind, pair: LabelPair, fill: bool) -> ErrorView:
    """Read what the figure of one error shows: a box of about equal extent along all axes around its place."""
    place = tuple(int(row[axis]) for axis in "zyx")
    z, _, x = pair.voxel_size_nm or (1, 1, 1)
    box = _within(place, (int(np.clip(round(SHOWN * x / z), 8, SHOWN // 2)), SHOWN, SHOWN), pair.truth.shape)
    truth, labels = _read(pair, box, fill)
    return ErrorView(
        kind=kind,
        truth=truth,
        pred=labels,
        em=None if pair.em is None else np.nan_to_num(pair.em.read(box)),
        place=tuple(p - side.start for p, side in zip(place, box, strict=True)),
        origin=tuple(side.start for side in box),
        one=int(row["id"]),
        parts=(int(row["first"]), int(row["second"])),
        bits=float(row["bits"]),
        voxels=(int(row["first_voxels"]), int(row["second_voxels"])),
    )


def _around(at: tuple[int, ...], reach: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    z, y, x = (slice(max(a - r, 0), min(a + r + 1, n)) for a, r, n in zip(at, reach, shape, strict=True))
    return z, y, x


def _within(at: tuple[int, ...], reach: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """A box of full size wherever the volume has room for it: moved inwards at the edges instead of cut."""
    first = [min(max(a - r, 0), max(n - 2 * r - 1, 0)) for a, r, n in zip(at, reach, shape, strict=True)]
    z, y, x = (slice(f, min(f + 2 * r + 1, n)) for f, r, n in zip(first, reach, shape, strict=True))
    return z, y, x


def _read(pair: LabelPair, box: Box, fill: bool) -> tuple[np.ndarray, np.ndarray]:
    labels = pair.pred.read(box)
    return pair.truth.read(box), fill_zero(labels) if fill else labels
