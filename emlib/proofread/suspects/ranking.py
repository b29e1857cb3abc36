"""Rank suspected errors by what it is worth to look at them.

1. Pairs of neurites that touch and may be one (`joins`), and neurites that may be two (`cuts`).
2. Score: the probability of an error (`evidence`, calibrated on known volumes) times the bits of variation of
   information that putting it right takes away. That is what a look at the place is expected to gain: a large neurite
   comes before a small one that is as doubtful, and a doubtful one before one of its size that is not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from emlib.proofread.boxes import Box, Boxes, whole
from emlib.proofread.suspects.contacts import Contacts, find_contacts
from emlib.proofread.suspects.cuts import Cuts, distinct, find_cuts
from emlib.proofread.suspects.evidence import CUT, JOIN, describe, worth
from emlib.proofread.suspects.joins import Joins, find_joins
from emlib.volumes.volume import ZYX

KINDS = ("weak merge", "probable split", "end inside", "orphan")
COLUMNS = ("rank", "kind", "id_a", "id_b", "z", "y", "x", "score")
ORPHAN_NM3 = 250.0**3  # a smaller neurite that touches no face of the volume is an orphan
CUTS_EACH = 4  # suspected merges of one neurite
LEAST_SHARE = 1e-4  # of the volume that both sides of a suspected merge have


def find_suspects(
    labels: np.ndarray,
    boundary: np.ndarray | Callable[[Box], np.ndarray],
    boxes: Boxes,
    voxel_size_nm: ZYX,
    fragments: np.ndarray | None = None,
    limit: int = 200,
) -> pd.DataFrame:
    """Find what to look at next in a segmentation.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    boundary : (Z, Y, X) float array in [0, 1], or a function that returns it for a box
    boxes : Boxes
        Of the labels.
    voxel_size_nm : (z, y, x) in nm
    fragments : (Z, Y, X) int32 array, optional
        From `emlib.stages.watershed.watershed_fragments`, which is called if they are not given.
    limit : int
        At most so many rows.

    Returns
    -------
    DataFrame
        ``rank`` from 1; ``kind``; ``id_a, id_b``; ``z, y, x`` of a voxel of ``id_a`` on the contact concerned;
        ``score``, expected bits of variation of information, falling.

        - ``weak merge``: two parts of ``id_a`` hang together by little; ``id_b`` is the same.
        - ``probable split``: ``id_a`` and the larger ``id_b`` may be one.
        - ``end inside``: the same, and ``id_a`` touches at most one face of the volume; of the neurites beside it
          ``id_b`` continues it best.
        - ``orphan``: the same, and ``id_a`` is tiny and touches none.

    Examples
    --------
    >>> labels = np.ones((4, 20, 40), np.int32)
    >>> labels[:, :, 20:] = 2
    >>> found = find_suspects(labels, np.zeros(labels.shape), Boxes(labels), (8, 8, 8))
    >>> found[["kind", "id_a", "id_b"]].values.tolist()
    [['probable split', 1, 2]]
    """
    if not len(boxes):
        return pd.DataFrame({name: [] for name in COLUMNS})
    relief = boundary(whole(labels.shape)) if callable(boundary) else boundary
    contacts = find_contacts(labels, relief, voxel_size_nm, fragments)
    voxel = float(np.prod(voxel_size_nm))
    total = sum(boxes.voxels(neurite) for neurite in boxes.ids()) * voxel
    joins = find_joins(contacts, voxel)
    cuts = find_cuts(contacts, voxel, LEAST_SHARE * total)
    found = pd.concat([rank_joins(joins, total), rank_cuts(cuts, total)], ignore_index=True)
    found = found.sort_values(["score", "id_a", "id_b"], ascending=[False, True, True], kind="stable").head(limit)
    places = _places(contacts, found["edge"].to_numpy(np.int64), found["id_a"].to_numpy())
    found = found.assign(rank=np.arange(1, len(found) + 1), z=places[:, 0], y=places[:, 1], x=places[:, 2])
    return found[list(COLUMNS)].reset_index(drop=True)


def rank_joins(joins: Joins, total_nm3: float) -> pd.DataFrame:
    """Score pairs of neurites: ``kind, id_a, id_b, score, edge, row``, in the order of the pairs.

    Of an orphan only the best pair is kept.
    """
    sides = joins.sides
    probability = JOIN.probability(describe(sides))
    score = probability * worth(sides.volume, total_nm3)
    touched = sides.faces[:, 0].sum(axis=1)
    best = np.zeros(len(score), bool)
    order = np.lexsort((-score, joins.ids[:, 0]))
    best[order[np.unique(joins.ids[order, 0], return_index=True)[1]]] = True
    orphan = (sides.volume[:, 0] < ORPHAN_NM3) & (touched == 0)
    kind = np.where(orphan, "orphan", np.where(best & (touched <= 1), "end inside", "probable split"))
    columns = {"kind": kind, "id_a": joins.ids[:, 0], "id_b": joins.ids[:, 1], "score": score, "edge": joins.edge}
    return pd.DataFrame({**columns, "row": np.arange(len(score))})[best | ~orphan]


def rank_cuts(cuts: Cuts, total_nm3: float) -> pd.DataFrame:
    """Score ways to cut neurites; columns as `rank_joins`, best first, without those that a better one says already."""
    score = CUT.probability(describe(cuts.sides)) * worth(cuts.sides.volume, total_nm3)
    rows = distinct(cuts, score, CUTS_EACH)
    columns = {"kind": "weak merge", "id_a": cuts.ids[rows], "id_b": cuts.ids[rows], "score": score[rows]}
    return pd.DataFrame({**columns, "edge": cuts.edge[rows], "row": rows})


def _places(contacts: Contacts, edges: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """For each contact a voxel on it, z, y, x, in the neurite ``ids``: the most central one."""
    ends = contacts.ends[edges]
    turned = contacts.neurite[ends[:, 0]] != ids
    ends[turned] = ends[turned, ::-1]
    wanted = np.zeros(len(contacts.neurite), bool)
    wanted[ends[:, 0]] = True
    at = np.flatnonzero(wanted[contacts.fragments.reshape(-1)])
    owner = contacts.fragments.reshape(-1)[at]
    order = np.argsort(owner, kind="stable")
    at, owner = at[order], owner[order]
    shape = contacts.fragments.shape
    found = np.zeros((len(edges), 3), np.int64)
    for row, (mine, other) in enumerate(ends):
        start, end = np.searchsorted(owner, [mine, mine + 1])
        voxels = np.stack(np.unravel_index(at[start:end], shape), axis=1)
        touching = np.zeros(len(voxels), bool)
        for axis in range(3):
            for step in (-1, 1):
                beside = voxels.copy()
                beside[:, axis] += step
                inside = (beside[:, axis] >= 0) & (beside[:, axis] < shape[axis])
                touching[inside] |= contacts.fragments[tuple(beside[inside].T)] == other
        here = voxels[touching]
        found[row] = here[((here - here.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return found
