"""Synapse matching against exhaustive search, hand-worked curves, and empty tables on either side."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from emlib.measure.synapses.chance import chance_partners, chance_places
from emlib.measure.synapses.matching import (
    average_precision,
    components_to_table,
    labels_to_table,
    match_synapses,
    pr_curve,
)
from emlib.measure.synapses.partners import map_ids_by_overlap, score_partners
from emlib.measure.synapses.scores import score_synapses

VOXEL = (40.0, 10.0, 10.0)


def points(*zyx, **columns):
    table = pd.DataFrame(np.reshape(zyx, (-1, 3)), columns=["z", "y", "x"]).astype(float)
    return table.assign(**columns)


def random_points(rng, count):
    return points(*(rng.random((count, 3)) * (5, 40, 40)))


def exhaustive(pred, truth, limit):
    """Most matches, then least total distance, over every injective assignment."""
    a, b = (t[["z", "y", "x"]].to_numpy() * VOXEL for t in (pred, truth))
    if len(a) > len(b):
        a, b = b, a
    best = (0, 0.0)
    for choice in permutations(range(len(b)), len(a)):
        distance = np.linalg.norm(a - b[list(choice)], axis=1)
        within = distance[distance <= limit]
        best = max(best, (len(within), -within.sum()))
    return best[0], -best[1]


@pytest.mark.parametrize("seed", range(40))
def test_matching_equals_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    pred, truth = random_points(rng, rng.integers(1, 7)), random_points(rng, rng.integers(1, 7))
    result = match_synapses(pred, truth, VOXEL, 200)
    count, total = exhaustive(pred, truth, 200)
    assert len(result.pairs) == count
    assert result.pairs["distance_nm"].sum() == pytest.approx(total)
    assert result.pairs["pred"].is_unique and result.pairs["truth"].is_unique


def test_more_matches_beat_nearer_ones():
    """Taking the nearest pair first would leave the others without a partner."""
    truth, pred = points((0, 0, 0), (0, 0, 20)), points((0, 0, 19), (0, 0, 36))
    result = match_synapses(pred, truth, VOXEL, 200)
    assert result.pairs[["pred", "truth"]].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert result.precision == result.recall == result.f1 == 1


@pytest.mark.parametrize(("x", "matched"), [(20, 1), (20.001, 0)])
def test_the_limit_is_inclusive(x, matched):
    assert len(match_synapses(points((0, 0, 0)), points((0, 0, x)), VOXEL, 200).pairs) == matched


def test_the_limit_is_inclusive_in_inexact_units():
    """3 × 0.1 is not 0.3 in binary; the match must not hang on that."""
    assert len(match_synapses(points((0, 0, 0)), points((0, 0, 3)), (1, 0.1, 0.1), 0.3).pairs) == 1


def test_anisotropy_counts():
    assert len(match_synapses(points((0, 0, 0)), points((6, 0, 0)), VOXEL, 200).pairs) == 0
    assert len(match_synapses(points((0, 0, 0)), points((0, 6, 0)), VOXEL, 200).pairs) == 1


def test_empty_tables():
    some, none = points((0, 0, 0), score=[0.5]), points(score=[])
    missed, invented, nothing = (match_synapses(*p, VOXEL) for p in ((none, some), (some, none), (none, none)))
    assert np.isnan(missed.precision) and missed.recall == 0 and missed.f1 == 0
    assert invented.precision == 0 and np.isnan(invented.recall) and invented.f1 == 0
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1]).all()
    assert average_precision(pr_curve(none, some, VOXEL)) == 0
    assert np.isnan(average_precision(pr_curve(some, none, VOXEL)))
    assert missed.pairs.dtypes.astype(str).to_dict() == {"pred": "int64", "truth": "int64", "distance_nm": "float64"}


def test_duplicates_count_as_false():
    result = match_synapses(points((0, 0, 0), (0, 0, 1), (0, 0, 2)), points((0, 0, 0)), VOXEL)
    assert len(result.pairs) == 1 and result.precision == pytest.approx(1 / 3)


def test_curve_by_hand():
    """Hit, miss, hit, duplicate: AP = 1/3 · 1 + 1/3 · 2/3; the third truth is never found."""
    truth = points((0, 0, 0), (0, 0, 100), (0, 0, 500))
    pred = points((0, 0, 101), (0, 0, 300), (0, 0, 2), (0, 0, 99), score=[0.9, 0.8, 0.7, 0.1])
    curve = pr_curve(pred, truth, VOXEL, 200)
    assert curve["threshold"].tolist() == [0.9, 0.8, 0.7, 0.1]
    np.testing.assert_allclose(curve["precision"], [1, 1 / 2, 2 / 3, 2 / 4])
    np.testing.assert_allclose(curve["recall"], [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve["f1"], [2 / 4, 2 / 5, 4 / 6, 4 / 7])
    assert average_precision(curve) == pytest.approx(1 / 3 + 2 / 9)


def test_equal_scores_are_one_threshold_whatever_their_order():
    truth = points((0, 0, 0))
    pred = points((0, 0, 300), (0, 0, 1), score=[0.5, 0.5])
    for table in (pred, pred.iloc[::-1]):
        curve = pr_curve(table, truth, VOXEL)
        assert curve["precision"].tolist() == [0.5] and average_precision(curve) == 0.5


@pytest.mark.parametrize("seed", range(10))
def test_average_precision_lies_between_its_bounds(seed):
    rng = np.random.default_rng(seed)
    truth = random_points(rng, 12)
    pred = random_points(rng, 30).assign(score=rng.random(30))
    ap = average_precision(pr_curve(pred, truth, VOXEL))
    assert 0 <= ap <= match_synapses(pred, truth, VOXEL).recall
    perfect = average_precision(pr_curve(truth.assign(score=rng.random(12)), truth, VOXEL))
    assert perfect == pytest.approx(1)


def test_partners_by_hand():
    truth = points((0, 0, 0), (0, 0, 100), (0, 0, 200), pre_id=[1, 1, 2], post_id=[2, 3, 3])
    pred = points((0, 0, 1), (0, 0, 101), (0, 0, 201), (0, 0, 400), pre_id=[10, 30, 20, 10], post_id=[20, 10, 40, 20])
    scores = score_partners(pred, truth, VOXEL, 200, {10: 1, 20: 2, 30: 3})
    assert scores.ordered.pairs[["pred", "truth"]].to_numpy().tolist() == [[0, 0]]
    assert scores.unordered.pairs["pred"].tolist() == [0, 1]
    assert scores.direction_accuracy == 0.5
    assert (scores.ordered.precision, scores.ordered.recall) == (1 / 4, 1 / 3)


def test_partners_pick_the_right_row_of_a_polyadic_synapse():
    """Two receivers at one place: matching by place alone could swap them."""
    truth = points((0, 0, 0), (0, 0, 0), pre_id=[1, 1], post_id=[2, 3])
    pred = points((0, 0, 0), (0, 0, 0), pre_id=[1, 1], post_id=[3, 2])
    assert score_partners(pred, truth, VOXEL).ordered.f1 == 1


def test_partners_of_empty_tables():
    none = points(pre_id=[], post_id=[])
    scores = score_partners(none, none, VOXEL)
    assert np.isnan(scores.direction_accuracy) and len(scores.ordered.pairs) == 0


def test_ids_map_to_the_largest_overlap():
    truth = np.array([1, 1, 1, 2, 2, 0, 0, 3, 4])
    pred = np.array([5, 5, 0, 5, 6, 6, 7, 8, 8])
    assert map_ids_by_overlap(pred, truth) == {5: 1, 6: 2, 8: 3}  # 7 meets background only; 8 ties, the smaller wins
    assert map_ids_by_overlap(np.zeros(4, int), np.ones(4, int)) == {}
    with pytest.raises(ValueError):
        map_ids_by_overlap(pred, truth[1:])


def test_components_become_centroids():
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[0, 0:2, 0:2], mask[1, 2, 2], mask[0, 6, 4:7] = 255, 255, 255
    solid = components_to_table(mask, VOXEL)
    assert solid[["z", "y", "x"]].to_numpy().tolist() == [[0.2, 0.8, 0.8], [0, 6, 5]]
    assert solid["size"].tolist() == [5 * 4000, 3 * 4000]
    flat = components_to_table(mask, VOXEL, per_section=True)
    assert flat[["z", "y", "x"]].to_numpy().tolist() == [[0, 0.5, 0.5], [0, 6, 5], [1, 2, 2]]
    assert flat["size"].tolist() == [400, 300, 100]
    assert components_to_table(mask, VOXEL, per_section=True, min_size=300)["size"].tolist() == [400, 300]


def test_an_empty_mask_has_no_components():
    table = components_to_table(np.zeros((1, 4, 4)), VOXEL)
    assert len(table) == 0 and table.dtypes.astype(str).tolist() == ["float64"] * 4
    with pytest.raises(ValueError, match="Z, Y, X"):
        components_to_table(np.zeros((4, 4)), VOXEL)


def test_the_masks_of_real_sections_give_their_synapses(real_data):
    from skimage.io import imread

    folder = real_data / "drosophila-vnc" / "train" / "synapses"
    mask = imread(folder / "01.png") >= 128
    table = components_to_table(mask[None], (50, 4.6, 4.6), per_section=True, min_size=1000)
    assert len(table) == 8
    assert match_synapses(table, table, (50, 4.6, 4.6)).f1 == 1


def test_ids_become_centroids_also_in_pieces():
    labels = np.zeros((2, 4, 6), np.int64)
    labels[0, 0, 0], labels[0, 0, 4], labels[1, 2, 1:4] = 9, 9, 2**40
    table = labels_to_table(labels, VOXEL)
    assert table[["z", "y", "x"]].to_numpy().tolist() == [[0, 0, 2], [1, 2, 2]]
    assert table["size"].tolist() == [2 * 4000, 3 * 4000]
    labels[1, 0, 0] = 9
    assert labels_to_table(labels, VOXEL, per_section=True)["size"].tolist() == [200, 100, 300]
    assert labels_to_table(labels, VOXEL, per_section=True, min_size=200)["size"].tolist() == [200, 300]
    assert len(labels_to_table(np.zeros((1, 2, 2), int), VOXEL)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_components_equal_scipys_centres(seed):
    from scipy import ndimage as ndi

    mask = np.random.default_rng(seed).random((4, 20, 20)) < 0.2
    labels, count = ndi.label(mask, np.ones((3, 3, 3)))
    expected = ndi.center_of_mass(mask, labels, range(1, count + 1))
    np.testing.assert_allclose(components_to_table(mask, VOXEL)[["z", "y", "x"]], expected)


def test_scores_of_a_table_by_hand():
    truth = points((0, 0, 0), (0, 0, 100), pre_id=[1, 2], post_id=[2, 3])
    pred = points((0, 0, 1), (0, 0, 102), (0, 0, 60), (0, 0, 99), score=[0.9, 0.2, 0.5, 0.1])
    pred = pred.assign(pre_id=[10, 30, 10, 20], post_id=[20, 20, 20, 30])
    result = score_synapses(pred, truth, VOXEL, min_score=0.2, id_map={10: 1, 20: 2, 30: 3}, draws=5)
    scores = result.scores
    assert (scores["precision"], scores["recall"], scores["f1"]) == (2 / 3, 1, 4 / 5)
    assert (scores["predicted"], scores["truth"]) == (3, 2)
    assert scores["average_precision"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert scores["best"] == {
        "threshold": 0.2, "precision": 2 / 3, "recall": 1.0, "f1": 0.8, "chosen_on_this_truth": True
    }  # fmt: skip
    assert scores["partners"] == {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5}
    assert scores["partners_unordered"] == {"precision": 2 / 3, "recall": 1, "f1": 4 / 5}
    assert scores["direction_accuracy"] == {"accuracy": 0.5, "pairs": 2, "chance": 0.5}
    assert result.curve["threshold"].tolist() == [0.9, 0.5, 0.2, 0.1]


def test_each_prediction_and_each_missed_synapse_is_listed():
    truth = points((0, 0, 0), (0, 0, 100), (1, 5, 5))
    pred = points((0, 0, 300), (0, 0, 98), (0, 0, 97), score=[0.9, 0.8, 0.1])
    table = score_synapses(pred, truth, VOXEL, min_score=0.5, draws=1).matches
    assert table["status"].tolist() == ["false", "hit", "missed", "missed"]
    assert table[["z", "y", "x"]].to_numpy().tolist() == [[0, 0, 300], [0, 0, 98], [0, 0, 0], [1, 5, 5]]
    assert table["distance_nm"].isna().tolist() == [True, False, True, True] and table["distance_nm"][1] == 20
    assert table["pred_row"].fillna(-1).tolist() == [0, 1, -1, -1]
    assert table["truth_row"].fillna(-1).tolist() == [-1, 1, 0, 2]
    alone = score_synapses(pred.iloc[:0], truth, VOXEL, draws=1).matches
    assert alone["status"].tolist() == ["missed"] * 3


def test_sections_for_themselves_match_nothing_across():
    truth, pred = points((0, 0, 0), (1, 0, 50)), points((1, 0, 0), (1.2, 0, 51))
    assert score_synapses(pred, truth, VOXEL, draws=1).scores["f1"] == 1
    alone = score_synapses(pred, truth, VOXEL, per_section=True, draws=1)
    assert alone.scores["f1"] == 0.5 and alone.matches["distance_nm"][1] == 10


def test_without_scores_there_is_no_curve():
    result = score_synapses(points((0, 0, 0)), points((0, 0, 0)), VOXEL, draws=2)
    assert result.curve is None and result.scores["best"] is None and result.scores["f1"] == 1
    assert np.isnan([result.scores["average_precision"], result.scores["chance"]["average_precision"]]).all()


def test_of_two_opposite_synapses_each_takes_the_one_that_runs_its_way():
    """The nearer truth runs the other way; direction is judged on the pairs that could be right."""
    pred = points((0, 0, 0), (0, 0, 10)).assign(pre_id=[1, 2], post_id=[2, 1])
    truth = points((0, 0, 1), (0, 0, 9)).assign(pre_id=[2, 1], post_id=[1, 2])
    scores = score_partners(pred, truth, (10, 10, 10))
    assert (scores.ordered.f1, scores.direction_accuracy, scores.direction_pairs) == (1, 1, 2)
    assert scores.unordered.pairs["truth"].tolist() == [1, 0]
    assert scores.unordered.pairs["distance_nm"].tolist() == [90, 90]


def test_one_match_more_outweighs_every_direction():
    pred = points((0, 0, 0), (0, 0, 15)).assign(pre_id=[1, 1], post_id=[2, 2])
    truth = points((0, 0, 0), (0, 0, 15)).assign(pre_id=[1, 2], post_id=[2, 1])
    scores = score_partners(pred, truth, (10, 10, 10), max_distance_nm=100)
    assert len(scores.unordered.pairs) == 2 and scores.direction_accuracy == 0.5


def test_a_synapse_onto_itself_has_no_direction():
    both = points((0, 0, 0)).assign(pre_id=[3], post_id=[3])
    scores = score_partners(both, both, VOXEL)
    assert scores.ordered.f1 == 1 and np.isnan(scores.direction_accuracy) and scores.direction_pairs == 0


def test_chance_places_hit_as_often_as_their_volume_says():
    """One truth in the middle of a volume: a sphere of 200 nm among 20 × 60 × 60 voxels of 40 × 10 × 10 nm."""
    truth, bounds = points((10, 30, 30)), (np.zeros(3), np.array([20.0, 60, 60]))
    share = 4 / 3 * np.pi * 200**3 / (800 * 600 * 600)
    found = chance_places(1, truth, bounds, VOXEL, 200, 1000, np.random.default_rng(0), ranked=1)
    assert found["precision"] == found["recall"] == found["average_precision"] == pytest.approx(share, abs=0.03)
    many = chance_places(5, truth, bounds, VOXEL, 200, 500, np.random.default_rng(0))
    assert many["recall"] == pytest.approx(1 - (1 - share) ** 5, abs=0.06)
    assert many["precision"] == pytest.approx(many["recall"] / 5)


def test_chance_partners_are_right_as_often_as_a_deal_of_cards():
    """Four different pairs, dealt to four places: each is right in a quarter of the deals."""
    places = points((0, 0, 0), (0, 0, 100), (0, 0, 200), (0, 0, 300))
    truth = places.assign(pre_id=[1, 2, 3, 4], post_id=[5, 6, 7, 8])
    found = chance_partners(truth, truth, VOXEL, 200, None, 800, np.random.default_rng(0))
    assert found["partners"]["f1"] == found["partners_unordered"]["f1"] == pytest.approx(1 / 4, abs=0.04)
    swapped = truth.assign(pre_id=truth["post_id"], post_id=truth["pre_id"])
    turned = chance_partners(swapped, truth, VOXEL, 200, None, 400, np.random.default_rng(0))
    assert turned["partners"]["f1"] == 0 and turned["partners_unordered"]["f1"] == pytest.approx(1 / 4, abs=0.05)


def test_chance_lies_in_the_volume_and_hangs_on_the_seed():
    rng = np.random.default_rng(0)
    pred, truth = random_points(rng, 20).assign(score=rng.random(20)), random_points(rng, 20)
    small, large = (
        score_synapses(pred, truth, VOXEL, shape=s).scores["chance"]["f1"] for s in ((5, 40, 40), (50, 400, 400))
    )
    assert small > 0.3 > 0.05 > large
    one, two, other = (score_synapses(pred, truth, VOXEL, draws=3, seed=s).scores["chance"] for s in (1, 1, 2))
    assert one == two != other
