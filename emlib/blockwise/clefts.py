"""Synapse candidates from a network's map in layers of sections, as `emlib.stages.expert_synapses` finds them.

1. Pieces of each section, and which of them lie on which of the next; a piece is known by its first pixel.
2. Pieces that hang together are brought together once, over all layers, so that none ends where two layers meet.
3. Each belongs to the layer that it begins in, whose task reads what lies around it, however far it reaches on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage as ndi
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import name
from emlib.blockwise.sections import Outcome, layers
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.stages.expert_synapse_components import overlaps, piece_area, piece_place, touching
from emlib.stages.expert_synapses import Around, candidate_table, sampled, sampled_reach
from emlib.stages.synapse_surroundings import NEURITES, grey_levels, grow, pick, sampling_step
from emlib.stages.synapses import SynapseSettings
from emlib.volumes.volume import Box, near_isotropic

PIECES, STAGE = "pieces", "synapses"
MAP = "synapse_probability"
MOST = 2**22  # sampled pixels around a synapse, or those of a block if it has more
EVIDENCE = ("dense", "grain")
PLANE = np.ones((3, 3), bool)


def find_candidates_in_blocks(engine: Engine, settings: SynapseSettings) -> pd.DataFrame:
    """Find candidates in ``synapse_probability`` as `emlib.stages.expert_synapses.find_expert_candidates` does."""
    site, boxes = engine.site, layers(engine.site)
    engine.run(PIECES, piece_layer, settings.experts, boxes)
    tables = [site.read_table(PIECES, name(box)) for box in boxes]
    levels = np.concatenate([table["levels"] for table in tables])
    found = hanging_together(tables, site, settings.experts.min_area_nm2)
    own = [[piece for piece in found if box[0].start <= piece[0][0] < box[0].stop] for box in boxes]
    engine.run(STAGE, look_layer, (settings, levels), boxes, [(pieces,) for pieces in own])
    tables = [site.read_table(STAGE, name(box)) for box in boxes]
    columns = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    order = np.lexsort((columns["first"], -columns["area"]))
    columns = {key: values[order] for key, values in columns.items()}
    evidence = {key: columns[key] for key in EVIDENCE}
    return candidate_table(columns["place"], columns["area"], columns["near"], columns["contact"], evidence, settings)


def piece_layer(site: Site, settings: Any, box: Box) -> Outcome:
    """Find the pieces of a layer's sections, how they hang together, also with the next layer's, and levels of grey."""
    depth, height, width = site.shape
    stop = min(box[0].stop + 1, depth)
    planes = site.read(MAP, (slice(box[0].start, stop), *box[1:]))
    solid, rows, pairs, below = near_isotropic(site.voxel_size_nm), [], [], None
    for z, plane in enumerate(planes, box[0].start):
        labels = ndi.label(plane.astype(np.float32) >= settings.min_probability, PLANE)[0]
        at = np.flatnonzero(labels)
        names, first, size = np.unique(labels.ravel()[at], return_index=True, return_counts=True)
        ids = z * height * width + at[first]
        if below is not None:
            before, known, sizes = below
            above = np.where(labels > 0, labels + len(known), 0)  # numbers go on after those of the section below
            found = touching(before, above) if solid else _overlaps(before, above, [*sizes, *size], site, settings)
            pairs.append(np.concatenate([known, ids])[found - 1])
        below = labels, ids, size
        if z < box[0].stop:
            sides = [[y.start, y.stop, x.start, x.stop] for y, x in ndi.find_objects(labels)]
            rows.append(np.column_stack([ids, size, np.array(sides, np.int64).reshape(-1, 4)[names - 1]]))
    em = site.read("em", box).astype(np.float32)
    wrote = site.write_table(
        PIECES,
        name(box),
        pieces=np.concatenate(rows).astype(np.int64),
        pairs=np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1),
        levels=np.array([grey_levels(section) for section in em], np.float64),
    )
    return [wrote], {}


def _overlaps(before: np.ndarray, above: np.ndarray, sizes: list[int], site: Site, settings: Any) -> np.ndarray:
    return overlaps(before, above, np.array([0, *sizes]), site.voxel_size_nm, settings)


def hanging_together(tables: Sequence[dict[str, np.ndarray]], site: Site, min_area_nm2: float) -> list[list[list[int]]]:
    """Bring pieces of sections together that hang together.

    Returns
    -------
    list of lists
        For each that may have the area that a synapse must: its pieces, ordered by section, as z, the first pixel of
        the piece in its section, and its rows and columns (first, stop, first, stop).
    """
    pieces = np.concatenate([table["pieces"] for table in tables])
    pairs = np.concatenate([table["pairs"] for table in tables], axis=1)
    pieces = pieces[np.argsort(pieces[:, 0])]
    ends = np.searchsorted(pieces[:, 0], pairs)
    links = coo_array((np.ones(pairs.shape[1], bool), tuple(ends)), shape=(len(pieces),) * 2)
    group = connected_components(links, directed=False)[1] if len(pieces) else np.zeros(0, int)
    axes = 3 if near_isotropic(site.voxel_size_nm) else 1
    side = max(float(np.prod(np.delete(site.voxel_size_nm, axis))) for axis in range(axes))
    total = np.bincount(group, pieces[:, 1], minlength=1)
    kept = np.flatnonzero(total[group] * side >= min_area_nm2) if len(pieces) else np.zeros(0, int)
    kept = kept[np.argsort(group[kept], kind="stable")]
    z, first = np.divmod(pieces[kept, 0], site.shape[1] * site.shape[2])
    rows = np.column_stack([z, first, pieces[kept, 2:]]).tolist()
    cuts = np.flatnonzero(np.diff(group[kept])) + 1
    return [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True) if b > a]


def look_layer(site: Site, shared: tuple[Any, ...], box: Box) -> Outcome:
    """Look at the pieces that begin in a layer; ``shared`` is settings and levels of grey of all sections, and they."""
    (settings, levels), found = shared
    columns: dict[str, list[Any]] = {key: [] for key in ("first", "area", "place", "near", "contact", *EVIDENCE)}
    for pieces in found:
        voxels, weight = _voxels(site, pieces, settings)
        area = piece_area(voxels, site.voxel_size_nm)
        if area < settings.experts.min_area_nm2:
            continue
        ids, share, seen = _look(site, voxels, levels, settings)
        columns["first"].append(np.ravel_multi_index(voxels[0], site.shape))
        columns["area"].append(area)
        columns["place"].append(piece_place(voxels, weight, site.voxel_size_nm))
        for key, values in (("near", ids), ("contact", share), *((key, seen.get(key, [])) for key in EVIDENCE)):
            columns[key].append(np.pad(np.asarray(values, float), (0, NEURITES - len(values))))
    kinds = {"first": (np.int64, ()), "area": (float, ()), "place": (np.int64, (3,)), "near": (np.int64, (NEURITES,))}
    stored = {}
    for key, values in columns.items():
        kind, shape = kinds.get(key, (float, (NEURITES,)))
        stored[key] = np.array(values).reshape(-1, *shape).astype(kind)
    return [site.write_table(STAGE, name(box), **stored)], {"candidates": len(columns["area"])}


def _voxels(site: Site, pieces: list[list[int]], settings: SynapseSettings) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a synapse (V, 3) in the order of the volume, and their probability."""
    rows = np.array(pieces)
    low = np.array([rows[0, 0], rows[:, 2].min(), rows[:, 4].min()])
    high = np.array([rows[-1, 0] + 1, rows[:, 3].max(), rows[:, 5].max()])
    _refuse_giants(site, low, high)
    seen = site.read(MAP, _box(low, high))
    voxels = []
    for z, first, top, bottom, left, right in pieces:
        part = seen[z - low[0], top - low[1] : bottom - low[1], left - low[2] : right - low[2]]
        labels = ndi.label(part.astype(np.float32) >= settings.experts.min_probability, PLANE)[0]
        row, column = divmod(first, site.shape[2])
        at = np.argwhere(labels == labels[row - top, column - left])
        voxels.append(np.column_stack([np.full(len(at), z), at[:, 0] + top, at[:, 1] + left]))
    found = np.concatenate(voxels)
    found = found[np.lexsort(found.T[::-1])]
    return found, seen[tuple((found - low).T)]


def _look(
    site: Site, voxels: np.ndarray, levels: np.ndarray, settings: SynapseSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, list[float]]]:
    """What `Around.look` sees of a synapse, from the box around it alone."""
    size = site.voxel_size_nm
    step = sampling_step(size, settings.sampling_nm)
    at = sampled(voxels, step, site.shape)
    if not len(at):
        return np.zeros(0, int), np.zeros(0), {}
    whole = np.array([site.shape[0], *np.floor_divide(site.shape[1:], step)])
    far = sampled_reach(size, step, settings)
    low, high = np.maximum(at.min(0) - far, 0), np.minimum(at.max(0) + far + 1, whole)
    _refuse_giants(site, low, high)
    wide = np.array([0, 1, 1]) * (round(settings.gap_nm / float(np.mean(np.multiply(step, size[1:])))) + 1)
    first, last = np.maximum(low - wide, 0), np.minimum(high + wide, whole)
    labels = site.read("neurites", _box(first * [1, *step], last * [1, *step]))
    grown = np.stack([grow(pick(section, step), size, step, settings.gap_nm) for section in labels])
    inner = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    em = site.read("em", _box(low * [1, *step], high * [1, *step])).astype(np.float32)
    around = Around(grown[inner], em, [tuple(pair) for pair in levels[low[0] : high[0]]], step, size, settings)
    return around.look(at - low)


def _refuse_giants(site: Site, low: np.ndarray, high: np.ndarray) -> None:
    """Refuse what takes more memory than a task may.

    Raises
    ------
    UserError
    """
    if np.prod(high - low) > max(MOST, np.prod(site.block)):
        where, size = (" ".join(str(n) for n in reversed(part.tolist())) for part in (low, high - low))
        raise UserError(
            f"a piece of the network's synapses at {where} reaches over {size} voxels (x y z), which is no synapse and "
            "more than a block; raise --set synapses.experts.min_probability, or take larger --blocks"
        )


def _box(low: np.ndarray, high: np.ndarray) -> Box:
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x
