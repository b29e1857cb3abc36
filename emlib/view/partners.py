"""Where a synapse touches its partners: a voxel in each, found in a window around the synapse."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.proofread.synapse_edits import REACH_NM, nearest_voxels
from emlib.volumes.volume import ZYX, VolumeSource

CELL = (64, 256, 256)  # voxels (z, y, x): the synapses in a cell are looked up together


def partner_places(synapses: pd.DataFrame, labels: VolumeSource, voxel_size_nm: ZYX) -> pd.DataFrame:
    """Add a voxel inside of each partner near each synapse.

    Parameters
    ----------
    synapses : DataFrame
        ``z, y, x`` in voxels, ``pre_id, post_id``.
    labels : VolumeSource
        Only what lies within 300 nm of the synapses in each cell is read.
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    DataFrame
        All columns, and ``pre_z, pre_y, pre_x, post_z, post_y, post_x``: the synapse's own place where the partner is
        not near it.

    Raises
    ------
    UserError
        If a synapse lies outside of the labels.
    """
    places = synapses[["z", "y", "x"]].round().astype(np.int64).to_numpy().reshape(-1, 3)
    outside = ((places < 0) | (places >= labels.shape)).any(1)
    if outside.any():
        z, y, x = places[outside][0]
        raise UserError(
            f"the synapse at z={z}, y={y}, x={x} lies outside of the labels {labels.shape} (z, y, x); the table "
            "belongs to another run"
        )
    reach = np.array([int(REACH_NM // size) + 1 for size in voxel_size_nm])
    ids = synapses[["pre_id", "post_id"]].to_numpy(np.int64).reshape(-1, 2)
    found = np.empty((len(places), 2, 3), np.int64)
    cells, of_cell = np.unique(places // CELL, axis=0, return_inverse=True)
    for cell in range(len(cells)):
        rows = np.flatnonzero(of_cell.ravel() == cell)
        here = places[rows]
        low, high = np.maximum(here.min(0) - reach, 0), np.minimum(here.max(0) + reach + 1, labels.shape)
        window = labels.read(tuple(map(slice, low.tolist(), high.tolist())))
        twice = np.repeat(here, 2, axis=0)
        inside = nearest_voxels(window, twice - low, ids[rows].ravel(), voxel_size_nm)
        near = np.where((inside < 0).any(1)[:, None], twice, inside + low)
        found[rows] = near.reshape(-1, 2, 3)
    columns = {
        f"{side}_{axis}": found[:, number, position]
        for number, side in enumerate(("pre", "post"))
        for position, axis in enumerate("zyx")
    }
    return synapses.assign(**columns)
