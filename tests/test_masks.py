"""Mask scores against brute-force definitions, hand-worked cases, scikit-learn and scikit-image."""

from itertools import combinations, permutations
from math import hypot, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emlib.measure.masks.chance import CHANCE, chance_masks
from emlib.measure.masks.counts import LINES, MaskSettings, count_masks
from emlib.measure.masks.objects import object_counts, object_scores
from emlib.measure.masks.outlines import boundary_counts, boundary_scores, outline, within
from emlib.measure.masks.pixels import PIXEL_SCORES, patch_counts, pixel_counts, pixel_scores
from emlib.measure.masks.protocols import POOLED_SCORES, intervals, pooled_scores
from emlib.measure.masks.scores import score_masks, score_organelles, scores_table
from emlib.threads import set_threads

SMALL = st.integers(1, 9)
FEW = settings(max_examples=60, deadline=None)
NM = MaskSettings(pixel_nm=(5.0, 5.0), bootstrap=50)


@st.composite
def pairs(draw):
    shape = draw(st.tuples(SMALL, SMALL))
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


def blobs(seed, shape=(40, 50), share=0.3):
    """A mask with objects of many sizes, and one that resembles it."""
    rng = np.random.default_rng(seed)
    rough = rng.random(shape)
    for _ in range(3):
        rough = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1) + np.roll(rough, (-1, -1), (0, 1))) / 4
    truth = rough > np.quantile(rough, 1 - share)
    other = rough + rng.normal(0, 0.03, shape)
    return truth, np.roll(other > np.quantile(other, 1 - share), 1, 0)


def slow_pixel_scores(truth, pred):
    """Every score by its definition, pixel by pixel."""
    cells = {(t, p): 0 for t in (True, False) for p in (True, False)}
    for t, p in zip(truth.ravel().tolist(), pred.ravel().tolist(), strict=True):
        cells[t, p] += 1
    tp, fp, fn, tn = cells[True, True], cells[False, True], cells[True, False], cells[False, False]
    if tp + fp + fn == 0:
        precision = recall = f1 = iou = 1.0
    else:
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
        iou = tp / (tp + fp + fn)
    total = truth.size
    vi = 0.0
    for (t, p), n in cells.items():
        if n:
            true, found = cells[t, True] + cells[t, False], cells[True, p] + cells[False, p]
            vi -= n / total * (log2(n / true) + log2(n / found))
    return {
        "dice": f1,
        "iou": iou,
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "accuracy": (tp + tn) / total,
        "vi": vi,
    }


def slow_patches(truth, pred, patch, stride):
    height, width = truth.shape
    for y in range(0, height - min(patch, height) + 1, stride):
        for x in range(0, width - min(patch, width) + 1, stride):
            box = slice(y, y + patch), slice(x, x + patch)
            yield truth[box], pred[box]


def slow_outline(mask):
    out = np.zeros(mask.shape, bool)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
            out[y, x] |= inside and not mask[v, u]
    return out


def slow_within(points, pixel_nm, distance_nm):
    out = np.zeros(points.shape, bool)
    for y, x in np.ndindex(points.shape):
        out[y, x] = any(
            hypot((y - v) * pixel_nm[0], (x - u) * pixel_nm[1]) <= distance_nm * (1 + 1e-9)
            for v, u in zip(*np.nonzero(points), strict=True)
        )
    return out


def slow_objects(mask):
    """Sets of pixels that hang together, corners included."""
    left, found = set(zip(*(i.tolist() for i in np.nonzero(mask)), strict=True)), []
    while left:
        todo, one = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            one.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(one)
    return found


def slow_matches(truth, pred, threshold):
    """The most pairs over all one-to-one assignments."""
    a, b = sorted((slow_objects(truth), slow_objects(pred)), key=len)
    good = [[len(i & j) / len(i | j) >= threshold for j in b] for i in a]
    best = 0
    for choice in permutations(range(len(b)), len(a)):
        best = max(best, sum(good[i][j] for i, j in enumerate(choice)))
    return best


def square(y, x, side=20, shape=(64, 64)):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


# pixels


@FEW
@given(pairs())
def test_pixel_scores_equal_their_definitions(masks):
    scores = pixel_scores(pixel_counts(*masks))
    assert tuple(scores) == PIXEL_SCORES
    for name, value in slow_pixel_scores(*masks).items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


@FEW
@given(pairs(), st.integers(1, 6), st.integers(1, 6))
def test_patches_equal_slicing_them_out(masks, patch, stride):
    expected = [pixel_counts(*boxes).tolist() for boxes in slow_patches(*masks, patch, stride)]
    assert patch_counts(*masks, patch, stride).tolist() == expected


@FEW
@given(pairs(), st.integers(1, 6), st.integers(1, 6))
def test_patch_mean_is_the_mean_of_patches(masks, patch, stride):
    how = MaskSettings(patch=patch, stride=stride)
    found = score_masks(masks[0][None], masks[1][None], how, objects=False)["patch_mean"]
    each = [slow_pixel_scores(*boxes) for boxes in slow_patches(*masks, patch, stride)]
    for name in PIXEL_SCORES:
        assert found[name] == pytest.approx(np.mean([scores[name] for scores in each]), abs=1e-12), name
    assert found["patches"] == len(each)


@pytest.mark.parametrize("mask", [square(5, 5), np.zeros((8, 8), bool), np.ones((8, 8), bool), blobs(0)[0]])
def test_a_perfect_prediction_is_exactly_perfect(mask):
    """The published script mixed logarithms and gave a perfect prediction a VI of 0.43."""
    scores = score_masks(mask[None], mask.copy()[None], NM)
    for protocol in ("pooled", "patch_mean"):
        assert scores[protocol]["vi"] == 0.0
        assert all(scores[protocol][name] == 1.0 for name in PIXEL_SCORES if name != "vi")
    assert all(scores["pooled"][name] == 1.0 for name in POOLED_SCORES if name != "vi")


def test_vi_by_hand_in_bits():
    """Half of the pixels against all: the truth's entropy of 1 bit; two independent halves: 2 bits."""
    half, other = np.zeros((2, 4, 4), bool)
    half[:2], other[:, :2] = True, True
    assert pixel_scores(pixel_counts(half, np.ones((4, 4), bool)))["vi"] == 1.0
    assert pixel_scores(pixel_counts(half, other))["vi"] == 2.0
    assert pixel_scores(pixel_counts(half, ~half))["vi"] == 0.0  # VI does not know which side is foreground


@pytest.mark.parametrize("seed", range(5))
def test_vi_agrees_with_scikit_image(seed):
    from skimage.metrics import variation_of_information

    truth, pred = blobs(seed)
    both = variation_of_information(truth.astype(int) + 1, pred.astype(int) + 1)  # it ignores nothing, in bits
    assert pixel_scores(pixel_counts(truth, pred))["vi"] == pytest.approx(sum(both), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_pixel_scores_agree_with_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, pred = blobs(seed)
    scores, flat = pixel_scores(pixel_counts(truth, pred)), (truth.ravel(), pred.ravel())
    expected = {
        "f1": metrics.f1_score(*flat),
        "iou": metrics.jaccard_score(*flat),
        "precision": metrics.precision_score(*flat),
        "recall": metrics.recall_score(*flat),
        "accuracy": metrics.accuracy_score(*flat),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name


def test_what_is_empty():
    none, some = np.zeros((8, 8), bool), square(2, 2, 3, (8, 8))
    overlaps = ("dice", "iou", "f1", "precision", "recall")
    for truth, pred, expected in ((none, none, 1), (none, some, 0), (some, none, 0), (some, ~some, 0)):
        scores = pixel_scores(pixel_counts(truth, pred))
        assert [scores[name] for name in overlaps] == [expected] * 5
    assert pixel_scores(pixel_counts(none, some))["accuracy"] == 1 - 9 / 64


def test_what_a_patch_covers():
    """Starts at 0, 128, … as far as a whole patch fits; a smaller section is one patch; the rest is in none."""
    wide = np.zeros((300, 700), bool)
    wide[:, 641:] = True  # right of the last patch, which ends at 384 + 256
    counts = patch_counts(wide, wide)
    assert len(counts) == 4 and counts[:, 0].sum() == 0
    assert patch_counts(wide[:100, :50], wide[:100, :50]).tolist() == [[0, 0, 0, 5000]]
    assert len(patch_counts(np.zeros((1024, 1024), bool), np.zeros((1024, 1024), bool))) == 49


# boundaries


@FEW
@given(pairs())
def test_outline_equals_its_definition(masks):
    np.testing.assert_array_equal(outline(masks[0]), slow_outline(masks[0]))


@FEW
@given(arrays(bool, st.tuples(SMALL, SMALL)), st.sampled_from([(1, 1), (4.6, 4.6), (8, 3)]), st.floats(0, 40))
def test_within_equals_distances(points, pixel_nm, distance):
    np.testing.assert_array_equal(within(points, pixel_nm, distance), slow_within(points, pixel_nm, distance))


@pytest.mark.parametrize("reach", range(6))
@pytest.mark.parametrize("pixel", [0.1, 4.6])
def test_a_distance_equal_to_the_tolerance_counts(pixel, reach):
    """In whole pixels, so that no rounding decides: 0.3 / 0.1 is a little below 3 in binary."""
    points = square(8, 8, 1, (17, 17))
    expected = [[hypot(y - 8, x - 8) <= reach for x in range(17)] for y in range(17)]
    np.testing.assert_array_equal(within(points, (pixel, pixel), float(f"{pixel * reach:.6g}")), expected)


@pytest.mark.parametrize("seed", range(3))
def test_boundary_counts_equal_their_definition(seed):
    truth, pred = blobs(seed, (14, 17))
    a, b = slow_outline(truth), slow_outline(pred)
    near_a, near_b = (slow_within(points, (5, 4), 8) for points in (a, b))
    expected = [(b & near_a).sum(), b.sum(), (a & near_b).sum(), a.sum()]
    assert boundary_counts(truth, pred, (5, 4), 8).tolist() == expected


def test_boundary_f1_of_a_shifted_square():
    """A square of 20 px moved by 5 px, tolerance 4 px: of 76 boundary pixels, 19 + 19 in the rows and 8 at corners."""
    counts = boundary_counts(square(10, 10), square(10, 15), (5.0, 5.0), 20.0)
    assert counts.tolist() == [46, 76, 46, 76]
    assert boundary_scores(counts)["boundary_f1"] == pytest.approx(46 / 76)
    assert boundary_scores(boundary_counts(square(10, 10), square(10, 15), (5.0, 5.0), 25.0))["boundary_f1"] == 1


def test_boundary_tolerance_is_in_nm_of_each_axis():
    truth, pred = square(20, 20), square(20, 22)
    assert boundary_scores(boundary_counts(truth, pred, (40, 4), 8))["boundary_f1"] == 1
    assert boundary_scores(boundary_counts(truth.T, pred.T, (40, 4), 8))["boundary_f1"] < 1


def test_the_image_border_is_no_boundary():
    assert not outline(np.ones((5, 5), bool)).any()
    empty, full = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    assert boundary_scores(boundary_counts(empty, full, (1, 1), 1))["boundary_f1"] == 1  # neither has a boundary


def test_boundaries_of_which_one_is_missing_score_zero():
    for counts in ([0, 0, 0, 7], [0, 7, 0, 0], [0, 7, 0, 7]):
        assert list(boundary_scores(np.array(counts)).values()) == [0, 0, 0]


# objects


@FEW
@given(pairs(), st.integers(0, 4))
def test_object_counts_equal_exhaustive_matching(masks, min_pixels):
    """Exhaustive over assignments, so that equal IoU of exactly 0.5 cannot hide a second choice."""
    kept = []
    for mask in masks:
        keep = np.zeros(mask.shape, bool)
        for one in slow_objects(mask):
            if len(one) >= min_pixels:
                keep[tuple(np.array(list(one)).T)] = True
        kept.append(keep)
    sizes = [len(slow_objects(mask)) for mask in kept]
    if max(sizes) > 6:
        return
    expected = [slow_matches(*kept, threshold) for threshold in (0.5, 0.75)]
    assert object_counts(*masks, min_pixels).tolist() == [*expected, sizes[1], sizes[0]]


def test_iou_of_exactly_one_half_and_three_quarters():
    truth, half, most = np.zeros((3, 1, 12), bool)
    truth[0, 2:6], half[0, 2:4], most[0, 2:5] = True, True, True
    assert object_counts(truth, half).tolist() == [1, 0, 1, 1]
    assert object_counts(truth, most).tolist() == [1, 1, 1, 1]
    assert object_counts(truth, np.roll(half, 6)).tolist() == [0, 0, 1, 1]


def test_two_objects_merged_and_one_split():
    two = square(10, 5) | square(10, 35)
    merged = two.copy()
    merged[19, 5:55] = True
    assert object_counts(two, merged).tolist() == [0, 0, 1, 2]
    assert object_counts(merged, two).tolist() == [0, 0, 2, 1]
    unequal = square(10, 5) | square(10, 35, 8)
    joined = unequal.copy()
    joined[15, 5:40] = True  # 474 pixels with the bridge: the large one keeps an IoU of 400 / 474
    assert object_counts(unequal, joined).tolist() == [1, 1, 1, 2]


def test_objects_touch_by_corners():
    assert object_counts(np.eye(5, dtype=bool), np.eye(5, dtype=bool)).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(30))
def test_components_are_those_of_scipy_at_any_size(seed):
    """cc3d 4.1.1 labels [[0, 0, 0, 1]] as [[0, 1, 0, 1]] when it is given bool, as it does at other odd sizes."""
    from scipy import ndimage as ndi

    rng = np.random.default_rng(seed)
    for _ in range(20):
        mask = rng.random(rng.integers(1, 12, 2)) < rng.random()
        labels, count = ndi.label(mask, np.ones((3, 3)))
        large = int((np.bincount(labels.ravel())[1:] >= 3).sum())
        assert object_counts(mask, mask).tolist() == [count] * 4
        assert object_counts(mask, ~mask & False, 3).tolist() == [0, 0, 0, large]


def test_object_scores_by_hand():
    scores = object_scores(np.array([[3, 1, 5, 4], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]))
    np.testing.assert_allclose(scores["object_precision"], [3 / 5, 1, 0, 0])
    np.testing.assert_allclose(scores["object_recall"], [3 / 4, 1, 0, 0])
    np.testing.assert_allclose(scores["object_f1"], [6 / 9, 1, 0, 0])
    np.testing.assert_allclose(scores["ap50"], [3 / 6, 1, 0, 0])
    np.testing.assert_allclose(scores["ap75"], [1 / 8, 1, 0, 0])


# chance, intervals, several sections and organelles


def test_chance_masks_are_what_they_say():
    pred = blobs(1)[1]
    lines = chance_masks(pred, 3, 1)
    assert tuple(lines) == CHANCE
    assert not lines["all_background"].any() and lines["all_foreground"].all()
    assert lines["random"].sum() == pred.sum() and (lines["random"] != pred).any()
    again, other, next_one = chance_masks(pred, 3, 1), chance_masks(pred, 4, 1), chance_masks(pred, 3, 2)
    assert (again["random"] == lines["random"]).all()
    assert (other["random"] != lines["random"]).any() and (next_one["random"] != lines["random"]).any()


def test_random_scores_about_its_area():
    """Half of the pixels at random hold half of the truth."""
    truth, pred = square(0, 0, 128, (256, 256)), square(0, 0, 181, (256, 256))
    random = score_masks(truth[None], pred[None], NM)["chance"]["pooled"]["random"]
    assert random["recall"] == pytest.approx(0.5, abs=0.01) and random["precision"] == pytest.approx(0.25, abs=0.01)


def test_chance_goes_through_the_same_functions():
    truth, pred = (np.stack(stack) for stack in zip(blobs(0), blobs(1), strict=True))
    scores = score_masks(truth, pred, NM)
    direct = score_masks(truth, np.ones_like(pred), NM)
    for protocol in ("pooled", "patch_mean"):
        for name, value in scores["chance"][protocol]["all_foreground"].items():
            assert value == direct[protocol][name]


def test_pooled_is_the_score_of_one_large_section():
    """Sections side by side, with a gap of background so that no object or boundary crosses."""
    truth, pred = zip(*(blobs(seed, (30, 30)) for seed in range(4)), strict=True)
    truth, pred = (np.pad(np.stack(masks), ((0, 0), (12, 12), (12, 12))) for masks in (truth, pred))
    many = score_masks(truth, pred, NM)["pooled"]
    one = score_masks(np.hstack(list(truth))[None], np.hstack(list(pred))[None], NM)["pooled"]
    for name in POOLED_SCORES:
        assert many[name] == pytest.approx(one[name], abs=1e-12), name
    assert many["objects_true"] == one["objects_true"]


def test_sections_may_differ_in_size():
    truth, pred = zip(blobs(0, (40, 50)), blobs(1, (30, 70)), strict=True)
    scores = score_masks(list(truth), list(pred), NM)["pooled"]
    total = sum(pixel_counts(t, p) for t, p in zip(truth, pred, strict=True))
    assert scores["dice"] == pixel_scores(total)["dice"] and scores["sections"] == 2


def test_intervals_are_those_of_explicit_draws():
    """All 27 equally likely draws of three sections: the interval lies between their extremes and repeats by seed."""
    each = [blobs(seed, share=0.1 * seed + 0.1) for seed in range(3)]
    truth, pred = (np.stack(stack) for stack in zip(*each, strict=True))
    how = MaskSettings(pixel_nm=(5, 5), bootstrap=4000, seed=1)
    scores = score_masks(truth, pred, how)["pooled"]
    counts = count_masks(truth, pred, how)["prediction"]
    draws = [np.bincount(draw, minlength=3) for draw in np.ndindex(3, 3, 3)]
    for name in ("dice", "vi", "boundary_f1", "object_f1"):
        exact = np.sort([pooled_scores(counts, weights)[name] for weights in draws])
        low, high = scores["ci95"][name]
        assert low == pytest.approx(exact[0], abs=1e-12) and high == pytest.approx(exact[-1], abs=1e-12)
        assert low <= scores[name] <= high
    assert intervals([counts], 4000, 1) == scores["ci95"]
    few = [intervals([counts], 5, seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_equal_sections_have_an_interval_of_no_width():
    truth, pred = (np.stack([mask] * 3) for mask in blobs(0))
    scores = score_masks(truth, pred, NM)["pooled"]
    assert scores["ci95"]["dice"] == [pytest.approx(scores["dice"])] * 2


def test_one_section_has_no_interval():
    truth, pred = blobs(0)
    assert score_masks(truth[None], pred[None], NM)["pooled"]["ci95"] is None


def test_without_a_pixel_size_boundaries_are_unknown():
    truth, pred = (np.stack([mask] * 2) for mask in blobs(0))
    scores = score_masks(truth, pred)["pooled"]
    assert np.isnan(scores["boundary_f1"]) and scores["ci95"]["boundary_f1"] is None and scores["ap50"] > 0


def test_organelles_are_averaged_over_those_that_have_a_score():
    masks = {name: tuple(m[None] for m in blobs(i)) for i, name in enumerate(("membranes", "vesicles", "synapses"))}
    scores, sections = score_organelles(masks, NM, {name: ["07"] for name in masks})
    pooled = scores["pooled"]
    assert np.isnan(pooled["membranes"]["ap50"]) and "objects_true" not in pooled["membranes"]
    assert pooled["average"]["ap50"] == pytest.approx((pooled["vesicles"]["ap50"] + pooled["synapses"]["ap50"]) / 2)
    for protocol, lines in scores["chance"].items():
        dice = [lines[name]["random"]["dice"] for name in masks]
        assert lines["average"]["random"]["dice"] == pytest.approx(np.mean(dice))
        assert scores[protocol]["average"]["dice"] == pytest.approx(
            np.mean([scores[protocol][n]["dice"] for n in masks])
        )
    assert sections["section"].tolist() == ["07"] * 3
    assert sections["dice"].tolist() == [pooled[name]["dice"] for name in masks]
    assert sections.loc[0, ["objects_true"]].isna().all() and sections["true_positives"].dtype == "Int64"
    table = scores_table(scores)
    assert len(table) == 2 * 4 * len(LINES)
    row = table.query("protocol == 'patch_mean' and organelle == 'vesicles' and line == 'random'").iloc[0]
    assert row["vi"] == scores["chance"]["patch_mean"]["vesicles"]["random"]["vi"] and np.isnan(row["boundary_f1"])


def test_the_average_has_an_interval_only_over_the_same_sections():
    masks = {name: tuple(np.stack([m, np.roll(m, 3)]) for m in blobs(i)) for i, name in enumerate("ab")}
    paired = score_organelles(masks, NM, {name: ["00", "03"] for name in masks})[0]["pooled"]["average"]
    assert paired["ci95"]["dice"][0] <= paired["dice"] <= paired["ci95"]["dice"][1]
    apart = score_organelles(masks, NM, {"a": ["00", "03"], "b": ["00", "08"]})[0]["pooled"]["average"]
    assert apart["ci95"] is None and apart["dice"] == paired["dice"]


def test_threads_change_nothing():
    truth, pred = (np.stack(stack) for stack in zip(*(blobs(seed) for seed in range(5)), strict=True))
    try:
        found = []
        for threads in (1, 4):
            set_threads(threads)
            found.append(score_masks(truth, pred, NM))
    finally:
        set_threads(None)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        (np.zeros((2, 4, 4), bool), np.zeros((3, 4, 4), bool), "2 sections, prediction 3"),
        (np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), bool), "at least 1"),
        (np.zeros((1, 4, 4), bool), np.zeros((1, 4, 5), bool), r"section 0: truth is \(4, 4\), prediction \(4, 5\)"),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool), "one shape"),
        (np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.uint8), "must be bool"),
    ],
)
def test_arrays_that_are_no_masks(truth, pred, message):
    with pytest.raises(ValueError, match=message):
        score_masks(truth, pred)


def test_names_and_settings_that_cannot_be():
    stack = np.zeros((1, 4, 4), bool)
    for masks in ({}, {"average": (stack, stack)}):
        with pytest.raises(ValueError, match="organelle"):
            score_organelles(masks)
    with pytest.raises(ValueError, match="pixel size"):
        MaskSettings(min_object_nm2=10)
    for wrong in ({"patch": 0}, {"stride": 0}, {"bootstrap": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            MaskSettings(**wrong)
    assert MaskSettings(pixel_nm=(4, 5), min_object_nm2=100).min_pixels == 5


def test_real_synapses_flatter_an_empty_prediction(real_data):
    """147 patches, 69 without a synapse: nothing predicted has a patch-mean IoU of 69 / 147 and a pooled IoU of 0."""
    from skimage.io import imread

    folder = real_data / "drosophila-vnc" / "test" / "synapses"
    truth = np.stack([imread(path) >= 128 for path in sorted(folder.glob("*.png"))])
    scores = score_masks(truth, np.zeros_like(truth), MaskSettings(bootstrap=10))
    assert (scores["patch_mean"]["patches"], scores["patch_mean"]["patches_without_truth"]) == (147, 69)
    assert scores["patch_mean"]["iou"] == pytest.approx(69 / 147, abs=1e-12)
    assert scores["pooled"]["iou"] == 0
    # The sample is large enough for a slow reference that knows nothing of ours.
    each = [slow.any() for z in range(3) for slow, _ in slow_patches(truth[z], truth[z], 256, 128)]
    assert len(each) - sum(each) == 69


def test_every_pair_of_lines_differs_on_real_shapes():
    """A chance line that were the prediction itself would hide in any other test."""
    truth, pred = (mask[None] for mask in blobs(2))
    lines = count_masks(truth, pred, NM)
    for a, b in combinations(LINES, 2):
        assert (lines[a].pixels != lines[b].pixels).any()


def test_ignored_pixels_count_for_nothing():
    """Scores of a section with ignored columns are those of the section without them, cut where no patch crosses."""
    rng = np.random.default_rng(4)
    truth, pred = rng.random((2, 3, 64, 64)) < 0.3
    ignored = np.zeros((3, 64, 64), bool)
    ignored[..., 32:] = True
    how = MaskSettings(patch=32, stride=32)
    whole, part = count_masks(truth, pred, how, ignored=ignored), count_masks(truth[..., :32], pred[..., :32], how)
    for name in ("prediction", "all_background", "all_foreground"):
        assert np.array_equal(whole[name].pixels, part[name].pixels)
        assert np.array_equal(whole[name].patches, part[name].patches)
    assert np.array_equal(whole["prediction"].objects, part["prediction"].objects)
    drawn = whole["random"].pixels
    assert (drawn.sum(axis=1) == 32 * 64).all() and (drawn[:, :2].sum(axis=1) == pred[..., :32].sum(axis=(1, 2))).all()


def test_ignored_pixels_may_differ_between_organelles():
    truth = np.eye(64, dtype=bool)[None]
    ignored = np.zeros((1, 64, 64), bool)
    ignored[0, :32] = True
    scores, _ = score_organelles({"a": (truth, ~truth & ignored), "b": (truth, truth | ignored, ignored)})
    assert scores["pooled"]["a"]["dice"] == 0 and scores["pooled"]["b"]["accuracy"] == 1
    with pytest.raises(ValueError, match="all pixels are ignored"):
        count_masks(truth, truth, ignored=np.ones((1, 64, 64), bool))
