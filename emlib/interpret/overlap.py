"""The channels that matter most to each expert, what the experts share of them, and what chance would share.

Any two sets of 100 out of 256 channels share 39 on average, any three 15.3: an overlap means nothing without that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import gammaln

from emlib.errors import UserError

ALL_SUBSETS = 6  # experts up to which every combination of them is listed; above, pairs and all


@dataclass(frozen=True)
class ChannelSet:
    """A set of channels to be tested.

    Attributes
    ----------
    kind : {"top", "shared", "specific"}
        Most important to one expert; in the top set of all experts; in that of one expert alone.
    of : str
        The organelle, or "all".
    channels : sorted tuple of int
    """

    kind: str
    of: str
    channels: tuple[int, ...]

    @property
    def label(self) -> str:
        """Name for tables and figures."""
        return {"top": f"top of {self.of}", "shared": "shared by all", "specific": f"only {self.of}"}[self.kind]


def top_channels(importance: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` most important channels of each expert, the most important first.

    Parameters
    ----------
    importance : (E, C) array
    k : int

    Returns
    -------
    (E, k) int array
        Of equal channels the one with the lower index comes first.

    Raises
    ------
    UserError
        If there are fewer than ``k`` channels.

    Examples
    --------
    >>> top_channels(np.array([[0.1, 0.5, 0.2]]), 2).tolist()
    [[1, 2]]
    """
    channels = importance.shape[1]
    if k > channels:
        raise UserError(
            f"--top_k {k} is more than the {channels} channels of the deepest level; the largest is {channels}"
        )
    return np.argsort(-importance, axis=1, kind="stable")[:, :k]


def channel_sets(top: np.ndarray, organelles: Sequence[str]) -> list[ChannelSet]:
    """Return the top set of each expert, what all share, and what each has alone.

    Parameters
    ----------
    top : (E, k) int array
        From `top_channels`.
    organelles : names of the experts

    Returns
    -------
    list of ChannelSet
        With one expert its top set alone.
    """
    tops = [frozenset(row.tolist()) for row in top]
    found = [ChannelSet("top", name, tuple(sorted(one))) for name, one in zip(organelles, tops, strict=True)]
    if len(tops) == 1:
        return found
    found.append(ChannelSet("shared", "all", tuple(sorted(frozenset.intersection(*tops)))))
    for i, name in enumerate(organelles):
        others = frozenset.union(*(one for j, one in enumerate(tops) if j != i))
        found.append(ChannelSet("specific", name, tuple(sorted(tops[i] - others))))
    return found


def intersection_chances(channels: int, k: int, sets: int) -> np.ndarray:
    """Return how probable each size of the intersection of random sets is, exactly.

    Parameters
    ----------
    channels : int
        To draw from.
    k : int
        Size of each set.
    sets : int
        How many are drawn, independently.

    Returns
    -------
    (k + 1,) float64 array
        Probability of 0, 1, … k channels in common; mean k^sets / channels^(sets − 1).

    Notes
    -----
    Two sets: the hypergeometric distribution. Each further set cuts what is left like a hypergeometric draw, so that
    the distribution for more is a chain of such steps.

    Examples
    --------
    >>> chances = intersection_chances(256, 100, 3)
    >>> mean = np.arange(101) @ chances
    >>> sd = (np.arange(101) ** 2 @ chances - mean**2) ** 0.5
    >>> round(float(mean), 1), round(float(sd), 1)
    (15.3, 3.2)
    """
    step = _hypergeometric(channels, k)
    chances = np.zeros(channels + 1)
    chances[k] = 1.0
    for _ in range(sets - 1):
        chances = chances @ step
    return chances[: k + 1]


def specific_chances(channels: int, k: int, sets: int) -> np.ndarray:
    """Return how probable it is that 0, 1, … k channels of a random set lie in none of the ``sets`` − 1 others.

    Examples
    --------
    >>> specific_chances(4, 2, 2).round(3).tolist()
    [0.167, 0.667, 0.167]
    """
    step = _hypergeometric(channels, k)
    union = np.zeros(channels + 1)
    union[0] = 1.0
    for _ in range(sets - 1):  # k channels, of which as many as the draw hits are in the union already
        grown = np.zeros_like(union)
        for size in np.flatnonzero(union):
            hits = np.arange(k + 1)
            at = size + k - hits
            grown[at[at <= channels]] += union[size] * step[size, hits[at <= channels]]
        union = grown
    return (union @ step)[: k + 1][::-1]


def overlap_table(top: np.ndarray, channels: int, organelles: Sequence[str]) -> pd.DataFrame:
    """Compare what experts share with what random sets of the same size share.

    Parameters
    ----------
    top : (E, k) int array
        From `top_channels`.
    channels : int
        Of the level.
    organelles : names of the experts

    Returns
    -------
    DataFrame
        ``kind`` (overlap, specific), ``experts`` (joined by " & "), ``sets``, ``k``, ``channels``, ``observed``,
        ``expected`` and ``sd`` by chance, ``p_more`` = P(as many or more), ``p_less`` = P(as few or fewer), both exact.
        ``specific`` counts channels of one expert that no other has.
    """
    k, sets = top.shape[1], channel_sets(top, organelles)
    tops = [frozenset(row.tolist()) for row in top]
    counts = range(2, len(tops) + 1) if len(tops) <= ALL_SUBSETS else sorted({2, len(tops)})
    rows = [
        ("overlap", group, len(frozenset.intersection(*(tops[i] for i in group))), intersection_chances(channels, k, m))
        for m in counts
        for group in combinations(range(len(tops)), m)
    ]
    alone = [one for one in sets if one.kind == "specific"]
    rows += [
        ("specific", (i,), len(one.channels), specific_chances(channels, k, len(tops))) for i, one in enumerate(alone)
    ]
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "experts": " & ".join(organelles[i] for i in group),
                "sets": len(tops) if kind == "specific" else len(group),
                "k": k,
                "channels": channels,
                "observed": observed,
                **_against(chances, observed),
            }
            for kind, group, observed, chances in rows
        ],
        columns="kind experts sets k channels observed expected sd p_more p_less".split(),
    )


def _against(chances: np.ndarray, observed: int) -> dict[str, float]:
    sizes = np.arange(len(chances))
    mean = float(sizes @ chances)
    return {
        "expected": mean,
        "sd": float(max(0.0, sizes**2 @ chances - mean**2) ** 0.5),
        "p_more": float(min(1.0, chances[observed:].sum())),
        "p_less": float(min(1.0, chances[: observed + 1].sum())),
    }


def _hypergeometric(channels: int, k: int) -> np.ndarray:
    """(n + 1, n + 1) array: how probable it is that k of n channels, drawn at random, hit j of i marked ones."""
    marked, hits = np.ogrid[: channels + 1, : channels + 1]
    possible = (hits <= np.minimum(marked, k)) & (k - hits <= channels - marked)
    marked, hits = np.broadcast_arrays(marked, hits)
    i, j = marked[possible], hits[possible]
    log = _choose(i, j) + _choose(channels - i, k - j) - _choose(np.array(channels), np.array(k))
    chances = np.zeros((channels + 1, channels + 1))
    chances[possible] = np.exp(log)
    return chances


def _choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Logarithm of the binomial coefficient."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
