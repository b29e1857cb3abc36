"""Which neurite of a synapse sends: each gets a vote, the highest sends, the first of the others receives.

Votes are weighted sums of what each neurite shows around the synapse. On tissue where nobody knows who sends they are a
guess, whether the weights are a compromise by hand or were learnt on the phantom.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

# A compromise between the neurite that the mask of each training synapse of drosophila-vnc covers most and the
# phantom's known direction: per log of a neurite's share of the neighbourhood, per darkness, for coming first, per
# share of vesicle-like spots.
VOTES = {"share": 1.0, "dark": 1.0, "first": 1.0, "spots": 10.0}
# Logistic regression on sender against receiver of the 176 synapses of phantom seeds 20 to 27, which no table of scores
# shows: `python benchmarks/synapses.py --fit_direction`.
LEARNED = {"grain": 64.54, "dense": 7.92}
UNKNOWN = "unknown"  # in the column "direction" of candidates whose sender is left open


def votes(weights: Mapping[str, float], **evidence: np.ndarray) -> np.ndarray:
    """Sum the evidence of each neurite.

    Parameters
    ----------
    weights : mapping of str to float
        By the names of the evidence; what has no weight does not count. ``first`` is for the first neurite of each
        synapse.
    **evidence : (C, K) float arrays
        Of K neurites at each of C synapses. ``share`` counts by its logarithm.

    Returns
    -------
    (C, K) float array
    """
    first = np.zeros(next(iter(evidence.values())).shape)
    first[:, :1] = 1
    if "share" in evidence:
        evidence["share"] = np.log(evidence["share"] + 1e-3)
    total = sum(weights.get(name, 0.0) * values for name, values in evidence.items())
    return total + weights.get("first", 0.0) * first


def sender_and_receiver(near: np.ndarray, vote: np.ndarray) -> dict[str, np.ndarray | list[str]]:
    """Choose sender, receiver and further partners.

    Parameters
    ----------
    near : (C, K) int array
        Neurites at each synapse, likeliest partner first, 0 where there are no more; at least two.
    vote : (C, K) float array
        For sending.

    Returns
    -------
    dict
        ``pre_id``, ``post_id``, ``direction_confidence`` in [0, 1] and ``partners``, as columns.

    Examples
    --------
    >>> chosen = sender_and_receiver(np.array([[4, 7, 9]]), np.array([[0.0, 2.0, 1.0]]))
    >>> int(chosen["pre_id"][0]), int(chosen["post_id"][0]), chosen["partners"]
    (7, 4, ['9'])
    """
    rows = np.arange(len(near))
    pre = np.where(near > 0, vote, -np.inf).argmax(1)
    others = near.copy()
    others[rows, pre] = 0
    post = (others > 0).argmax(1)
    pre_id, post_id = near[rows, pre], near[rows, post]
    others[rows, post] = 0
    return {
        "pre_id": pre_id,
        "post_id": post_id,
        "direction_confidence": np.tanh((vote[rows, pre] - vote[rows, post]) / 2),
        "partners": [";".join(str(i) for i in row if i) for row in others.tolist()],
    }


def leave_direction_open(candidates: pd.DataFrame) -> pd.DataFrame:
    """Return candidates that do not say who sends.

    Parameters
    ----------
    candidates : DataFrame
        ``pre_id``, ``post_id``, and ``direction_confidence`` if they have it.

    Returns
    -------
    DataFrame
        The columns keep their names, so that what reads such tables still does, but ``pre_id`` is the smaller id and
        ``post_id`` the larger, ``direction_confidence`` is 0, and a column ``direction`` says "unknown".

    Examples
    --------
    >>> leave_direction_open(pd.DataFrame({"pre_id": [9], "post_id": [3], "score": [0.8]})).iloc[0].to_dict()
    {'pre_id': 3, 'post_id': 9, 'score': 0.8, 'direction': 'unknown'}
    """
    pair = candidates[["pre_id", "post_id"]]
    ends = {"pre_id": pair.min(axis=1), "post_id": pair.max(axis=1)}
    if "direction_confidence" in candidates:
        ends["direction_confidence"] = 0.0
    return candidates.assign(**ends, direction=pd.Series(UNKNOWN, candidates.index, dtype=object))


def direction_is_open(candidates: pd.DataFrame) -> bool:
    """Whether candidates leave open who sends."""
    return "direction" in candidates
