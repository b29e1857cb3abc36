"""Segmentation with learnt contacts: the pipeline's fragments and multicut, with the costs of an edge forest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.refine.edge_features import KnownEdges, edge_features
from emlib.refine.edge_forest import EdgeForest, EdgeSettings
from emlib.stages.agglomerate import RegionGraph, edge_costs, multicut, region_graph
from emlib.stages.boundaries import intensity_boundaries
from emlib.stages.inclusions import absorb_enclosed
from emlib.stages.segment import SegmentSettings, neurite_labels
from emlib.stages.watershed import watershed_fragments
from emlib.volumes.volume import ZYX

_CORRECTED = 6.9  # log-odds of what a corrected section says: 999 to 1


class Fragments(NamedTuple):
    """A volume cut into fragments.

    Attributes
    ----------
    ids : (Z, Y, X) int32 array
    graph : RegionGraph
    boundaries, darkness : (Z, Y, X) float32 array in [0, 1]
        Probability that they were cut along, and that from intensity alone.
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    """

    ids: np.ndarray
    graph: RegionGraph
    boundaries: np.ndarray
    darkness: np.ndarray
    em: np.ndarray
    voxel_size_nm: ZYX

    def describe(self, boundaries: np.ndarray | None = None) -> np.ndarray:
        """Return the features of all contacts, with another boundary probability if one is given."""
        boundaries = self.boundaries if boundaries is None else boundaries
        return edge_features(self.graph, self.ids, boundaries, self.darkness, self.em)


def cut_fragments(em: np.ndarray, boundaries: np.ndarray, voxel_size_nm: ZYX, settings: SegmentSettings) -> Fragments:
    """Cut a volume into fragments along a boundary probability, as `emlib.stages.segment.segment` does.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
        No section holds a single grey value.
    boundaries : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    settings : SegmentSettings
    """
    boundaries = np.ascontiguousarray(boundaries, np.float32)
    ids = watershed_fragments(boundaries, voxel_size_nm, settings.fragments)
    graph = region_graph(ids, boundaries, voxel_size_nm)
    return Fragments(ids, graph, boundaries, intensity_boundaries(em, voxel_size_nm), em, voxel_size_nm)


def join_fragments(
    fragments: Fragments,
    edges: EdgeForest,
    settings: EdgeSettings,
    segmenting: SegmentSettings,
    known: KnownEdges | None = None,
) -> np.ndarray:
    """Join fragments by a multicut whose costs an edge forest gives.

    Parameters
    ----------
    fragments : Fragments
    edges : EdgeForest
    settings : EdgeSettings
    segmenting : SegmentSettings
        Contacts between the sections of an anisotropic volume, on which the forest has no say, cost what they do there.
    known : KnownEdges, optional
        Contacts in corrected sections, which are held to what these say.

    Returns
    -------
    (Z, Y, X) int32 array
        Ids from 1 without gaps.
    """
    graph = fragments.graph
    different = edges.log_odds(fragments.describe()) + settings.bias
    if known is not None:
        different[known.index] = np.where(known.different, _CORRECTED, -_CORRECTED)
    within = -different * graph.features[:, -1].astype(float) ** settings.size_power
    costs = np.where(graph.between, edge_costs(graph, segmenting.multicut), within)
    neurite = multicut(graph, costs)
    enclosed = segmenting.multicut.min_enclosed
    neurite = absorb_enclosed(neurite, graph, fragments.ids, fragments.voxel_size_nm, enclosed)
    return neurite_labels(neurite, fragments.ids)
