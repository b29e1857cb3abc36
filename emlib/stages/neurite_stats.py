"""What each neurite of a volume is: its size and extent, its synapses, and its mitochondria where a network tells them.

1. Voxels, box, sections and surface of every id, in slabs of sections, all ids at once.
2. Synapses sent and received, as the graph counts them.
3. Mitochondria: 3D components of their probability; each belongs to the neurite that holds most of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pandas as pd
from scipy import ndimage

from emlib.measure.morphometry.crofton import Directions, directions
from emlib.volumes.volume import ZYX

COLUMNS = {
    "neurite_id": "int64",
    "voxels": "int64",
    "volume_um3": "float64",
    "surface_um2": "float64",
    "sections": "int64",
    "extent_z_nm": "float64",
    "extent_y_nm": "float64",
    "extent_x_nm": "float64",
    "z_first": "int64",
    "y_first": "int64",
    "x_first": "int64",
    "touches_border": "bool",
}
DIRECTED = {"synapses_out": "int64", "synapses_in": "int64"}
UNDIRECTED = {"synapses": "int64"}
MITOCHONDRIA = {"mitochondria": "int64", "mitochondria_um3": "float64", "mitochondria_share": "float64"}
_SLAB = 2**20  # voxels that are looked at at once


@dataclass(frozen=True)
class NeuriteSettings:
    """What counts as a mitochondrion."""

    mitochondria_threshold: float = 0.5  # probability from which a voxel lies in one
    min_mitochondrion_um3: float = 0.002  # smaller components are left out; a ball of 160 nm


def neurite_stats(
    labels: np.ndarray,
    voxel_size_nm: ZYX,
    graph: nx.Graph | None = None,
    mitochondria: np.ndarray | None = None,
    settings: NeuriteSettings | None = None,
) -> pd.DataFrame:
    """Describe every neurite of a volume, those without a synapse too.

    Parameters
    ----------
    labels : (Z, Y, X) integer array
        Ids; 0 and below is background.
    voxel_size_nm : (z, y, x) in nm
    graph : networkx graph, optional
        From `emlib.stages.graph.build_graph`: its weights are the numbers of synapses.
    mitochondria : (Z, Y, X) float array in [0, 1], optional
        Probability of a mitochondrion.
    settings : NeuriteSettings

    Returns
    -------
    DataFrame, one row per neurite, by rising id
        ``neurite_id``; ``voxels``, ``volume_um3``; ``surface_um2`` (Crofton's formula; where the volume cuts a neurite,
        the cut counts); ``sections`` that hold a voxel; ``extent_z_nm …`` (sides of the bounding box) and
        ``z_first …`` (its first voxel); ``touches_border`` (of the volume: the neurite goes on outside);
        ``synapses_out``, ``synapses_in`` with a directed graph, ``synapses`` with one whose direction is unknown;
        ``mitochondria`` (number of components of at least ``min_mitochondrion_um3`` that lie mostly in this neurite),
        ``mitochondria_um3`` (what such components fill of it) and ``mitochondria_share`` (of its volume), where a
        probability is given.

    Raises
    ------
    ValueError
        If the shapes differ or labels are not integers.

    Examples
    --------
    >>> labels = np.zeros((2, 4, 4), np.int32)
    >>> labels[:, 1:3] = 7
    >>> neurite_stats(labels, (50, 10, 10))[["neurite_id", "voxels", "extent_y_nm"]].values.tolist()
    [[7.0, 16.0, 20.0]]
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 3:
        raise ValueError(f"labels {labels.shape} of {labels.dtype}: give a (Z, Y, X) array of integers")
    if mitochondria is not None and mitochondria.shape != labels.shape:
        raise ValueError(f"mitochondria have shape {mitochondria.shape}, labels {labels.shape}")
    settings = settings or NeuriteSettings()
    ids = _ids(labels)
    size = np.asarray(voxel_size_nm, np.float64)
    sums = _Sums(ids, directions(tuple(size)))
    for first, slab, ahead in _slabs(labels, sums.lines.reach):
        sums.add(first, slab, ahead)
    table = sums.table(labels.shape, size)
    if graph is not None:
        table = table.assign(**_synapses(ids, graph))
    if mitochondria is not None:
        table = table.assign(**_mitochondria(labels, ids, table["volume_um3"], mitochondria, size, settings))
    return table


def _ids(labels: np.ndarray) -> np.ndarray:
    """All ids above 0, ascending, a section at a time."""
    found: set[int] = set()
    for section in labels:
        found.update(pd.unique(section.ravel()).tolist())
    return np.array(sorted(one for one in found if one > 0), np.int64)


def _slabs(labels: np.ndarray, reach: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield first section, labels of some sections and of ``reach`` more, and how many of these are not ahead."""
    depth, height, width = labels.shape
    thick = max(1, _SLAB // max(1, height * width))
    for first in range(0, depth, thick):
        last = min(first + thick, depth)
        yield first, labels[first : last + reach], last - first


class _Sums:
    """Voxels, boxes, sections and neighbours of the same id, added up slab by slab; rows are ids."""

    def __init__(self, ids: np.ndarray, lines: Directions) -> None:
        count = len(ids)
        self.ids, self.lines = ids, lines
        self.voxels, self.sections = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.first = np.full((count, 3), np.iinfo(np.int64).max)
        self.last = np.full((count, 3), -1, np.int64)
        self.pairs = np.zeros((len(lines.steps), count), np.int64)

    def add(self, first: int, slab: np.ndarray, sections: int) -> None:
        """Add the first ``sections`` of a slab; the others tell where ids go on."""
        rows = rows_of(self.ids, slab)  # 1 and up; 0 is background
        own = rows[:sections]
        for section in own:
            voxels = self._count(section)
            self.voxels += voxels
            self.sections += voxels > 0
        for row, box in enumerate(ndimage.find_objects(own, max_label=len(self.ids))):
            if box is not None:
                at = np.array([[side.start, side.stop - 1] for side in box])
                at[0] += first
                self.first[row] = np.minimum(self.first[row], at[:, 0])
                self.last[row] = np.maximum(self.last[row], at[:, 1])
        depth, height, width = rows.shape
        for line, (dz, dy, dx) in enumerate(self.lines.steps.tolist()):
            if dz >= depth or abs(dy) >= height or abs(dx) >= width:
                continue
            last = min(sections, depth - dz)
            here = rows[:last, max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
            there = rows[dz : dz + last, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            self.pairs[line] += self._count(here[here == there])

    def _count(self, rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows.ravel(), minlength=len(self.ids) + 1)[1:]

    def table(self, shape: tuple[int, ...], size: np.ndarray) -> pd.DataFrame:
        """Return the measures in nm, µm² and µm³."""
        # A line that leaves a neurite must have entered it; see emlib.measure.morphometry.crofton.
        surface = self.lines.factors @ (2.0 * (self.voxels - self.pairs))
        extent = (self.last - self.first + 1) * size
        border = (self.first == 0).any(axis=1) | (self.last == np.array(shape) - 1).any(axis=1)
        sides = {f"extent_{axis}_nm": extent[:, at] for at, axis in enumerate("zyx")}
        starts = {f"{axis}_first": self.first[:, at] for at, axis in enumerate("zyx")}
        values = {
            "neurite_id": self.ids,
            "voxels": self.voxels,
            "volume_um3": self.voxels * (float(np.prod(size)) * 1e-9),
            "surface_um2": surface * 1e-6,
            "sections": self.sections,
            **sides,
            **starts,
            "touches_border": border,
        }
        return pd.DataFrame(values).astype(COLUMNS)


def rows_of(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number labels by the place of their id among ``ids`` (ascending), from 1; 0 for all others, int32.

    Examples
    --------
    >>> rows_of(np.array([5, 10**12]), np.array([[5, 0, 10**12, 7]])).tolist()
    [[1, 0, 2, 0]]
    """
    if not len(ids):
        return np.zeros(labels.shape, np.int32)
    if np.array_equal(ids, np.arange(1, len(ids) + 1)):  # as the segmenters number them
        return np.where((labels > 0) & (labels <= len(ids)), labels, 0).astype(np.int32)
    at = np.minimum(np.searchsorted(ids, labels), len(ids) - 1)
    return np.where(ids[at] == labels, at + 1, 0).astype(np.int32)


def _synapses(ids: np.ndarray, graph: nx.Graph) -> dict[str, np.ndarray]:
    """Numbers of synapses of each id; 0 for neurites that are not in the graph."""
    if graph.is_directed() and graph.graph.get("direction") != "unknown":
        degrees = {"synapses_out": graph.out_degree, "synapses_in": graph.in_degree}
    else:
        degrees = {"synapses": graph.degree}
    found = {name: dict(degree(weight="weight")) for name, degree in degrees.items()}
    return {name: np.array([known.get(one, 0) for one in ids.tolist()], np.int64) for name, known in found.items()}


def _mitochondria(
    labels: np.ndarray,
    ids: np.ndarray,
    volume_um3: pd.Series,
    probability: np.ndarray,
    size: np.ndarray,
    settings: NeuriteSettings,
) -> dict[str, np.ndarray]:
    """Mitochondria of each id: their number, their volume, their share of the neurite."""
    import cc3d  # only where a network tells them

    unit = float(np.prod(size)) * 1e-9
    mask = probability >= np.asarray(settings.mitochondria_threshold, probability.dtype)
    components, count = cc3d.connected_components(mask, connectivity=6, return_N=True)
    voxels = np.bincount(components[mask], minlength=count + 1)
    large = voxels * unit >= settings.min_mitochondrion_um3
    large[0] = False
    inside = large[components]
    component, row = components[inside].astype(np.int64), rows_of(ids, labels[inside]).astype(np.int64)
    pairs, common = np.unique(component * (len(ids) + 1) + row, return_counts=True)
    component, row = pairs // (len(ids) + 1), pairs % (len(ids) + 1)
    # The last of each component's rows has most voxels; background owns one only where no neurite has a part of it.
    order = np.lexsort((-row, common, row > 0, component))
    owner = row[order][np.append(np.diff(component[order]) > 0, True)] if len(order) else row
    number = np.bincount(owner, minlength=len(ids) + 1)[1:]
    volume = np.bincount(row, common, minlength=len(ids) + 1)[1:] * unit
    share = volume / np.maximum(volume_um3.to_numpy(), 1e-300)
    return {"mitochondria": number.astype(np.int64), "mitochondria_um3": volume, "mitochondria_share": share}
