"""Cuts of large neurites: pieces from runs, and flooding coarse to fine against flooding voxel by voxel."""

import numpy as np
import pytest
from scipy import ndimage

from emlib.proofread import flooding
from emlib.proofread.boxes import Boxes
from emlib.proofread.deltas import apply_delta, make_delta, make_run_delta
from emlib.proofread.pieces import connected, cut_runs, label_runs, touching_runs
from emlib.proofread.splitting import split

VOXEL = (40.0, 8.0, 8.0)


def applied(labels, delta):
    after = labels.copy()
    if delta is not None:
        apply_delta(after, delta)
    return after


def tube(shape, seed=0, cells=30):
    """Cells wall to wall with ridges between them; which of them are one neurite is up to the test."""
    rng = np.random.default_rng(seed)
    points = rng.random((cells, 3)) * shape
    grid = np.stack(np.indices(shape), -1).reshape(-1, 1, 3)
    distance = np.sqrt((((grid - points) * (VOXEL / np.min(VOXEL))) ** 2).sum(-1))
    near = np.sort(distance, axis=1)
    ridge = np.exp(-(((near[:, 1] - near[:, 0]) / 3) ** 2)).reshape(shape).astype(np.float32)
    return distance.argmin(1).reshape(shape).astype(np.int32) + 1, ridge


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_pieces_of_runs_are_those_of_faces(seed, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 7, 9)) < share
    mask[1, 2, 3] = True
    places = np.flatnonzero(mask)
    runs = label_runs(mask.astype(np.int32) * 3, 3)
    assert np.array_equal(runs.places(), places)
    z, y, x = np.nonzero(mask)
    assert runs.box(mask.shape) == tuple(n for axis in (z, y, x) for n in (axis.min(), axis.max() + 1))
    assert (runs.start // 9 == (runs.end - 1) // 9).all()
    piece = np.repeat(connected(len(runs.start), *touching_runs(runs, mask.shape)), runs.end - runs.start)
    expected = ndimage.label(mask)[0].ravel()[places]
    assert len(set(zip(piece.tolist(), expected.tolist(), strict=True))) == len(set(expected)) == len(set(piece))


@pytest.mark.parametrize("seed", range(3))
def test_runs_touch_where_voxels_share_a_face(seed):
    rng = np.random.default_rng(seed)
    mask, values = rng.random((3, 5, 8)) < 0.6, rng.integers(0, 2, (3, 5, 8))
    runs, value = cut_runs(label_runs(mask.astype(np.int32), 1), values.ravel()[np.flatnonzero(mask)])
    number = np.full(mask.size, -1)
    for index, (start, end) in enumerate(zip(*runs, strict=True)):
        assert (values.ravel()[start:end] == value[index]).all()
        number[start:end] = index
    number = number.reshape(mask.shape)
    expected = set()
    for axis in range(3):
        one, other = np.moveaxis(number, axis, 0)[:-1].ravel(), np.moveaxis(number, axis, 0)[1:].ravel()
        expected |= {(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True) if min(a, b) >= 0 and a != b}
    assert set(zip(*(ends.tolist() for ends in touching_runs(runs, mask.shape)), strict=True)) == expected


@pytest.mark.parametrize("z", [None, 1])
def test_runs_keep_to_their_box_and_section(z):
    labels = np.random.default_rng(3).integers(0, 3, (4, 7, 9)).astype(np.int32)
    labels[:, 0], labels[:, :, -1] = 0, 0
    runs, box = label_runs(labels, 2, (0, 4, 1, 7, 0, 8), z), (0, 4, 1, 7, 0, 8)
    mask = labels == 2
    if z is not None:
        mask[[i for i in range(4) if i != z]] = False
    assert np.array_equal(runs.places(), np.flatnonzero(mask))
    assert np.array_equal(runs.within(box, labels.shape).places(), np.flatnonzero(mask[:, 1:, :8]))


@pytest.mark.parametrize("seed", range(4))
def test_a_delta_of_runs_is_that_of_their_voxels(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((3, 6, 10)) < 0.8).astype(np.int32) * 5
    runs = label_runs(labels, 5)
    for new in (9, 5, rng.choice([5, 8, 9], len(runs.start))):
        each = np.repeat(new, runs.length) if isinstance(new, np.ndarray) else new
        expected = make_delta(labels.shape, runs.places(), 5, each)
        assert make_run_delta(labels.shape, runs.start, runs.end, 5, new) == expected


@pytest.fixture
def small_limits(monkeypatch):
    """Coarse-to-fine flooding on volumes that a test can afford."""
    monkeypatch.setattr(flooding, "EXACT", 12_000)
    monkeypatch.setattr(flooding, "PATCH", 6000)
    monkeypatch.setattr(flooding, "BLOCKS", 3000)


def cut(labels, relief, seeds, neurite):
    return applied(labels, split(labels, relief, seeds, neurite, [50, 51], VOXEL, Boxes(labels)[neurite]))


def centre(labels, cell):
    at = np.argwhere(labels == cell)
    return tuple(int(n) for n in at[((at - at.mean(0)) ** 2).sum(1).argmin()])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [2, 6])
def test_coarse_to_fine_is_the_flood_of_voxels(seed, cells, monkeypatch, request):
    """Along ridges both find the same cut; where there is none, one as good."""
    truth, relief = tube((10, 60, 70), seed, cells=12)
    near = ndimage.binary_dilation(truth == truth[5, 30, 35], iterations=2)
    group = np.unique(truth[near])[:cells]
    labels = np.where(np.isin(truth, group), 60, 0).astype(np.int32)
    labels = np.where(ndimage.label(labels)[0] > 0, labels, 0).astype(np.int32)
    seeds = [[centre(truth, group[0])], [centre(truth, group[-1])]]
    exact = cut(labels, relief, seeds, 60)
    request.getfixturevalue("small_limits")
    coarse = cut(labels, relief, seeds, 60)
    neurite = labels == 60
    assert {60, 50} <= set(np.unique(coarse[neurite])) and np.array_equal(coarse == 0, ~neurite)
    shares = []
    for after in (exact, coarse):
        own = zip((group[0], group[-1]), (60, 50), strict=True)
        shares.append(np.mean([(after[truth == cell] == part).mean() for cell, part in own]))
    assert shares[1] > shares[0] - 0.03
    if cells == 2:
        assert shares[1] > 0.97 and (coarse == exact)[neurite].mean() > 0.98


@pytest.mark.parametrize("seed", range(6))
def test_each_part_hangs_on_its_seed(seed, small_limits):
    """Branches that run side by side are joined by blocks, and yet no part is left without its seed."""
    rng = np.random.default_rng(seed)
    labels = (ndimage.gaussian_filter(rng.normal(size=(9, 60, 60)), (1, 3, 3)) > -0.01).astype(np.int32)
    pieces = ndimage.label(labels)[0]
    labels = np.where(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, 7, 0).astype(np.int32)
    relief = rng.random(labels.shape).astype(np.float32) * 0.3
    voxels = np.argwhere(labels == 7)
    seeds = [[voxels[0]], [voxels[-1]], [voxels[len(voxels) // 2]]]
    after = cut(labels, relief, seeds, 7)
    for seed_at, part in zip(seeds, (7, 50, 51), strict=True):
        found = ndimage.label(after == part)[0]
        assert found.max() == 1 and after[tuple(seed_at[0])] == part


def test_seeds_side_by_side_are_told_apart_in_a_large_neurite(small_limits):
    labels = np.full((6, 80, 80), 3, np.int32)
    relief = np.zeros(labels.shape, np.float32)
    relief[:, :, 41] = 0.9
    after = cut(labels, relief, [[(3, 40, 40)], [(3, 40, 42)]], 3)
    assert (after[:, :, :41] == 3).all() and (after[:, :, 42:] == 50).all()


def test_long_strokes_side_by_side_are_told_apart(small_limits):
    labels = np.full((6, 80, 80), 3, np.int32)
    relief = np.zeros(labels.shape, np.float32)
    relief[:, :, 41] = 0.9
    strokes = [[(3, y, x) for y in range(80)] for x in (40, 42)]
    after = cut(labels, relief, strokes, 3)
    assert (after[:, :, :41] == 3).all() and (after[:, :, 42:] == 50).all()


def test_a_piece_with_one_seed_goes_to_it_whole():
    labels = np.zeros((2, 9, 20), np.int32)
    labels[:, :, :8] = labels[:, :, 10:14] = labels[:, :, 16:] = 5
    after = cut(labels, np.zeros(labels.shape), [[(0, 1, 1)], [(1, 8, 12)]], 5)
    assert (after[:, :, :8] == 5).all() and (after[:, :, 10:14] == 50).all() and (after[:, :, 16:] == 5).all()


def test_the_same_split_twice_is_the_same(small_limits):
    labels, relief = tube((10, 60, 70), 3)
    labels[:] = 4
    seeds = [[(0, 5, 5)], [(9, 50, 60)]]
    assert np.array_equal(cut(labels, relief, seeds, 4), cut(labels, relief, seeds, 4))
