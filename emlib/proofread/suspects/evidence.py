"""How probable it is that two parts are wrongly apart or wrongly together, and what it is worth to know.

Both questions are about two parts that touch: two neurites that may be one, or two parts of a neurite that may be two.
The evidence is the same, boundary strength against contact area, sizes, and where the parts leave the volume; the
weights are not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emlib.proofread.suspects.contacts import SUMS

NAMES = (
    "odds", "odds, low", "odds, high", "odds, strongest", "odds, between", "log area", "log area between",
    "log share of surface", "log smaller", "log larger", "smaller touches no face", "smaller touches one face",
    "larger touches no face", "larger touches one face", "both touch one face", "a face in common", "between",
)  # fmt: skip


class Sides(NamedTuple):
    """Pairs of parts that touch.

    Attributes
    ----------
    sums : (P, 6) array
        Over their contacts, columns `emlib.proofread.suspects.contacts.SUMS`.
    strongest : (P,) array
        Log-odds of the contact that joins them best.
    volume : (P, 2) array
        nm³ of the smaller and the larger.
    surface : (P, 2) array
        nm² of all their contacts and of the faces of the volume that they lie on.
    faces : (P, 2, 6) bool array
        Faces of the volume that they touch.
    """

    sums: np.ndarray
    strongest: np.ndarray
    volume: np.ndarray
    surface: np.ndarray
    faces: np.ndarray


def describe(sides: Sides) -> np.ndarray:
    """Return what the probability is computed from, (P, 17) float, columns ``NAMES``."""
    column = {name: sides.sums[:, index] for index, name in enumerate(SUMS)}
    area, between = column["area"], column["area_between"]
    contact = np.maximum(area + between, 1.0)
    touched = sides.faces.sum(axis=2)
    small, large = touched[:, 0], touched[:, 1]
    log = np.log10
    columns = (
        *(column[name] / np.maximum(area, 1e-9) * (area > 0) for name in ("odds", "odds_low", "odds_high")),
        np.clip(sides.strongest, -7, 7),
        column["odds_between"] / np.maximum(between, 1e-9) * (between > 0),
        *(log(1 + area), log(1 + between)),
        log(np.minimum(contact / np.maximum(sides.surface[:, 0], 1.0), 1)),
        *log(np.maximum(sides.volume, 1.0)).T,
        *(small == 0, small == 1, large == 0, large == 1, (small == 1) & (large == 1)),
        (sides.faces[:, 0] & sides.faces[:, 1]).any(axis=1),
        between > 0,
    )
    return np.stack([np.asarray(values, float) for values in columns], axis=1)


class Odds(NamedTuple):
    """A logistic regression on ``NAMES``."""

    intercept: float
    weights: tuple[float, ...]

    def probability(self, described: np.ndarray) -> np.ndarray:
        """Return the probability of an error, (P,)."""
        return 1 / (1 + np.exp(-np.clip(described @ np.array(self.weights) + self.intercept, -30, 30)))


# Learnt by benchmarks/suspects.py on default reconstructions of fib25-medulla z 0-119 and of phantoms of seeds 3 and 4,
# the two kinds of data with equal weight; AUC there 0.89 to 0.91 (JOIN) and 0.88 to 0.89 (CUT).
JOIN = Odds(3.78, (
    1.112, 0.8055, -0.3918, 0.3101, 0.08604, -0.09261, -0.6339, 0.5637, -0.3912,
    -0.4766, 1.202, 1.121, 0.9628, -0.2043, 0.3065, -0.192, 2.707,
))  # fmt: skip
CUT = Odds(-4.106, (
    0.4568, -0.6892, -0.1137, -0.01652, -0.1049, 0.2786, 0.7774, -3.892, -0.606,
    0.1737, 0.1924, -0.1297, -0.2212, -0.1726, 0.2346, 0.7353, -2.185,
))  # fmt: skip


def worth(volume: np.ndarray, total: float) -> np.ndarray:
    """Return by how many bits the variation of information falls when an error is put right.

    Parameters
    ----------
    volume : (P, 2) array
        Of the two parts.
    total : float
        Of all neurites, in the same unit.

    Notes
    -----
    Of parts of a and b voxels among n, each within one true neurite: the entropy of which part a voxel is in,
    ((a + b) log2(a + b) - a log2 a - b log2 b) / n, is what a wrong cut adds to VOI split and a wrong merge to VOI
    merge (Meila 2007).

    Examples
    --------
    >>> worth(np.array([[1.0, 1.0]]), 4.0).tolist()
    [0.5]
    """

    def term(n: np.ndarray) -> np.ndarray:
        return n * np.log2(np.maximum(n, 1e-9))

    return (term(volume.sum(axis=1)) - term(volume).sum(axis=1)) / total
