"""Mean and spread of a volume from sums that come out the same in whatever parts and order they are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from emlib.threads import map_threads

UNIT = 2**32  # sums count in so many parts of one: whole numbers add up to the same in any order
Sums = tuple[int, int, int]


def exact_sums(values: np.ndarray) -> Sums:
    """Count values of a magnitude about 1, and sum them and their squares in parts of 2^-32.

    Parameters
    ----------
    values : (Z, Y, X) float array

    Returns
    -------
    count, total, squares : int
        Of parts of a volume, they add up to those of the whole.

    Examples
    --------
    >>> exact_sums(np.array([[[0.5, -1.0]]])) == (2, -UNIT // 2, UNIT * 5 // 4)
    True
    """

    def one(plane: np.ndarray) -> tuple[int, int]:
        wide = plane.astype(np.float64)
        total = np.rint(wide * UNIT).astype(np.int64).sum()
        wide *= wide
        return int(total), int(np.rint(wide * UNIT).astype(np.int64).sum())

    planes = map_threads(one, values)
    return values.size, sum(total for total, _ in planes), sum(squares for _, squares in planes)


def mean_and_spread(parts: Iterable[Sums]) -> tuple[float, float]:
    """Return mean and standard deviation from the sums of all parts of a volume.

    Examples
    --------
    >>> values = np.random.default_rng(0).random((4, 30, 30))
    >>> mean, spread = mean_and_spread(exact_sums(part) for part in (values[:3], values[3:]))
    >>> bool(abs(mean - values.mean()) < 1e-9), bool(abs(spread - values.std()) < 1e-9)
    (True, True)
    """
    count, total, squares = (sum(column) for column in zip(*parts, strict=True))
    return total / (count * UNIT), math.sqrt(max(count * squares * UNIT - total * total, 0) / (count * UNIT) ** 2)
