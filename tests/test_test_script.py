"""``test.py`` as a user calls it: what it writes and prints, the figures of ``evaluate.py masks``, and mistakes."""

import json
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from emlib.errors import UserError
from emlib.evaluation import evaluate
from emlib.learn import scored_sections, testing
from emlib.learn.inference import TileSettings, predict_section
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.models.experts_paper import PaperExperts
from emlib.learn.normalisation import Normalisation
from emlib.measure.masks.counts import MaskSettings
from emlib.measure.masks.scores import score_masks
from emlib.publish.figure_masks import KINDS, figure_masks, worst_window
from emlib.volumes.phantom_files import DOMAIN_TITLE

NAMES = ("membranes", "mitochondria")
SECTIONS = {"00": (80, 100), "03": (72, 64)}


def save(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(mask * 255, np.uint8)).save(path)


def square(shape, seed):
    rng, mask = np.random.default_rng(seed), np.zeros(shape, bool)
    y, x = rng.integers(5, 25, 2)
    mask[y : y + 30, x : x + 25] = True
    return mask


def knows(path, organelles=NAMES, voxel_size_nm=(50, 4, 4), **settings):
    """A checkpoint whose first expert finds what is bright, the second what is dark, each pixel for itself."""
    architecture = {"name": "experts-paper", "organelles": list(organelles), "widths": [1]}
    model = PaperExperts(organelles, widths=(1,))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    for k, decoder in enumerate(model.decoders):
        torch.nn.init.constant_(decoder.out_conv.weight, 20.0 * (-1) ** k)
        torch.nn.init.constant_(decoder.out_conv.bias, -10.0 * (-1) ** k)
    save_checkpoint(
        path,
        model,
        architecture=architecture,
        normalisation=Normalisation(),
        voxel_size_nm=voxel_size_nm,
        metrics={"iou": 0.5},
        settings=settings,
    )
    return path


@pytest.fixture
def data(tmp_path):
    """Two sections of different size; what is bright is all membrane, and mitochondria are half of the dark."""
    for i, (name, shape) in enumerate(SECTIONS.items()):
        bright = square(shape, i)
        for split in ("test", "val"):
            folder = tmp_path / "data" / "my-tissue" / split
            save(folder / "raw" / f"{name}.png", bright)
            save(folder / "membranes" / f"{name}.png", bright)
            save(folder / "mitochondria" / f"{name}.png", ~bright & (np.arange(shape[1]) < shape[1] // 2))
    knows(tmp_path / "model.pth")
    return tmp_path


def call(data, *, figures=False, **options):
    """Test in this process, notes first; figures take the longest and are left out where nobody looks at them."""
    given = {"data_root": data / "data", "domain": "my-tissue", "model_path": data / "model.pth", "device": "cpu"}
    notes = []
    with nullcontext() if figures else mock.patch.object(scored_sections.ScoredSections, "_draw"):
        given |= {"outdir": data / "out", "bootstrap": 50, "note": notes.append}
        found = testing.test_model(**(given | options))
    return [*notes, *found]


def result(data, name="test_my-tissue"):
    return json.loads((data / "out" / "tables" / f"{name}.json").read_text())


def refused(data, **options):
    with pytest.raises(UserError) as error:
        call(data, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_command_writes_what_it_promises(data, run_script):
    arguments = ["--data_root", data / "data", "--domain", "my-tissue", "--model_path", data / "model.pth"]
    arguments += ["--batch_size", 8, "--device", "cpu", "--bootstrap", 50, "--outdir", data / "out", "--threads", 1]
    done = run_script("test.py", *arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "voxel size 50 × 4 × 4 nm (z y x), of the model's training" in lines
    assert "pooled over 2 whole sections (the figures to quote)" in lines
    assert [line.rsplit("/", 1)[1] for line in lines if line.startswith("written:")] == [
        *(f"test_my-tissue_{section}.{ending}" for section in SECTIONS for ending in ("png", "pdf")),
        "test_my-tissue.json",
        "test_my-tissue.csv",
        "test_my-tissue_sections.csv",
    ]
    found = result(data)
    assert set(found) == {"pooled", "patch_mean", "chance", "inputs", "settings", "versions"}
    assert found["pooled"]["membranes"]["dice"] == 1.0
    assert found["pooled"]["mitochondria"]["recall"] == 1.0 and 0.4 < found["pooled"]["mitochondria"]["precision"] < 0.6
    assert found["chance"]["pooled"]["membranes"]["all_background"]["dice"] == 0
    assert found["settings"]["voxel_size_nm"] == [50, 4, 4] and found["settings"]["inference"]["tile"] == 1024
    assert found["inputs"]["organelles"]["membranes"]["sections"] == ["00", "03"]
    sections = pd.read_csv(data / "out/tables/test_my-tissue_sections.csv", dtype={"section": str})
    assert sections["section"].tolist() == ["00", "03"] * 2


def test_one_line_and_code_2_for_a_mistake(data, call_script):
    done = call_script(
        "test.py", "--data_root", data / "data", "--domain", "my-tisue", "--model_path", data / "model.pth"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "my-tissue" in done.stderr
    done = call_script("test.py", "--domain", "x", "--model_path", "y", "--threshold", "0")
    assert done.returncode == 2 and "must be above 0" in done.stderr


def test_scores_are_those_of_the_masks_of_a_trained_network(data):
    """A network with random weights, tiled: scores by hand from its probabilities."""
    torch.manual_seed(0)
    model = PaperExperts(NAMES, widths=(4, 8))
    architecture = {"name": "experts-paper", "organelles": list(NAMES), "widths": [4, 8]}
    about = {"normalisation": Normalisation(0.3, 0.5), "voxel_size_nm": None, "metrics": {}, "settings": {}}
    save_checkpoint(data / "random.pth", model, architecture=architecture, **about)
    model.to(memory_format=torch.channels_last)
    truth, found = [], []
    for name in SECTIONS:
        folder = data / "data/my-tissue/test"
        image = np.asarray(Image.open(folder / "raw" / f"{name}.png"))
        truth.append(np.asarray(Image.open(folder / "mitochondria" / f"{name}.png")) > 0)
        found.append(predict_section(model, image, Normalisation(0.3, 0.5), TileSettings(64, 32, tta=True))[1])
    threshold = float(np.median(np.concatenate([one.ravel() for one in found])))
    pred = [one >= threshold for one in found]
    options = {"tile": 64, "overlap": 32, "tta": True, "threshold": threshold, "voxel_size": (50, 3, 3)}
    call(data, model_path=data / "random.pth", **options)
    assert 0.2 < np.concatenate([mask.ravel() for mask in pred]).mean() < 0.8
    expected = score_masks(truth, pred, MaskSettings((3.0, 3.0), bootstrap=50))
    assert result(data)["pooled"]["mitochondria"] == expected["pooled"]
    assert result(data)["patch_mean"]["mitochondria"] == expected["patch_mean"]


def test_saved_masks_score_the_same_by_evaluate(data):
    """All sections must be of one size for evaluate.py, which reads stacks."""
    for split in ("test", "val"):
        for folder in ("raw", *NAMES):
            (data / "data/my-tissue" / split / folder / "03.png").unlink()
            save(data / "data/my-tissue" / split / folder / "05.png", square(SECTIONS["00"], 7 + len(folder)))
    call(data, save_probabilities=True)
    own, folder = result(data), data / "out/predictions/my-tissue"
    probability = np.load(folder / "mitochondria/05.npy")
    mask = np.asarray(Image.open(folder / "mitochondria/05.png"))
    assert probability.dtype == np.float16 and set(np.unique(mask)) == {0, 255}
    assert ((probability >= 0.5) == (mask > 0)).all()
    truth = str(data / "data/my-tissue/test")
    evaluate(
        "masks", pred=str(folder), truth=truth, outdir=data / "again", voxel_size=own["settings"]["voxel_size_nm"],
        bootstrap=50,
    )  # fmt: skip
    again = json.loads((data / "again/tables/evaluate_masks.json").read_text())
    assert 0 < own["pooled"]["mitochondria"]["dice"] < 1
    for part in ("pooled", "patch_mean", "chance"):
        assert own[part] == again[part]
    assert {*again["settings"]} <= {*own["settings"]}
    assert {*again["inputs"]} <= {*own["inputs"]}


def test_equal_commands_give_equal_bytes(data):
    written = []
    for _ in range(2):
        call(data, figures=True)
        written.append([(p.name, p.read_bytes()) for p in sorted((data / "out").rglob("*")) if p.is_file()])
    assert len(written[0]) == 3 + 2 * len(SECTIONS) and written[0] == written[1]


def test_another_split_has_files_of_its_own(data):
    lines = call(data, split="val")
    assert (data / "out/tables/test_my-tissue_val.json").is_file() and not any(
        "test_my-tissue.json" in x for x in lines
    )


def test_cuda_where_there_is_none(data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call(data, device="cuda")[0].startswith("warning: --device cuda")


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [False, True])
def test_warnings_come_at_once_and_also_with_quiet(data, call_script, quiet):
    for path in (data / "data/my-tissue/test/mitochondria").glob("*.png"):
        save(path, np.zeros(np.asarray(Image.open(path)).shape, bool))
    arguments = ["--data_root", data / "data", "--domain", "my-tissue", "--model_path", data / "model.pth"]
    arguments += ["--voxel_size", 50, 8, 8, "--device", "cpu", "--bootstrap", 5, "--outdir", data / "out"]
    done = call_script("test.py", *arguments, "--threads", 1, *["--quiet"] * quiet)
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert sum(line.startswith("warning: the model was trained on voxels") for line in said) == 1
    assert sum("all 2 masks are empty" in line for line in said) == 1
    assert "warning:" not in done.stdout and (done.stdout == "") == quiet


def test_warnings_come_before_anything_is_predicted(data):
    notes = []

    def predicted(*args, **kwargs):
        assert any(line.startswith("warning: the model was trained on voxels") for line in notes)
        assert any(line.endswith(": membranes") for line in notes)
        raise KeyboardInterrupt

    other = knows(data / "other.pth", ("vesicles", "mitochondria"))
    with mock.patch.object(scored_sections, "predict_sections", predicted), pytest.raises(KeyboardInterrupt):
        call(data, model_path=other, voxel_size=(50, 8, 8), note=notes.append)


def test_a_model_of_several_data_sets_is_tested_on_what_this_one_has(data):
    """Experts for vesicles and synapses are of no use here; those in common keep their own numbers."""
    joint = knows(data / "joint.pth", ("vesicles", "mitochondria", "synapses", "membranes"))
    lines = call(data, model_path=joint)
    assert list(result(data)["pooled"]) == ["membranes", "mitochondria", "average"]
    experts = {name: one["pred"]["expert"] for name, one in result(data)["inputs"]["organelles"].items()}
    assert experts == {"membranes": 3, "mitochondria": 1}
    assert any(line.endswith("has no masks of it: vesicles, synapses") for line in lines)


def test_a_model_of_resampled_sections_is_tested_on_resampled_ones(data):
    model = knows(data / "eight.pth", voxel_size_nm=(50, 8, 8), resample_nm=8.0)
    lines = call(data, model_path=model, voxel_size=(50, 4, 4))
    assert "sections and masks are resampled to 8 nm, as for the model's training" in lines
    assert not any(line.startswith("warning") for line in lines)
    assert (
        result(data)["settings"]["voxel_size_nm"] == [50, 8, 8] and result(data)["pooled"]["membranes"]["dice"] > 0.95
    )
    table = pd.read_csv(data / "out/tables/test_my-tissue_sections.csv").query("organelle == 'membranes'")
    kinds = ["true_positives", "false_positives", "false_negatives", "true_negatives"]
    assert table[kinds].sum(axis=1).tolist() == [40 * 50, 36 * 32]
    lines = call(data, model_path=model)
    assert any(
        line.startswith("warning: the voxel size of my-tissue is unknown, so that its sections") for line in lines
    )
    assert result(data)["pooled"]["membranes"]["dice"] == 1.0


def test_which_voxel_size_counts(data):
    lines = call(data, voxel_size=(50, 8, 8))
    assert lines[0].startswith("warning: the model was trained on voxels of 50 × 4 × 4 nm")
    assert lines[1] == "voxel size 50 × 8 × 8 nm (z y x), --voxel_size"
    (data / "data/my-tissue").rename(data / "data/drosophila-vnc")
    lines = call(data, domain="drosophila-vnc")
    assert lines[0].startswith("warning: the model was trained")
    assert lines[1] == "voxel size 50 × 4.6 × 4.6 nm (z y x), of drosophila-vnc, as published"
    (data / "data/drosophila-vnc").rename(data / "data/my-tissue")
    lines = call(data, model_path=knows(data / "no_size.pth", voxel_size_nm=None))
    assert any("give --voxel_size for boundary F1" in line for line in lines)


def test_organelles_in_common_are_scored(data):
    other = knows(data / "other.pth", ("vesicles", "mitochondria"))
    lines = call(data, model_path=other)
    assert list(result(data)["pooled"]) == ["mitochondria", "average"]
    assert result(data)["pooled"]["mitochondria"]["recall"] == 1.0  # the second expert, not the first
    assert any(line.startswith("note: left out") and line.endswith(": membranes") for line in lines)
    assert any(line.startswith("note: left out") and line.endswith("masks of it: vesicles") for line in lines)
    error = refused(data, model_path=other, organelles=["membranes", "mitochondria"])
    assert "has vesicles, mitochondria, and not membranes; leave it out of --organelles" in error
    call(data, organelles=["mitochondria"])
    assert list(result(data)["pooled"]) == ["mitochondria", "average"]


def test_no_organelle_in_common(data):
    error = refused(data, model_path=knows(data / "other.pth", ("vesicles",)))
    assert "has vesicles; the data set my-tissue has membranes, mitochondria" in error


def test_plain_weights_need_names(data):
    model = load_checkpoint(data / "model.pth").model
    torch.save(model.state_dict(), data / "plain.pth")
    assert "name its experts in their order with --organelles" in refused(data, model_path=data / "plain.pth")
    call(data, model_path=data / "plain.pth", organelles=["membranes", "mitochondria"], voxel_size=(50, 4, 4))
    assert result(data)["pooled"]["membranes"]["dice"] == 1.0


def test_mistakes(data):
    assert "no model" in refused(data, model_path=data / "nothing.pth")
    assert "tile must be a multiple of 32" in refused(data, tile=100)
    assert "--overlap must be at most half" in refused(data, tile=64)
    assert "mitochondria" in refused(data, organelles=["mitochondira"])
    assert "train" in refused(data, split="train")
    assert "three positive numbers" in refused(data, voxel_size=(0, 4, 4))
    (data / "data/my-tissue/test/mitochondria/03.png").unlink()
    assert "03" in refused(data)


def test_the_phantom_says_that_it_is_none(data):
    (data / "data/my-tissue/README.md").write_text(f"{DOMAIN_TITLE}\n\nMade by …\n")
    assert scored_sections.SYNTHETIC in call(data)


def colour(picture, at):
    return tuple(picture[at].tolist())


def test_the_figure_outlines_each_kind_of_pixel():
    truth, pred = np.zeros((2, 64, 64), bool)
    truth[10:30, 10:30] = pred[10:30, 20:40] = True
    figure = figure_masks(np.full((64, 64), 7, np.uint8), {"synapses": (truth, pred)}, "A title", pixel_nm=(4, 4))
    whole, detail = (axes.images[0].get_array() for axes in figure.axes)
    green, orange, sky = (tuple(round(255 * v) for v in to_rgb(colour)) for colour, _ in KINDS)
    for picture in (whole, detail):
        assert colour(picture, (10, 25)) == green and colour(picture, (20, 20)) == green
        assert colour(picture, (10, 35)) == orange and colour(picture, (20, 39)) == orange
        assert colour(picture, (29, 12)) == sky and colour(picture, (20, 10)) == sky
    assert colour(detail, (20, 25)) == colour(detail, (50, 50)) != colour(whole, (20, 25))  # within and outside
    with pytest.raises(ValueError, match="one shape"):
        figure_masks(np.zeros((4, 5), np.uint8), {"synapses": (truth, pred)}, "A title")


def test_the_detail_is_where_most_is_wrong():
    rng = np.random.default_rng(0)
    truth, pred = rng.random((2, 90, 150)) > 0.9
    found = worst_window(truth, pred, 32)
    wrong = {(y, x): (truth ^ pred)[y : y + 32, x : x + 32].sum() for y in range(0, 59, 8) for x in range(0, 119, 8)}
    assert wrong[found[0].start, found[1].start] == max(wrong.values())
    assert worst_window(truth, truth, 400) == (slice(0, 90), slice(0, 150))
