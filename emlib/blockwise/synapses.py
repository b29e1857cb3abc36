"""Synapse candidates in layers of sections: each has one owner, the layer that its section lies in.

A layer sees the sections that lend it light and neurites; what is too near to another candidate is sorted out once,
over all layers, so that none is found twice and none is lost where two layers meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from emlib.blockwise.grid import name
from emlib.blockwise.site import Site
from emlib.stages.synapse_direction import leave_direction_open
from emlib.stages.synapse_surroundings import TRUNCATE
from emlib.stages.synapses import COLUMNS, SynapseSettings, find_candidates, sections_near, separate
from emlib.volumes.volume import Box

STAGE = "synapses"


def reach(site: Site, settings: SynapseSettings) -> int:
    """Sections that a section looks at on either side."""
    sigma = settings.density_nm / site.voxel_size_nm[0]
    depth = site.shape[0]
    near = max(abs(plane - depth // 2) for plane in sections_near(depth // 2, depth, site.voxel_size_nm, settings)[0])
    return near + (int(TRUNCATE * sigma + 0.5) if sigma >= 1 else 0)  # neighbours are averaged along z as well


def find_layer(site: Site, settings: SynapseSettings, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Find the candidates of a layer, before those that are too near to others are sorted out."""
    far = reach(site, settings)
    outer = (slice(max(0, box[0].start - far), min(site.shape[0], box[0].stop + far)), *box[1:])
    all_of_them = replace(settings, separation_nm=0.0, directed=True)
    found = find_candidates(
        site.read("em", outer).astype(np.float32), site.read("neurites", outer), site.voxel_size_nm, all_of_them
    )
    z = found["z"].to_numpy() + outer[0].start
    own = found.assign(z=z)[(z >= box[0].start) & (z < box[0].stop)]
    columns = {column: own[column].to_numpy(kind if kind != "str" else "U") for column, kind in COLUMNS.items()}
    return [site.write_table(STAGE, name(box), **columns)], {"candidates": len(own)}


def join_candidates(site: Site, layers: Sequence[Box], settings: SynapseSettings) -> pd.DataFrame:
    """All candidates of the volume, as `emlib.stages.synapses.find_candidates` gives them."""
    tables = [pd.DataFrame(site.read_table(STAGE, name(box))).astype(COLUMNS) for box in layers]
    table = pd.concat(tables, ignore_index=True)
    table = table.sort_values(["score", "z", "y", "x"], ascending=[False, True, True, True], ignore_index=True)
    table = separate(table, site.voxel_size_nm, settings.separation_nm)
    return table if settings.directed else leave_direction_open(table)
