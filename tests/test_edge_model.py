"""Learned contacts: labels, blocks, calibration, tuning, and the file that keeps them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from proofread_run import blobs

from emlib.errors import UserError
from emlib.measure.contingency import contingency
from emlib.measure.instances import score_table
from emlib.refine.edge_blocks import blocks_of, folds, label_table, labelled_contacts
from emlib.refine.edge_boosting import ContactSettings, learn_contacts
from emlib.refine.edge_contacts import CONTACT_NAMES
from emlib.refine.edge_features import EDGE_NAMES
from emlib.refine.edge_model import ContactModel, check_fit, read_edge_model, write_edge_model
from emlib.refine.edge_tuning import SIZE_POWERS, chosen, joined, tune
from emlib.refine.forest import ForestSettings, grow_forest
from emlib.refine.model_file import read_model, write_model
from emlib.stages.agglomerate import partition, region_graph
from emlib.stages.learned_edges import Cut, EdgeTuning, learned_evidence
from emlib.stages.segment import SegmentSettings, segment
from emlib.stages.watershed import FragmentSettings
from emlib.threads import set_threads

ISOTROPIC = (10.0, 10.0, 10.0)
QUICK = ContactSettings(ForestSettings("hgb", trees=15, min_leaf=5, learning_rate=0.2, max_leaves=8))


def borders_of(labels):
    """High on both sides of a border between labels, with some noise."""
    edge = np.zeros(labels.shape, np.float32)
    for axis in range(3):
        differ = np.diff(labels, axis=axis) != 0
        for side in (slice(1, None), slice(0, -1)):
            at = [slice(None)] * 3
            at[axis] = side
            edge[tuple(at)] = np.maximum(edge[tuple(at)], differ)
    return 0.7 * edge + 0.3 * np.random.default_rng(1).random(labels.shape, np.float32)


def make(shape=(12, 60, 60), neurites=25, pieces=400, seed=0):
    """Fragments finer than the neurites, boundaries that say which border is one."""
    truth = blobs(shape, neurites, seed=seed, background=0.0)
    fine = blobs(shape, pieces, seed=seed + 1, background=0.0)
    fragments = truth.astype(np.int64) * 10_000 + fine
    fragments = np.unique(fragments, return_inverse=True)[1].reshape(shape).astype(np.int32) + 1
    boundaries = borders_of(truth).astype(np.float32)
    em = (1 - boundaries).astype(np.float32)
    return Cut(fragments, region_graph(fragments, boundaries, ISOTROPIC), boundaries, em, ISOTROPIC), truth


@pytest.fixture(scope="module")
def learned():
    cut, truth = make()
    table = label_table(truth, cut.fragments)
    return cut, truth, table, learn_contacts(cut, table, QUICK)


def test_labels_decide_contacts_of_pure_fragments_alone():
    cut, truth = make((5, 20, 20), 6, 25)
    labels = truth.copy()
    labels[cut.fragments == 3] = 0  # nobody labelled it
    two = np.argwhere(cut.fragments == 5)
    labels[tuple(two[: len(two) // 2].T)] = 77  # half of it is another neurite
    known = labelled_contacts(cut.graph, cut.fragments, label_table(labels, cut.fragments), 0.7)
    ends = cut.graph.rag.uv_ids()
    owner = {}
    for one in range(1, cut.graph.rag.number_of_nodes):
        here = labels[cut.fragments == one]
        ids, voxels = np.unique(here[here > 0], return_counts=True)
        if voxels.sum() >= 0.5 * len(here) and voxels.max(initial=0) >= 0.7 * voxels.sum() and len(ids):
            owner[one] = ids[voxels.argmax()]
    assert 3 not in owner and 5 not in owner
    expected = [i for i, (a, b) in enumerate(ends.tolist()) if a in owner and b in owner]
    assert known.index.tolist() == expected
    assert known.same.tolist() == [owner[a] == owner[b] for a, b in ends[expected].tolist()]


def test_no_fragment_is_on_both_sides_of_a_fold(learned):
    cut = learned[0]
    ends, count = cut.graph.rag.uv_ids(), cut.graph.rag.number_of_nodes
    centres = np.random.default_rng(0).random((len(ends), 3)) * 600
    blocks = blocks_of(centres, (12, 60, 60), ISOTROPIC, (1, 2, 2))
    assert set(blocks.tolist()) == {0, 1, 2, 3}
    tests = np.zeros(len(ends), int)
    for learnt, tested in folds(blocks, ends, count):
        assert not set(ends[learnt].ravel()) & set(ends[tested].ravel())
        tests += tested
    assert (tests == 1).all()


def test_what_is_learnt_holds_on_held_out_blocks(learned):
    cut, _, _, made = learned
    told = made.validation
    assert told["auc"] > 0.95 and told["brier"] < 0.5 * told["brier_of_the_mean"]
    assert 0.2 < told["share_same"] < 0.95 and told["calibration_error"] < 0.1
    assert len(made.held_out) == len(cut.graph.rag.uv_ids()) and ((0 <= made.held_out) & (made.held_out <= 1)).all()
    assert made.bins["contacts"].sum() <= told["contacts"] and made.forest.names == CONTACT_NAMES
    assert CONTACT_NAMES[np.nanargmax(made.importance)].startswith(("boundary", "grey", "rank", "above"))


def test_chance_is_told_as_chance():
    """Labels that have nothing to do with the picture: blocks tell so, contacts at random would not."""
    cut, _ = make((8, 50, 50), 20, 250)
    shuffled = np.random.default_rng(5).integers(1, 3, cut.graph.rag.number_of_nodes)
    labels = shuffled[cut.fragments]
    made = learn_contacts(cut, label_table(labels, cut.fragments), QUICK)
    assert abs(made.validation["auc"] - 0.5) < 0.1


@pytest.mark.slow
def test_probabilities_are_calibrated():
    """Contacts that are told apart only in part: of those with probability p, p belong together."""
    cut, truth = make((12, 70, 70), 40, 700, seed=7)
    noise = np.random.default_rng(1).normal(0, 0.35, cut.graph.rag.number_of_nodes)
    noisy = np.clip(cut.boundaries + noise[cut.fragments], 0, 1).astype(np.float32)
    grey = np.full_like(cut.em, 0.5)
    cut = cut._replace(boundaries=noisy, em=grey, graph=region_graph(cut.fragments, noisy, ISOTROPIC))
    made = learn_contacts(cut, label_table(truth, cut.fragments), QUICK)
    assert made.validation["calibration_error"] < 0.05
    assert made.validation["brier"] <= made.validation["brier_uncalibrated"] + 1e-3


def test_threads_change_no_tree():
    cut, truth = make((6, 40, 40), 12, 120)
    table = label_table(truth, cut.fragments)
    try:
        made = []
        for threads in (1, 3):
            set_threads(threads)
            made.append(learn_contacts(cut, table, QUICK))
    finally:
        set_threads(None)
    assert np.array_equal(made[0].forest.threshold, made[1].forest.threshold)
    assert np.array_equal(made[0].held_out, made[1].held_out)


def test_too_little_is_told():
    cut, truth = make((3, 12, 12), 2, 6)
    with pytest.raises(UserError, match=r"the labels of the crop decide \d+ contacts .* at least 10 of each"):
        learn_contacts(cut, label_table(np.ones_like(truth), cut.fragments), QUICK)


def test_a_joined_table_is_that_of_the_painted_labels():
    cut, truth = make((5, 24, 24), 7, 40)
    truth = np.where(np.random.default_rng(0).random(truth.shape) < 0.1, 0, truth)
    neurite = np.random.default_rng(1).integers(0, 9, cut.graph.rag.number_of_nodes)
    found = joined(label_table(truth, cut.fragments), neurite)
    painted = contingency(truth, neurite[cut.fragments])
    for name in ("truth", "pred", "voxels"):
        assert np.array_equal(getattr(found, name), getattr(painted, name))
    assert score_table(found) == score_table(painted)


def test_a_dip_of_one_point_is_not_chosen():
    import pandas as pd

    assert chosen(pd.DataFrame({"voi": [2.0, 0.9, 2.0, 1.1, 1.0, 1.1, 2.0]})) == 4
    assert chosen(pd.DataFrame({"voi": [1.0]})) == 0


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_tuning_chooses_the_best_point_of_its_curve(learned, segmenter):
    cut, _, table, made = learned
    tuning, curve = tune(cut, table, made.held_out, segmenter)
    assert curve["chosen"].sum() == 1 and set(curve["size_power"]) == set(SIZE_POWERS)
    row = curve[curve["chosen"]].iloc[0]
    assert (row["bias"], row["size_power"]) == tuning and row["voi"] < 0.6
    one = curve[curve["size_power"] == tuning.size_power]
    assert one["voi_split"].iloc[0] <= one["voi_split"].iloc[-1]
    assert one["voi_merge"].iloc[0] >= one["voi_merge"].iloc[-1]
    assert one["neurites"].iloc[0] < one["neurites"].iloc[-1]
    neurite = partition(cut.graph, learned_evidence(made.held_out, cut.graph, ISOTROPIC, tuning), segmenter)
    assert 5 < len(np.unique(neurite)) < 120


@pytest.fixture
def model(learned):
    made = learned[-1]
    tunings = {"multicut": EdgeTuning(0.5, 1.0), "gasp": EdgeTuning(-0.25, 0.5)}
    trained_on = {"uri": "em.tif", "sha256": "0" * 64, "z": [0, 12]}
    return ContactModel(made.forest, made.slope, made.intercept, tunings, ISOTROPIC, trained_on=trained_on)


def test_a_model_comes_back_as_it_was_and_has_equal_bytes(model, tmp_path, learned):
    cut = learned[0]
    for name in ("a", "b"):
        write_edge_model(tmp_path / f"{name}.npz", model)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_edge_model(tmp_path / "a.npz")
    assert np.array_equal(again.predict(cut), model.predict(cut))
    assert again.tunings == model.tunings and again.trained_on == model.trained_on
    assert (again.voxel_size_nm, again.fragments, again.boundaries) == (ISOTROPIC, FragmentSettings(), "intensity")


def test_a_model_segments_a_volume_that_it_has_not_seen(model):
    cut, truth = make((10, 50, 50), 15, 300, seed=20)
    finer = SegmentSettings(segmenter="gasp", fragments=FragmentSettings(smooth_nm=3, seed_window_nm=30))
    labels = segment(cut.em, ISOTROPIC, finer, cut.boundaries, model)
    scores = score_table(contingency(truth, labels))
    assert scores["voi"] < 0.6 * score_table(contingency(truth, np.ones_like(truth)))["voi"]
    more = segment(cut.em, ISOTROPIC, replace(finer, bias=6.0), cut.boundaries, model)
    assert more.max() > labels.max()


def test_other_models_are_refused(model, tmp_path):
    features = np.random.default_rng(0).random((60, len(EDGE_NAMES)), np.float32)
    forest, _ = grow_forest(features, features[:, 0] > 0.5, EDGE_NAMES, ForestSettings(trees=2))
    write_model(tmp_path / "refine.npz", {"pixels": forest}, {})
    with pytest.raises(UserError, match=r"refine.npz knows no contacts; train one with train_refine_rf.py --edges"):
        read_edge_model(tmp_path / "refine.npz")
    write_model(tmp_path / "older.npz", {"edges": forest}, {})
    with pytest.raises(UserError, match=r"older.npz was trained on 42 features, 'contact' among them, and this emlib"):
        read_edge_model(tmp_path / "older.npz")
    with pytest.raises(UserError, match=r"cannot read the model"):
        read_edge_model(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no model")
    with pytest.raises(UserError, match=r"is no model that train_refine_rf.py wrote"):
        read_edge_model(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("slope"), "slope"),
        (lambda s: s.update(intercept="much"), "'much' is no number"),
        (lambda s: s["tunings"].pop("gasp"), "gasp"),
        (lambda s: s["tunings"]["gasp"].update(bias=None), "None"),
        (lambda s: s.update(voxel_size_nm=[1, 2]), "voxel size"),
        (lambda s: s.update(fragments={"smooth": 1}), "smooth"),
        (lambda s: s.update(kind="pixels"), "kind"),
        (lambda s: s.update(trained_on=3), ""),
        (lambda s: s["trained_on"].update(z=[1]), "sections"),
    ],
)
def test_a_damaged_description_is_told(model, tmp_path, change, message):
    write_edge_model(tmp_path / "m.npz", model)
    forests, stored = read_model(tmp_path / "m.npz")
    stored = json.loads(json.dumps(stored))
    change(stored)
    write_model(tmp_path / "m.npz", forests, stored)
    with pytest.raises(UserError, match=rf"(?s)m.npz is damaged: .*{message}.*train one with"):
        read_edge_model(tmp_path / "m.npz")


def test_what_does_not_fit_is_refused_or_told(model):
    same = (ISOTROPIC, FragmentSettings(), "intensity")
    assert check_fit(model, "m.npz", *same) == []
    with pytest.raises(UserError, match=r"fragments in 3D \(voxels of 10 × 10 × 10 nm\).*of single sections \(50 × 4"):
        check_fit(model, "m.npz", (50, 4, 4), *same[1:])
    assert "this volume has 20 × 20 × 20 nm" in check_fit(model, "m.npz", (20, 20, 20), *same[1:])[0]
    assert "other settings" in check_fit(model, "m.npz", same[0], FragmentSettings(smooth_nm=9), same[2])[0]
    assert "takes them from experts" in check_fit(model, "m.npz", *same[:2], "experts")[0]
