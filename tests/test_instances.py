"""Segmentation scores against their definitions, scikit-image and hand-worked cases."""

import math
from collections import Counter

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error, variation_of_information

from emlib.measure.instances import contingency, fill_zero, score_instances


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
