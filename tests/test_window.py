"""Each button and key on napari's viewer model: what it does to the labels and the journal, and what it refuses."""

import numpy as np
import pytest
from proofread_run import VOXEL, blobs, write_run
from window_model import click, inside, mouse, new_model, open_model, point_at, press, push, refused, world

from emlib.errors import UserError
from emlib.proofread import Edit, Journal, replay
from emlib.proofread.window.commands import COMMANDS


@pytest.fixture
def model(tmp_path):
    proofreader = new_model(tmp_path, candidates=False)  # a click near a synapse would mean that
    yield proofreader
    proofreader.session.close()


def operations(proofreader):
    return [entry.operation for entry in proofreader.session.journal.entries()]


def seen(proofreader):
    """The section in view as napari shows it."""
    return np.asarray(proofreader.layers.neurites._slice.image.raw)


def same_picture(proofreader):
    """Whether what is shown is what the session holds."""
    return np.array_equal(seen(proofreader), proofreader.session.labels[proofreader.layers.section])


def test_layers_lie_on_each_other_in_nm(model):
    names = [layer.name for layer in model.viewer.layers]
    assert names == ["EM", "boundary probability", "neurites", "seeds of a split", "synapses"]
    for layer in model.viewer.layers:
        assert tuple(layer.scale) == VOXEL and [f"{unit:~}" for unit in layer.units] == ["nm"] * 3
    assert model.viewer.canvas.overlays.scale_bar.visible
    assert not model.layers.synapses.editable
    assert np.array_equal(np.asarray(model.layers.em.data[2]), model.session.files.em.read(np.s_[2:3, 0:20, 0:24])[0])


def test_a_run_that_kept_only_its_labels(tmp_path):
    proofreader = new_model(tmp_path, em=False, boundaries=False, candidates=False)
    assert [layer.name for layer in proofreader.viewer.layers] == ["neurites", "seeds of a split", "synapses"]
    proofreader.session.close()


def test_each_key_is_bound_once_and_before_napari_s_own(model):
    keys = [command.key for command in COMMANDS.values()]
    assert len(set(keys)) == len(keys)
    for layer in model.layers.all:
        model.viewer.layers.selection.active = layer
        press(model, "only_this_section")
    assert model.flat is (len(model.layers.all) % 2 == 1)


def test_a_click_takes_a_neurite_in_hand(model):
    at = inside(model.session.labels, 4)
    click(model, at)
    assert (model.neurite, model.layers.neurites.selected_label) == (4, 4) and "neurite 4" in model.said.text
    mouse(model, [at, (at[0], 0, 0), (at[0], 1, 1)])  # a drag moves the camera
    assert model.neurite == 4


def test_merge_by_two_clicks_and_by_keys(model):
    labels = model.session.labels.copy()
    push(model, "merge")
    click(model, inside(labels, 3))
    assert np.array_equal(model.session.labels, labels) and "3 stays" in model.said.text
    click(model, inside(labels, 5))
    assert np.array_equal(model.session.labels, np.where(labels == 5, 3, labels)) and model.tool is None
    press(model, "merge", inside(labels, 1))
    press(model, "merge", inside(labels, 2))
    assert np.array_equal(model.session.labels, np.where(labels == 5, 3, np.where(labels == 2, 1, labels)))
    assert operations(model) == ["merge", "merge"] and same_picture(model)


def test_merge_refuses_background_and_the_same_neurite(model):
    labels = model.session.labels.copy()
    push(model, "merge")
    click(model, tuple(map(int, np.argwhere(labels == 0)[0])))
    assert refused(model, "this is background")
    click(model, inside(labels, 3))
    click(model, inside(labels, 3))
    assert refused(model, "both clicks are on neurite 3") and operations(model) == []
    push(model, "end")
    assert model.tool is None


def test_merge_of_the_pair_that_is_put_forward(model):
    push(model, "merge_shown")
    assert refused(model, "two neurites must be put forward")
    labels, boxes = model.session.labels.copy(), model.session.boxes
    model.show((4, 6))
    big, small = sorted((4, 6), key=boxes.voxels, reverse=True)
    press(model, "merge_shown")
    assert np.array_equal(model.session.labels, np.where(labels == small, big, labels)) and model.shown == ()


@pytest.fixture
def two_in_one(tmp_path):
    """One neurite that is two, with a boundary between them."""
    truth = np.ones((4, 24, 40), np.int32)
    truth[:, :, 20:] = 2
    write_run(tmp_path, truth, candidates=False)
    labels = np.full_like(truth, 7)
    np.save(tmp_path / "data/neurite_labels_i32_zyx.npy", labels)
    (tmp_path / "data/neurite_labels_i32_zyx.json").unlink()
    proofreader = open_model(tmp_path)
    yield proofreader, truth
    proofreader.session.close()


@pytest.mark.parametrize("flat", [False, True])
def test_split_by_seeds_that_are_painted(two_in_one, flat):
    model, truth = two_in_one
    model.layers.look_at(1)
    if flat:
        push(model, "only_this_section")
    press(model, "split", (1, 5, 5))
    assert model.viewer.layers.selection.active is model.layers.seeds and model.layers.seeds.mode == "paint"
    mouse(model, [(1, 5, 4), (1, 15, 6)])
    press(model, "next_seed")
    click(model, (1, 12, 33))
    assert operations(model) == [] and (model.session.labels == 7).all()
    press(model, "cut")
    wanted = np.where(truth == 1, 7, 8)
    if flat:
        wanted[[0, 2, 3]] = 7
    assert (model.session.labels == wanted).mean() > 0.97 and operations(model) == ["split"]
    assert not model.layers.seeds.visible and not model.layers.seeds.data and same_picture(model)


def test_a_split_that_is_refused_keeps_its_seeds(two_in_one):
    model, _ = two_in_one
    push(model, "cut")
    assert refused(model, "no split was begun")
    push(model, "split")
    assert refused(model, "no neurite is chosen")
    press(model, "split", (1, 5, 5))
    click(model, (1, 5, 5))
    press(model, "cut")
    assert refused(model, "a split needs two seeds or more, not 1") and model.layers.seeds.visible
    press(model, "next_seed")
    click(model, (1, 5, 35))
    press(model, "cut")
    assert operations(model) == ["split"]


def test_each_stroke_is_an_edit(model):
    labels = model.session.labels.copy()
    press(model, "paint", inside(labels, 4))
    assert model.layers.neurites.selected_label == 4
    press(model, "paint_new")
    model.layers.neurites.brush_size = 3
    mouse(model, [(2, 4, 4), (2, 4, 9), (2, 8, 9)])
    after, new = model.session.labels.copy(), labels.max() + 1
    changed = after != labels
    assert operations(model) == ["paint"] and (after[changed] == new).all() and changed[2, 4, 4] and changed[2, 8, 9]
    assert changed.sum() > 20 and not changed[[0, 1, 3, 4, 5]].any() and same_picture(model)
    press(model, "erase")
    mouse(model, [(2, 4, 4), (2, 4, 6)])
    assert operations(model) == ["paint", "erase"] and model.session.labels[2, 4, 4] == 0
    press(model, "undo")
    assert np.array_equal(model.session.labels, after) and same_picture(model)
    press(model, "undo")
    assert np.array_equal(model.session.labels, labels) and same_picture(model)
    press(model, "redo")
    assert np.array_equal(model.session.labels, after)


def test_a_brush_through_sections_and_napari_s_bucket_go_through_the_journal_too(model):
    labels = model.session.labels.copy()
    layer = model.layers.neurites
    push(model, "paint_new")
    assert layer.selected_label == labels.max() + 1
    layer.n_edit_dimensions, layer.brush_size = 3, 12
    click(model, (3, 10, 12))
    after = model.session.labels
    assert len(np.unique(np.argwhere(after == labels.max() + 1)[:, 0])) > 1
    layer.n_edit_dimensions, layer.mode, layer.selected_label = 2, "fill", 2
    click(model, inside(after, 6))
    assert operations(model) == ["paint", "paint"]
    with Journal(_closed(model).journal.path) as journal:
        assert np.array_equal(replay(journal, labels)[0], model.session.labels)


def _closed(model):
    model.session.close()
    return model.session


def test_no_stroke_is_lost_that_napari_does_not_tell_of(model):
    """A polygon tells of itself before it is drawn; a script or another plugin may tell nothing at all."""
    wanted, layer = model.session.labels.copy(), model.layers.neurites
    layer.data[1, 3:5, 3:5] = 6
    wanted[1, 3:5, 3:5] = 6
    assert np.array_equal(model.session.labels, wanted) and operations(model) == ["paint"]
    model.layers.look_at(2)
    layer.paint_polygon([(2, 2, 2), (2, 2, 9), (2, 9, 2)], 5)
    assert operations(model) == ["paint", "paint"] and model.session.labels[2, 4, 4] == 5 and same_picture(model)
    layer.fill((2, 15, 20), 3)
    assert len(operations(model)) == 3 and same_picture(model)
    wanted = model.session.labels.copy()
    push(model, "save")
    saved = np.load(model.session.files.root / "data/neurite_labels_corrected_i32_zyx.npy")
    assert np.array_equal(saved, wanted)


def test_new_id_delete_and_fill(tmp_path):
    labels = np.zeros((3, 12, 16), np.int32)
    labels[:, 1:11, 1:7], labels[:, 1:11, 9:15] = 1, 1  # two pieces
    labels[1, 4:6, 3:5] = 0  # a hole in one section, closed in 3D as well
    model = new_model(tmp_path, labels, candidates=False)
    press(model, "new_id", (1, 5, 11))
    assert model.neurite == 2 and (model.session.labels[:, 1:11, 9:15] == 2).all()
    press(model, "fill", (0, 2, 2))
    assert (model.session.labels[1, 4:6, 3:5] == 1).all()
    model.layers.look_at(2)
    push(model, "only_this_section")
    press(model, "delete", (2, 5, 11))
    assert not (model.session.labels[2] == 2).any() and (model.session.labels[1] == 2).any()
    push(model, "only_this_section")
    press(model, "delete", (1, 5, 11))
    assert 2 not in model.session.boxes and model.neurite == 0
    assert operations(model) == ["new_id", "fill", "delete", "delete"]
    model.session.close()


def test_keys_act_on_what_lies_under_the_cursor_and_buttons_on_what_is_at_hand(model):
    labels = model.session.labels.copy()
    click(model, inside(labels, 3))
    press(model, "delete", inside(labels, 7))
    assert 7 not in model.session.boxes and 3 in model.session.boxes
    click(model, inside(labels, 3))
    push(model, "delete")
    assert 3 not in model.session.boxes
    before = operations(model)
    press(model, "delete", tuple(map(int, np.argwhere(labels == 0)[0])))
    assert refused(model, "no neurite is under the cursor") and operations(model) == before


def test_hide_others_and_the_way_back(model):
    labels = model.session.labels
    usual = model.layers.neurites.colormap
    click(model, inside(labels, 3))
    push(model, "hide_others")
    colours = model.layers.neurites.colormap
    assert colours.map(3)[3] == 1 and colours.map(4)[3] == 0 and colours.map(0)[3] == 0
    click(model, inside(labels, 4))
    assert model.layers.neurites.colormap.map(4)[3] == 1 and model.layers.neurites.colormap.map(3)[3] == 0
    push(model, "hide_others")
    assert model.layers.neurites.colormap is usual
    model.show((3, 4))
    assert 0 < model.layers.neurites.colormap.map(5)[3] < 1
    push(model, "end")
    assert model.layers.neurites.colormap is usual and model.shown == ()


def test_sections_are_accepted_and_shown_as_such(model):
    model.layers.look_at(3)
    push(model, "accept_section")
    assert model.session.accepted_sections == [3]
    assert model.viewer.canvas.overlays.text.text == "section 3 of 0 … 5, accepted"
    model.layers.look_at(4)
    assert model.viewer.canvas.overlays.text.text == "section 4 of 0 … 5"
    model.layers.look_at(3)
    push(model, "accept_section")
    assert model.session.accepted_sections == []


def test_jumps_to_a_section_and_to_a_neurite(model):
    from emlib.proofread.window.guide import go_to_section
    from emlib.proofread.window.neurites import go_to_neurite

    assert model.attempt(lambda: go_to_section(model, 4)) and model.layers.section == 4
    assert not model.attempt(lambda: go_to_section(model, 6)) and refused(model, "there is no section 6")
    model.viewer.scene.camera.center = (0, 1e4, 0)  # far away, so that the place comes to the middle
    assert model.attempt(lambda: go_to_neurite(model, 8)) and model.neurite == 8
    _, y, x = np.asarray(model.viewer.scene.camera.center) / VOXEL
    assert model.session.labels[model.layers.section, round(y), round(x)] == 8
    assert not model.attempt(lambda: go_to_neurite(model, 99)) and refused(model, "there is no neurite 99")


def test_names_and_notes(model):
    from emlib.proofread.window.neurites import describe

    assert not model.attempt(lambda: describe(model, "AVAL", "")) and refused(model, "no neurite is chosen")
    model.choose(5)
    assert model.attempt(lambda: describe(model, "AVAL", "thick"))
    assert model.about(5) == ("AVAL", "thick") and operations(model) == ["name_neurite", "note_neurite"]
    assert model.attempt(lambda: describe(model, "AVAL", "thick")) and len(operations(model)) == 2
    push(model, "undo")
    assert model.about(5) == ("AVAL", "")


def test_undo_and_redo_with_nothing_to_do(model):
    push(model, "undo")
    assert refused(model, "nothing to undo")
    push(model, "redo")
    assert refused(model, "nothing to redo")


@pytest.mark.parametrize("way", ["merge", "stroke", "accept"])
def test_a_full_disk_refuses_the_edit_and_changes_nothing(model, monkeypatch, way):
    labels = model.session.labels.copy()

    def full(*args, **kwargs):
        raise UserError("cannot write the journal: database or disk is full; the edit was refused")

    model.show((3, 5))
    with monkeypatch.context() as patch:
        patch.setattr(model.session.journal, "append", full)
        if way == "merge":
            push(model, "merge_shown")
        elif way == "stroke":
            press(model, "paint", inside(labels, 4))
            mouse(model, [(2, 4, 4), (2, 4, 9)])
        else:
            push(model, "accept_section")
        assert refused(model, "disk is full")
    assert np.array_equal(model.session.labels, labels) and operations(model) == []
    assert not model.layers.neurites.data and same_picture(model)
    push(model, "merge_shown")
    assert operations(model)[-1] == "merge"  # with room again, work goes on


def test_the_window_goes_on_where_it_was_left(tmp_path):
    model = new_model(tmp_path)
    labels = model.session.labels.copy()
    press(model, "delete", inside(labels, 3))
    model.session.close()
    again = open_model(tmp_path)
    assert "1 edits in force" in again.said.text and 3 not in again.session.boxes
    push(again, "undo")
    assert np.array_equal(again.session.labels, labels)
    again.session.close()


def test_edits_of_a_window_replay_to_the_same_voxels(tmp_path):
    start = write_run(tmp_path, blobs((4, 24, 24), 7))
    model = open_model(tmp_path)
    rng = np.random.default_rng(3)
    for name in rng.permutation(["merge", "delete", "paint", "new_id", "fill", "undo", "redo", "erase"] * 3):
        at = tuple(map(int, rng.integers(0, model.session.labels.shape)))
        press(model, "end")
        press(model, str(name), at)
        if name == "merge":
            click(model, tuple(map(int, rng.integers(0, model.session.labels.shape))))
        elif name in ("paint", "erase"):
            mouse(model, [at, (at[0], 3, 3)])
        assert same_picture(model)
    assert len(operations(model)) > 8
    with Journal(_closed(model).journal.path) as journal:
        assert np.array_equal(replay(journal, start)[0], model.session.labels)


def test_nothing_is_under_the_cursor_in_3d_or_beside_the_volume(model):
    point_at(model, (2, 4, 4))
    assert model.under_cursor() == (2, 4, 4)
    model.viewer.cursor.position = world(model, (2, -9, 4))
    assert model.under_cursor() is None
    model.viewer.dims.ndisplay = 3
    model.viewer.cursor.position = world(model, (2, 4, 4))
    assert model.under_cursor() is None


def test_edits_made_by_other_means_are_seen(model):
    """The session may be edited from the console of napari."""
    model.session.apply(Edit("delete", {"neurite": 4}))
    model.layers.neurites.refresh()
    assert same_picture(model)


def test_a_session_needs_no_napari():
    import subprocess
    import sys

    code = (
        "import sys, emlib.proofread, emlib.proofread.window.commands, emlib.proofread.window.opening\n"
        "print([m for m in ('napari', 'PySide6', 'qtpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
