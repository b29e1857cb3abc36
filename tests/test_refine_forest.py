"""Forests as arrays: scikit-learn's probabilities to the last bit, and files that cannot do harm."""

import json

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.refine.features import FeatureSettings, feature_names
from emlib.refine.forest import Forest, ForestSettings, from_boosting, from_random_forest, grow_forest
from emlib.refine.model_file import ARRAYS, feature_settings, read_model, write_model

NAMES = ("a", "b", "c", "d")


def examples(count=1500, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.random((count, len(NAMES)), np.float32)
    return features, features[:, 0] + features[:, 1] * features[:, 2] + 0.2 * rng.normal(size=count) > 0.8


def walked(forest: Forest, row: np.ndarray) -> float:
    """The probability of one row, node by node."""
    total = forest.offset
    for first in forest.starts[:-1]:
        node = 0
        while forest.left[first + node] >= 0:
            at = first + node
            child = forest.left if row[forest.feature[at]] <= forest.threshold[at] else forest.right
            node = child[at]
        total += forest.value[first + node]
    return 1 / (1 + np.exp(-total)) if forest.boosted else total / len(forest)


@pytest.mark.parametrize("rows", [0, 1, 120_001])
def test_probabilities_are_those_of_scikit_learn(rows):
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    new = np.random.default_rng(1).random((max(rows, 1), len(NAMES)), np.float32)
    bagged = RandomForestClassifier(7, min_samples_leaf=3, random_state=0).fit(*examples())
    boosted = HistGradientBoostingClassifier(max_iter=7, random_state=0).fit(*examples())
    for forest, model in ((from_random_forest(bagged, NAMES), bagged), (from_boosting(boosted, NAMES), boosted)):
        assert np.array_equal(forest.probability(new[:rows]), model.predict_proba(new)[:rows, 1])


@pytest.mark.parametrize("classifier", ["rf", "hgb"])
def test_probabilities_are_those_of_a_walk_node_by_node(classifier):
    forest, importance = grow_forest(*examples(), NAMES, ForestSettings(classifier, trees=5, min_leaf=3))
    new = examples(40, seed=2)[0]
    assert forest.probability(new) == pytest.approx([walked(forest, row) for row in new], abs=1e-12)
    assert np.isnan(importance).all() if classifier == "hgb" else importance.argmax() == 0


def test_growing_is_repeatable_and_follows_the_seed():
    grown = [grow_forest(*examples(), NAMES, ForestSettings(trees=3), seed)[0].threshold for seed in (0, 0, 1, 2**62)]
    assert np.array_equal(grown[0], grown[1]) and not np.array_equal(grown[0], grown[2])


def test_an_unknown_classifier_and_other_columns_are_refused():
    with pytest.raises(ValueError, match=r"one of rf, hgb"):
        grow_forest(*examples(), NAMES, ForestSettings("svm"))
    forest, _ = grow_forest(*examples(), NAMES, ForestSettings(trees=2))
    with pytest.raises(ValueError, match=r"4 columns"):
        forest.probability(np.zeros((2, 3), np.float32))


@pytest.fixture
def model(tmp_path):
    forest, _ = grow_forest(*examples(), NAMES, ForestSettings(trees=3))
    path = tmp_path / "model.npz"
    write_model(path, {"pixels": forest}, {"features": FeatureSettings()})
    return path, forest


def test_a_model_comes_back_as_it_was_and_has_equal_bytes(model, tmp_path):
    path, forest = model
    forests, settings = read_model(path)
    again = forests["pixels"]
    assert again.names == NAMES and all(np.array_equal(getattr(again, a), getattr(forest, a)) for a in ARRAYS)
    assert settings["features"]["gaussian_nm"] == list(FeatureSettings().gaussian_nm)
    write_model(tmp_path / "again.npz", {"pixels": again}, settings)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def rewritten(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)


def test_a_changed_model_is_told_by_its_checksum(model):
    path, _ = model
    rewritten(path, lambda arrays: arrays["pixels/threshold"].__setitem__(0, 0.123))
    with pytest.raises(UserError, match=r"is damaged: its checksum does not fit"):
        read_model(path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("left", 10**9, "a child lies outside"),
        ("left", 0, "a child lies outside"),  # its own child: a circle
        ("feature", 4, "a feature that is not there"),
        ("feature", -1, "a feature that is not there"),
        ("threshold", np.nan, "no number"),
        ("value", 2.0, "a probability outside"),
    ],
)
def test_trees_that_would_lead_astray_are_refused(model, monkeypatch, part, value, message):
    """Also with a fitting checksum, which whoever made the file can compute."""
    path, forest = model
    getattr(forest, part)[0] = value
    write_model(path, {"pixels": forest}, {})
    with pytest.raises(UserError, match=message):
        read_model(path)


def test_what_is_no_model_is_refused(model, tmp_path):
    path, _ = model
    with pytest.raises(UserError, match=r"cannot read the model"):
        read_model(tmp_path / "none.npz")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"no model that train_refine_rf.py wrote, or is damaged"):
        read_model(path)
    np.savez(path, a=np.array([{"code": print}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"no model that train_refine_rf.py wrote"):
        read_model(path)
    path.write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"no model that train_refine_rf.py wrote"):
        read_model(path)


def test_a_model_of_other_features_is_refused():
    features, positive = examples()
    names = feature_names((40, 8, 8))
    columns = np.resize(features, (len(features), len(names)))
    forest, _ = grow_forest(columns, positive, names, ForestSettings(trees=2))
    stored = json.loads(json.dumps({"features": vars(FeatureSettings())}))
    assert feature_settings(stored, forest, (50, 4, 4), "m.npz") == FeatureSettings()
    with pytest.raises(
        UserError, match=r"m.npz was trained on other features: 18, where this volume of 10 × 10 × 10 nm gives 23"
    ):
        feature_settings(stored, forest, (10, 10, 10), "m.npz")
    with pytest.raises(UserError, match=r"other feature settings"):
        feature_settings({"features": {"sigma": 1}}, forest, (50, 4, 4), "m.npz")
