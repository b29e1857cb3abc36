"""Segmentation scores against their definitions, scikit-image and hand-worked cases."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information

from emlib.measure.borders import near_borders
from emlib.measure.contingency import Contingency, combine, contingency
from emlib.measure.errors import meeting_place, worst_errors
from emlib.measure.instances import chance_scores, fill_zero, score_instances
from emlib.measure.pieces import Pieces
from emlib.threads import set_threads


def random_labels(seed, truth_dtype=np.int32, pred_dtype=np.int32):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, 3))
    return rng.integers(0, 5, shape).astype(truth_dtype), rng.integers(0, 6, shape).astype(pred_dtype)


def brute_force(truth, pred):
    """VOI split and merge by counting voxels one by one, and ARAND by the definition over pair probabilities."""
    voxels = [(t, p) for t, p in zip(truth.ravel().tolist(), pred.ravel().tolist(), strict=True) if t != 0]
    n = len(voxels)
    pair, t_count, p_count = Counter(voxels), Counter(t for t, _ in voxels), Counter(p for _, p in voxels)
    split = -sum(c / n * math.log2(c / t_count[t]) for (t, _), c in pair.items())
    merge = -sum(c / n * math.log2(c / p_count[p]) for (_, p), c in pair.items())
    together = sum(c * c for c in pair.values())
    precision = together / sum(c * c for c in p_count.values())
    recall = together / sum(c * c for c in t_count.values())
    return split, merge, 1 - 2 * precision * recall / (precision + recall), precision, recall


@pytest.mark.parametrize("seed", range(8))
def test_scores_equal_their_definition(seed):
    truth, pred = random_labels(seed)
    scores = score_instances(truth, pred, zero="background")
    found = [scores[k] for k in ("voi_split", "voi_merge", "arand", "rand_precision", "rand_recall")]
    assert found == pytest.approx(brute_force(truth, pred), abs=1e-12)
    assert scores["voi"] == pytest.approx(scores["voi_split"] + scores["voi_merge"])
    assert scores["cremi_score"] == pytest.approx(math.sqrt(scores["arand"] * scores["voi"]))


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_image(seed):
    rng = np.random.default_rng(seed)
    truth, pred = rng.integers(0, 6, (20, 40, 40)), rng.integers(1, 5, (20, 40, 40))
    scores = score_instances(truth, pred)
    split, merge = variation_of_information(truth, pred, ignore_labels=(0,))
    error, recall, precision = adapted_rand_error(truth, pred, ignore_labels=(0,))  # it names them the other way round
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
    # scikit-image leaves out pairs of a voxel with itself, which matters little in 32 000 voxels.
    assert (scores["arand"], scores["rand_precision"], scores["rand_recall"]) == pytest.approx(
        (error, precision, recall), abs=1e-3
    )


@pytest.mark.parametrize(
    ("truth", "pred", "split", "merge"),
    [
        ([1, 1, 2, 2], [5, 5, 9, 9], 0, 0),
        ([1, 1, 1, 1], [1, 1, 2, 2], 1, 0),
        ([1, 1, 2, 2], [7, 7, 7, 7], 0, 1),
        ([1, 1, 2, 2], [1, 2, 1, 2], 1, 1),
        ([0, 0, 1, 1], [1, 2, 3, 3], 0, 0),
    ],
)
def test_hand_worked_cases(truth, pred, split, merge):
    scores = score_instances(np.array(truth)[None, None], np.array(pred)[None, None])
    assert (scores["voi_split"], scores["voi_merge"]) == pytest.approx((split, merge))
    assert (scores["arand"] == 0) == (split == merge == 0)


def test_a_merge_lowers_precision_and_a_split_recall():
    halves, whole = np.repeat([1, 2], 50)[None, None], np.ones((1, 1, 100), int)
    merged, cut = score_instances(halves, whole), score_instances(whole, halves)
    assert (merged["rand_precision"], merged["rand_recall"]) == (0.5, 1.0)
    assert (cut["rand_precision"], cut["rand_recall"]) == (1.0, 0.5)


@pytest.mark.parametrize("dtypes", [(np.uint8, np.uint64), (np.int64, np.uint16), (np.uint64, np.int32)])
def test_any_integer_dtype_gives_the_same(dtypes):
    truth, pred = random_labels(1)
    assert score_instances(truth.astype(dtypes[0]), pred.astype(dtypes[1])) == score_instances(truth, pred)


def test_ids_beyond_32_bits_stay_apart():
    truth = np.array([[[2**40, 2**40 + 1]]], dtype=np.uint64)
    assert score_instances(truth, truth)["voi"] == 0
    assert score_instances(truth, truth)["true_segments"] == 2


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 3, 3)])
def test_without_labelled_voxels_scores_are_nan(shape):
    scores = score_instances(np.zeros(shape, int), np.ones(shape, int))
    assert math.isnan(scores["voi"]) and scores["voxels"] == 0


def test_predicted_zero_by_each_choice():
    truth, pred = np.array([[[1, 1, 1, 1]]]), np.array([[[3, 3, 0, 0]]])
    bits = {zero: score_instances(truth, pred, zero=zero)["voi_split"] for zero in ("fill", "background", "ignore")}
    assert bits == {"fill": 0, "background": 1, "ignore": 0}
    assert score_instances(truth, pred, zero="singletons")["voi_split"] == pytest.approx(1.5)


def test_fill_takes_the_nearest_label_of_the_same_section():
    labels = np.zeros((3, 1, 5), int)
    labels[0, 0, [0, 4]] = 1, 2
    labels[1, 0, 2] = 9
    assert fill_zero(labels).tolist() == [[[1, 1, 1, 2, 2]], [[9] * 5], [[0] * 5]]


def test_mismatches_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(2, 2, 3\)"):
        contingency(np.ones((2, 2, 2), int), np.ones((2, 2, 3), int))
    with pytest.raises(ValueError, match="float64"):
        contingency(np.ones((1, 1, 1)), np.ones((1, 1, 1), int))
    with pytest.raises(ValueError, match="zero must be one of"):
        score_instances(np.ones((1, 1, 1), int), np.ones((1, 1, 1), int), zero="maybe")


def test_singletons_equal_one_id_per_voxel():
    """The SNEMI3D script's treatment of predicted 0, done by hand: each such voxel gets an id of its own."""
    truth, pred = random_labels(4)
    alone = pred.astype(np.int64)
    alone[pred == 0] = 100 + np.arange((pred == 0).sum())
    by_hand = score_instances(truth, alone, zero="background")
    found = score_instances(truth, pred, zero="singletons")
    assert found == pytest.approx(by_hand, abs=1e-12)


def test_chance_is_what_shuffling_gives():
    rng = np.random.default_rng(0)
    truth, pred = np.repeat([1, 2, 3, 4], 5000), np.repeat([1, 2], [14000, 6000])
    truth[:2000] = 0
    table = contingency(truth[None, None], pred[None, None])
    pred[2000:] = rng.permutation(pred[2000:])
    shuffled = score_instances(truth[None, None], pred[None, None])
    merged = score_instances(truth[None, None], np.ones((1, 1, 20000), int))
    chance = chance_scores(table)
    for name in ("voi_split", "voi_merge", "arand", "rand_precision", "rand_recall", "cremi_score"):
        assert chance["one_segment"][name] == pytest.approx(merged[name], abs=1e-12)
        assert chance["same_sizes_at_random"][name] == pytest.approx(shuffled[name], abs=0.02)


@pytest.mark.parametrize("zero", ["ignore", "singletons"])
def test_chance_is_measured_on_the_voxels_that_are_scored(zero):
    rng = np.random.default_rng(1)
    truth, pred = rng.integers(0, 5, (1, 100, 100)), rng.integers(0, 4, (1, 100, 100))
    if zero == "ignore":
        by_hand = chance_scores(contingency(np.where(pred > 0, truth, 0), pred))
    else:
        alone = pred.copy()
        alone[pred == 0] = 100 + np.arange((pred == 0).sum())
        by_hand = chance_scores(contingency(truth, alone))
    found = chance_scores(contingency(truth, pred), zero=zero)
    for name, scores in by_hand.items():
        assert found[name] == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_table_of_a_volume_is_the_sum_of_its_slabs(seed):
    truth, pred = random_labels(seed, np.uint16, np.uint64)
    whole = contingency(truth, pred)
    parts = combine(contingency(truth[z : z + 1], pred[z : z + 1], first_section=z) for z in range(len(truth)))
    for name in ("truth", "pred", "voxels"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
        assert getattr(parts, name).dtype == getattr(whole, name).dtype
    for table in (whole, parts):
        assert np.array_equal(truth.ravel()[table.place], table.truth)
        assert np.array_equal(pred.ravel()[table.place], table.pred)


def test_place_is_the_middle_of_the_longest_run():
    truth = np.array([[[1, 2, 1, 1, 1, 2, 1]]])
    table = contingency(truth, np.ones_like(truth))
    assert table.place[table.truth == 1].tolist() == [3] and table.run.tolist() == [3, 1]


def test_the_table_does_not_depend_on_threads():
    rng = np.random.default_rng(0)
    truth, pred = rng.integers(0, 9, (2, 4, 1024, 1024)).astype(np.uint8)
    tables = []
    for threads in (1, 2):
        set_threads(threads)
        tables.append(contingency(truth, pred))
    set_threads(None)
    assert all(np.array_equal(getattr(tables[0], f), getattr(tables[1], f)) for f in Contingency.__dataclass_fields__)


@pytest.mark.parametrize("seed", range(4))
def test_worst_errors_add_up_to_voi(seed):
    truth, pred = random_labels(seed)
    table = contingency(truth, pred)
    scores = score_instances(truth, pred, zero="background")
    for kind, name in (("merge", "voi_merge"), ("split", "voi_split")):
        found = worst_errors(table, kind, 1000)
        assert found["bits"].sum() == pytest.approx(scores[name], abs=1e-12)
        assert found["bits"].is_monotonic_decreasing and len(worst_errors(table, kind, 2)) == min(2, len(found))
        for row in found.itertuples():
            inside = (pred == row.id) & (truth != 0) if kind == "merge" else truth == row.id
            parts = Counter((truth if kind == "merge" else pred)[inside].tolist())
            assert (row.voxels, row.parts) == (inside.sum(), len(parts))
            assert sorted(parts.values())[-2:] == [row.second_voxels, row.first_voxels]
            assert parts[row.first] == row.first_voxels and parts[row.second] == row.second_voxels


def test_a_perfect_segmentation_has_no_errors_and_no_truth_none():
    truth = random_labels(0)[0]
    assert worst_errors(contingency(truth, truth), "merge", 5).empty
    assert worst_errors(contingency(0 * truth, truth), "split", 5).empty


def test_meeting_place_is_where_the_parts_touch():
    truth = np.zeros((3, 8, 20), int)
    truth[:, :, :10], truth[:, :, 10:] = 1, 2
    pred = np.ones_like(truth)
    pred[:, :4], pred[0] = 7, 7  # one id over both, so that 7 merges 1 and 2 everywhere but below
    assert meeting_place(truth, pred, "merge", 7, (1, 2), (1, 1, 1))[2] == 10
    assert meeting_place(truth, pred, "merge", 7, (2, 1), (1, 1, 1))[2] == 9
    assert meeting_place(truth, pred, "merge", 7, (1, 3), (1, 1, 1)) is None
    z, y, x = meeting_place(truth, pred, "split", 1, (7, 1), (1, 1, 1))
    assert pred[z, y, x] == 1 and truth[z, y, x] == 1 and 7 in (pred[z - 1, y, x], pred[z, y - 1, x])


def test_meeting_place_measures_in_nm():
    truth, pred = np.zeros((3, 1, 9), int), np.ones((3, 1, 9), int)
    truth[0, 0, 0], truth[2, 0, 0], truth[0, 0, 5] = 1, 2, 2  # 2 sections below, or 5 pixels beside
    assert meeting_place(truth, pred, "merge", 1, (1, 2), (1, 1, 1)) == (2, 0, 0)
    assert meeting_place(truth, pred, "merge", 1, (1, 2), (10, 1, 1)) == (0, 0, 5)


@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("thick", [1, 2, 5])
def test_pieces_in_slabs_are_pieces_of_the_whole(thick, in_plane):
    rng = np.random.default_rng(thick)
    labels = rng.integers(0, 4, (5, 12, 12)).astype(np.uint8) * (rng.random((5, 12, 12)) < 0.5)
    labels = labels.astype(np.uint8)
    pieces = Pieces(in_plane)
    numbers = np.concatenate([pieces.add(labels[z : z + thick]) for z in range(0, 5, thick)])
    found = pieces.final(numbers)
    structure = np.ones((3, 3, 3), bool)
    if in_plane:
        structure[[0, 2]] = False
    expected = np.zeros(labels.shape, int)
    for value in (1, 2, 3):
        mine = ndimage.label(labels == value, structure)[0]
        expected[mine > 0] = mine[mine > 0] + expected.max()
    assert score_instances(expected, found, zero="background")["voi"] == 0  # the same up to the numbers
    assert np.array_equal(found == 0, labels == 0)
    assert np.array_equal(pieces.ids()[found], labels)


def test_near_borders_equals_its_definition():
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (2, 4, 4)), np.ones((1, 4, 5), int))
    found = near_borders(labels, (4.0, 6.0), 9.0)
    for z, section in enumerate(labels):
        padded = np.pad(section, 1, mode="edge")
        border = np.zeros(section.shape, bool)
        for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
            border |= padded[dy : dy + section.shape[0], dx : dx + section.shape[1]] != section
        at = np.argwhere(border) * (4.0, 6.0)
        for y, x in np.ndindex(section.shape):
            distance = np.hypot(*(at - (y * 4.0, x * 6.0)).T).min()
            assert found[z, y, x] == (distance <= 9.0)


def test_a_section_of_one_id_has_no_border():
    assert not near_borders(np.ones((1, 4, 4), int), (1, 1), 5).any()
