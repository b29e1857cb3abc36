"""Edits against what they mean, voxel by voxel; deltas and boxes against a look at the whole volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofread_run import VOXEL, blobs, boundary_of
from scipy import ndimage

from emlib.errors import UserError
from emlib.proofread import edits
from emlib.proofread.boxes import Boxes, box_of, slices
from emlib.proofread.deltas import apply_delta, make_delta, revert_delta
from emlib.proofread.splitting import split


def applied(labels, delta):
    """The labels after a change, which must leave those given alone and be taken back exactly."""
    after = labels.copy()
    if delta is None:
        return after
    apply_delta(after, delta)
    z, y, x = np.nonzero(after != labels)
    assert delta.voxels == len(z)
    assert delta.box == (z.min(), z.max() + 1, y.min(), y.max() + 1, x.min(), x.max() + 1)
    back = after.copy()
    revert_delta(back, delta)
    assert np.array_equal(back, labels)
    return after


def in_section(mask, z):
    only = np.zeros_like(mask)
    only[z] = mask[z]
    return only


@pytest.mark.parametrize("z", [None, 2])
@pytest.mark.parametrize("within", [True, False])
def test_merge_relabel_and_delete(z, within):
    labels = blobs()
    for neurite in (1, 4, 9):
        box = Boxes(labels)[neurite] if within else None
        mask = labels == neurite
        if z is not None:
            mask = in_section(mask, z)
        assert np.array_equal(applied(labels, edits.delete(labels, neurite, box, z)), np.where(mask, 0, labels))
        assert np.array_equal(applied(labels, edits.relabel(labels, neurite, 77, box, z)), np.where(mask, 77, labels))
        if z is None:
            assert np.array_equal(applied(labels, edits.merge(labels, 2, neurite, box)), np.where(mask, 2, labels))


@given(seed=st.integers(0, 1000), over=st.sampled_from([None, 0, 1, 3]), neurite=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_paint(seed, over, neurite):
    labels = blobs((3, 8, 9), 5)
    voxels = np.random.default_rng(seed).integers(0, labels.shape, (30, 3))
    expected = labels.copy()
    for z, y, x in voxels:
        if over is None or labels[z, y, x] == over:
            expected[z, y, x] = neurite
    assert np.array_equal(applied(labels, edits.paint(labels, voxels, neurite, over)), expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("z", [None, 3])
def test_fill_closes_what_is_enclosed(seed, z):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((7, 16, 18)) < 0.75, 5, rng.integers(0, 4, (7, 16, 18))).astype(np.int32)
    labels[2:5, 5:9, 6:11] = 2  # a larger hole, and open ones at the faces by chance
    mask = labels == 5
    filled = ndimage.binary_fill_holes(mask) if z is None else mask.copy()
    if z is not None:
        filled[z] = ndimage.binary_fill_holes(mask[z])
    assert filled.sum() > mask.sum() + 20
    assert np.array_equal(applied(labels, edits.fill(labels, 5, z=z)), np.where(filled, 5, labels))
    assert np.array_equal(
        applied(labels, edits.fill(labels, 5, Boxes(labels)[5], z, over=0)),
        np.where(filled & (labels == 0), 5, labels),
    )


@pytest.mark.parametrize("z", [None, 1])
def test_new_id_takes_the_piece_at_the_click(z):
    rng = np.random.default_rng(4)
    labels = (rng.random((4, 12, 12)) < 0.15).astype(np.int32) * 3
    for at in np.argwhere(labels == 3)[::7]:
        if z is not None and at[0] != z:
            continue
        mask = labels == 3 if z is None else in_section(labels == 3, z)
        pieces = ndimage.label(mask, np.ones((3, 3, 3)))[0]
        expected = np.where(pieces == pieces[tuple(at)], 50, labels)
        assert np.array_equal(applied(labels, edits.new_id(labels, at, 50, Boxes(labels)[3], z)), expected)


def test_new_id_of_a_neurite_in_one_piece_is_no_change():
    assert edits.new_id(np.ones((2, 3, 3), np.int32), (0, 1, 1), 9) is None


def lowest_passes(relief, mask, seed):
    """For each voxel the lowest ridge that a way from the seed inside the mask must cross, by relaxation."""
    passes = np.where(mask, np.inf, np.nan)
    passes[tuple(np.transpose(seed))] = relief[tuple(np.transpose(seed))]
    while True:
        before = passes.copy()
        for axis in range(3):
            for step in (1, -1):
                near = np.roll(passes, step, axis)
                edge = [slice(None)] * 3
                edge[axis] = 0 if step == 1 else -1
                near[tuple(edge)] = np.inf
                near[np.isnan(near)] = np.inf
                passes = np.where(mask, np.minimum(passes, np.maximum(near, relief)), np.nan)
        if np.array_equal(before, passes, equal_nan=True):
            return passes


@pytest.mark.parametrize("z", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_split_gives_each_voxel_to_the_seed_with_the_lowest_pass(seed, z):
    """The definition of a watershed, in levels of the probability."""
    rng = np.random.default_rng(seed)
    labels = blobs((4, 14, 15), 2, seed)
    levels = rng.integers(0, 12, labels.shape)
    neurite = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    mask = labels == neurite if z is None else in_section(labels == neurite, z)
    voxels = np.argwhere(mask)
    seeds = [voxels[:3], voxels[[len(voxels) // 2]], voxels[-4:]]
    delta = split(labels, (levels + 0.5) / 127, seeds, neurite, [21, 22], VOXEL, Boxes(labels)[neurite], z)
    after = applied(labels, delta)
    passes = np.stack([lowest_passes(levels, mask, s) for s in seeds])
    reached = mask & np.isfinite(passes.min(0))
    owner = np.select([after == 21, after == 22], [1, 2], 0)
    assert (np.take_along_axis(passes, owner[None], 0)[0] == passes.min(0))[reached].all()
    assert np.array_equal(after[~reached], labels[~reached])
    for number, voxels in enumerate(seeds):
        assert (owner[tuple(voxels.T)] == number).all()


@pytest.mark.parametrize("stroke", [2, 15])
def test_split_without_a_boundary_gives_each_voxel_to_the_nearer_seed(stroke):
    labels, seeds = np.ones((3, 20, 41), np.int32), [[(0, y, 5) for y in range(2, 2 + stroke)], [(2, 16, 33)] * stroke]
    after = applied(labels, split(labels, np.zeros(labels.shape), seeds, 1, [2], VOXEL))
    grid = np.stack(np.indices(labels.shape), -1)[..., None, :]
    far = [np.sqrt((((grid - np.array(s)) * VOXEL) ** 2).sum(-1)).min(-1) for s in seeds]
    clear = np.abs(far[0] - far[1]) > 12
    assert clear.mean() > 0.7 and np.array_equal(after[clear], np.where(far[0] < far[1], 1, 2)[clear])


def test_split_runs_along_the_boundary():
    """Two neurites merged by mistake come apart where the membrane is, wherever in them the seeds are."""
    truth = np.ones((4, 20, 40), np.int32)
    truth[:, :, 13:] = 2
    merged, relief = np.full_like(truth, 7), boundary_of(truth)
    relief[:, :, 12] = relief[:, :, 13]
    for seeds in ([[(0, 3, 2)], [(3, 17, 38)]], [[(1, 10, 10)], [(2, 2, 20), (2, 3, 20)]]):
        after = applied(merged, split(merged, relief, seeds, 7, [8]))
        assert (after == np.where(truth == 1, 7, 8)).mean() > 0.97


def test_split_leaves_what_no_seed_reaches():
    labels = np.zeros((1, 3, 9), np.int32)
    labels[0, 1, :4], labels[0, 1, 6:] = 4, 4
    after = applied(labels, split(labels, np.zeros(labels.shape), [[(0, 1, 0)], [(0, 1, 3)]], 4, [5]))
    assert after[0, 1].tolist() == [4, 4, 5, 5, 0, 0, 4, 4, 4]


@pytest.mark.parametrize(
    ("seeds", "z", "message"),
    [
        ([[(0, 1, 1)]], None, "two seeds or more, not 1"),
        ([[(0, 1, 1)], [(0, 1, 4)]], None, "seed 2 at z=0, y=1, x=4 lies in neurite 2, not in 1"),
        ([[(0, 1, 1)], [(0, 1, 1)]], None, "seed 2 lies wholly under another"),
        ([[(0, 1, 1)], [(1, 1, 1)]], 0, "seed 2 lies in section 1, and section 0 is to be cut"),
        ([[(0, 1, 1)], [(0, 1, 99)]], None, "x=99 lies outside of the volume"),
        ([[(0, 1, 1)], []], None, "voxels are given as a list of whole numbers z y x"),
    ],
)
def test_split_says_what_is_wrong_with_seeds(seeds, z, message):
    labels = np.ones((2, 3, 6), np.int32)
    labels[:, :, 3:] = 2
    with pytest.raises(UserError, match=message):
        split(labels, np.zeros(labels.shape), seeds, 1, [9], z=z)


def test_a_brush_covers_a_disk_or_a_ball_along_its_path():
    shape, path = (5, 30, 30), [(2, 5, 5), (2, 9, 20)]
    for flat in (True, False):
        covered = np.zeros(shape, bool)
        covered[tuple(edits.brush(shape, path, 24, (16, 8, 8), flat).T)] = True
        line = np.array(path[0]) + np.linspace(0, 1, 400)[:, None] * np.subtract(path[1], path[0])
        grid = np.stack(np.indices(shape), -1)[..., None, :]
        distance = (np.sqrt((((grid - line) * (16, 8, 8)) ** 2).sum(-1))).min(-1)
        if flat:
            distance[[0, 1, 3, 4]] = 1e9
        assert covered[distance < 24 - 12].all() and not covered[distance > 24 + 12].any()


def test_a_brush_at_the_border_stays_in_the_volume():
    voxels = edits.brush((2, 4, 4), [(0, 0, 0)], 16, VOXEL)
    assert {tuple(v) for v in voxels} == {(0, y, x) for y in range(3) for x in range(3) if y * y + x * x <= 4}


@given(data=st.data(), wide=st.booleans())
@settings(max_examples=60, deadline=None)
def test_deltas_hold_any_change(data, wide):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7)))
    top = 2**40 if wide else 9
    dtype = np.int64 if wide else np.int32
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    before = rng.integers(0, top, shape).astype(dtype)
    after = np.where(rng.random(shape) < data.draw(st.sampled_from([0.1, 0.5, 1.0])), rng.integers(0, top), before)
    places = np.arange(before.size)
    delta = make_delta(shape, places, before.ravel(), after.ravel())
    assert (delta is None) == np.array_equal(before, after)
    assert np.array_equal(applied(before, delta), after)


def test_a_delta_refuses_labels_that_it_was_not_made_for():
    labels = np.array([[[1, 1, 2]]])
    delta = make_delta(labels.shape, np.array([0, 1]), 1, 5)
    other = np.array([[[1, 3, 2]]])
    with pytest.raises(ValueError, match="not those that this edit was made on"):
        apply_delta(other, delta)
    assert other.tolist() == [[[1, 3, 2]]]
    with pytest.raises(ValueError, match="C-contiguous"):
        apply_delta(np.zeros((2, 3, 4)).T, delta)


def test_a_large_merge_is_a_small_delta():
    labels = np.repeat(np.arange(1, 5, dtype=np.int32), 2**16).reshape(4, 256, 256)
    delta = edits.merge(labels, 1, 3)
    assert delta.voxels == 2**16 and len(delta.runs) + len(delta.old) + len(delta.new) < 100


@given(seed=st.integers(0, 10**6), huge=st.booleans())
@settings(max_examples=40, deadline=None)
def test_boxes_follow_any_change(seed, huge):
    rng = np.random.default_rng(seed)
    factor = 2**35 if huge else 1
    labels = rng.integers(0, 5, (3, 6, 7)) * factor
    boxes = Boxes(labels)
    for _ in range(6):
        places = np.sort(rng.choice(labels.size, rng.integers(1, 40), replace=False))
        new = rng.integers(0, 8) * factor if rng.random() < 0.5 else rng.integers(0, 8, len(places)) * factor
        delta = make_delta(labels.shape, places, labels.ravel()[places], new)
        if delta is not None:
            apply_delta(labels, delta)
            boxes.update(delta)
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert boxes.ids() == ids.tolist() and [boxes.voxels(i) for i in ids] == counts.tolist()
    for neurite in ids:
        assert (labels[slices(boxes[neurite])] == neurite).sum() == boxes.voxels(neurite)


def test_boxes_at_first_are_tight():
    labels = blobs()
    boxes = Boxes(labels)
    for neurite in boxes.ids():
        assert boxes[neurite] == box_of(edits.find_voxels(labels, neurite), labels.shape)
    assert boxes.highest == labels.max() and 0 not in boxes and 12345 not in boxes and len(boxes) == 9
