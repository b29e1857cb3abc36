"""``run_pipeline.py --boundaries experts|forest``: any model of the project whose output tells boundaries."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from test_volume_training import cells

from emlib.errors import UserError
from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import save_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.volumes.boundary_model import boundary_channel, load_boundary_model
from emlib.pipeline import PipelineSettings, StageSettings
from emlib.pipeline.dependence import CONTENT, dependence
from emlib.pipeline.memory import planned_bytes
from emlib.refine.features import FeatureSettings, feature_names
from emlib.refine.forest import Forest
from emlib.refine.model_file import write_model
from emlib.runs.settings import override
from emlib.stages.expert_boundaries import ExpertSettings, expert_boundaries
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume

SHAPE, NM = (12, 48, 40), (10, 10, 10)
GREY = Normalisation(0.5, 0.2)


def save(path, names=("boundaries",), sections=1, voxel=NM, told=None, activation="sigmoid", normalisation=GREY):
    """A tiny network with random weights, as a training leaves it."""
    torch.manual_seed(1)
    architecture = {"name": "experts-laptop", "organelles": list(names), "widths": [4, 4], "expert_widths": [4, 4]}
    architecture |= {"activation": activation} | ({"in_channels": sections} if sections > 1 else {})
    told = told if told is not None else {"input": {"sections": sections, "axes": 3}}
    model = build_model(architecture)
    about = {"normalisation": normalisation, "voxel_size_nm": voxel, "metrics": {}, "settings": told}
    return save_checkpoint(path, model, architecture=architecture, **about)


def write_cells(folder):
    """A file with EM, whose path is returned, and one with its labels beside it."""
    labels, grey = cells(SHAPE, 8)
    tifffile.imwrite(folder / "em.tif", grey)
    tifffile.imwrite(folder / "labels.tif", labels)
    return folder / "em.tif"


@pytest.fixture(scope="module")
def em(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("em"))


def flags(em, out, *more, voxel=NM):
    box = ["--cutout", *reversed(SHAPE), "--offset", 0, 0, 0, "--voxel_size", *voxel]
    return ["--dataset", em, *box, "--outdir", out, "--boundaries", "experts", *more]


def made(out):
    return np.load(out / "data" / "boundaries_f16_zyx.npy")


# ---- which output tells boundaries


@pytest.mark.parametrize(
    ("names", "channel"),
    [
        (["mitochondria", "membranes", "synapses"], (1, False)),
        (["Cell membranes"], (0, False)),
        (["background", "neurites"], (1, True)),
        (["neuron", "boundary"], (1, False)),
        (["border"], (0, False)),
    ],
)
def test_the_boundary_is_found_by_its_name(names, channel):
    assert boundary_channel(names) == channel


def test_a_model_without_boundaries_is_refused_before_any_work(pipeline, em, tmp_path):
    path = save(tmp_path / "m.pth", ["mitochondria", "synapses"])
    code, _, err = pipeline(*flags(em, tmp_path / "out", "--model_path", path))
    assert code == 2 and err.count("\n") == 1
    assert "has no output that tells boundaries, only mitochondria, synapses; give a model with a membrane" in err
    assert not list((tmp_path / "out" / "data").iterdir())


@pytest.mark.parametrize(
    ("sections", "told", "said"),
    [
        (4, None, "takes 4 channels, and a section with its neighbours is an odd number"),
        (
            3,
            {},
            "takes 3 channels and does not say that they are neighbouring sections; train it with train.py --volume",
        ),
    ],
)
def test_a_model_of_more_channels_than_expected_is_refused(pipeline, em, tmp_path, sections, told, said):
    path = save(tmp_path / "m.pth", sections=sections, told=told)
    code, _, err = pipeline(*flags(em, tmp_path / "out", "--model_path", path))
    assert code == 2 and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("predict.py", ("--input", "em.png", "--output", "out")),
        ("test.py", ("--data_root", "data", "--domain", "any", "--outdir", "out")),
        ("channel_ablation.py", ("--data_root", "data", "--domain", "any", "--outdir", "out")),
    ],
)
def test_a_model_of_neighbouring_sections_is_refused_where_it_would_see_one(call_script, tmp_path, script, flags):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "em.png")
    save(tmp_path / "m.pth", sections=3)
    done = call_script(script, "--model_path", "m.pth", *flags, "--threads", 1, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "m.pth sees 3 neighbouring sections at once, and here it would be shown one; run_pipeline.py" in done.stderr
    assert not (tmp_path / "out" / "predict.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--model_path", "drosophila-vnc-expert"],
            "there is no model drosophila-vnc-expert; there is drosophila-vnc-experts",
        ),
        ([], "name a model with --model_path; there is"),
        (["--set", "experts.axes=2", "--model_path", "drosophila-vnc-experts"], "experts.axes=2: give 1 (along z), 3"),
        (["--set", "experts.mitochondria=2", "--model_path", "drosophila-vnc-experts"], "a share lies in [0, 1]"),
        (["--set", "experts.tile=100", "--model_path", "drosophila-vnc-experts"], "a multiple of 32 px, at least 384"),
        (["--boundaries", "intensity", "--model_path", "x"], "goes with --boundaries experts (a network) or forest"),
        (["--boundaries", "intensity", "--no-resample"], "--no-resample goes with --boundaries experts"),
        (["--boundaries", "forest"], "--boundaries forest needs --model_path FILE.npz"),
        (["--boundaries", "forest", "--model_path", "none.npz"], "cannot read the model none.npz"),
    ],
)
def test_what_does_not_go_together_is_one_line(pipeline, em, tmp_path, more, said):
    code, _, err = pipeline(*flags(em, tmp_path / "out", *more))
    assert code == 2 and said in err and err.count("\n") == 1


# ---- what comes out


def test_a_run_writes_what_the_network_says_and_segments_it(pipeline, em, tmp_path):
    path = save(tmp_path / "m.pth", ["mitochondria", "membranes"], sections=3)
    out = tmp_path / "out"
    code, _, err = pipeline(*flags(em, out, "--model_path", path, "--until", "segment"))
    assert (code, err) == (0, "")
    grey, model = tifffile.imread(em), load_boundary_model(path)
    expected = expert_boundaries(grey, NM, model).boundaries
    assert made(out).dtype == np.float16 and (made(out) == expected).all() and expected.std() > 0
    about = json.loads((out / "data" / "boundaries_f16_zyx.json").read_text())["settings"]
    assert about["from"] == "experts" and about["channel"] == "membranes" and about["model"] == "m.pth"
    assert about["model_sha256"] == model.sha256
    assert np.load(out / "data" / "neurite_labels_i32_zyx.npy").max() > 1


def test_what_tells_neurites_is_turned_round(em, tmp_path):
    grey = tifffile.imread(em)
    plain = expert_boundaries(grey, NM, load_boundary_model(save(tmp_path / "a.pth", ["boundary"]))).boundaries
    turned = expert_boundaries(grey, NM, load_boundary_model(save(tmp_path / "b.pth", ["neurites"]))).boundaries
    assert np.abs(plain + turned - 1).max() < 2e-3
    path = save(tmp_path / "c.pth", ["background", "neurite"], activation="softmax")
    both = expert_boundaries(grey, NM, load_boundary_model(path)).boundaries
    assert 0 <= both.min() < both.max() <= 1


def test_axes_follow_the_voxel_size_and_damaged_sections_hold_no_boundary(em, tmp_path):
    grey, model = tifffile.imread(em).copy(), load_boundary_model(save(tmp_path / "m.pth", voxel=None))
    own = {axes: expert_boundaries(grey, NM, model, ExpertSettings(axes=axes)).boundaries for axes in (0, 1, 3)}
    assert (own[0] == own[3]).all() and (own[0] != own[1]).any()
    flat = {axes: expert_boundaries(grey, (40, 8, 8), model, ExpertSettings(axes=axes)).boundaries for axes in (0, 1)}
    assert (flat[0] == flat[1]).all()
    grey[4] = 90
    found = expert_boundaries(grey, NM, model).boundaries
    assert (found[4] == 0).all() and (found[[3, 5]] > 0).any()
    grey[:] = 7
    assert not expert_boundaries(grey, NM, model).boundaries.any()


def test_grey_is_brought_to_that_of_the_training(em, tmp_path):
    grey = tifffile.imread(em)
    model = load_boundary_model(save(tmp_path / "m.pth"))
    darker = (grey // 2 + 10).astype(np.uint8)
    one, other = (expert_boundaries(volume, NM, model).boundaries for volume in (grey, darker))
    assert np.abs(one.astype(float) - other).max() < 0.05
    as_is = [expert_boundaries(v, NM, model, ExpertSettings(own_grey=False)).boundaries for v in (grey, darker)]
    assert np.abs(as_is[0].astype(float) - as_is[1]).mean() > 2 * np.abs(one.astype(float) - other).mean()
    plain = load_boundary_model(save(tmp_path / "plain.pth", normalisation=Normalisation()))
    raw = [expert_boundaries(grey, NM, plain, ExpertSettings(own_grey=own)).boundaries for own in (True, False)]
    assert (raw[0] == raw[1]).all()  # a model that was trained on grey as it is


def test_mitochondria_lower_the_boundary_inside_them(em, tmp_path):
    grey = tifffile.imread(em)
    model = load_boundary_model(save(tmp_path / "m.pth", ["membranes", "mitochondria"]))
    plain = expert_boundaries(grey, NM, model)
    lowered = expert_boundaries(grey, NM, model, ExpertSettings(mitochondria=0.5))
    assert plain.mitochondria is None
    expected = plain.boundaries.astype(float) * (1 - 0.5 * lowered.mitochondria.astype(float))
    assert np.abs(lowered.boundaries - expected).max() < 2e-3 and (lowered.boundaries < plain.boundaries).any()


# ---- voxel size


def test_another_voxel_size_is_resampled_with_a_notice_or_refused(pipeline, em, tmp_path):
    path = save(tmp_path / "m.pth", voxel=(8, 8, 8))
    code, _, err = pipeline(*flags(em, tmp_path / "out", "--model_path", path, "--until", "boundaries"))
    assert code == 0 and "sections are resampled for" in err and "from 10 × 10 × 10 to 8 × 8 × 8 nm" in err
    assert made(tmp_path / "out").shape == SHAPE
    argv = flags(em, tmp_path / "no", "--model_path", path, "--no-resample")
    code, _, err = pipeline(*argv)
    assert code == 2 and "is for voxels of 8 × 8 × 8 nm (z, y, x) and these are 10 × 10 × 10 nm" in err
    near = save(tmp_path / "near.pth", voxel=(10.3, 9.8, 10))
    code, _, err = pipeline(
        *flags(em, tmp_path / "near", "--model_path", near, "--no-resample", "--until", "boundaries")
    )
    assert (code, err) == (0, "")
    unknown = load_boundary_model(save(tmp_path / "unknown.pth", voxel=None))
    lines = []
    expert_boundaries(tifffile.imread(em), NM, unknown, note=lines.append)
    assert len(lines) == 1 and "does not say for which voxel size" in lines[0]


# ---- aligned sections


@pytest.mark.parametrize("sections", [1, 3])
def test_boundaries_move_with_the_sections(em, tmp_path, sections):
    """A 2D network sees sections as read and its answer is moved; one of neighbours sees them moved."""
    from types import SimpleNamespace

    from emlib.pipeline.boundary_sources import make_boundaries
    from emlib.volumes.volume import Volume

    grey = tifffile.imread(em)
    path = save(tmp_path / "m.pth", sections=sections, voxel=(40, 8, 8))
    shifts = pd.DataFrame({"z": range(12), "dy": [4.0] * 12, "dx": [-8.0] * 12})
    volume = Volume(grey, (40, 8, 8), source={"uri": "x"})
    settings = PipelineSettings(dataset="x.tif", boundaries_from="experts", model_path=str(path))
    run = {"settings": settings, "volume": volume, "synthetic": None, "quiet": True, "say": print, "warn": print}
    still = make_boundaries(SimpleNamespace(**run, align_skipped="yes", shifts=shifts * 0))[0]
    moved = make_boundaries(SimpleNamespace(**run, align_skipped=None, shifts=shifts))[0]
    inner = np.abs(np.roll(still, (4, -8), (1, 2)) - moved)[:, 12:-12, 12:-12]
    assert inner.max() < (2e-3 if sections == 1 else 0.02) and (still != moved).any()


# ---- training data


def test_a_model_that_was_trained_on_this_very_volume_is_told(pipeline, em, tmp_path):
    sha = volume_sha256(open_volume(em))
    told = {"input": {"sections": 1, "axes": 3}, "trained_on": {"sha256": sha, "z": [0, 4], "val_z": [5, 6]}}
    path = save(tmp_path / "m.pth", told=told)
    argv = [*flags(em, tmp_path / "out", "--model_path", path, "--until", "boundaries")]
    code, _, err = pipeline(*argv)
    assert code == 0 and "was trained on this very volume (z 0-3, z 5-5), 5 of these 12 sections among it" in err
    at = argv.index("--cutout")
    apart = [*argv[:at], "--cutout", 40, 48, 6, "--offset", 0, 0, 6, *argv[at + 8 :]]
    code, _, err = pipeline(*apart)
    assert code == 0 and "though not on these sections" in err
    told["trained_on"]["sha256"] = "0" * 64
    other = save(tmp_path / "other.pth", told=told)
    code, _, err = pipeline(*flags(em, tmp_path / "b", "--model_path", other, "--until", "boundaries"))
    assert (code, err) == (0, "")


# ---- nothing is computed twice


def test_resume_reads_the_boundary_map_back(pipeline, em, tmp_path, monkeypatch):
    path, out = save(tmp_path / "m.pth"), tmp_path / "out"

    def fail(run):
        raise UserError("stopped here")

    with monkeypatch.context() as patch:
        patch.setitem(__import__("emlib.pipeline.steps", fromlist=["x"]).STEPS, "segment", fail)
        assert pipeline(*flags(em, out, "--model_path", path))[0] == 2
    before = made(out)
    assert not (out / "runs" / "resume" / "boundaries.npz").exists()
    with monkeypatch.context() as patch:
        patch.setattr("emlib.pipeline.boundary_sources.expert_boundaries", fail)
        code, _, err = pipeline(*flags(em, out, "--model_path", path, "--resume", "--until", "segment"))
    assert code == 0 and "going on after boundaries" in err, err
    assert (made(out) == before).all()
    whole = tmp_path / "whole"
    assert pipeline(*flags(em, whole, "--model_path", path, "--until", "segment"))[0] == 0
    labels = [np.load(folder / "data" / "neurite_labels_i32_zyx.npy") for folder in (out, whole)]
    assert (labels[0] == labels[1]).all()


def test_boundaries_depend_on_the_content_of_the_model_and_its_settings(tmp_path):
    path = save(tmp_path / "m.pth")
    chosen = PipelineSettings(boundaries_from="experts", model_path=str(path))
    before = dependence(chosen, "boundaries")
    assert CONTENT + str(path) in before and before["experts.axes"] == 0 and before["resample"] is True
    save(path, ["neurites"])
    assert dependence(chosen, "boundaries") != before
    bundled = PipelineSettings(boundaries_from="experts", model_path="drosophila-vnc-experts")
    assert CONTENT + "drosophila-vnc-experts" in dependence(bundled, "boundaries")


def test_a_network_takes_more_memory_than_intensity():
    own = PipelineSettings(dataset="em.tif")
    learned = PipelineSettings(dataset="em.tif", boundaries_from="experts", model_path="drosophila-vnc-experts")
    for voxel in ((50, 4.6, 4.6), (10, 10, 10)):
        assert planned_bytes((20, 256, 256), voxel, learned) > planned_bytes((20, 256, 256), voxel, own)


# ---- forest


def forest(path, voxel=NM):
    """Two leaves by the first feature, as train_refine_rf.py would store them."""
    names = tuple(feature_names(voxel, FeatureSettings()))
    whole = {"left": [1, -1, -1], "right": [2, -1, -1], "feature": [0, 0, 0]}
    arrays = {name: np.array(values, np.int64) for name, values in whole.items()}
    tree = Forest(
        names,
        np.array([0, 3], np.int64),
        **arrays,
        threshold=np.array([0.4, 0, 0], float),
        value=np.array([0.5, 0.9, 0.1], float),
    )
    write_model(path, {"pixels": tree}, {"features": FeatureSettings()})
    return path


def test_a_forest_drives_a_run(pipeline, em, tmp_path):
    path, out = forest(tmp_path / "forest.npz"), tmp_path / "out"
    argv = flags(em, out, "--boundaries", "forest", "--model_path", path, "--until", "segment")
    code, _, err = pipeline(*argv)
    assert (code, err) == (0, ""), err
    assert set(np.unique(made(out)).round(3)) == {np.float16(0.1).round(3), np.float16(0.9).round(3)}
    other = forest(tmp_path / "flat.npz", (40, 8, 8))
    code, _, err = pipeline(*flags(em, tmp_path / "b", "--boundaries", "forest", "--model_path", other))
    assert code == 2 and "was trained on other features" in err


def test_settings_of_older_records_come_back():
    from dataclasses import asdict

    from emlib.pipeline.settings import settings_of_record

    record = json.loads(json.dumps(asdict(PipelineSettings())))
    for name in ("model_path", "resample"):
        del record[name]
    del record["stages"]["experts"]
    assert settings_of_record(record) == PipelineSettings()
    chosen = PipelineSettings(stages=override(StageSettings(), ["experts.mirrored=true", "experts.axes=1"]))
    assert settings_of_record(json.loads(json.dumps(asdict(chosen)))) == chosen
