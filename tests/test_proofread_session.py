"""Sessions against a model that keeps full copies; undo and redo across restarts; synapses, names, sections."""

import copy
import hashlib
import json
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofread_run import VOXEL, blobs, boundary_of, candidate_table, write_run
from scipy import ndimage

from emlib.errors import UserError
from emlib.proofread import Edit, Journal, Session, replay
from emlib.proofread.boxes import slices
from emlib.proofread.operations import OPERATIONS
from emlib.proofread.synapse_edits import DECISIONS, nearest_voxels


class Model:
    """The same operations on full copies, without boxes, deltas or a journal; splits are copied from the session."""

    def __init__(self, labels, candidates):
        self.candidates = candidates
        self.state = {"labels": labels.copy(), "sections": set(), "names": {}, "synapses": {}}
        self.past, self.future, self.highest = [], [], int(labels.max())

    def do(self, edit, result):
        self.past.append(copy.deepcopy(self.state))
        self.future = []
        getattr(self, edit.operation)(result, **edit.arguments)
        self.highest = max(self.highest, int(self.state["labels"].max()))

    def undo(self):
        self.future.append(self.state)
        self.state = self.past.pop()

    def redo(self):
        self.past.append(self.state)
        self.state = self.future.pop()

    def merge(self, result, keep, gone):
        labels, names = self.state["labels"], self.state["names"]
        labels[labels == gone] = keep
        other = names.pop(gone, None)
        if other:
            mine = names.get(keep, {"name": "", "note": ""})
            notes = [
                mine["note"],
                f"merged with {other['name']}" if mine["name"] and other["name"] else "",
                other["note"],
            ]
            if mine["name"] == other["name"]:
                notes[1] = ""
            note = "; ".join(n for n in notes if n)
            names[keep] = {"name": mine["name"] or other["name"], "note": note}

    def delete(self, result, neurite, z=None):
        labels = self.state["labels"]
        part = labels if z is None else labels[z]
        part[part == neurite] = 0
        if not (labels == neurite).any():
            self.state["names"].pop(neurite, None)

    def relabel(self, result, neurite, to):
        labels, names = self.state["labels"], self.state["names"]
        labels[labels == neurite] = to
        names.pop(to, None)
        if neurite in names:
            names[to] = names.pop(neurite)

    def paint(self, result, neurite, voxels, over=None):
        for place in map(tuple, voxels):
            if over is None or self.past[-1]["labels"][place] == over:
                self.state["labels"][place] = neurite

    def erase(self, result, voxels, over=None):
        self.paint(result, 0, voxels, over)

    def new_id(self, result, at, z=None):
        labels = self.state["labels"]
        mask = labels == labels[tuple(at)]
        if z is not None:
            mask &= (np.arange(len(labels)) == z)[:, None, None]
        pieces = ndimage.label(mask, np.ones((3, 3, 3)))[0]
        labels[pieces == pieces[tuple(at)]] = self.highest + 1

    def fill(self, result, neurite, z=None, over=None):
        labels = self.state["labels"]
        mask = labels == neurite
        if z is None:
            filled = ndimage.binary_fill_holes(mask)
        else:
            filled = mask.copy()
            filled[z] = ndimage.binary_fill_holes(mask[z])
        labels[filled if over is None else filled & (labels == over)] = neurite

    def split(self, result, neurite, seeds, z=None):
        labels = self.state["labels"]
        changed = result != labels
        assert (labels[changed] == neurite).all() and (result[changed] == self.highest + 1).all()
        assert result[tuple(seeds[0][0])] == neurite and result[tuple(seeds[1][0])] == self.highest + 1
        self.state["labels"] = result.copy()

    def accept_section(self, result, z):
        self.state["sections"].add(z)

    def unaccept_section(self, result, z):
        self.state["sections"].discard(z)

    def name_neurite(self, result, neurite, **text):
        known = self.state["names"].get(neurite, {"name": "", "note": ""}) | text
        self.state["names"][neurite] = known
        if not any(known.values()):
            del self.state["names"][neurite]

    note_neurite = name_neurite

    def _synapse(self, synapse, **change):
        start = {"decision": "undecided", "at": None, "flipped": False}
        known = self.state["synapses"].get(synapse, start) | change
        if known["at"] == [int(n) for n in synapse.split(",")[:3]]:
            known["at"] = None
        self.state["synapses"][synapse] = known
        if known == start:
            del self.state["synapses"][synapse]

    def confirm_synapse(self, result, synapse):
        self._synapse(synapse, decision="confirmed")

    def reject_synapse(self, result, synapse):
        self._synapse(synapse, decision="rejected")

    def reset_synapse(self, result, synapse):
        self._synapse(synapse, decision="undecided", at=None, flipped=False)

    def move_synapse(self, result, synapse, to):
        self._synapse(synapse, at=list(to))

    def flip_synapse(self, result, synapse):
        self._synapse(synapse, flipped=not self.state["synapses"].get(synapse, {}).get("flipped", False))

    def check(self, session):
        assert np.array_equal(session.labels, self.state["labels"])
        ids, counts = np.unique(session.labels[session.labels > 0], return_counts=True)
        assert session.boxes.ids() == ids.tolist() and [session.boxes.voxels(i) for i in ids] == counts.tolist()
        for neurite in ids:
            assert (session.labels[slices(session.boxes[neurite])] == neurite).sum() == session.boxes.voxels(neurite)
        assert session.accepted_sections == sorted(self.state["sections"])
        names = session.neurite_names()
        there = {i: known for i, known in self.state["names"].items() if i in ids}
        assert {
            row.neurite_id: {"name": row.name_, "note": row.note}
            for row in names.rename(columns={"name": "name_"}).itertuples()
        } == there
        decided = session.synapse_decisions().set_index("synapse")
        assert set(decided.index) == set(self.state["synapses"])
        for synapse, known in self.state["synapses"].items():
            row = decided.loc[synapse]
            place = known["at"] or [int(n) for n in synapse.split(",")[:3]]
            assert (row["decision"], row["flipped"]) == (known["decision"], known["flipped"])
            assert row[["new_z", "new_y", "new_x"]].tolist() == place
        assert (session.can_undo, session.can_redo) == (bool(self.past), bool(self.future))


def draw_edit(data, labels, synapses):
    """An edit that makes sense more often than not."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    ids = np.unique(labels[labels > 0]).tolist() or [1]
    neurite, other = (int(rng.choice(ids)) for _ in range(2))
    z = rng.choice([None, *range(len(labels))])
    operation = data.draw(st.sampled_from(list(OPERATIONS)))
    voxels = np.argwhere(labels == neurite)
    if not len(voxels):
        voxels = np.zeros((2, 3), int)
    one, two = (voxels[i].tolist() for i in rng.integers(0, len(voxels), 2))
    at = rng.integers(0, labels.shape, (int(rng.integers(1, 40)), 3)).tolist()
    synapse = str(rng.choice(synapses))
    word = str(rng.choice(["", "AVAL", "giant"]))
    over = rng.choice([None, 0, other])
    arguments = {
        "merge": {"keep": other, "gone": neurite},
        "split": {
            "neurite": neurite,
            "seeds": [[one], [two]],
            "z": one[0] if z is not None and one[0] == two[0] else None,
        },
        "paint": {"neurite": int(rng.choice([*ids, max(ids) + 1])), "voxels": at, "over": over},
        "erase": {"voxels": at, "over": over},
        "new_id": {"at": one, "z": None if z is None else one[0]},
        "relabel": {"neurite": neurite, "to": int(rng.integers(1, 60))},
        "delete": {"neurite": neurite, "z": z},
        "fill": {"neurite": neurite, "z": z, "over": over},
        "accept_section": {"z": int(z or 0)},
        "unaccept_section": {"z": int(z or 0)},
        "move_synapse": {"synapse": synapse, "to": at[0]},
        "name_neurite": {"neurite": neurite, "name": word},
        "note_neurite": {"neurite": neurite, "note": word},
    }.get(operation, {"synapse": synapse})
    return Edit(operation, arguments)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_sequence_equals_full_copies_and_its_own_replay(data):
    with tempfile.TemporaryDirectory() as folder:
        start = write_run(folder, blobs((4, 9, 10), 5))
        session = Session.open(folder)
        synapses = session.synapses()["synapse"].tolist()
        model = Model(start, session.scene.candidates)
        for _ in range(data.draw(st.integers(1, 14))):
            step = data.draw(st.sampled_from(["edit", "edit", "edit", "undo", "redo", "reopen"]))
            before, entries = session.labels.copy(), session.journal.last
            try:
                if step == "reopen":
                    session.close()
                    session = Session.open(folder)
                elif step == "edit":
                    edit = draw_edit(data, session.labels, synapses)
                    applied = session.apply(edit)
                    model.do(edit, session.labels)
                else:
                    applied = getattr(session, step)()
                    getattr(model, step)()
            except UserError:
                assert session.journal.last == entries and np.array_equal(session.labels, before)
            else:
                changed = np.argwhere(before != session.labels)
                if step != "reopen" and len(changed):
                    around = np.stack([changed.min(0), changed.max(0) + 1], 1).ravel()
                    assert applied.box == tuple(around)
            model.check(session)
        tables = [session.synapses(), session.neurite_names()]
        session.close()
        with Journal(session.journal.path) as journal:
            labels, records = replay(journal, start)
        assert np.array_equal(labels, model.state["labels"]) and records == session.scene.records
        with Session.open(folder) as again:
            model.check(again)
            for table, other in zip(tables, [again.synapses(), again.neurite_names()], strict=True):
                pd.testing.assert_frame_equal(table, other)


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path)
    return tmp_path


def test_the_run_s_own_labels_stay_as_they_are(run):
    path = run / "data/neurite_labels_i32_zyx.npy"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with Session.open(run) as session:
        session.apply(Edit("delete", {"neurite": 3}))
        session.save()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    corrected = np.load(run / "data/neurite_labels_corrected_i32_zyx.npy")
    assert np.array_equal(corrected, np.where(np.load(path) == 3, 0, np.load(path)))


def test_labels_cannot_be_changed_past_the_journal(run):
    with Session.open(run) as session, pytest.raises(ValueError, match="read-only"):
        session.labels[0, 0, 0] = 5


def test_what_save_writes(run):
    with Session.open(run, user="ada") as session:
        for z in (4, 1, 2):
            session.accept_section(z)
        session.apply(Edit("unaccept_section", {"z": 2}))
        session.apply(Edit("name_neurite", {"neurite": 5, "name": " AVAL \n left"}))
        session.apply(Edit("reject_synapse", {"synapse": session.synapses()["synapse"][0]}))
        written = session.save()
    assert [path.relative_to(run).as_posix() for path in written] == [
        "data/neurite_labels_corrected_i32_zyx.npy",
        "data/neurite_labels_corrected_i32_zyx.json",
        "tables/proofread_slices.json",
        "tables/synapse_edits.csv",
        "tables/neurite_names.csv",
    ]
    assert json.loads((run / "tables/proofread_slices.json").read_text()) == {"slices": [1, 4]}
    names = pd.read_csv(run / "tables/neurite_names.csv", keep_default_na=False)
    assert names[["neurite_id", "name", "note"]].to_numpy().tolist() == [[5, "AVAL left", ""]]
    labels = np.load(run / "data/neurite_labels_corrected_i32_zyx.npy")
    assert labels[tuple(names.loc[0, ["z", "y", "x"]])] == 5
    decisions = pd.read_csv(run / "tables/synapse_edits.csv")
    assert list(decisions) == list(DECISIONS) and decisions["decision"].tolist() == ["rejected"]
    sidecar = json.loads((run / "data/neurite_labels_corrected_i32_zyx.json").read_text())
    assert sidecar["voxel_size_nm"] == list(VOXEL) and sidecar["source"]["edits"] == 6


def test_two_saves_of_one_journal_have_equal_bytes(run, tmp_path):
    with Session.open(run) as session:
        session.apply(Edit("merge", {"keep": 1, "gone": 2}))
        session.apply(Edit("confirm_synapse", {"synapse": session.synapses()["synapse"][1]}))
        first = [path.read_bytes() for path in session.save()]
    with Session.open(run) as session:
        assert [path.read_bytes() for path in session.save()] == first


def test_a_synthetic_run_stays_marked(tmp_path):
    labels = write_run(tmp_path)
    sidecar = tmp_path / "data/neurite_labels_i32_zyx.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"synthetic": "SYNTHETIC PHANTOM"}))
    with Session.open(tmp_path) as session:
        session.save(tmp_path / "elsewhere")
    saved = json.loads((tmp_path / "elsewhere/data/neurite_labels_corrected_i32_zyx.json").read_text())
    assert saved["synthetic"] == "SYNTHETIC PHANTOM" and saved["shape"] == list(labels.shape)
    assert (tmp_path / "elsewhere/tables/SYNTHETIC_PHANTOM_NOT_REAL_DATA.txt").is_file()


def test_partners_follow_the_labels(run):
    with Session.open(run) as session:
        row = session.synapses().iloc[0]
        assert (row["new_pre_id"], row["new_post_id"]) == (row["pre_id"], row["post_id"])
        session.apply(Edit("flip_synapse", {"synapse": row["synapse"]}))
        flipped = session.synapses().iloc[0]
        assert (flipped["new_pre_id"], flipped["new_post_id"]) == (row["post_id"], row["pre_id"])
        other = next(i for i in session.boxes.ids() if i not in (row["pre_id"], row["post_id"]))
        session.apply(Edit("merge", {"keep": other, "gone": int(row["pre_id"])}))
        decided = session.synapse_decisions().iloc[0]
        assert (decided["new_post_id"], decided["pre_id"]) == (other, row["pre_id"])
        assert session.labels[tuple(decided[["post_z", "post_y", "post_x"]])] == other
        session.undo()
        assert session.synapse_decisions().iloc[0]["new_post_id"] == row["pre_id"]


def test_nearest_voxels_against_a_look_at_all():
    labels = blobs((5, 30, 32), 12)
    rng = np.random.default_rng(0)
    places, ids = rng.integers(0, labels.shape, (40, 3)), rng.integers(1, 14, 40)
    found = nearest_voxels(labels, places, ids, VOXEL)
    step = round(20 / 8)
    for place, neurite, at in zip(places, ids, found, strict=True):
        mask = labels == neurite
        inner = mask.copy()
        for axis, way in ((1, step), (1, -step), (2, step), (2, -step)):
            moved = np.roll(mask, way, axis)
            edge = [slice(None)] * 3
            edge[axis] = slice(0, step) if way > 0 else slice(-step, None)
            moved[tuple(edge)] = False
            inner &= moved
        reach = np.argwhere(inner if _near(inner, place).any() else mask)
        distance = np.sqrt((((reach - place) * VOXEL) ** 2).sum(1))
        if not (distance <= 300).any():
            assert at.tolist() == [-1, -1, -1]
        else:
            assert np.sqrt((((at - place) * VOXEL) ** 2).sum()) == pytest.approx(distance.min())
            assert (reach == at).all(1).any()


def _near(mask, place):
    return np.sqrt((((np.argwhere(mask) - place) * VOXEL) ** 2).sum(1)) <= 300


def test_a_merge_joins_names_and_notes(run):
    with Session.open(run) as session:
        for neurite, name, note in ((1, "AVAL", "thick"), (2, "AVAR", "thin")):
            session.apply(Edit("name_neurite", {"neurite": neurite, "name": name}))
            session.apply(Edit("note_neurite", {"neurite": neurite, "note": note}))
        session.apply(Edit("merge", {"keep": 1, "gone": 2}))
        names = session.neurite_names()
        assert names[["neurite_id", "name", "note"]].to_numpy().tolist() == [
            [1, "AVAL", "thick; merged with AVAR; thin"]
        ]
        session.undo()
        assert session.neurite_names()["name"].tolist() == ["AVAL", "AVAR"]


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("merg", {}, "there is no operation 'merg'; did you mean merge"),
        ("merge", {"keep": 1}, "merge needs gone; give it"),
        ("merge", {"keep": 1, "gon": 2}, "merge takes no 'gon'; did you mean gone"),
        ("merge", {"keep": 1, "gone": 1}, "both clicks are on neurite 1"),
        ("merge", {"keep": 1, "gone": 0}, "0 is background; click inside of one"),
        ("merge", {"keep": 1, "gone": 99}, "there is no neurite 99 in these labels; the ids go up to 9"),
        ("merge", {"keep": 1, "gone": "two"}, "neurite is a whole number, not 'two'"),
        ("relabel", {"neurite": 1, "to": 2}, "there is a neurite 2 already; merge 1 with it"),
        ("relabel", {"neurite": 1, "to": 2**31}, "neurite ids lie in 1 … 2147483647"),
        ("paint", {"neurite": 0, "voxels": [[0, 0, 0]]}, "to erase, use erase"),
        ("paint", {"neurite": 1, "voxels": [[0, 0, 99]]}, "x=99 lies outside of the volume"),
        ("accept_section", {"z": 6}, "there is no section 6; they are numbered 0 … 5"),
        ("unaccept_section", {"z": 5}, "would change nothing here"),
        ("delete", {"neurite": 1, "z": -1}, "there is no section -1"),
        ("reject_synapse", {"synapse": "1,2,3,4,5"}, "there is no synapse candidate '1,2,3,4,5'"),
        ("fill", {"neurite": 1, "z": 0, "over": 88}, "would change nothing here"),
    ],
)
def test_what_cannot_be_done_says_so_and_leaves_no_trace(run, operation, arguments, message):
    with Session.open(run) as session:
        before = session.labels.copy()
        with pytest.raises(UserError, match=message):
            session.apply(Edit(operation, arguments))
        assert session.journal.last == 0 and np.array_equal(session.labels, before)


def test_nothing_to_undo_or_redo(run):
    with Session.open(run) as session:
        for way in (session.undo, session.redo):
            with pytest.raises(UserError, match=f"nothing to {way.__name__}"):
                way()
        assert session.journal.last == 0


def test_new_ids_run_out(tmp_path):
    labels = blobs()
    labels[labels == 9] = 2**31 - 1
    write_run(tmp_path, labels, candidates=False)
    with Session.open(tmp_path) as session, pytest.raises(UserError, match="int32 labels hold no id above 2147483647"):
        session.fresh_id()


def test_wide_ids_stay_wide(tmp_path):
    labels = blobs().astype(np.int64) * 2**33
    write_run(tmp_path, labels, candidates=False)
    with Session.open(tmp_path) as session:
        session.apply(Edit("merge", {"keep": 2**33, "gone": 2**34}))
        session.save()
    saved = np.load(tmp_path / "data/neurite_labels_corrected_i64_zyx.npy")
    assert saved.dtype == np.int64 and np.array_equal(saved, np.where(labels == 2**34, 2**33, labels))


@pytest.mark.parametrize("boundaries", [True, False])
def test_split_with_and_without_a_boundary_map(tmp_path, boundaries):
    truth = np.ones((3, 40, 60), np.int32)
    truth[:, :, 22:] = 2
    write_run(tmp_path, np.full_like(truth, 7), candidates=False, boundaries=False)
    np.save(tmp_path / "data/em_aligned_float32_zyx.npy", 1 - ndimage.gaussian_filter(boundary_of(truth), (0, 1, 1)))
    (tmp_path / "data/em_aligned_float32_zyx.json").unlink()
    if boundaries:
        np.save(tmp_path / "data/boundaries_f16_zyx.npy", boundary_of(truth).astype(np.float16))
    with Session.open(tmp_path) as session:
        session.apply(Edit("split", {"neurite": 7, "seeds": [[(0, 5, 3)], [(2, 30, 50)]]}))
        assert (session.labels == np.where(truth == 1, 7, 8)).mean() > 0.97


def test_a_run_without_labels(tmp_path):
    with pytest.raises(UserError, match=r"there is no run in .*: no such folder; name the --outdir"):
        Session.open(tmp_path / "nowhere")
    write_run(tmp_path / "run")
    (tmp_path / "run/data/neurite_labels_i32_zyx.npy").unlink()
    with pytest.raises(UserError, match=r"has no labels \(data/neurite_labels_i32_zyx.npy\); run run_pipeline.py"):
        Session.open(tmp_path / "run")


@pytest.mark.parametrize("name", ["em_aligned_float32_zyx", "boundaries_f16_zyx"])
def test_labels_and_em_of_different_shapes(run, name):
    np.save(run / f"data/{name}.npy", np.zeros((6, 20, 25), np.float32))
    (run / f"data/{name}.json").unlink()
    with pytest.raises(
        UserError, match=r"has shape \(6, 20, 24\) and .* \(6, 20, 25\) \(z, y, x\); both must be of one"
    ):
        Session.open(run)


def test_candidates_of_another_run(run):
    table = candidate_table(blobs())
    table.loc[2, "x"] = 500
    table.to_csv(run / "tables/synapse_candidates.csv", index=False)
    with pytest.raises(UserError, match="x=500 lies outside of the labels"):
        Session.open(run)
    pd.concat([table[:2], table[:1]]).to_csv(run / "tables/synapse_candidates.csv", index=False)
    with pytest.raises(UserError, match="is listed twice"):
        Session.open(run)


def test_a_voxel_size_that_nobody_knows(run):
    for name in ("neurite_labels_i32_zyx", "em_aligned_float32_zyx"):
        (run / f"data/{name}.json").unlink()
    with pytest.raises(UserError, match=r"voxel size of .* is not known; give it in nm with --voxel_size Z Y X"):
        Session.open(run)
    with Session.open(run, voxel_size_nm=(40, 8, 8)) as session:
        assert session.voxel_size_nm == VOXEL
