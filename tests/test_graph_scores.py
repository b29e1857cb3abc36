"""Scores of wiring graphs against Python sets, hand-worked graphs, and every possible rewiring of small ones."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from emlib.measure.edges import compare_edges, map_edges, rewiring, sum_edges
from emlib.measure.graphs import degree_correlation, score_graph

TRIPLE = ("precision", "recall", "f1")


def graph(*rows, weight=None):
    table = pd.DataFrame(np.reshape(rows, (-1, 2)), columns=["source", "target"], dtype=np.int64)
    return table if weight is None else table.assign(weight=weight)


def random_graph(rng, nodes, edges):
    return graph(*rng.integers(1, nodes + 1, (edges, 2))).assign(weight=rng.integers(1, 6, edges))


def ratios(shared, predicted, true):
    nan = float("nan")
    return (
        shared / predicted if predicted else nan,
        shared / true if true else nan,
        2 * shared / (predicted + true) if predicted + true else nan,
    )


def by_sets(pred, truth, id_map=None, loops=False):
    """The scores by their definition, with dictionaries of edges."""
    wiring = []
    for table, mapping in ((pred, id_map), (truth, None)):
        weights = {}
        for row in table.itertuples():
            ends = [row.source, row.target]
            if ends[0] == ends[1] and not loops:
                continue
            if mapping is not None:
                ends = [mapping.get(e, ("unmapped", e)) for e in ends]
            weights[tuple(ends)] = weights.get(tuple(ends), 0) + getattr(row, "weight", 1)
        wiring.append(weights)
    p, t = wiring
    shared = sum(min(p[e], t[e]) for e in p.keys() & t.keys())
    pairs = [{frozenset(e) for e in w} for w in (p, t)]
    return {
        "edges": ratios(len(p.keys() & t.keys()), len(p), len(t)),
        "weighted": ratios(shared, sum(p.values()), sum(t.values())),
        "undirected": ratios(len(pairs[0] & pairs[1]), len(pairs[0]), len(pairs[1])),
    }


def triple(scores):
    return tuple(scores[name] for name in TRIPLE)


def approx(values):
    return pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("mapped", [False, True])
def test_scores_equal_their_definition(seed, mapped):
    rng = np.random.default_rng(seed)
    pred, truth = random_graph(rng, 8, rng.integers(0, 30)), random_graph(rng, 8, rng.integers(0, 30))
    id_map = {int(i): int(rng.integers(1, 7)) for i in range(1, 9) if rng.random() < 0.8} if mapped else None
    scores, expected = score_graph(pred, truth, id_map, draws=1).scores, by_sets(pred, truth, id_map)
    assert triple(scores) == approx(expected["edges"])
    assert triple(scores["weighted"]) == approx(expected["weighted"])
    assert triple(scores["undirected"]) == approx(expected["undirected"])


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_prediction_scores_one(seed):
    rng = np.random.default_rng(seed)
    truth = random_graph(rng, 9, 25)
    truth = truth[truth["source"] != truth["target"]]
    names = {100 + i: i for i in range(1, 10)}
    pred = truth.assign(source=truth["source"] + 100, target=truth["target"] + 100).sample(frac=1, random_state=seed)
    scores = score_graph(pred, truth, names, draws=1).scores
    assert triple(scores) == triple(scores["weighted"]) == triple(scores["undirected"]) == (1, 1, 1)
    assert scores["degree_correlation"]["out"]["pearson"] == pytest.approx(1)
    assert scores["degree_correlation"]["total"]["spearman"] == pytest.approx(1)
    assert scores["unmapped"] == scores["within_one_neurite"] == 0


def test_two_pieces_of_one_neurite_add_their_weights():
    truth = graph((1, 2), (2, 3), weight=[5, 1])
    pred = graph((10, 20), (11, 20), weight=[2, 4])
    result = score_graph(pred, truth, {10: 1, 11: 1, 20: 2}, draws=1)
    assert triple(result.scores) == (1, 1 / 2, 2 / 3)
    assert triple(result.scores["weighted"]) == approx((5 / 6, 5 / 6, 5 / 6))
    assert result.scores["predicted"] == 1
    assert result.edges.to_numpy().tolist() == [[1, 2, 5, 6, "hit"], [2, 3, 1, 0, "missed"]]


def test_a_merge_sends_both_neurites_edges_to_one():
    """Predicted 10 covers the true 1 and 2, of 1 more: the edge of 2 is lost, and one of 1 is invented."""
    truth = graph((1, 3), (2, 4))
    result = score_graph(graph((10, 30), (10, 40)), truth, {10: 1, 30: 3, 40: 4}, draws=1)
    assert triple(result.scores) == (1 / 2, 1 / 2, 1 / 2)
    assert result.edges["status"].tolist() == ["hit", "false", "missed"]


def test_edges_onto_oneself_count_on_neither_side():
    loops = graph((1, 1), (1, 2), (3, 3))
    scores = score_graph(loops, loops).scores
    assert (scores["precision"], scores["recall"], scores["predicted"], scores["truth"]) == (1, 1, 1, 1)


def test_a_wrong_direction_is_right_only_undirected():
    scores = score_graph(graph((2, 1)), graph((1, 2)), draws=1).scores
    assert triple(scores) == triple(scores["weighted"]) == (0, 0, 0) and triple(scores["undirected"]) == (1, 1, 1)


def test_false_edges_are_told_apart():
    """To a neurite that overlaps none, within one neurite, between two that are not joined, to background."""
    pred = graph((10, 20), (10, 99), (98, 10), (10, 11), (20, 10), (0, 10))
    result = score_graph(pred, graph((1, 2), (3, 3), (0, 2)), {10: 1, 11: 1, 20: 2}, draws=1)
    scores = result.scores
    assert (scores["predicted"], scores["truth"], scores["unmapped"], scores["within_one_neurite"]) == (5, 1, 2, 1)
    assert scores["background"] == {"predicted": 1, "truth": 1}
    assert triple(scores) == (1 / 5, 1, 1 / 3)
    rows = {(s, t): status for s, t, _, _, status in result.edges.itertuples(index=False)}
    assert rows == {(-98, 1): "unmapped", (1, -99): "unmapped", (1, 1): "within", (1, 2): "hit", (2, 1): "false"}


def test_repeated_rows_add_up_and_a_missing_weight_is_one():
    edges, background = sum_edges(graph((3, 1), (1, 2), (3, 1), (0, 1)))
    assert edges.to_numpy().tolist() == [[1, 2, 1], [3, 1, 2]] and background == 1
    assert map_edges(graph((7, 8)), {8: 2})[0].to_numpy().tolist() == [[-7, 2, 1]]


def test_empty_graphs():
    none, some = graph(), graph((1, 2))
    missed, invented, nothing = (score_graph(*pair).scores for pair in ((none, some), (some, none), (none, none)))
    assert triple(missed) == approx((np.nan, 0, 0)) and triple(invented) == approx((0, np.nan, 0))
    assert triple(nothing) == approx((np.nan,) * 3) and triple(missed["chance"]) == approx((np.nan, 0, 0))
    assert len(score_graph(none, none).edges) == 0


def test_degrees_by_hand():
    """True out-degrees of 1 … 4: 2 1 0 0, predicted 3 0 1 0; ranks 4 3 1.5 1.5 and 4 1.5 3 1.5."""
    truth, pred = graph((1, 2), (1, 3), (2, 3)), graph((1, 2), (1, 3), (1, 4), (3, 2))
    found = degree_correlation(sum_edges(pred)[0], sum_edges(truth)[0])
    assert found["neurites"] == 4
    assert found["out"]["pearson"] == pytest.approx(np.corrcoef([2, 1, 0, 0], [3, 0, 1, 0])[0, 1])
    assert found["out"]["spearman"] == pytest.approx(np.corrcoef([4, 3, 1.5, 1.5], [4, 1.5, 3, 1.5])[0, 1])
    assert found["in"]["pearson"] == pytest.approx(np.corrcoef([0, 1, 2, 0], [0, 2, 1, 1])[0, 1])
    assert found["total"]["pearson"] == pytest.approx(np.corrcoef([2, 2, 2, 0], [3, 2, 2, 1])[0, 1])


@pytest.mark.parametrize("truth", [graph((1, 2)), graph((1, 2), (2, 3), (3, 1))])
def test_no_correlation_below_three_neurites_or_of_equal_degrees(truth):
    assert np.isnan(score_graph(truth, truth, draws=1).scores["degree_correlation"]["out"]["pearson"])


def test_spearman_equals_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    pred, truth = (sum_edges(random_graph(rng, 12, 40))[0] for _ in range(2))
    nodes = sorted(set(pd.concat([pred, truth])[["source", "target"]].to_numpy().ravel().tolist()))
    counts = [[(table["source"] == node).sum() for node in nodes] for table in (pred, truth)]
    assert degree_correlation(pred, truth)["out"]["spearman"] == pytest.approx(spearmanr(*counts)[0])


def test_chance_is_the_mean_over_all_rewirings():
    pred = sum_edges(graph((1, 2), (2, 3), (3, 4), (1, 4), weight=[3, 1, 1, 2]))[0]
    truth = sum_edges(graph((1, 2), (2, 3), (4, 1), (3, 2), weight=[1, 2, 1, 1]))[0]
    all_of_them = []
    for targets in permutations(pred["target"]):
        expected = by_sets(pred.assign(target=targets), truth, loops=True)
        all_of_them.append([expected[kind] for kind in ("edges", "weighted", "undirected")])
    mean = np.mean(all_of_them, axis=0)
    found = rewiring(pred, truth, 4000, np.random.default_rng(0))
    measured = [triple(found), triple(found["weighted"]), triple(found["undirected"])]
    np.testing.assert_allclose(measured, mean, atol=0.015)
    low, high = found["interval_95"]["f1"]
    assert low < found["f1"] < high
    f1 = np.array(all_of_them)[:, 0, 2]
    assert (low, high) == pytest.approx(tuple(np.percentile(np.tile(f1, 100), (2.5, 97.5))), abs=1e-9)


def test_equal_seeds_give_equal_chance():
    rng = np.random.default_rng(1)
    pred, truth = random_graph(rng, 9, 30), random_graph(rng, 9, 30)
    one, two, other = (score_graph(pred, truth, draws=10, seed=seed).scores["chance"] for seed in (3, 3, 4))
    assert one == two != other


def test_coinciding_edges_compare_as_one():
    truth = sum_edges(graph((1, 2), weight=[3]))[0]
    twice = pd.DataFrame({"source": [1, 1], "target": [2, 2], "weight": [1, 1]})
    scores = compare_edges(twice, truth)
    assert triple(scores) == (1, 1, 1) and triple(scores["weighted"]) == approx((1, 2 / 3, 4 / 5))
