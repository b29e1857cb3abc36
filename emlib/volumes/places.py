"""Where several boxes of one volume go: spread over the whole of it, with as little overlap as can be.

1. Where that many fit side by side, the volume is divided into about as many cells, and each box lies at random in a
   cell of its own: none overlaps another.
2. Where they do not fit, grids that reach from end to end are tried, and the boxes take those places of one at which
   the largest overlap of any two is least.
"""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np

from emlib.errors import UserError

Place = tuple[int, int, int]

GRIDS = 40  # so many are tried, those with the widest steps first
MOST_OF_GRID = 64  # places of a grid that is tried, or twice the boxes
STARTS = 16  # so many pairs of places are tried as the first two
FEW, MANY = 4, 64  # boxes: above FEW one pair is tried, above MANY a fifth of the grids, to be done in seconds
ROUNDS = 100  # of improvement by moving one box


def spread_places(shape: Place, size: Place, count: int, seed: int = 0) -> list[Place]:
    """Choose places for boxes of one size, all different.

    Parameters
    ----------
    shape : (Z, Y, X) of the volume in voxels
    size : (Z, Y, X) of each box, at most ``shape``
    count : int
    seed : int
        Equal seeds give equal places. Another ``count`` gives others.

    Returns
    -------
    list of (z, y, x)
        First voxel of each box.

    Raises
    ------
    UserError
        If fewer than ``count`` boxes fit that differ.

    Examples
    --------
    >>> sorted(spread_places((1, 1, 10), (1, 1, 6), 2))
    [(0, 0, 0), (0, 0, 4)]
    """
    room = [n - s for n, s in zip(shape, size, strict=True)]
    distinct = math.prod(r + 1 for r in room)
    if count > distinct:
        volume, box = (" ".join(str(n) for n in reversed(sides)) for sides in (shape, size))
        raise UserError(
            f"--cutouts {count} takes {count} different places, and a volume of {volume} (x y z) has {distinct} for a "
            f"cutout of {box}; take a smaller --cutout or fewer --cutouts"
        )
    rng = np.random.default_rng(seed)
    side_by_side = [n // s for n, s in zip(shape, size, strict=True)]
    if math.prod(side_by_side) >= count:
        return _in_cells(shape, size, _cells(shape, size, side_by_side, count), count, rng)
    return _on_a_grid(size, room, count, rng)


def largest_share(places: list[Place], size: Place) -> float:
    """Largest part of a box that another one covers, 0 to 1; 0 for a single box.

    Examples
    --------
    >>> largest_share([(0, 0, 0), (0, 0, 3), (0, 0, 8)], (1, 1, 4))
    0.25
    """
    shared = [
        math.prod(max(0, s - abs(p - q)) for p, q, s in zip(one, other, size, strict=True))
        for one, other in combinations(places, 2)
    ]
    return max(shared, default=0) / math.prod(size)


def _cells(shape: Place, size: Place, most: list[int], count: int) -> list[int]:
    """Into how many parts each axis is divided, so that there are enough cells and each is as roomy as can be."""
    parts = [1, 1, 1]
    while math.prod(parts) < count:
        axis = max((a for a in range(3) if parts[a] < most[a]), key=lambda a: shape[a] / (parts[a] * size[a]))
        parts[axis] += 1
    return parts


def _in_cells(shape: Place, size: Place, parts: list[int], count: int, rng: np.random.Generator) -> list[Place]:
    places = []
    for number in rng.permutation(math.prod(parts))[:count]:
        place = []
        for at, n, s, p in zip(np.unravel_index(number, parts), shape, size, parts, strict=True):
            first, end = n * int(at) // p, n * (int(at) + 1) // p
            place.append(int(rng.integers(first, end - s + 1)))
        places.append(tuple(place))
    return places


def _on_a_grid(size: Place, room: list[int], count: int, rng: np.random.Generator) -> list[Place]:
    """Take the grid on which the largest overlap comes out least; ties go to the smaller sum of overlaps."""
    found: tuple[tuple[int, int], np.ndarray] | None = None
    for parts in _grids(size, room, count):
        axes = [[r * i // (p - 1) for i in range(p)] if p > 1 else [r // 2] for r, p in zip(room, parts, strict=True)]
        grid = rng.permutation(np.array(list(product(*axes))))
        distance = np.abs(grid[:, None] - grid[None])
        shared = np.maximum(0, np.array(size) - distance).prod(axis=2)
        farthest = int(shared[0].argmin())
        for second in (farthest, *range(1, min(STARTS, len(grid)) if count <= FEW else 1)):
            cost, chosen = _least_shared(shared, [0, second][:count], count)
            if found is None or cost < found[0]:
                found = cost, grid[chosen]
    return [tuple(int(n) for n in place) for place in found[1]]


def _grids(size: Place, room: list[int], count: int) -> list[tuple[int, ...]]:
    """Numbers of places by axis, of the grids that are worth a try."""
    most = [min(count, r + 1) for r in room]
    limit = max(MOST_OF_GRID, 2 * count)
    found = [
        (z, y, x)
        for z in range(1, most[0] + 1)
        for y in range(1, min(most[1], limit // z) + 1)
        for x in range(-(-count // (z * y)), min(most[2], limit // (z * y)) + 1)
    ]

    def tightest(parts: tuple[int, ...]) -> float:
        return min((r / ((p - 1) * s) for r, p, s in zip(room, parts, size, strict=True) if p > 1), default=1.0)

    return sorted(found, key=lambda parts: (-tightest(parts), parts))[: GRIDS if count <= MANY else GRIDS // 5]


def _least_shared(shared: np.ndarray, first: list[int], count: int) -> tuple[tuple[int, int], list[int]]:
    """Add rows so that the largest voxel count any two share is small: one by one, then by exchange.

    Returns
    -------
    (int, int)
        Largest and summed overlap of two.
    list of int
    """
    chosen, worst = first, shared[first].max(axis=0)
    while len(chosen) < count:
        worst[chosen] = shared.max() + 1
        chosen.append(int(worst.argmin()))
        worst = np.maximum(worst, shared[chosen[-1]])
    cost = _cost(shared, chosen)
    for _ in range(ROUNDS):
        among = shared[np.ix_(chosen, chosen)]
        np.fill_diagonal(among, -1)
        tries = [_moved(shared, chosen, int(at)) for at in np.unravel_index(among.argmax(), among.shape)]
        best = min(tries, key=lambda rows: _cost(shared, rows))
        if _cost(shared, best) >= cost:
            break
        chosen, cost = best, _cost(shared, best)
    return cost, chosen


def _moved(shared: np.ndarray, chosen: list[int], at: int) -> list[int]:
    """The same rows with one of them exchanged for the best of all others."""
    rest = chosen[:at] + chosen[at + 1 :]
    if not rest:
        return chosen
    worst, total = shared[:, rest].max(axis=1), shared[:, rest].sum(axis=1)
    worst[rest] = worst.max() + 1
    return [*chosen[:at], int(np.lexsort((total, worst))[0]), *chosen[at + 1 :]]


def _cost(shared: np.ndarray, chosen: list[int]) -> tuple[int, int]:
    among = shared[np.ix_(chosen, chosen)][np.triu_indices(len(chosen), 1)]
    return int(among.max(initial=0)), int(among.sum())
