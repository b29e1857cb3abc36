"""The region graph of labels that people change: fragments that keep to neurites, and what their contacts say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from emlib.stages.agglomerate import RegionGraph, contact_areas, edge_evidence, face_areas, region_graph
from emlib.stages.contact_features import FEATURES
from emlib.stages.watershed import watershed_fragments
from emlib.volumes.volume import ZYX

SUMS = ("area", "odds", "odds_low", "odds_high", "area_between", "odds_between")
_SURE = 0.001  # probabilities are kept this far from 0 and 1


class Contacts(NamedTuple):
    """Fragments of neurites and their contacts.

    Attributes
    ----------
    fragments : (Z, Y, X) int32 array
        Ids from 1; none lies in two neurites.
    neurite : (N,) int array
        The label of each fragment id; 0 is background, and what has the id 0, which no fragment has.
    voxels : (N,) int array
    faces : (N, 6) bool array
        Which faces of the volume a fragment touches.
    border : (N,) float array
        Area on faces of the volume, in nm².
    ends : (E, 2) int array
        Fragments of each contact.
    cost : (E,) array
        That of the multicut: positive joins.
    area : (E,) array
        In nm².
    strength : (E,) array
        Log-odds that the two belong together, as the multicut counts them.
    sums : (E, 6) array
        Columns ``SUMS``: area within sections (near isotropic: of all contacts) and between sections in nm², log-odds
        times area; "low" and "high" are those of the tenths of the boundary with the lowest and highest probability.
    """

    fragments: np.ndarray
    neurite: np.ndarray
    voxels: np.ndarray
    faces: np.ndarray
    border: np.ndarray
    ends: np.ndarray
    cost: np.ndarray
    area: np.ndarray
    strength: np.ndarray
    sums: np.ndarray


def find_contacts(
    labels: np.ndarray, boundary: np.ndarray, voxel_size_nm: ZYX, fragments: np.ndarray | None = None
) -> Contacts:
    """Describe the contacts between and within neurites.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    boundary : (Z, Y, X) float array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    fragments : (Z, Y, X) int32 array, optional
        From `emlib.stages.watershed.watershed_fragments`, which is called if they are not given.
    """
    boundary = np.ascontiguousarray(boundary, np.float32)
    if fragments is None:
        fragments = watershed_fragments(boundary, voxel_size_nm)
    fragments, neurite = cut_at_borders(fragments, labels)
    graph = region_graph(fragments, boundary, voxel_size_nm)
    strength, weight = edge_evidence(graph)
    area = contact_areas(graph, voxel_size_nm)
    faces, border = _on_faces(fragments, len(neurite), face_areas(voxel_size_nm))
    sums = _sums(graph, area, strength)
    voxels = np.bincount(fragments.reshape(-1), minlength=len(neurite))
    ends = np.asarray(graph.rag.uv_ids(), np.int64)
    return Contacts(fragments, neurite, voxels, faces, border, ends, strength * weight, area, strength, sums)


def cut_at_borders(fragments: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut fragments where labels change, since edits need not follow fragments.

    Parameters
    ----------
    fragments : (Z, Y, X) int32 array
        Ids from 1.
    labels : (Z, Y, X) int array

    Returns
    -------
    fragments : (Z, Y, X) int32 array
        Ids from 1, in the order of the fragments that they were cut from.
    neurite : (N,) int array
        The label of each id.

    Examples
    --------
    >>> cut, neurite = cut_at_borders(np.array([[[1, 1, 1, 2]]]), np.array([[[7, 7, 8, 8]]]))
    >>> neurite[cut].tolist(), len(np.unique(cut))
    ([[[7, 7, 8, 8]]], 3)
    """
    flat, label = fragments.reshape(-1), labels.reshape(-1)
    main = np.zeros(int(flat.max(initial=0)) + 1, labels.dtype)
    main[flat] = label
    wrong = np.flatnonzero(main[flat] != label)
    if not len(wrong):
        return fragments, main
    codes, ids = pd.factorize(label[wrong])
    pairs, which = np.unique(flat[wrong].astype(np.int64) * len(ids) + codes, return_inverse=True)
    origin = np.concatenate([np.arange(len(main)), pairs // len(ids)])
    order = np.argsort(origin, kind="stable")
    new = np.empty(len(order), np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    cut = new[: len(main)][flat]
    cut[wrong] = new[len(main) :][which]
    neurite = np.concatenate([main, ids[pairs % len(ids)]])[order]
    return cut.reshape(fragments.shape), neurite


def _sums(graph: RegionGraph, area: np.ndarray, strength: np.ndarray) -> np.ndarray:
    within = ~graph.between
    low, high = (-_logit(graph.features[:, FEATURES.index(name)]) for name in ("p10", "p90"))
    columns = [within, within * strength, within * low, within * high, graph.between, graph.between * strength]
    return area[:, None] * np.stack(columns, axis=1)


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p.astype(float), _SURE, 1 - _SURE)
    return np.log(p / (1 - p))


def _on_faces(fragments: np.ndarray, count: int, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = [np.take(fragments, end, axis).reshape(-1) for axis in range(3) for end in (0, -1)]
    on = np.stack([np.bincount(end, minlength=count) for end in ends], axis=1)
    return on > 0, on @ np.repeat(face, 2)
