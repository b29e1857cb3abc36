"""Features of contacts for a model that is learnt from a labelled crop: boundary, grey, sizes, shapes, surroundings.

Every feature is the same whichever of the two fragments comes first, and lengths are in nm, so that a model holds for
volumes of about the same voxel size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.refine.edge_geometry import Shapes, contact_shapes, fragment_shapes, slabs_of
from emlib.stages.agglomerate import contact_areas
from emlib.stages.contact_features import FEATURES, measure_contacts
from emlib.stages.learned_edges import Cut

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
MEDIAN = FEATURES.index("median")
CONTACT_NAMES = (*_ALONG, *_INSIDE, *_CONTRAST, *_SIZES, *_SHAPES, *_AROUND)


class Contacts(NamedTuple):
    """What is known of E contacts and of the K fragments that they join, wherever it was measured.

    Attributes
    ----------
    ends : (E, 2) int array
        Rows of ``inside`` and ``whole``.
    boundary, grey : (E, 11) array
        Along the contact, columns ``FEATURES`` without the last.
    inside : (K, 2) array
        Mean boundary probability and grey value of each fragment.
    whole, contact : Shapes
        Of the K fragments and of the E contacts.
    across : (E,) array in [0, 1]
        Share of a contact across z.
    area : (E,) array
        From `emlib.stages.agglomerate.contact_areas`.
    between, overlap : (E,) arrays
        As in `emlib.stages.agglomerate.RegionGraph`.
    surface : (E, 2) array
        Area of all contacts of each of the two fragments.
    weakest, rank, others : (E, 2) array
        From `standing`, for each of the two fragments.
    """

    ends: np.ndarray
    boundary: np.ndarray
    grey: np.ndarray
    inside: np.ndarray
    whole: Shapes
    contact: Shapes
    across: np.ndarray
    area: np.ndarray
    between: np.ndarray
    overlap: np.ndarray
    surface: np.ndarray
    weakest: np.ndarray
    rank: np.ndarray
    others: np.ndarray


def contact_features(cut: Cut) -> np.ndarray:
    """Describe the contacts of a region graph.

    Parameters
    ----------
    cut : Cut

    Returns
    -------
    (E, 56) float32 array
        Columns ``CONTACT_NAMES``, from `describe`.
    """
    graph, fragments = cut.graph, cut.fragments
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    if not len(ends):
        return np.zeros((0, len(CONTACT_NAMES)), np.float32)
    _, (grey,) = measure_contacts(fragments, [cut.em])
    whole = fragment_shapes(fragments, count, cut.voxel_size_nm)
    contact, across = contact_shapes(graph, fragments, cut.voxel_size_nm)
    voxels = np.maximum(_sums(fragments, None, count), 1)
    inside = np.stack([_sums(fragments, values, count) / voxels for values in (cut.boundaries, cut.em)], axis=1)
    area = contact_areas(graph, cut.voxel_size_nm)
    surface = np.bincount(ends.ravel(), np.repeat(area, 2), count)
    rank, others, weakest = standing(ends.ravel(), np.repeat(graph.features[:, MEDIAN], 2), count)
    return describe(
        Contacts(
            *(ends, graph.features[:, :-1], grey[:, :-1], inside, whole, contact, across, area),
            *(graph.between, graph.overlap, surface[ends]),
            *(weakest[ends], rank.reshape(-1, 2), others[ends]),
        )
    )


def describe(known: Contacts) -> np.ndarray:
    """Make features of what is known of contacts.

    Returns
    -------
    (E, 56) float32 array
        Columns ``CONTACT_NAMES``. Along the contact and inside the two fragments: boundary probability and grey value.
        Sizes, shapes from second moments, and how the contact compares with the others of its two fragments.

    Notes
    -----
    After the features of Andres et al. 2012, Nunez-Iglesias et al. 2013 and Beier et al. 2017.
    """
    boundary, grey = (_ordered(known.inside[:, k][known.ends]) for k in range(2))
    columns = [
        *(known.boundary, known.grey, boundary, grey),
        known.boundary[:, MEDIAN] - boundary.mean(axis=1),
        grey.mean(axis=1) - known.grey[:, MEDIAN],
        *_sizes(known),
        *_shape_columns(known.ends, known.whole, known.contact, known.across),
        *_ordered(known.boundary[:, MEDIAN, None] - known.weakest).T,
        *_ordered(known.rank / np.maximum(known.others - 1, 1)).T,
        *_ordered(known.others).T,
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


def _sizes(known: Contacts) -> list[np.ndarray]:
    return [
        np.log(known.area),
        *np.log(_ordered(known.whole.size[known.ends])).T,
        *_ordered(known.area[:, None] / known.surface).T,
        known.between,
        np.where(known.between, known.overlap, 0),
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


def standing(node: np.ndarray, boundary: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare the contacts of each fragment with each other.

    Parameters
    ----------
    node : (M,) int array
        Fragment of each end of each contact, from 0 to ``count`` - 1.
    boundary : (M,) array
        Median boundary probability of the contact.
    count : int

    Returns
    -------
    rank : (M,) int array
        Place of the contact among those of its fragment, from 0 for the weakest; of equals the first one is before.
    contacts : (count,) int array
        Of each fragment.
    weakest : (count,) array
        The lowest boundary probability of each fragment, infinite where it has no contact.
    """
    order = np.lexsort((boundary, node))
    contacts = np.bincount(node, minlength=count)
    first = np.cumsum(contacts) - contacts
    rank = np.empty(len(node), np.int64)
    rank[order] = np.arange(len(node)) - first[node[order]]
    weakest = np.full(count, np.inf)
    np.minimum.at(weakest, node, boundary)
    return rank, contacts, weakest
