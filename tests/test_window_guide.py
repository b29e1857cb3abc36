"""What to look at next, and live prediction, on napari's viewer model."""

import numpy as np
import pandas as pd
import pytest
from window_model import new_model, press, push, refused

from emlib.errors import UserError
from emlib.proofread.window.predicting import Predicting


@pytest.fixture
def model(tmp_path):
    proofreader = new_model(tmp_path)
    yield proofreader
    proofreader.session.close()


def suspects(*rows):
    columns = ["rank", "kind", "id_a", "id_b", "z", "y", "x", "score"]
    return pd.DataFrame([(n, *row) for n, row in enumerate(rows, 1)], columns=columns)


def test_next_shows_the_two_neurites_and_skips_what_edits_have_settled(model, monkeypatch):
    found = suspects(
        ("probable split", 3, 4, 1, 5, 6, 9.0),
        ("weak merge", 5, 5, 2, 7, 8, 4.0),
        ("probable split", 4, 6, 4, 1, 2, 1.0),
    )
    monkeypatch.setattr(type(model.session), "suspects", lambda session: found, raising=False)
    model.viewer.scene.camera.center = (0, 1e4, 0)  # far away
    press(model, "next_suspect")
    assert (model.shown, model.neurite, model.layers.section) == ((3, 4), 3, 1)
    assert model.said.text == "1 of 3: probable split, 3 and 4, score 9"
    place, camera = np.array([5 * 8, 6 * 8]), model.viewer.scene.camera
    assert (np.abs(place - camera.center[1:]) < np.array(model.viewer.canvas.size) / camera.zoom / 2).all()
    colours = model.layers.neurites.colormap
    assert colours.map(3)[0] > colours.map(3)[2] and colours.map(4)[2] > colours.map(4)[0]  # orange, blue
    press(model, "next_suspect")
    assert (model.shown, model.layers.section) == ((5,), 2)
    press(model, "previous_suspect")
    assert model.shown == (3, 4)
    push(model, "merge_shown")  # 4 is gone, and so is the third suspicion
    push(model, "next_suspect")
    push(model, "next_suspect")
    assert refused(model, "that was the last one of the list")
    push(model, "undo")
    push(model, "next_suspect")
    assert model.shown == (4, 6)


def test_sections_worth_correcting_are_those_not_yet_accepted(model, monkeypatch):
    table = pd.DataFrame({"z": [3, 1, 5], "reason": ["far from others", "unsure", "unsure"], "score": [3.0, 2, 1]})
    monkeypatch.setattr(type(model.session), "slices_to_correct", lambda session: table, raising=False)
    model.session.accept_section(1)
    push(model, "next_section")
    assert model.layers.section == 3 and model.said.text == "section 3, 1 of 3: far from others"
    push(model, "next_section")
    assert model.layers.section == 5
    push(model, "next_section")
    assert refused(model, "that was the last one")


def test_the_session_s_own_lists(model):
    """On a run as it is: whatever stands there leads to a place in the volume."""
    if not hasattr(model.session, "suspects"):
        pytest.skip("no list of suspects in this version")
    while push(model, "next_suspect"):
        assert all(neurite in model.session.boxes for neurite in model.shown)
    assert refused(model, "last one") or "suspect" in model.said.text
    push(model, "next_section")
    assert "section" in model.said.text


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint with two organelles."""
    pytest.importorskip("torch")
    import torch

    from emlib.learn.models.build import build_model
    from emlib.learn.models.checkpoint import save_checkpoint
    from emlib.learn.normalisation import Normalisation

    architecture = {"name": "experts-paper", "organelles": ["membranes", "mitochondria"], "widths": [8, 16]}
    torch.manual_seed(0)
    return save_checkpoint(
        tmp_path / "tiny.pth",
        build_model(architecture),
        architecture=architecture,
        normalisation=Normalisation(0.5, 0.2),
        voxel_size_nm=(50, 8, 8),
        metrics={},
        settings={},
    )


def test_a_prediction_becomes_a_layer_over_its_place(model, tiny):
    predicting = Predicting(model)
    model.layers.look_at(4)
    predicting.start(str(tiny))
    layer = model.viewer.layers[-1]
    assert layer.data.shape == (1, 20, 24) and np.allclose(layer.translate, (4 * 40, 0, 0))
    assert set(layer.features["name"]) == {"membranes", "mitochondria"} and not layer.editable
    assert model.viewer.layers.selection.active is model.layers.neurites
    assert model.said.text.startswith("tiny, section 4, y 0 … 19, x 0 … 23 in ") and not predicting.busy
    predicting.start(str(tiny), sections=3)
    assert model.viewer.layers[-1].data.shape == (3, 20, 24)
    assert np.array_equal(model.viewer.layers[-1].data[1], layer.data[0])
    assert model.session.journal.last == 0


def test_a_prediction_is_that_of_predict_section(model, tiny):
    from emlib.learn.inference import predict_section
    from emlib.proofread.live import load_model, predict_box

    loaded = load_model(tiny)
    em = model.session.files.em
    found = predict_box(loaded, em, (2, 3, 4, 14, 0, 24), model.session.voxel_size_nm)
    predictor = loaded.predictor
    section = em.read(np.s_[2:3, 0:20, 0:24])[0]
    whole = predict_section(predictor.network, section, predictor.normalisation)[:, 4:14]
    wanted = np.where(whole[1] >= 0.5, 2, np.where(whole[0] >= 0.5, 1, 0))
    assert found.mask.shape == (1, 10, 24) and np.array_equal(found.mask[0], wanted)


def test_boxes_of_a_prediction(model):
    predicting = Predicting(model)
    model.layers.look_at(0)
    assert predicting.box(False, 1) == (0, 1, 0, 20, 0, 24)
    assert predicting.box(False, 3) == (0, 3, 0, 20, 0, 24)
    model.layers.look_at(5)
    assert predicting.box(False, 4) == (2, 6, 0, 20, 0, 24)
    assert predicting.box(False, 99) == (0, 6, 0, 20, 0, 24)
    model.layers.neurites.corner_pixels = np.array([[5, 3, 4], [5, 9, 40]])
    assert predicting.box(True, 1) == (5, 6, 3, 10, 4, 24)


def test_predictions_that_cannot_be_made(model, tmp_path):
    pytest.importorskip("torch")
    predicting, layers = Predicting(model), len(model.viewer.layers)
    for name, message in (("nowhere.pth", "there is no model nowhere.pth"), ("", "no model is named")):
        predicting.start(name)
        assert refused(model, message) and not predicting.busy
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    predicting.start(str(broken))
    assert refused(model, "broken.pth") and len(model.viewer.layers) == layers
    predicting.busy = True
    with pytest.raises(UserError, match="a prediction is being made"):
        predicting.start("nowhere.pth")


def test_a_run_without_em_has_nothing_to_predict_on(tmp_path, tiny):
    model = new_model(tmp_path / "run", em=False)
    Predicting(model).start(str(tiny))
    assert refused(model, "the run has no EM")
    model.session.close()


def test_the_manifest_is_valid_and_its_widget_is_there():
    npe2 = pytest.importorskip("npe2", reason="napari is not installed: requirements-gui.txt")
    from pathlib import Path

    import emlib

    manifest = npe2.PluginManifest.from_file(Path(emlib.__file__).parent / "napari.yaml")
    (widget,) = manifest.contributions.widgets
    (command,) = manifest.contributions.commands
    assert manifest.name == "emlib" and widget.command == command.id
    manifest.validate_imports()
