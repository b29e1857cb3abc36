"""Evidence from a learned model of contacts: what such a model is to the segmentation, wherever it was trained.

The model says how likely two fragments are parts of one neurite. Its log-odds, less one bias, are the evidence; a
contact weighs as its area to a power. Bias and power were chosen with the model, for each segmenter.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from emlib.stages.agglomerate import Evidence, RegionGraph, contact_areas
from emlib.volumes.volume import ZYX

SURE = 0.001  # probabilities are kept this far from 0 and 1


class Cut(NamedTuple):
    """A volume cut into fragments: all that a model may look at.

    Attributes
    ----------
    fragments : (Z, Y, X) int32 array
        Ids from 1.
    graph : RegionGraph
    boundaries : (Z, Y, X) float32 array in [0, 1]
        Probability that the fragments were cut along.
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    """

    fragments: np.ndarray
    graph: RegionGraph
    boundaries: np.ndarray
    em: np.ndarray
    voxel_size_nm: ZYX


class EdgeTuning(NamedTuple):
    """How a segmenter uses the probabilities of a model.

    Attributes
    ----------
    bias : float
        Log-odds added to "these two are different"; above 0 splits more.
    size_power : float
        A contact of this area weighs area ** size_power.
    """

    bias: float = 0.0
    size_power: float = 1.0


class EdgeModel(Protocol):
    """What tells how likely two fragments belong together."""

    def predict(self, cut: Cut) -> np.ndarray:
        """Return the probability, (E,) in [0, 1], that the two fragments of each edge are parts of one neurite."""
        ...

    def tuning(self, segmenter: str) -> EdgeTuning:
        """Return what was chosen for ``"multicut"`` or ``"gasp"``."""
        ...


def learned_evidence(same: np.ndarray, graph: RegionGraph, voxel_size_nm: ZYX, tuning: EdgeTuning) -> Evidence:
    """Turn merge probabilities into evidence.

    Parameters
    ----------
    same : (E,) float array in [0, 1]
        Probability that the two fragments of each edge are parts of one neurite.
    graph : RegionGraph
    voxel_size_nm : (z, y, x) in nm
    tuning : EdgeTuning

    Returns
    -------
    Evidence
    """
    return weighed(same, contact_areas(graph, voxel_size_nm), tuning)


def weighed(same: np.ndarray, area: np.ndarray, tuning: EdgeTuning) -> Evidence:
    """Do the same for contacts whose area in nm² is known."""
    bounded = np.clip(np.asarray(same, np.float64), SURE, 1 - SURE)
    return Evidence(np.log(bounded / (1 - bounded)) - tuning.bias, area**tuning.size_power)
