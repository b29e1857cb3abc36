"""Features of contacts for a model that is learnt from a labelled crop: boundary, grey, sizes, shapes, surroundings.

Every feature is the same whichever of the two fragments comes first, and lengths are in nm, so that a model holds for
volumes of about the same voxel size.
"""

from __future__ import annotations

import numpy as np
from bioimage_cpp.graph.features import edge_map_features_complex

from emlib.refine.edge_geometry import Shapes, contact_shapes, fragment_shapes, slabs_of
from emlib.stages.agglomerate import FEATURES, contact_areas
from emlib.stages.learned_edges import Cut
from emlib.threads import get_threads

_ENDS = ("lower", "higher")
_ALONG = tuple(f"{what} {name}" for what in ("boundary", "grey") for name in FEATURES[:-1])
_INSIDE = tuple(f"{what} inside, {end}" for what in ("boundary", "grey") for end in _ENDS)
_CONTRAST = ("boundary, contact less inside", "grey, inside less contact")
_SIZES = (
    *("contact, log nm²", "volume, smaller, log nm³", "volume, larger, log nm³"),
    *("contact / surface, lower", "contact / surface, higher"),
    *("between sections", "overlap"),
)
_SHAPES = (
    *("contact length, nm", "contact width, nm", "contact thickness, nm", "contact filled"),
    *("contact across z", "distance, nm", "distance / extent"),
    *("elongation, lower", "elongation, higher", "flatness, lower", "flatness, higher"),
    *("along long axis, lower", "along long axis, higher", "long axes alike", "contact across the way"),
)
_AROUND = tuple(
    f"{what}, {end}" for what in ("above the fragment's weakest", "rank at the fragment", "contacts") for end in _ENDS
)
CONTACT_NAMES = (*_ALONG, *_INSIDE, *_CONTRAST, *_SIZES, *_SHAPES, *_AROUND)


def contact_features(cut: Cut) -> np.ndarray:
    """Describe the contacts of a region graph.

    Parameters
    ----------
    cut : Cut

    Returns
    -------
    (E, 56) float32 array
        Columns ``CONTACT_NAMES``. Along the contact and inside the two fragments: boundary probability and grey value.
        Sizes, shapes from second moments, and how the contact compares with the others of its two fragments.

    Notes
    -----
    After the features of Andres et al. 2012, Nunez-Iglesias et al. 2013 and Beier et al. 2017.
    """
    graph, fragments = cut.graph, cut.fragments
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    if not len(ends):
        return np.zeros((0, len(CONTACT_NAMES)), np.float32)
    grey = edge_map_features_complex(
        graph.rag, fragments, np.ascontiguousarray(cut.em, np.float32), number_of_threads=get_threads()
    )
    whole = fragment_shapes(fragments, count, cut.voxel_size_nm)
    contact, across = contact_shapes(graph, fragments, cut.voxel_size_nm)
    inside = {
        name: _ordered((_sums(fragments, values, count) / np.maximum(_sums(fragments, None, count), 1))[ends])
        for name, values in (("boundary", cut.boundaries), ("grey", cut.em))
    }
    along = FEATURES.index("median")
    columns = [
        *(graph.features[:, :-1], grey[:, :-1], inside["boundary"], inside["grey"]),
        graph.features[:, along] - inside["boundary"].mean(axis=1),
        inside["grey"].mean(axis=1) - grey[:, along],
        *_sizes(cut, ends, whole),
        *_shape_columns(ends, whole, contact, across),
        *_surroundings(ends, count, graph.features[:, along]),
    ]
    return np.column_stack(columns).astype(np.float32)


def _sums(fragments: np.ndarray, values: np.ndarray | None, count: int) -> np.ndarray:
    """Sum over the voxels of each fragment."""
    total = np.zeros(count)
    for slab in slabs_of(fragments.shape):
        total += np.bincount(fragments[slab].ravel(), None if values is None else values[slab].ravel(), count)
    return total


def _ordered(pair: np.ndarray) -> np.ndarray:
    """Lower and higher of the two ends of each edge."""
    return np.sort(pair, axis=1)


def _sizes(cut: Cut, ends: np.ndarray, whole: Shapes) -> list[np.ndarray]:
    area = contact_areas(cut.graph, cut.voxel_size_nm)
    surface = np.bincount(ends.ravel(), np.repeat(area, 2), len(whole.size))
    between = cut.graph.between
    return [
        np.log(area),
        *np.log(_ordered(whole.size[ends])).T,
        *_ordered(area[:, None] / surface[ends]).T,
        between,
        np.where(between, cut.graph.overlap, 0),
    ]


def _shape_columns(ends: np.ndarray, whole: Shapes, contact: Shapes, across: np.ndarray) -> list[np.ndarray]:
    length, width, thickness = contact.extent.T
    way = whole.centre[ends[:, 1]] - whole.centre[ends[:, 0]]
    distance = np.linalg.norm(way, axis=1)
    way /= np.maximum(distance, 1e-9)[:, None]
    extent = whole.extent
    long = whole.axes[:, 0]
    cosine = np.abs(np.einsum("efk,ek->ef", long[ends], way))
    return [
        *(length, width, thickness),
        contact.size / (4 * np.pi * length * width),  # 1 for a filled ellipse
        *(across, distance, distance / extent[ends].max(axis=2).sum(axis=1)),
        *_ordered((extent[:, 1] / extent[:, 0])[ends]).T,
        *_ordered((extent[:, 2] / extent[:, 1])[ends]).T,
        *_ordered(cosine).T,
        np.abs((long[ends[:, 0]] * long[ends[:, 1]]).sum(axis=1)),
        np.abs((contact.axes[:, 2] * way).sum(axis=1)),
    ]


def _surroundings(ends: np.ndarray, count: int, boundary: np.ndarray) -> list[np.ndarray]:
    """How the boundary of a contact compares with those of the other contacts of its two fragments."""
    node, edge = ends.ravel(), np.repeat(np.arange(len(ends)), 2)
    order = np.lexsort((boundary[edge], node))
    contacts = np.bincount(node, minlength=count)
    first = np.cumsum(contacts) - contacts
    rank = np.empty(len(node))
    rank[order] = np.arange(len(node)) - first[node[order]]
    weakest = np.full(count, np.inf)
    np.minimum.at(weakest, node, boundary[edge])
    return [
        *_ordered(boundary[:, None] - weakest[ends]).T,
        *_ordered(rank.reshape(-1, 2) / np.maximum(contacts[ends] - 1, 1)).T,
        *_ordered(contacts[ends]).T,
    ]
