"""Synapses: decisions and additions through the window, what they leave in the tables, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from proofread_run import VOXEL, write_run
from window_model import click, new_model, press, push, refused

from emlib.errors import UserError
from emlib.pipeline.synapse_decisions import apply_decisions, read_decisions
from emlib.proofread import Edit, Journal, Session, replay
from emlib.proofread.synapse_edits import ADDED, DECISIONS


@pytest.fixture
def model(tmp_path):
    proofreader = new_model(tmp_path)
    yield proofreader
    proofreader.session.close()


@pytest.fixture
def session(tmp_path):
    write_run(tmp_path)
    with Session.open(tmp_path) as opened:
        yield opened


def neighbours(labels, z=2):
    """Two voxels side by side in different neurites."""
    section = labels[z]
    y, x = np.argwhere((section[:, 1:] != section[:, :-1]) & (section[:, 1:] > 0) & (section[:, :-1] > 0))[3]
    return (z, int(y), int(x)), (z, int(y), int(x) + 1)


def row(proofreader, number):
    return proofreader.session.synapses().iloc[number]


def place(proofreader, number):
    return tuple(map(int, row(proofreader, number)[["new_z", "new_y", "new_x"]]))


def test_points_lie_on_the_synapses_and_show_score_and_decision(model):
    points, table = model.layers.synapses, model.session.synapses()
    assert np.array_equal(points.data, table[["new_z", "new_y", "new_x"]])
    shades = np.round(points.face_color, 3)
    assert len(np.unique(shades, axis=0)) == len(table)  # six scores, six colours
    assert {str(symbol) for symbol in points.symbol} == {"disc"}
    model.choose_synapse(table["synapse"][1])
    push(model, "confirm")
    model.choose_synapse(table["synapse"][3])
    push(model, "reject")
    assert [str(symbol) for symbol in points.symbol] == ["disc", "star", "disc", "x", "disc", "disc"]
    assert np.argmax(points.size) == 3 and len(np.unique(np.round(points.border_color, 3), axis=0)) == 3


@pytest.mark.parametrize(("command", "decision"), [("confirm", "confirmed"), ("reject", "rejected")])
def test_decisions_by_click_and_button_and_by_key(model, command, decision):
    click(model, place(model, 2))
    assert model.synapse == row(model, 2)["synapse"]
    push(model, command)
    press(model, command, place(model, 4))
    assert model.session.synapses()["decision"].tolist() == [
        *("undecided", "undecided", decision, "undecided", decision, "undecided")
    ]
    push(model, "reset")
    assert row(model, 4)["decision"] == "undecided"
    push(model, "undo")
    assert row(model, 4)["decision"] == decision


def test_without_a_synapse_at_hand(model):
    for command in ("confirm", "reject", "flip", "move", "reset"):
        push(model, command)
        assert refused(model, "no synapse is chosen")


def test_flip_and_move(model):
    before = row(model, 0)
    press(model, "flip", place(model, 0))
    assert (row(model, 0)["new_pre_id"], row(model, 0)["new_post_id"]) == (before["post_id"], before["pre_id"])
    press(model, "move", place(model, 0))
    click(model, (1, 3, 4))
    assert place(model, 0) == (1, 3, 4) and model.tool is None
    assert tuple(model.layers.synapses.data[0]) == (1, 3, 4)
    press(model, "reset", (1, 3, 4))
    assert place(model, 0) == tuple(before[["z", "y", "x"]]) and not row(model, 0)["flipped"]


def test_add_and_remove(model):
    one, two = neighbours(model.session.labels)
    press(model, "add", one)
    click(model, two)
    added = row(model, -1)
    labels = model.session.labels
    assert model.synapse == added["synapse"] and added["synapse"].startswith(ADDED)
    assert (added["new_pre_id"], added["new_post_id"]) == (labels[one], labels[two])
    assert (added["decision"], added["score"], len(model.layers.synapses.data)) == ("confirmed", 1.0, 7)
    push(model, "flip")
    assert row(model, -1)["new_pre_id"] == labels[two]
    push(model, "reject")
    assert len(model.session.synapses()) == 6 and model.synapse is None
    push(model, "undo")
    assert row(model, -1)["flipped"] and len(model.layers.synapses.data) == 7


def test_next_and_previous_undecided_by_score(model):
    names = model.session.synapses().sort_values("score", ascending=False)["synapse"].tolist()
    push(model, "next_undecided")
    assert model.synapse == names[0] and len(model.shown) == 2
    push(model, "confirm")
    push(model, "next_undecided")
    push(model, "next_undecided")
    assert model.synapse == names[2] and model.layers.section == int(names[2].split(",")[0])
    push(model, "previous_undecided")
    assert model.synapse == names[1]
    push(model, "previous_undecided")
    assert refused(model, "no undecided synapse has a higher score")


def test_a_run_without_candidates(tmp_path):
    model = new_model(tmp_path, candidates=False)
    push(model, "next_undecided")
    assert refused(model, "no undecided synapse")
    one, two = neighbours(model.session.labels)
    press(model, "add", one)
    press(model, "add", two)
    assert len(model.layers.synapses.data) == 1 and model.layers.synapses.data[0].tolist() == list(one)
    push(model, "undo")
    assert len(model.layers.synapses.data) == 0
    model.session.close()


def test_the_session_s_own_refusals(session):
    one, two = neighbours(session.labels)
    found = session.synapses()["synapse"][0]
    nothing = tuple(map(int, np.argwhere(session.labels == 0)[0]))
    for arguments, message in (
        ({"at": one, "pre": one, "post": one}, "sender and receiver are both neurite"),
        ({"at": one, "pre": nothing, "post": one}, "the sender at z=.* is background"),
        ({"at": one, "pre": one, "post": nothing}, "the receiver at z=.* is background"),
        ({"at": (99, 0, 0), "pre": one, "post": two}, "lies outside of the volume"),
    ):
        with pytest.raises(UserError, match=message):
            session.apply(Edit("add_synapse", arguments))
    with pytest.raises(UserError, match="nobody added the synapse"):
        session.apply(Edit("remove_synapse", {"synapse": found}))
    session.apply(Edit("add_synapse", {"at": one, "pre": one, "post": two}))
    with pytest.raises(UserError, match="was added here already"):
        session.apply(Edit("add_synapse", {"at": one, "pre": one, "post": two}))
    assert session.journal.last == 1


def test_added_synapses_are_kept_replayed_and_rebuilt(tmp_path):
    start = write_run(tmp_path)
    with Session.open(tmp_path) as session:
        one, two = neighbours(session.labels)
        session.apply(Edit("add_synapse", {"at": one, "pre": one, "post": two}))
        name = session.synapses()["synapse"].iloc[-1]
        session.apply(Edit("move_synapse", {"synapse": name, "to": two}))
        session.apply(Edit("confirm_synapse", {"synapse": session.synapses()["synapse"][0]}))
        session.save()
        decided, records = session.synapse_decisions(), session.scene.records
    with Journal(tmp_path / "runs/proofreading.sqlite") as journal:
        assert replay(journal, start)[1] == records
    with Session.open(tmp_path) as again:
        pd.testing.assert_frame_equal(again.synapse_decisions(), decided)
    written = pd.read_csv(tmp_path / "tables/synapse_edits.csv")
    assert list(written) == list(DECISIONS) and written["synapse"].tolist() == decided["synapse"].tolist()
    candidates = pd.read_csv(tmp_path / "tables/synapse_candidates.csv")
    decisions = read_decisions(tmp_path / "tables/synapse_edits.csv", start.shape, candidates)
    applied = apply_decisions(
        candidates[3:].reset_index(drop=True), decisions, start, VOXEL, match_nm=1.0, separation_nm=1.0
    )
    assert applied.outcomes.set_index("synapse").loc[name, "outcome"] == "put back"
    (added,) = applied.candidates[applied.candidates[["z", "y", "x"]].eq(two).all(axis=1)].to_dict("records")
    assert (added["pre_id"], added["post_id"], added["score"]) == (start[one], start[two], 1.0)


def test_partners_of_an_added_synapse_follow_the_labels(session):
    one, two = neighbours(session.labels)
    pre, post = int(session.labels[one]), int(session.labels[two])
    session.apply(Edit("add_synapse", {"at": one, "pre": one, "post": two}))
    other = next(i for i in session.boxes.ids() if i not in (pre, post))
    session.apply(Edit("merge", {"keep": other, "gone": post}))
    added = session.synapses().iloc[-1]
    assert (added["new_pre_id"], added["new_post_id"], added["post_id"]) == (pre, other, post)
