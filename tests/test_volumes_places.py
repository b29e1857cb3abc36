"""Boxes spread over a volume: inside, distinct, overlapping no more than they must."""

from itertools import combinations, product

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.volumes.places import largest_share, spread_places

HALVES = ((250, 250, 250), (128, 128, 128))


def covered(place, size, shape):
    """The voxels of a box, painted into the volume."""
    painted = np.zeros(shape, bool)
    painted[tuple(slice(first, first + n) for first, n in zip(place, size, strict=True))] = True
    return painted


def least_possible(shape, size, count):
    """The least largest overlap of all choices, by trying each."""
    starts = list(product(*(range(n - s + 1) for n, s in zip(shape, size, strict=True))))
    return min(largest_share(list(choice), size) for choice in combinations(starts, count))


@pytest.mark.parametrize(
    ("shape", "size", "counts"),
    [
        ((1, 1, 10), (1, 1, 6), (1, 2, 3, 5)),
        ((1, 1, 10), (1, 1, 3), (2, 3, 4)),
        ((1, 5, 5), (1, 3, 3), (2, 3, 4, 5)),
        ((3, 3, 3), (2, 2, 2), (2, 3, 4, 5, 8)),
        ((4, 4, 4), (3, 3, 3), (2, 3, 4)),
        ((2, 4, 8), (2, 3, 4), (2, 3, 4)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_no_choice_of_places_overlaps_less(shape, size, counts, seed):
    for count in counts:
        places = spread_places(shape, size, count, seed)
        assert largest_share(places, size) == pytest.approx(least_possible(shape, size, count)), (count, places)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_up_to_four_boxes_of_half_a_cube_touch_at_edges_alone(count, seed):
    """Each side of the box is a little over half: 8 corners, and 4 of them of which no two share a face."""
    shape, size = HALVES
    places = spread_places(shape, size, count, seed)
    assert largest_share(places, size) <= 6 * 6 * 128 / 128**3
    exact = spread_places(shape, (125, 125, 125), 2 * count, seed)
    assert largest_share(exact, (125, 125, 125)) == 0


def test_eight_boxes_of_half_a_cube_are_its_corners():
    shape, size = HALVES
    assert sorted(spread_places(shape, size, 8)) == sorted(product((0, 122), repeat=3))


@pytest.mark.parametrize("count", [1, 5, 13, 27])
def test_boxes_that_fit_side_by_side_do_not_overlap_and_fill_the_extent(count):
    shape, size = (30, 100, 200), (10, 32, 50)
    places = np.array([spread_places(shape, size, count, seed) for seed in range(200)])
    assert (places >= 0).all() and (places <= np.subtract(shape, size)).all()
    assert all(largest_share([tuple(p) for p in some], size) == 0 for some in places[:20])
    ends = places.reshape(-1, 3)
    room = np.subtract(shape, size)
    assert (ends.min(axis=0) <= 0.1 * room).all() and (ends.max(axis=0) >= 0.9 * room).all(), "from end to end"


def test_every_voxel_is_as_likely_in_one_half_as_in_the_other():
    starts = np.array([spread_places((20, 100, 200), (10, 20, 30), 1, seed)[0] for seed in range(400)])
    assert np.abs(starts.mean(axis=0) - np.array([5, 40, 85])).max() < 8 and starts[:, 2].std() > 40


def test_the_share_is_that_of_the_painted_voxels():
    shape, size, rng = (6, 9, 12), (3, 4, 5), np.random.default_rng(0)
    for _ in range(20):
        places = [tuple(int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)) for _ in range(3)]
        painted = [covered(place, size, shape) for place in places]
        most = max((a & b).sum() for a, b in combinations(painted, 2))
        assert largest_share(places, size) == pytest.approx(most / 60)
    assert largest_share(places[:1], size) == 0


def test_the_seed_decides_and_all_places_differ():
    shape, size = (12, 80, 90), (8, 64, 64)
    chosen = {seed: spread_places(shape, size, 40, seed) for seed in range(6)}
    assert all(len(set(places)) == 40 for places in chosen.values())
    assert chosen[0] == spread_places(shape, size, 40, 0) and chosen[0] != chosen[1]


def test_each_place_there_is_can_be_taken_and_no_more():
    every = list(product((0, 1), (0,), (0, 1, 2)))
    assert sorted(spread_places((3, 4, 7), (2, 4, 5), 6)) == every
    with pytest.raises(
        UserError, match=r"--cutouts 7 takes 7 different places, and a volume of 7 4 3 \(x y z\) has 6 "
    ):
        spread_places((3, 4, 7), (2, 4, 5), 7)
    with pytest.raises(UserError, match=r"has 1 for a cutout of 64 64 8; take a smaller --cutout or fewer"):
        spread_places((8, 64, 64), (8, 64, 64), 2)
