"""What a labelled crop says of contacts, and how they are folded for cross-validation: by blocks of the crop.

Contacts at random would share fragments and neurites with those they are tested on. A block is tested by a model that
learnt from no contact in it, and from no contact of a fragment that has one in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from emlib.measure.contingency import Contingency, contingency
from emlib.stages.agglomerate import RegionGraph

LABELLED = 0.5  # share of a fragment's voxels that must carry a label, for the label to say anything


class LabelledContacts(NamedTuple):
    """Contacts of fragments that each belong to one labelled neurite.

    Attributes
    ----------
    index : (K,) int array
        Of the graph's edges, ascending.
    same : (K,) bool array
        Whether the two fragments belong to the same neurite.
    """

    index: np.ndarray
    same: np.ndarray


def labelled_contacts(
    graph: RegionGraph, fragments: np.ndarray, table: Contingency, purity: float = 0.7
) -> LabelledContacts:
    """Find the contacts that labels decide.

    Parameters
    ----------
    graph : RegionGraph
    fragments : (Z, Y, X) int32 array
    table : Contingency
        Of the true labels and the fragments, from `label_table`.
    purity : float in (0.5, 1]
        Share of a fragment's labelled voxels that one neurite must have.

    Returns
    -------
    LabelledContacts
        Fragments across which a boundary was missed say nothing, nor do those that are half unlabelled.
    """
    ends, count = graph.rag.uv_ids(), graph.rag.number_of_nodes
    voxels = np.bincount(fragments.ravel(), minlength=count)
    labelled = np.bincount(table.pred, table.voxels, count)
    order = np.argsort(table.voxels, kind="stable")  # of several neurites the one with most voxels is written last
    owner, most = np.zeros(count, np.int64), np.zeros(count)
    owner[table.pred[order]], most[table.pred[order]] = table.truth[order], table.voxels[order]
    clear = (most >= purity * labelled) & (labelled >= LABELLED * voxels) & (most > 0)
    index = np.flatnonzero(clear[ends].all(axis=1))
    return LabelledContacts(index, owner[ends[index, 0]] == owner[ends[index, 1]])


def label_table(labels: np.ndarray, fragments: np.ndarray) -> Contingency:
    """Count the voxels of each pair of true label and fragment; label 0 is left out."""
    return contingency(labels.astype(np.int64, copy=False), fragments)


def blocks_of(
    centres: np.ndarray, shape: tuple[int, int, int], voxel_size_nm: tuple[float, ...], blocks: tuple[int, int, int]
) -> np.ndarray:
    """Return the block that each contact lies in.

    Parameters
    ----------
    centres : (E, 3) array
        Centres of the contacts in nm along z, y, x.
    shape : (Z, Y, X)
        Of the crop, in voxels.
    voxel_size_nm : (z, y, x) in nm
    blocks : (z, y, x)
        Into how many blocks of equal size each side is cut.

    Returns
    -------
    (E,) int array

    Examples
    --------
    >>> blocks_of(np.array([[5, 5, 5], [5, 95, 5], [5, 95, 95.0]]), (1, 10, 10), (10, 10, 10), (1, 2, 2))
    array([0, 2, 3])
    """
    sides = np.array(shape) * voxel_size_nm
    place = np.clip((centres / sides * blocks).astype(int), 0, np.array(blocks) - 1)
    return np.ravel_multi_index(tuple(place.T), blocks)


def folds(blocks: np.ndarray, ends: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each block which contacts may be learnt from, and which are tested.

    Parameters
    ----------
    blocks : (E,) int array
        From `blocks_of`.
    ends : (E, 2) int array
        Fragments of each contact.
    count : int
        Fragments, ids from 0.

    Yields
    ------
    learnt, tested : (E,) bool array
    """
    for block in np.unique(blocks):
        tested = blocks == block
        seen = np.zeros(count, bool)
        seen[ends[tested]] = True
        yield ~seen[ends].any(axis=1), tested
