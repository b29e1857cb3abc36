"""Differences of labels and graphs against brute force, decisions and names against cases that are known."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.measure.graph_change import (
    compare_edges,
    compare_labels,
    degree_changes,
    degrees,
    graph_summary,
    node_changes,
)
from emlib.measure.instances import score_instances
from emlib.pipeline.neurite_names import read_names
from emlib.pipeline.synapse_decisions import apply_decisions, read_decisions
from emlib.proofread.synapse_edits import DECISIONS
from emlib.publish.figure_change import figure_graphs, figure_labels

VOXEL = (40.0, 10.0, 10.0)


def random_labels(seed, ids=6, shape=(3, 12, 14)):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, ids, shape) * rng.integers(1, 3, shape)).astype(np.int32)


def random_edges(seed, labels, count=12):
    rng = np.random.default_rng(seed)
    ids = np.unique(labels[labels > 0])
    table = pd.DataFrame({"source": rng.choice(ids, count), "target": rng.choice(ids, count)})
    table = table[table["source"] != table["target"]].drop_duplicates().reset_index(drop=True)
    return table.assign(weight=rng.integers(1, 5, len(table)))


def brute_best(of, among):
    """The id of ``among`` that each id of ``of`` shares most voxels with, the smaller of equals."""
    best = {}
    for one in np.unique(of[of > 0]).tolist():
        there = among[(of == one) & (among > 0)].tolist()
        if there:
            best[one] = max(sorted(set(there)), key=there.count)
    return best


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_compared_as_brute_force_does(seed):
    before, after = random_labels(seed), random_labels(seed + 50, ids=4)
    change = compare_labels(before, after)
    new, old = brute_best(before, after), brute_best(after, before)
    assert change.new_ids == new
    stayed = sum(int(((before == b) & (after == a)).sum()) for b, a in new.items() if old[a] == b)
    assert change.scores["voxels_changed"] == int(((before > 0) | (after > 0)).sum()) - stayed
    assert change.scores["voxels_unlabelled"] == ((before > 0) & (after == 0)).sum()
    assert change.scores["voxels_labelled"] == ((before == 0) & (after > 0)).sum()
    expected = score_instances(before, after, zero="ignore")
    assert change.scores["voi_split"] == pytest.approx(expected["voi_split"], abs=1e-12)
    assert change.scores["voi_merge"] == pytest.approx(expected["voi_merge"], abs=1e-12)
    graph = nx.Graph([(("b", b), ("a", a)) for b, a in new.items()] + [(("b", b), ("a", a)) for a, b in old.items()])
    groups = {frozenset(members) for members in nx.connected_components(graph)}
    found = {
        frozenset({("b", b) for b in rows["before"] if b} | {("a", a) for a in rows["after"] if a})
        for _, rows in change.pairs.groupby("family")
    }
    assert groups <= found and all(len(extra) == 1 for extra in found - groups)
    for row in change.pairs.itertuples(index=False):
        assert row.shared_voxels == (
            ((before == row.before) & (after == row.after)).sum() if row.before and row.after else 0
        )
        assert row.before_voxels == ((before == row.before).sum() if row.before else 0)


def test_other_ids_for_the_same_neurites_are_no_change():
    before = random_labels(1)
    after = np.where(before > 0, 100 - before, 0)
    change = compare_labels(before, after)
    assert change.scores["voi"] == change.scores["voxels_changed"] == 0 and change.families() == {}
    edges = random_edges(2, before)
    renamed = edges.assign(source=100 - edges["source"], target=100 - edges["target"])
    compared = compare_edges(edges, renamed, change)
    assert set(compared["change"]) == {"kept"} and not len(degree_changes(compared))


def test_each_kind_of_change_has_its_name():
    before = np.array([[[1, 1, 2, 3, 3, 4, 5, 5, 0, 8]]])
    after = np.array([[[1, 1, 1, 3, 6, 0, 5, 0, 7, 8]]])
    change = compare_labels(before, after)
    kinds = {(row.before, row.after): row.change for row in change.pairs.itertuples()}
    assert kinds == {
        **{(1, 1): "merged", (2, 1): "merged", (3, 3): "split", (3, 6): "split"},
        **{(4, 0): "gone", (0, 7): "new", (5, 5): "reshaped", (8, 8): "same"},
    }
    assert change.pairs["change"].iloc[-1] == "same"  # what did not change comes last
    assert change.families() == {"merged": 1, "split": 1, "gone": 1, "new": 1, "reshaped": 1}


@pytest.mark.parametrize("seed", range(5))
def test_edges_keep_their_weights_and_are_counted_once(seed):
    before, after = random_labels(seed), random_labels(seed + 50, ids=4)
    old, new = random_edges(seed, before), random_edges(seed + 9, after)
    change = compare_labels(before, after)
    edges = compare_edges(old, new, change)
    assert edges["weight_before"].sum() == old["weight"].sum() and edges["weight_after"].sum() == new["weight"].sum()
    assert not edges.duplicated(["source", "target"]).any()
    named = {}
    for s, t, w in old.itertuples(index=False):
        ends = change.new_ids.get(s, -s), change.new_ids.get(t, -t)
        named[ends] = named.get(ends, 0) + w
    now = {(s, t): w for s, t, w in new.itertuples(index=False)}
    for row in edges.itertuples(index=False):
        ends = (row.source, row.target)
        was, is_now = named.get(ends, 0), now.get(ends, 0)
        assert (row.weight_before, row.weight_after) == (was, is_now)
        kind = "kept" if was == is_now else "reweighted"
        kind = "lost" if not is_now else "gained" if not was else kind
        assert row.change == ("inside" if row.source == row.target else kind)
    summary = graph_summary(edges, change)
    assert summary["edges_before"] == len(old) and summary["edges_after"] == len(new)
    assert summary["nodes_before"] == len(set(old["source"]) | set(old["target"]))
    nodes = node_changes(change, old, new)
    known = nx.DiGraph()
    known.add_weighted_edges_from(old.itertuples(index=False, name=None))
    for row in nodes[nodes["before"].isin(list(known))].itertuples():
        assert (row.in_degree_before, row.out_degree_before) == (
            known.in_degree(row.before),
            known.out_degree(row.before),
        )
        assert row.in_weight_before == known.in_degree(row.before, weight="weight")


def test_graphs_without_edges_can_be_compared():
    none = pd.DataFrame({"source": [], "target": [], "weight": []}).astype(int)
    change = compare_labels(random_labels(0), random_labels(1))
    assert not len(compare_edges(none, none, change)) and not len(degrees(none))
    summary = graph_summary(compare_edges(none, random_edges(0, random_labels(1)), change), change)
    assert summary["edges_before"] == summary["nodes_before"] == 0 and summary["gained"] == summary["edges_after"] > 0


def test_figures_say_what_changed():
    before = np.zeros((3, 60, 60), np.int32)
    before[:, :30], before[:, 30:] = 1, 2
    after = before.copy()
    after[1] = 1
    em = np.random.default_rng(0).random(before.shape, np.float32)
    change = compare_labels(before, after)
    figure = figure_labels(em, before, after, change.pairs, VOXEL, note="SYNTHETIC")
    assert "section z = 1" in figure.get_suptitle() and figure.get_suptitle().startswith("SYNTHETIC")
    assert len(figure.axes) == 2
    same = figure_labels(em, before, before, compare_labels(before, before).pairs, VOXEL)
    assert any("No neurite has changed" in text.get_text() for text in same.texts)
    edges = pd.DataFrame({"source": [1, 2], "target": [2, 1], "weight": [1, 2]})
    graphs = figure_graphs(compare_edges(edges, edges.head(1), compare_labels(before, before)))
    assert "1 lost" in graphs.get_suptitle()
    none = figure_graphs(compare_edges(edges.head(0), edges.head(0), change))
    assert any("Neither graph" in text.get_text() for text in none.texts)


# Two neurites side by side, 1 on the left and 2 on the right, 3 below.
LABELS = np.ones((2, 40, 60), np.int32)
LABELS[:, :, 30:] = 2
LABELS[:, 30:] = 3


def found(*rows):
    table = pd.DataFrame(rows, columns=["z", "y", "x", "pre_id", "post_id", "score"])
    return table.assign(density=0.7, partners="")


def decided(place, decision, *, to=None, flipped=False, pre=(0, 10, 20), post=(0, 10, 40)):
    new = to or place
    pre, post = (post, pre) if flipped else (pre, post)
    name = ",".join(map(str, (*place, 1, 2)))
    values = (name, *place, 1, 2, 0.5, decision, *new, 0, 0, flipped, *pre, *post)
    return pd.DataFrame([values], columns=list(DECISIONS)).astype(DECISIONS)


def apply(candidates, decisions, labels=LABELS, match_nm=100.0):
    return apply_decisions(candidates, decisions, labels, VOXEL, match_nm=match_nm, separation_nm=200.0)


def test_a_rejected_candidate_leaves_the_table_and_its_neighbour_stays():
    candidates = found((0, 10, 30, 1, 2, 0.9), (0, 30, 10, 1, 3, 0.4))
    applied = apply(candidates, decided((0, 10, 27), "rejected"))
    assert applied.candidates["score"].tolist() == [0.4] and not applied.lines
    assert applied.outcomes[["outcome", "distance_nm"]].to_numpy().tolist() == [["applied", 30.0]]


def test_what_lies_farther_than_the_stated_distance_is_not_matched_and_said():
    applied = apply(found((0, 10, 30, 1, 2, 0.9)), decided((0, 10, 19), "rejected"))
    assert len(applied.candidates) == 1
    assert applied.lines == [
        "1 of 1 decision on synapses: without a new candidate there, so that nothing was to be done; candidates were "
        "looked for within 100 nm: 0,10,19,1,2"
    ]
    assert not len(apply(found((0, 10, 30, 1, 2, 0.9)), decided((0, 10, 19), "rejected"), match_nm=110).candidates)


def test_a_confirmed_candidate_is_certain_and_has_the_partners_that_a_person_saw():
    applied = apply(found((0, 10, 30, 2, 1, 0.02)), decided((0, 10, 30), "confirmed"))
    assert applied.candidates[["pre_id", "post_id", "score", "decision"]].to_numpy().tolist() == [
        [1, 2, 1, "confirmed"]
    ]
    assert applied.outcomes["found_score"].tolist() == [0.02]


def test_a_flip_and_a_move_hold():
    decision = decided((0, 10, 30), "undecided", to=(1, 12, 31), flipped=True)
    row = apply(found((0, 11, 30, 1, 2, 0.3)), decision).candidates.iloc[0]
    assert [row[name] for name in ("z", "y", "x", "pre_id", "post_id", "score")] == [1, 12, 31, 2, 1, 0.3]


def test_a_confirmed_synapse_without_a_candidate_is_put_back_and_takes_the_place_of_undecided_ones():
    candidates = found((0, 10, 45, 1, 2, 0.3), (1, 10, 18, 1, 3, 0.2), (0, 35, 10, 3, 1, 0.1))
    applied = apply(candidates, decided((0, 10, 30), "confirmed"))  # the first two lie 150 and 126 nm away
    assert applied.candidates[["y", "x", "score"]].to_numpy().tolist() == [[10, 30, 1], [35, 10, 0.1]]
    assert applied.candidates.dtypes["pre_id"] == np.int64 and "put back" in applied.lines[0]


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.minimum(LABELS, 1), "sender and receiver are one neurite"), (np.where(LABELS == 2, 0, LABELS), "background")],
)
def test_a_confirmed_synapse_without_partners_is_said(labels, words):
    applied = apply(found(), decided((0, 10, 30), "confirmed"), labels)
    assert not len(applied.candidates) and words in applied.lines[0]


def test_each_decision_has_one_candidate():
    decisions = pd.concat([decided((0, 10, 30), "rejected"), decided((0, 10, 34), "confirmed")], ignore_index=True)
    applied = apply(found((0, 10, 33, 1, 2, 0.5)), decisions)
    assert sorted(applied.outcomes["outcome"]) == ["applied", "not found"]
    assert applied.candidates["score"].tolist() == [1.0]


def test_decisions_of_another_volume_are_refused(tmp_path):
    path = tmp_path / "synapse_edits.csv"
    decided((0, 10, 30), "confirmed").to_csv(path, index=False)
    own = pd.DataFrame({"z": [0], "y": [10], "x": [30]})
    assert read_decisions(path, LABELS.shape, own)["flipped"].tolist() == [False]
    with pytest.raises(UserError, match="made on another volume: z=0, y=10, x=30 lies outside"):
        read_decisions(path, (2, 40, 20), own)
    with pytest.raises(UserError, match="another run: 0 of its 1 candidate were found by this one"):
        read_decisions(path, LABELS.shape, own + 1)
    added = decided((0, 10, 30), "confirmed").assign(synapse="added 0,10,30,1,2")
    added.to_csv(path, index=False)
    assert len(read_decisions(path, LABELS.shape, own + 1)) == 1, "no run has found what a person added"
    decided((0, 10, 30), "perhaps").to_csv(path, index=False)
    with pytest.raises(UserError, match="line 2: decision is perhaps"):
        read_decisions(path, LABELS.shape, own)
    decided((0, 10, 30), "confirmed").drop(columns="flipped").to_csv(path, index=False)
    with pytest.raises(UserError, match="lacks the column flipped"):
        read_decisions(path, LABELS.shape, own)


def test_names_follow_their_places(tmp_path):
    path = tmp_path / "neurite_names.csv"
    rows = [(7, "AVAL", "leaves", 0, 1, 1), (8, "AVAR", None, 0, 2, 2), (9, "lost", "x\x01", 0, 35, 1)]
    pd.DataFrame(rows, columns=["neurite_id", "name", "note", "z", "y", "x"]).to_csv(path, index=False)
    names, lines = read_names(path, np.where(LABELS == 3, 0, LABELS))
    assert names.to_numpy().tolist() == [[1, "AVAL + AVAR", "leaves"]]
    assert lines == [
        "the name 'lost' of neurite 9 belongs to nobody: there is background at its place in these labels",
        "2 names on neurite 1: AVAL + AVAR",
    ]
    with pytest.raises(UserError, match="made on another volume: z=0, y=35, x=1 lies outside"):
        read_names(path, LABELS[:, :20])
