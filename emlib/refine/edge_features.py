"""Features of the contacts of a region graph, and what corrected sections say of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.refine.corrections import Corrections
from emlib.stages.agglomerate import RegionGraph
from emlib.stages.contact_features import FEATURES, measure_contacts

PURITY = 0.7  # share of a fragment's pixels in a section that one neurite has, for the fragment to count as its part
LEAST = 5  # pixels of a fragment in a section
_MAPS = ("boundary", "darkness", "grey")
_SIZES = (
    *("voxels, smaller", "voxels, larger", "contact / smaller surface", "contact / larger surface"),
    *("boundary inside, lower", "boundary inside, higher", "grey inside, lower", "grey inside, difference"),
)
EDGE_NAMES = ("contact", *(f"{m} {f}" for m in _MAPS for f in FEATURES[:-1]), *_SIZES)


class KnownEdges(NamedTuple):
    """Contacts whose answer is known.

    Attributes
    ----------
    index : (K,) int array
        Of the graph's edges, ascending.
    different : (K,) bool array
        Whether the two fragments belong to different neurites.
    section : (K,) int array
        The first corrected section that says so, as its place in ``Corrections.sections``.
    """

    index: np.ndarray
    different: np.ndarray
    section: np.ndarray


def edge_features(
    graph: RegionGraph, fragments: np.ndarray, boundaries: np.ndarray, darkness: np.ndarray, em: np.ndarray
) -> np.ndarray:
    """Describe the contacts of a region graph.

    Parameters
    ----------
    graph : RegionGraph
    fragments : (Z, Y, X) int32 array
    boundaries, darkness : (Z, Y, X) float32 array in [0, 1]
        Boundary probability, and that of `emlib.stages.boundaries.intensity_boundaries`, which nobody taught.
    em : (Z, Y, X) float32 array in [0, 1]

    Returns
    -------
    (E, 42) float32 array
        Columns ``EDGE_NAMES``: voxels of the contact; mean, median, deviation, extremes and quantiles of the three maps
        along it; sizes of the two fragments, the share of their surface (taken as that of a cube) that the contact
        makes up, and what lies inside them.

    Notes
    -----
    After the features of Andres et al. 2012 and Beier et al. 2017.
    """
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    _, (first, dark, grey) = measure_contacts(fragments, [boundaries, darkness, em])
    contact = first[:, -1]
    voxels = np.bincount(fragments.ravel(), minlength=count).astype(float)
    sizes = np.sort(voxels[ends], axis=1)

    def inside(values: np.ndarray) -> np.ndarray:
        return np.sort((np.bincount(fragments.ravel(), values.ravel(), count) / np.maximum(voxels, 1))[ends], axis=1)

    low, high = inside(em).T
    columns = [
        *(contact, first[:, :-1], dark[:, :-1], grey[:, :-1]),
        *(sizes, contact[:, None] / (6 * sizes ** (2 / 3)), inside(boundaries)),
        *(low, high - low),
    ]
    return np.column_stack(columns).astype(np.float32)


def known_edges(graph: RegionGraph, fragments: np.ndarray, corrections: Corrections) -> KnownEdges:
    """Find the contacts that corrected sections decide.

    Parameters
    ----------
    graph : RegionGraph
    fragments : (Z, Y, X) int32 array
    corrections : Corrections
        Label 0 says nothing.

    Returns
    -------
    KnownEdges
        Of fragments that touch within a corrected section and are each the part of one neurite there. Ids are compared
        within a section only, so that sections need not agree on them; where sections contradict each other the
        majority decides, and for "different" at a tie.
    """
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    keys = ends[:, 0].astype(np.int64) * count + ends[:, 1]
    votes, against = np.zeros(len(ends), int), np.zeros(len(ends), int)
    first = np.full(len(ends), -1)
    for place, (z, labels) in enumerate(zip(corrections.sections, corrections.labels, strict=True)):
        plane = fragments[z].astype(np.int64)
        owner = _owners(plane, labels, count)
        pairs = _touching(plane, count)
        u, v = pairs // count, pairs % count
        said = (owner[u] > 0) & (owner[v] > 0)
        edge = np.searchsorted(keys, pairs[said])
        votes[edge] += 1
        against[edge] += (owner[u] != owner[v])[said]
        first[edge] = np.where(first[edge] < 0, place, first[edge])
    index = np.flatnonzero(votes)
    return KnownEdges(index, 2 * against[index] >= votes[index], first[index])


def _owners(plane: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The neurite of each fragment in a section, 0 where none has most of it."""
    ids, label = np.unique(labels, return_inverse=True)
    pairs, pixels = np.unique(plane.ravel() * len(ids) + label.ravel(), return_counts=True)
    order = np.argsort(pixels, kind="stable")  # of several neurites the one with most pixels is written last
    fragment = pairs[order] // len(ids)
    owner, most = np.zeros(count, np.int64), np.zeros(count)
    owner[fragment], most[fragment] = ids[pairs[order] % len(ids)], pixels[order]
    area = np.bincount(plane.ravel(), minlength=count)
    return np.where((area >= LEAST) & (most >= PURITY * area), owner, 0)


def _touching(plane: np.ndarray, count: int) -> np.ndarray:
    """Pairs of fragments that touch in a section, each once, as smaller id · count + larger id."""
    found = []
    for a, b in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
        apart = a != b
        found.append(np.minimum(a, b)[apart] * count + np.maximum(a, b)[apart])
    return np.unique(np.concatenate(found))
