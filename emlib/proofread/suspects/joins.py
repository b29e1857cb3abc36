"""Neurites that touch and may be one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.proofread.suspects.contacts import Contacts
from emlib.proofread.suspects.evidence import Sides


class Joins(NamedTuple):
    """Pairs of neurites that touch.

    Attributes
    ----------
    ids : (P, 2) int array
        The smaller and the larger.
    edge : (P,) int array
        The contact to look at: the largest times the probability that it joins.
    sides : Sides
    """

    ids: np.ndarray
    edge: np.ndarray
    sides: Sides


def find_joins(contacts: Contacts, voxel_nm3: float) -> Joins:
    """Collect the contacts of each pair of neurites.

    Parameters
    ----------
    contacts : Contacts
    voxel_nm3 : float
        Volume of a voxel.
    """
    ids, owner = np.unique(contacts.neurite, return_inverse=True)
    count = len(ids)
    first, second = owner[contacts.ends].T
    apart = (first != second) & (contacts.neurite[contacts.ends] > 0).all(axis=1)
    volume = np.bincount(owner, contacts.voxels, count) * voxel_nm3
    surface = np.bincount(owner, contacts.border, count)
    between = np.flatnonzero(first != second)
    for end in (first, second):
        surface += np.bincount(end[between], contacts.area[between], count)
    faces = np.zeros((count, 6), bool)
    np.logical_or.at(faces, owner, contacts.faces)
    edges = np.flatnonzero(apart)
    low, high = np.minimum(first, second)[edges], np.maximum(first, second)[edges]
    pairs, which = np.unique(low.astype(np.int64) * count + high, return_inverse=True)
    sums = np.stack([np.bincount(which, column[edges], len(pairs)) for column in contacts.sums.T], axis=1)
    chosen = _best(which, contacts.area[edges] / (1 + np.exp(-contacts.strength[edges])), len(pairs))
    ends = np.stack([pairs // count, pairs % count], axis=1)
    order = np.argsort(volume[ends], axis=1, kind="stable")
    ends = np.take_along_axis(ends, order, axis=1)
    sides = Sides(sums, contacts.strength[edges[chosen]], volume[ends], surface[ends], faces[ends])
    return Joins(ids[ends], edges[chosen], sides)


def _best(which: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """The row with the highest value of each group, the first of equals."""
    order = np.lexsort((-np.arange(len(value)), value))
    best = np.zeros(count, np.int64)
    best[which[order]] = order
    return best
