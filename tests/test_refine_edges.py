"""Contacts: what corrected sections say of them, their features, and what a forest makes of these."""

import numpy as np
import pytest
from proofread_run import blobs, boundary_of

from emlib.errors import UserError
from emlib.refine.corrections import Corrections
from emlib.refine.edge_features import EDGE_NAMES, KnownEdges, edge_features, known_edges
from emlib.refine.edge_forest import EdgeSettings, learn_edges
from emlib.refine.edge_segmentation import cut_fragments, join_fragments
from emlib.refine.forest import ForestSettings
from emlib.refine.validation import auc, permutation_importance
from emlib.stages.agglomerate import region_graph
from emlib.stages.segment import SegmentSettings

ISOTROPIC = (10.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def scene():
    """Fragments (nearest of 60 points) of 12 neurites, and the truth."""
    truth = blobs((8, 30, 30), 12, background=0.0)
    fragments = blobs((8, 30, 30), 60, seed=5, background=0.0)
    fragments = np.unique(fragments, return_inverse=True)[1].reshape(truth.shape).astype(np.int32) + 1
    boundaries = boundary_of(truth).astype(np.float32)
    return fragments, truth, boundaries, region_graph(fragments, boundaries, ISOTROPIC)


def test_known_contacts_are_those_of_a_pixel_by_pixel_search(scene):
    fragments, truth, _, graph = scene
    sections = (1, 2, 6)
    found = known_edges(graph, fragments, Corrections(sections, truth[list(sections)]))
    votes = {}
    for z in sections:
        plane = fragments[z]
        owner = {}
        for one in np.unique(plane):
            ids, pixels = np.unique(truth[z][plane == one], return_counts=True)
            if pixels.sum() >= 5 and pixels.max() >= 0.7 * pixels.sum():
                owner[one] = ids[pixels.argmax()]
        pairs = set()
        for y, x in np.ndindex(plane.shape):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < 30 and u < 30 and plane[y, x] != plane[v, u]:
                    pairs.add((min(plane[y, x], plane[v, u]), max(plane[y, x], plane[v, u])))
        for a, b in pairs:
            if a in owner and b in owner:
                votes.setdefault((a, b), []).append(owner[a] != owner[b])
    ends = graph.rag.uv_ids()[found.index]
    assert {tuple(pair) for pair in ends} == set(votes) and len(ends) == len(votes)
    assert [2 * sum(votes[tuple(pair)]) >= len(votes[tuple(pair)]) for pair in ends] == found.different.tolist()
    assert 0 < found.different.sum() < len(found.different)


def test_ids_of_sections_need_not_agree(scene):
    fragments, truth, _, graph = scene
    planes = truth[[1, 6]]
    renamed = planes + np.array([0, 1000])[:, None, None]
    a, b = (known_edges(graph, fragments, Corrections((1, 6), labels)) for labels in (planes, renamed))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_features_of_a_contact_are_those_of_its_voxels():
    fragments = np.ones((4, 6, 8), np.int32)
    fragments[:, :, 5:] = 2
    boundaries = np.random.default_rng(0).random(fragments.shape, np.float32)
    graph = region_graph(fragments, boundaries, ISOTROPIC)
    grey, dark = boundaries[::-1].copy(), 1 - boundaries
    features = edge_features(graph, fragments, boundaries, dark, grey)
    row = dict(zip(EDGE_NAMES, features[0], strict=True))
    faces = (boundaries[:, :, 4] + boundaries[:, :, 5]) / 2  # a face counts with the mean of its two voxels
    assert features.shape == (1, len(EDGE_NAMES))
    assert row["boundary mean"] == pytest.approx(faces.mean(), abs=1e-5)
    assert row["boundary max"] == pytest.approx(faces.max(), abs=1e-5)
    assert row["darkness mean"] == pytest.approx(1 - row["boundary mean"], abs=1e-5)
    assert (row["voxels, smaller"], row["voxels, larger"]) == (72, 120)
    inside = sorted(boundaries[fragments == i].mean() for i in (1, 2))
    assert [row["boundary inside, lower"], row["boundary inside, higher"]] == pytest.approx(inside, abs=1e-5)
    told = sorted(grey[fragments == i].mean() for i in (1, 2))
    assert row["grey inside, difference"] == pytest.approx(told[1] - told[0], abs=1e-5)


def separable(count=300, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.random((count, len(EDGE_NAMES)), np.float32)
    odds = 6 * (features[:, 1] - 0.5)
    different = rng.random(count) < 1 / (1 + np.exp(-odds))
    return features, KnownEdges(np.arange(count), different, np.arange(count) % 4), odds


def test_learnt_probabilities_are_calibrated_and_validated_on_other_sections():
    features, known, _ = separable(1200)
    few = EdgeSettings(ForestSettings(trees=30, min_leaf=3))
    edges, told, importance = learn_edges(features, known, few, 0)
    assert EDGE_NAMES[importance.argmax()] == EDGE_NAMES[1]
    assert 0.75 < told["auc"] < 0.97 and told["brier"] <= told["brier_uncalibrated"] + 1e-6
    assert told["brier"] < told["brier_of_the_mean"]
    new, other, _ = separable(2000, seed=9)
    said = 1 / (1 + np.exp(-edges.log_odds(new)))
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        here = (said >= low) & (said < high)
        assert said[here].mean() == pytest.approx(other.different[here].mean(), abs=0.12)


def test_chance_is_told_as_chance():
    features, known, _ = separable(600)
    noise = np.random.default_rng(3).random(features.shape, np.float32)
    _, told, _ = learn_edges(noise, known, EdgeSettings(ForestSettings(trees=20, min_leaf=3)), 0)
    assert abs(told["auc"] - 0.5) < 0.1


def test_too_few_contacts_are_told():
    features, known, _ = separable(30)
    known = known._replace(different=np.arange(30) < 4)
    with pytest.raises(UserError, match=r"--edges: the corrected sections decide 26 contacts .* and 4 that do not"):
        learn_edges(features, known, EdgeSettings(), 0)


def test_corrected_sections_are_held_to_what_they_say():
    truth = blobs((10, 48, 48), 14, background=0.0)
    boundaries = boundary_of(truth).astype(np.float32)
    em = 1 - boundaries
    settings = SegmentSettings()
    cut = cut_fragments(em, boundaries, ISOTROPIC, settings)
    known = known_edges(cut.graph, cut.ids, Corrections((2, 7), truth[[2, 7]]))
    features, _, _ = separable()
    wrong = KnownEdges(np.arange(300), np.arange(300) % 2 == 0, np.zeros(300, int))
    edges, _, _ = learn_edges(features, wrong, EdgeSettings(ForestSettings(trees=5)), 0)
    ends = cut.graph.rag.uv_ids()[known.index]
    agreed = []
    for said in (None, known):
        labels = join_fragments(cut, edges, EdgeSettings(), settings, said)
        assert labels.min() == 1 and labels.max() == len(np.unique(labels))
        of = np.zeros(cut.ids.max() + 1, int)
        of[cut.ids.ravel()] = labels.ravel()
        agreed.append(((of[ends[:, 0]] != of[ends[:, 1]]) == known.different).mean())
    assert agreed[1] > 0.9 and agreed[1] > agreed[0]


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_area_counts_pairs(levels):
    rng = np.random.default_rng(levels)
    truth, said = rng.random(60) < 0.4, rng.integers(0, levels, 60) / levels
    a, b = said[truth][:, None], said[~truth][None]
    assert auc(truth, said) == pytest.approx(((a > b) + 0.5 * (a == b)).mean())
    assert np.isnan(auc(np.ones(3, bool), np.ones(3)))


def test_exchanging_a_feature_that_matters_lowers_the_area():
    from emlib.refine.forest import grow_forest

    features = np.random.default_rng(0).random((800, 3), np.float32)
    positive = features[:, 1] > 0.5
    forest, _ = grow_forest(features, positive, ("a", "b", "c"), ForestSettings(trees=10))
    before = features.copy()
    falls = permutation_importance(forest, features, positive, np.arange(400), 0)
    assert falls.argmax() == 1 and falls[1] > 0.3 and abs(falls[[0, 2]]).max() < 0.05
    assert np.array_equal(features, before)
