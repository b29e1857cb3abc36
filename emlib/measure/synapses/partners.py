"""Partners of predicted synapses against truth: which neurite sends, which receives, and which way round.

Predicted neurites carry other ids than true ones; they are named after the true neurite that they overlap most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emlib.measure.contingency import Contingency, contingency
from emlib.measure.synapses.assignment import SynapseMatch, Voxel, assign_pairs, near_pairs
from emlib.measure.synapses.matching import MAX_DISTANCE_NM


@dataclass(frozen=True)
class PartnerScores:
    """Synapses that are right in place and in both partners.

    Attributes
    ----------
    ordered : SynapseMatch
        Matching in which place, pre and post all have to agree.
    unordered : SynapseMatch
        Matching in which place and the two neurites have to agree, whichever is pre.
    direction_accuracy : float
        Share of the pairs of ``unordered`` whose pre side is right; chance is 0.5; NaN without pairs. Synapses of a
        neurite onto itself have no direction and are left out.
    direction_pairs : int
        How many pairs that is the share of.
    """

    ordered: SynapseMatch
    unordered: SynapseMatch
    direction_accuracy: float
    direction_pairs: int


def map_ids_by_overlap(pred_labels: np.ndarray, truth_labels: np.ndarray) -> dict[int, int]:
    """True id that each predicted id overlaps most.

    Parameters
    ----------
    pred_labels, truth_labels : integer arrays of one shape
        0 is background, in both; a voxel that is 0 in either is not counted.

    Returns
    -------
    dict of int to int
        Predicted ids that overlap no true id are left out; of equal overlaps the smaller true id wins.

    Raises
    ------
    ValueError
        If the shapes differ or a dtype is not an integer.

    Examples
    --------
    >>> map_ids_by_overlap(np.array([5, 5, 5, 6, 0]), np.array([1, 1, 2, 2, 2]))
    {5: 1, 6: 2}
    """
    return largest_overlap(contingency(truth_labels, pred_labels))


def largest_overlap(table: Contingency) -> dict[int, int]:
    """True id that each predicted id overlaps most, from the counts of shared voxels; see `map_ids_by_overlap`."""
    order = np.lexsort((table.truth, -table.voxels, table.pred))
    pred, truth = table.pred[order], table.truth[order]
    best = (pred != 0) & np.concatenate([[True], pred[1:] != pred[:-1]])[: len(pred)]
    return dict(zip(pred[best].tolist(), truth[best].tolist(), strict=True))


def score_partners(
    pred: pd.DataFrame,
    truth: pd.DataFrame,
    voxel_size_nm: Voxel,
    max_distance_nm: float = MAX_DISTANCE_NM,
    id_map: dict[int, int] | None = None,
) -> PartnerScores:
    """Match synapses whose partners are right as well.

    Parameters
    ----------
    pred, truth : DataFrame
        Columns ``z, y, x`` in voxels, ``pre_id``, ``post_id``. A synapse with several receivers has a row for each.
    voxel_size_nm : (z, y, x) in nm
    max_distance_nm : float
        Farthest match, inclusive.
    id_map : dict, optional
        True id of each predicted id, from ``map_ids_by_overlap``; an id that is not in it matches nothing. None: both
        tables use the same ids.

    Returns
    -------
    PartnerScores

    Notes
    -----
    Matching on place and both partners at once follows the CREMI challenge (Funke et al. 2016), whose third task
    scores synaptic partners by the F-score of a one-to-one assignment. Where two neurites are joined both ways within
    reach, as many pairs as possible are the right way round, and only then as near as possible.
    """
    i, j, distance = near_pairs(pred, truth, voxel_size_nm, max_distance_nm)
    pre, post = (mapped_ids(pred[name], id_map) for name in ("pre_id", "post_id"))
    true_pre, true_post = (truth[name].to_numpy(np.int64) for name in ("pre_id", "post_id"))
    ordered = (pre[i] == true_pre[j]) & (post[i] == true_post[j])
    either = ordered | ((pre[i] == true_post[j]) & (post[i] == true_pre[j]))
    sizes = len(pred), len(truth), max_distance_nm
    directed = assign_pairs(i[ordered], j[ordered], distance[ordered], *sizes)
    undirected = assign_pairs(i[either], j[either], distance[either], *sizes, preferred=ordered[either])
    p, t = (undirected.pairs[name].to_numpy() for name in ("pred", "truth"))
    right = (pre[p] == true_pre[t])[true_pre[t] != true_post[t]]
    return PartnerScores(directed, undirected, float(right.mean()) if len(right) else float("nan"), len(right))


def mapped_ids(ids: pd.Series, id_map: dict[int, int] | None) -> np.ndarray:
    """True ids of predicted ids, int64; −1 where there is none. Without a map the ids stay."""
    values = ids.to_numpy(np.int64)
    return values if id_map is None else np.array([id_map.get(value, -1) for value in values.tolist()], np.int64)
