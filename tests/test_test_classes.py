"""``test.py`` where classes exclude each other, or where some pixels are not annotated."""

import dataclasses
import json
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from emlib.annotations.classes import make_classes, write_classes
from emlib.errors import UserError
from emlib.evaluation.mask_inputs import RAW
from emlib.learn import scored_sections, testing
from emlib.learn.datasets.domain import find_split
from emlib.learn.in_common import background, in_common
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.models.experts_paper import PaperExperts
from emlib.learn.normalisation import Normalisation
from emlib.measure.masks.pixels import pixel_counts, pixel_scores
from emlib.runs.artefacts import Outputs

NAMES = ("background", "membrane", "vesicle")
SHAPE = (80, 100)


class Levels(torch.nn.Module):
    """Finds the class by the grey value: class k is at k / (classes − 1)."""

    def __init__(self, organelles, activation):
        super().__init__()
        self.organelles, self.activation = tuple(organelles), activation
        self.centres = torch.linspace(0, 1, len(organelles))[None, :, None, None]

    def forward(self, x):
        return 2.0 - 40.0 * (x - self.centres).abs()


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image, np.uint8)).save(path)


def blocks(seed, classes, side=10):
    """Squares of random classes."""
    small = np.random.default_rng(seed).integers(0, classes, (SHAPE[0] // side, SHAPE[1] // side))
    return np.kron(small, np.ones((side, side), int))


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A data set of index masks and a network that is right but for a stripe; returns a call of the test."""
    truths, found = {}, {}

    def make(names=NAMES, *, activation="softmax", trained=None, stripe=15, ignored=0, folders=False):
        trained = trained or names
        for number in range(2):
            truth = blocks(number, len(names))
            seen = truth.copy()
            seen[:, :stripe] = 0
            truths[number], found[number] = truth.copy(), seen
            stored = truth.copy()
            stored[: ignored + 5 * number * bool(ignored)] = 255
            folder = tmp_path / "data/cells/test"
            centres = np.linspace(0, 255, len(trained))
            order = np.array([trained.index(name) if name in trained else 0 for name in names])
            save(folder / RAW / f"{number:02d}.png", centres[order[seen]].round())
            if folders:
                for k, name in enumerate(names[1:], start=1):
                    save(folder / name / f"{number:02d}.png", (truth == k) * 255)
            else:
                save(folder / "masks" / f"{number:02d}.png", stored)
                write_classes(tmp_path / "data/cells/classes.yaml", make_classes(names, ignore=255))
        architecture = {"name": "experts-paper", "organelles": list(trained), "widths": [1]}
        about = {"normalisation": Normalisation(), "voxel_size_nm": (50, 4, 4), "metrics": {}, "settings": {}}
        save_checkpoint(tmp_path / "m.pth", PaperExperts(trained, widths=(1,)), architecture=architecture, **about)
        loaded = dataclasses.replace(load_checkpoint(tmp_path / "m.pth"), model=Levels(trained, activation))
        monkeypatch.setattr(testing, "load_checkpoint", lambda *args, **kwargs: loaded)

        def run(*, figures=False, **options):
            notes = []
            given = {"data_root": tmp_path / "data", "domain": "cells", "model_path": "m", "device": "cpu"}
            given |= {"bootstrap": 20, "outdir": tmp_path / "out", "note": notes.append}
            with nullcontext() if figures else mock.patch.object(scored_sections.ScoredSections, "_draw"):
                lines = testing.test_model(**(given | options))
            result = json.loads((tmp_path / "out/tables/test_cells.json").read_text())
            return result, lines, notes

        run.out, run.loaded, run.truth, run.found = tmp_path / "out", loaded, truths, found
        return run

    return make


def test_pixels_ignored_in_training_are_ignored_in_the_test_of_that_data_set(call, tmp_path):
    """classes.yaml does not say so, the model's settings do; for another data set the flag has to."""
    run = call(ignored=20)
    told, _, notes = run()
    write_classes(tmp_path / "data/cells/classes.yaml", make_classes(NAMES))
    with pytest.raises(UserError, match="holds the class id 255"):
        run()
    assert run(ignore_index=255)[0]["pooled"] == told["pooled"]
    run.loaded.settings.update(ignore_index=255, domain=["other", "cells"])
    result, _, again = run()
    assert result["pooled"] == told["pooled"] and again == notes
    run.loaded.settings.update(domain="other")
    with pytest.raises(UserError, match="holds the class id 255"):
        run()


def expected(run, k, rows=None):
    counts = 0
    for number in run.truth:
        here = slice(rows[number] if rows else 0, None)
        counts = counts + pixel_counts(run.truth[number][here] == k, run.found[number][here] == k)
    return {name: float(value) for name, value in pixel_scores(counts).items()}


def test_classes_are_scored_one_by_one_and_the_background_stays_out_of_the_average(call):
    run = call()
    result, lines, notes = run()
    assert list(result["pooled"]) == ["membrane", "vesicle", "background", "average"]
    for k, name in enumerate(NAMES):
        own = result["pooled"][name]
        for score, value in expected(run, k).items():
            assert own[score] == pytest.approx(value), (name, score)
    dice = {name: result["pooled"][name]["dice"] for name in NAMES}
    assert len(set(dice.values())) == 3 and 0.5 < min(dice.values())
    for part in (result["pooled"], result["patch_mean"]):
        mean = (part["membrane"]["dice"] + part["vesicle"]["dice"]) / 2
        assert part["average"]["dice"] == pytest.approx(mean) != pytest.approx(part["background"]["dice"])
    lines_of = result["chance"]["pooled"]["average"]["random"]["dice"]
    each = [result["chance"]["pooled"][name]["random"]["dice"] for name in ("membrane", "vesicle")]
    assert lines_of == pytest.approx(np.mean(each))
    assert any(line.startswith("background") for line in lines) and not any("left out" in line for line in notes)
    inference = result["settings"]["inference"]
    assert inference["activation"] == "softmax" and "threshold" not in inference
    assert result["inputs"]["organelles"]["vesicle"]["truth"]["uri"].endswith("test/masks")
    table = pd.read_csv(run.out / "tables/test_cells_sections.csv")
    assert table.groupby("organelle").size().to_dict() == dict.fromkeys(NAMES, 2)


def test_the_most_probable_class_counts_and_no_threshold(call):
    run = call()
    assert run(threshold=0.99)[0]["pooled"] == run(threshold=0.01)[0]["pooled"]


def test_pixels_that_nobody_annotated_are_neither_right_nor_wrong(call):
    """The first 20 rows of one section and 25 of the other; what is found there makes no difference."""
    run = call(ignored=20)
    result, _, notes = run()
    for k, name in enumerate(NAMES):
        want = expected(run, k, rows=(20, 25))
        for score in ("dice", "iou", "precision", "recall"):
            assert result["pooled"][name][score] == pytest.approx(want[score]), (name, score)
        assert want["dice"] != pytest.approx(expected(run, k)["dice"])
    (line,) = [line for line in notes if "not annotated" in line]
    assert line.startswith("note: 28.1% of the pixels are not annotated")


def test_classes_against_folders_of_organelles(call):
    """A network of classes on a data set where organelles have folders: the names in common, by the same decision."""
    run = call(folders=True)
    result, _, notes = run()
    assert list(result["pooled"]) == ["membrane", "vesicle", "average"]
    assert result["pooled"]["vesicle"]["dice"] == pytest.approx(expected(run, 2)["dice"])
    assert not any("background" in line for line in notes)


def test_separate_organelles_against_index_masks(call):
    """A network of experts on index masks: thresholds, and nothing said of a background that it does not know."""
    run = call(activation="sigmoid", trained=("vesicle", "nucleus"), names=("background", "membrane", "vesicle"))
    result, _, notes = run()
    assert list(result["pooled"]) == ["vesicle", "average"]
    assert result["settings"]["inference"]["threshold"] == 0.5
    assert [line.rsplit(": ", 1)[1] for line in notes if "left out" in line] == ["membrane", "nucleus"]


def test_a_background_alone_is_nothing_in_common(call):
    run = call(names=("background", "membrane"), trained=("background", "vesicle"))
    with pytest.raises(UserError, match="has background, vesicle; the data set cells has background, membrane: use"):
        run()


def test_a_dozen_classes_are_drawn_on_pages_that_can_be_read(call):
    names = ("background", *(f"organelle_{k:02d}" for k in range(1, 13)))
    run = call(names=names, stripe=30)
    result, lines, _ = run(figures=True)
    assert list(result["pooled"]) == [*names[1:], "background", "average"]
    figures = sorted(path.name for path in (run.out / "figures").glob("*.png"))
    assert figures == [f"test_cells_{z}{page}.png" for z in ("00", "01") for page in ("", "_2", "_3")]
    assert sum(line.startswith("written:") and "/figures/" in line for line in lines) == 2 * len(figures)
    for name in figures:
        width, height = Image.open(run.out / "figures" / name).size
        assert height < 3 * width
    text = [line for line in lines if line.startswith("organelle_")]
    assert len(text) == 2 * 12


def test_classes_that_a_section_does_not_hold_are_not_drawn(call, tmp_path):
    run = call()
    masks = {name: (np.zeros((8, 8), bool), np.full((8, 8), name == "vesicle")) for name in NAMES}
    split = find_split(tmp_path / "data", "cells", "test")
    sections = mock.Mock(split=split, organelles=NAMES, names=("00", "01"))
    drawing = scored_sections.ScoredSections(run.loaded, sections, NAMES, 0.5, Outputs(run.out), None, False)
    with (
        mock.patch.object(scored_sections, "figure_masks") as drawn,
        mock.patch.object(scored_sections, "put_figure", lambda *a: []),
    ):
        drawing._draw(np.zeros((8, 8), np.uint8), masks, "00")
    assert [list(args[1]) for args, _ in drawn.call_args_list] == [["vesicle"]]


def test_which_names_are_nothing(call):
    run = call(folders=True)
    split = mock.Mock(classes=None, organelles=("background", "vesicle"), domain="cells", folder="f")
    assert background(split, run.loaded) == {"background"}
    experts = dataclasses.replace(run.loaded, model=Levels(NAMES, "sigmoid"))
    assert background(split, experts) == frozenset()
    assert in_common(split, experts, None, lambda line: None) == ("background", "vesicle")
