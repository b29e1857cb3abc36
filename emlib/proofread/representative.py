"""Which sections to correct: those that together stand for the volume, and those where the probability is least sure.

1. Describe each section: grey values, texture at several scales, boundary probability; standardised over the volume.
2. Two of three sections: k-medoids, that is, the sections to whose nearest the mean distance of all is least.
3. The others: where the mean entropy of the probability is highest, away from those chosen already.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import ndimage

from emlib.errors import UserError
from emlib.stages.boundaries import damaged_sections
from emlib.threads import map_threads
from emlib.volumes.volume import ZYX

REPRESENTS, UNSURE = "represents", "least sure"
TEXTURE_NM = (16.0, 40.0, 100.0)  # scales: membranes, vesicles and filaments, mitochondria
SWAPS = 50  # rounds of exchange at most; a handful is usual
_GREY = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def choose_slices(
    em: np.ndarray, probability: np.ndarray, count: int, voxel_size_nm: ZYX, corrected: Sequence[int] = ()
) -> pd.DataFrame:
    """Choose the sections whose correction says most of the volume.

    Parameters
    ----------
    em : (Z, Y, X) array
        Grey values.
    probability : (Z, Y, X) float array in [0, 1]
        Of boundary.
    count : int
        How many sections; fewer if the volume has no more.
    voxel_size_nm : (z, y, x) in nm
    corrected : list of int
        Sections that are corrected already: they are not chosen, and what they stand for needs no other.

    Returns
    -------
    DataFrame, in the order in which to correct them
        ``z``; ``reason``, "represents" or "least sure"; ``score``: the share of the volume's sections that are nearest
        to it, or the mean entropy of its probability in bits, both in [0, 1].

    Raises
    ------
    UserError
        If ``count`` is below 1, a section of ``corrected`` is not in the volume, or none is left to choose.

    Notes
    -----
    k-medoids by greedy building and exchange (Kaufman and Rousseeuw 1990, PAM). A section that holds a single grey
    value is never chosen.

    Examples
    --------
    >>> em = np.random.default_rng(0).random((6, 32, 32))
    >>> em[3:] *= 0.2
    >>> sorted(choose_slices(em, em, 2, (40, 8, 8))["z"] // 3)
    [0, 1]
    """
    if count < 1:
        raise UserError(f"{count} sections to correct are asked for; ask for 1 or more")
    depth = len(em)
    if outside := [z for z in corrected if not 0 <= z < depth]:
        raise UserError(f"there is no section {outside[0]}; they are numbered 0 … {depth - 1}")
    whole = np.flatnonzero(~damaged_sections(em))
    free = np.setdiff1d(whole, np.asarray(corrected, int))
    if not len(free):
        raise UserError("no section is left to correct: all are corrected or hold a single grey value")
    count = min(count, len(free))
    described = describe_sections(em[whole], probability[whole], voxel_size_nm)
    apart = np.linalg.norm(described[:, None] - described[None], axis=2)
    given = np.flatnonzero(np.isin(whole, np.asarray(corrected, int)))
    standing = -(-2 * count // 3)
    first = _medoids(apart, standing, given)
    unsure = _entropy(probability[whole])
    second = _least_sure(apart, unsure, [*given.tolist(), *first], count - standing)
    chosen = np.array([*given.tolist(), *first, *second])
    nearest = chosen[apart[:, chosen].argmin(axis=1)]
    share = np.bincount(nearest, minlength=len(whole)) / len(whole)
    rows = [(whole[i], REPRESENTS, share[i]) for i in first] + [(whole[i], UNSURE, unsure[i]) for i in second]
    return pd.DataFrame(rows, columns=["z", "reason", "score"])


def describe_sections(em: np.ndarray, probability: np.ndarray, voxel_size_nm: ZYX) -> np.ndarray:
    """Describe sections by numbers that can be compared.

    Parameters
    ----------
    em : (Z, Y, X) array
    probability : (Z, Y, X) float array in [0, 1]
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    (Z, 17) float array
        Quantiles and deviation of the grey value; deviation between Gaussians of successive scales, and steepness;
        mean, deviation and quantiles of the probability. Each has mean 0 and deviation 1 over the sections, or is 0
        throughout; each of the three groups counts the same.
    """

    def one(z: int) -> list[np.ndarray]:
        grey, boundary = np.asarray(em[z], np.float32), np.asarray(probability[z], np.float32)
        sigmas = [[nm / size for size in voxel_size_nm[1:]] for nm in TEXTURE_NM]
        levels = [grey, *(ndimage.gaussian_filter(grey, sigma) for sigma in sigmas)]
        bands = [float((fine - coarse).std()) for fine, coarse in pairwise(levels)]
        slope = np.hypot(*np.gradient(levels[1])) if min(grey.shape) > 1 else np.zeros(1)
        return [
            np.array([*np.quantile(grey, _GREY), grey.std()]),
            np.array([*bands, slope.mean()]),
            np.array([boundary.mean(), boundary.std(), *np.quantile(boundary, (0.5, 0.75, 0.9))]),
        ]

    groups = [np.stack(group) for group in zip(*map_threads(one, range(len(em))), strict=True)]
    return np.concatenate([_standardised(group) / np.sqrt(group.shape[1]) for group in groups], axis=1)


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)


def _entropy(probability: np.ndarray) -> np.ndarray:
    """Mean entropy of a yes-or-no probability in each section, in bits."""

    def one(section: np.ndarray) -> float:
        p = np.clip(section.astype(np.float64), 1e-6, 1 - 1e-6)
        return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())

    return np.array(map_threads(one, probability))


def _medoids(apart: np.ndarray, count: int, given: np.ndarray) -> list[int]:
    """The sections, beside the given ones, to whose nearest the mean distance is least; the best first."""
    nearest = apart[:, given].min(axis=1) if len(given) else np.full(len(apart), apart.max(initial=0) + 1)
    start, chosen = nearest, []
    barred = np.zeros(len(apart), bool)
    barred[given] = True
    for _ in range(count):
        cost = np.minimum(nearest[:, None], apart).sum(axis=0)
        cost[barred] = np.inf
        chosen.append(int(cost.argmin()))
        barred[chosen[-1]] = True
        nearest = np.minimum(nearest, apart[:, chosen[-1]])
    for _ in range(SWAPS):
        before = list(chosen)
        for place in range(count):
            others = [i for i in chosen if i != chosen[place]]
            rest = np.minimum(start, apart[:, others].min(axis=1)) if others else start
            cost = np.minimum(rest[:, None], apart).sum(axis=0)
            cost[[*given, *others]] = np.inf
            if cost.min() < cost[chosen[place]] - 1e-12:
                chosen[place] = int(cost.argmin())
        if chosen == before:
            break
    return chosen


def _least_sure(apart: np.ndarray, unsure: np.ndarray, chosen: list[int], count: int) -> list[int]:
    """Sections of high entropy, each as far from all others as sections usually are from their nearest chosen one."""
    found: list[int] = []
    usual = float(np.median(apart[:, chosen].min(axis=1)))
    for _ in range(count):
        taken = [*chosen, *found]
        near = apart[:, taken].min(axis=1)
        rank = np.where(near >= usual, unsure, unsure - 1)  # bits: one less puts a section behind all that are far
        rank[taken] = -np.inf
        found.append(int(rank.argmax()))
    return found
