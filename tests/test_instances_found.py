"""Objects found in probabilities: known objects come back, what touches is parted, what narrows little is not."""

import numpy as np
import pytest
from scipy import ndimage

from emlib.errors import UserError
from emlib.learn.prediction.instances import InstanceSettings, find_instances

ALL = {"min_area_nm2": 0, "min_volume_nm3": 0}
PARTED = InstanceSettings("watershed", **ALL)


def balls(shape, size, centres_nm, radii_nm):
    """Which of some balls holds a voxel (0 none, from 1), and which mask they make together."""
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, size, strict=True)], indexing="ij"), axis=-1)
    inside = [np.linalg.norm(grid - c, axis=-1) - r for c, r in zip(centres_nm, radii_nm, strict=True)]
    mask = np.min(inside, axis=0) <= 0
    return np.where(mask, np.argmin(inside, axis=0) + 1, 0), mask


def agreement(found, truth):
    """Share of the voxels of a mask on which two labellings, numbered in the same order, agree."""
    inside = truth > 0
    return (found[inside] == truth[inside]).mean()


def components_brute(mask):
    """Components by flooding one pixel after the other, numbered in raster order, corners touching."""
    out, number = np.zeros(mask.shape, np.int32), 0
    for start in np.argwhere(mask):
        if out[tuple(start)]:
            continue
        number += 1
        todo = [tuple(start)]
        while todo:
            place = todo.pop()
            if min(place) < 0 or any(p >= n for p, n in zip(place, mask.shape, strict=True)):
                continue
            if mask[place] and not out[place]:
                out[place] = number
                todo += [tuple(np.add(place, s) - 1) for s in np.ndindex((3,) * mask.ndim)]
    return out


@pytest.mark.parametrize("shape", [(31, 37), (7, 15, 17)])
@pytest.mark.parametrize("seed", range(3))
def test_components_equal_brute_force(shape, seed):
    probability = np.random.default_rng(seed).random(shape)
    settings = InstanceSettings(threshold=0.75 if len(shape) == 2 else 0.9, **ALL)
    found = find_instances(probability, (50, 4, 4), settings)
    assert found.dtype == np.int32
    assert np.array_equal(found, components_brute(probability >= settings.threshold))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool])
def test_the_kind_of_numbers_does_not_matter(dtype):
    mask = np.random.default_rng(0).random((40, 40)) > 0.6
    assert np.array_equal(
        find_instances(mask.astype(dtype), (4, 4), InstanceSettings(**ALL)),
        find_instances(mask, (4, 4), InstanceSettings(**ALL)),
    )


@pytest.mark.parametrize("size", [(4.0, 4.0), (8.0, 4.0), (4.0, 12.0)], ids=str)
def test_touching_discs_are_parted_where_they_meet(size):
    shape = (round(320 / size[0]), round(480 / size[1]))
    truth, mask = balls(shape, size, [(130, 150), (170, 300)], [90, 90])
    assert find_instances(mask, size, InstanceSettings(**ALL)).max() == 1
    found = find_instances(mask, size, PARTED)
    assert found.max() == 2
    assert agreement(found, truth) > 0.97


@pytest.mark.parametrize("size", [(12.0, 12.0, 12.0), (50.0, 10.0, 10.0)], ids=str)
def test_touching_balls_are_parted_whichever_way_they_lie(size):
    for apart in ([0, 0, 380], [380, 0, 0], [0, 270, 270]):
        centres = np.array([[400, 400, 400], np.add(400, apart)]) - np.array(apart) / 2
        shape = np.ceil(800 / np.array(size)).astype(int)
        truth, mask = balls(shape, size, centres, [210, 210])
        found = find_instances(mask, size, PARTED)
        assert found.max() == 2, apart
        assert agreement(found, truth) > 0.95, apart


def test_a_dumb_bell_with_a_wide_waist_stays_whole():
    """Half width 90 at the ends and 80 at the waist: less than the 15 nm that make a neck."""
    y, x = np.indices((80, 160)) * 4.0
    half_width = 80 + 10 * np.abs(np.clip((x - 320) / 150, -1, 1))
    mask = (np.abs(y - 160) <= half_width) & (np.abs(x - 320) < 220)
    assert find_instances(mask, (4, 4), PARTED).max() == 1
    fussy = InstanceSettings("watershed", split_depth_nm=4, **ALL)
    assert find_instances(mask, (4, 4), fussy).max() == 2


def test_a_long_ragged_tube_stays_whole():
    rng = np.random.default_rng(5)
    edge = ndimage.gaussian_filter1d(rng.normal(0, 4, (2, 400)), 3, axis=1)
    y = np.arange(60)[:, None]
    mask = (y >= 20 + edge[0]) & (y <= 40 + edge[1])
    assert find_instances(mask, (4, 4), PARTED).max() == 1
    assert (
        find_instances(mask, (4, 4), InstanceSettings("watershed", split_depth_nm=0, seed_distance_nm=0, **ALL)).max()
        > 3
    )


def test_anisotropic_balls_that_touch_in_rows():
    """A 2 x 2 x 2 heap of balls in sections of 50 nm: eight objects in the order of their first voxel."""
    size, step = (50.0, 10.0, 10.0), 390
    centres = [(z, y + 3, x + 7) for z in (250, 640) for y in (250, 640) for x in (250, 640)]
    truth, mask = balls((18, 90, 90), size, centres, [step / 2 + 8] * 8)
    found = find_instances(mask, size, PARTED)
    assert found.max() == 8
    assert agreement(found, truth) > 0.97


def test_seeds_keep_their_distance():
    _, mask = balls((80, 120), (4, 4), [(150, 150), (150, 290)], [80, 80])
    for distance, objects in ((100, 2), (200, 1)):
        settings = InstanceSettings("watershed", seed_distance_nm=distance, **ALL)
        assert find_instances(mask, (4, 4), settings).max() == objects, distance


def test_no_voxel_of_the_mask_is_lost_and_no_object_falls_apart():
    mask = ndimage.gaussian_filter(np.random.default_rng(1).random((12, 60, 60)), (1, 3, 3)) > 0.505
    settings = InstanceSettings("watershed", split_depth_nm=2, seed_distance_nm=20, **ALL)
    found = find_instances(mask, (20, 8, 8), settings)
    assert np.array_equal(found > 0, mask)
    assert found.max() > find_instances(mask, (20, 8, 8), InstanceSettings(**ALL)).max()
    for number in range(1, found.max() + 1):
        assert ndimage.label(found == number, np.ones((3, 3, 3)))[1] == 1
    assert np.array_equal(found, find_instances(mask.copy(), (20, 8, 8), settings))


def test_ids_follow_the_first_voxel():
    mask = ndimage.gaussian_filter(np.random.default_rng(2).random((8, 40, 40)), (1, 2, 2)) > 0.53
    found = find_instances(mask, (20, 8, 8), PARTED)
    ids, first = np.unique(found, return_index=True)
    order = ids[ids > 0][np.argsort(first[ids > 0])]
    assert order.tolist() == list(range(1, found.max() + 1)) and found.max() > 3


def test_small_objects_are_dropped_by_their_physical_size():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:7] = mask[10:14, 10:14] = True  # 15 and 16 pixels of 8 x 4 nm
    for least, kept in ((480, 2), (481, 1), (512, 1), (513, 0)):
        assert find_instances(mask, (8, 4), InstanceSettings(min_area_nm2=least)).max() == kept
    deep = np.stack([mask, mask])  # of 50 nm each
    for least, kept in ((48_000, 2), (48_001, 1), (51_200, 1), (51_201, 0)):
        assert find_instances(deep, (50, 8, 4), InstanceSettings(min_volume_nm3=least)).max() == kept


@pytest.mark.parametrize("method", ["components", "watershed"])
@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7), (0, 7)])
def test_nothing_and_everything(method, shape):
    settings = InstanceSettings(method, **ALL)
    assert find_instances(np.zeros(shape), (50, 8, 8), settings).max(initial=0) == 0
    assert (find_instances(np.ones(shape), (50, 8, 8), settings) == 1).all()


def test_an_object_that_the_border_cuts_is_not_parted_there():
    _, mask = balls((40, 80), (4, 4), [(0, 160)], [100])
    assert find_instances(mask, (4, 4), PARTED).max() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InstanceSettings("watershd"), "no method 'watershd' to find objects: did you mean watershed"),
        (lambda: InstanceSettings(threshold=0), "threshold is a probability above 0 and at most 1, got 0"),
        (lambda: InstanceSettings(split_depth_nm=-1), "split_depth_nm must be 0 or more, got -1"),
        (lambda: InstanceSettings(min_volume_nm3=np.nan), "min_volume_nm3 must be 0 or more, got nan"),
        (lambda: find_instances(np.zeros(3), (4, 4)), r"probabilities have shape \(3,\)"),
        (lambda: find_instances(np.full((3, 3), 255.0), (4, 4)), "between 0 and 1, these between 255.0 and 255.0"),
        (lambda: find_instances(np.full((3, 3), np.nan), (4, 4)), "between 0 and 1, these between nan and nan"),
        (lambda: find_instances(np.zeros((3, 3)), (4, -4)), "give three positive numbers of nm"),
        (lambda: find_instances(np.zeros((3, 3, 3)), (4, 4)), "give three positive numbers of nm"),
    ],
)
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as told:
        call()
    assert "\n" not in str(told.value)
