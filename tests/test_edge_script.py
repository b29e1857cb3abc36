"""From a labelled crop to a segmentation with learned contacts, as a user types it; and what is refused in one line."""

import json
import sqlite3

import numpy as np
import pytest
from proofread_run import blobs, boundary_of
from scipy import ndimage

from emlib.refine.edge_model import read_edge_model

TRAIN, RUN = "train_refine_rf.py", "run_pipeline.py"
SIZE = ("--voxel_size", 10, 10, 10)
QUICK = ("--trees", 10, "--set", "contacts.forest.min_leaf=5", "--threads", 1)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """EM of 16 × 72 × 72 with its neurites, and a boundary probability that somebody else made."""
    folder = tmp_path_factory.mktemp("crop")
    truth = blobs((16, 72, 72), 30, background=0.0)
    edge = ndimage.gaussian_filter(boundary_of(truth), (0.3, 0.8, 0.8))
    noise = np.random.default_rng(0).normal(0, 12, truth.shape)
    np.save(folder / "em.npy", np.clip(200 - 170 * edge + noise, 1, 255).astype(np.uint8))
    np.save(folder / "neurites.npy", truth)
    np.save(folder / "boundaries.npy", np.clip(edge, 0, 1).astype(np.float16))
    return folder


def crop(volume, *more):
    files = ("--volume", volume / "em.npy", "--labels", volume / "neurites.npy")
    return ("--edges", *files, *SIZE, *more, *QUICK)


@pytest.fixture(scope="module")
def trained(volume, tmp_path_factory, run_script):
    folder = tmp_path_factory.mktemp("trained")
    done = run_script(TRAIN, *crop(volume, "--z", 0, 10, "--outdir", folder))
    assert done.returncode == 0, done.stderr
    return folder, done


def segmented(call_script, volume, folder, *more):
    place = ("--dataset", volume / "em.npy", *SIZE, "--cutout", 72, 72, 6, "--offset", 0, 0, 10)
    return call_script(RUN, *place, "--until", "segment", "--outdir", folder, "--threads", 1, *more)


def test_what_is_promised_is_written(trained, volume):
    folder, done = trained
    model = read_edge_model(folder / "data" / "edge_model.npz")
    assert model.trained_on["z"] == [0, 10] and model.voxel_size_nm == (10, 10, 10)
    assert model.boundaries == "intensity"
    told = json.loads((folder / "tables" / "edge_model_validation.json").read_text())
    assert told["auc"] > 0.6 and told["bins"] and told["contacts"] > 100
    curve = (folder / "tables" / "edge_model_curve.csv").read_text().splitlines()
    assert curve[0].startswith("segmenter,bias,voi_split,voi_merge,voi,arand")
    assert (folder / "tables" / "edge_model_importance.csv").read_text().startswith("feature,auc_fall\n")
    assert {path.suffix for path in folder.glob("figures/edge_model_curve.*")} == {".png", ".pdf"}
    for word in ("AUC", "multicut: bias", "gasp: bias", "edge_model.npz"):
        assert word in done.stdout
    with sqlite3.connect(folder / "runs" / "pipeline_runs.sqlite") as db:
        status, command, summary, stages = db.execute(
            "SELECT status, command, summary, stage_seconds FROM runs"
        ).fetchone()
    assert status == "done" and TRAIN in command and "chosen" in summary
    assert set(json.loads(stages)) == {"read", "learn", "tune", "write"}


def test_equal_commands_give_equal_bytes_whatever_the_threads(trained, volume, tmp_path, call_script):
    folder, _ = trained
    done = call_script(TRAIN, *crop(volume, "--z", 0, 10, "--outdir", tmp_path)[:-1], 2)
    assert done.returncode == 0, done.stderr
    for name in ("data/edge_model.npz", "tables/edge_model_curve.csv", "tables/edge_model_validation.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_the_pipeline_segments_with_it(trained, volume, tmp_path, call_script, segmenter):
    model = trained[0] / "data" / "edge_model.npz"
    how = ("--segmenter", segmenter, "--edge_model", model)
    done = segmented(call_script, volume, tmp_path / "a", *how)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    labels = np.load(tmp_path / "a" / "data" / "neurite_labels_i32_zyx.npy")
    assert labels.shape == (6, 72, 72) and labels.min() == 1
    sidecar = json.loads((tmp_path / "a" / "data" / "neurite_labels_i32_zyx.json").read_text())
    assert sidecar["what"] == f"Neurite labels ({segmenter}, learned contacts)"
    done = segmented(call_script, volume, tmp_path / "b", *how, "--set", "segment.bias=6")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "b" / "data" / "neurite_labels_i32_zyx.npy").max() > labels.max()


def test_another_model_counts_when_a_run_goes_on(trained, volume):
    from emlib.pipeline import PipelineSettings
    from emlib.pipeline.dependence import dependence

    model = str(trained[0] / "data" / "edge_model.npz")
    with_it = dependence(PipelineSettings(edge_model=model), "segment")
    assert with_it["edge_model"] == model and f"the content of {model}" in with_it
    for stage in ("cutout", "preprocess", "align", "boundaries", "synapses", "graph"):
        assert dependence(PipelineSettings(edge_model=model), stage) == dependence(PipelineSettings(), stage)


def test_what_makes_a_model_uncertain_is_warned_of(trained, volume, tmp_path, call_script):
    model = trained[0] / "data" / "edge_model.npz"
    place = ("--dataset", volume / "em.npy", *SIZE, "--cutout", 72, 72, 8, "--offset", 0, 0, 4)
    more = ("--boundaries", volume / "boundaries.npy", "--edge_model", model, "--until", "segment")
    done = call_script(RUN, *place, *more, "--outdir", tmp_path, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "was trained on boundaries from intensity, this run takes them from" in done.stderr
    assert "was trained on this very volume, z 0 to 9" in done.stderr


def test_boundaries_of_a_file_are_learnt_from(volume, tmp_path, call_script):
    given = volume / "boundaries.npy"
    done = call_script(TRAIN, *crop(volume, "--boundaries", given, "--outdir", tmp_path))
    assert done.returncode == 0, done.stderr
    model = read_edge_model(tmp_path / "data" / "edge_model.npz")
    assert model.boundaries == str(given) and model.trained_on["z"] == [0, 16]


@pytest.fixture
def assert_refused(call_script):
    """Return a function that runs a script in this process and asks for one line with this message."""

    def call(script, message, *argv):
        done = call_script(script, *argv)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr

    return call


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--z", 4, 99), "--z 4 99: the volume has the sections 0 to 15"),
        (("--z", 5, 5), "--z 5 5: the volume has the sections"),
        (("--slices", 3), "give --edges and --labels with it, and no --slices and no --model"),
        (("--classifier", "rf"), "contacts of a crop take hgb"),
        (("--set", "contacts.purity=0.2"), "must lie above 0.5"),
        (("--set", "contacts.blocks=[1, 1, 1]"), "at least two blocks"),
        (("--set", "contacts.forest.learning_rate=0"), "must lie above 0"),
        (("--set", "contacts.forest.max_leaves=1"), "must be at least 2"),
        (("--set", "forest.trees=3"), "there is no 'forest'"),
    ],
)
def test_mistakes_are_told_in_one_line(volume, tmp_path, assert_refused, more, message):
    files = ("--edges", "--volume", volume / "em.npy", "--labels", volume / "neurites.npy", *SIZE)
    assert_refused(TRAIN, message, *files, *more, "--outdir", tmp_path)


def test_files_that_do_not_belong_together_are_told(volume, tmp_path, assert_refused):
    em, labels, out = volume / "em.npy", volume / "neurites.npy", ("--outdir", tmp_path / "o")
    np.save(tmp_path / "other.npy", np.ones((3, 9, 9), np.int32))
    np.save(tmp_path / "one.npy", np.ones((16, 72, 72), np.int32))
    crop = ("--edges", "--volume", em, "--labels")
    assert_refused(TRAIN, "fits neither the volume", *crop, tmp_path / "other.npy", *SIZE, *out)
    assert_refused(TRAIN, "at least 10 of each are needed", *crop, tmp_path / "one.npy", *SIZE, *out)
    assert_refused(TRAIN, "voxel size of", *crop, labels, *out)
    assert_refused(TRAIN, "belong to a labelled crop", "--z", 0, 5, *out)
    assert_refused(TRAIN, "give --edges and --labels", "--volume", em, *out)


def test_the_pipeline_refuses_what_it_could_not_do(trained, volume, tmp_path, assert_refused):
    model, out = trained[0] / "data" / "edge_model.npz", ("--outdir", tmp_path)
    place = ("--dataset", volume / "em.npy", *SIZE, "--cutout", 72, 72, 6, "--quiet", *out)
    edges = ("--edge_model", model)
    assert_refused(RUN, "segment.bias=12: must lie between -10 and 10", *place, "--set", "segment.bias=12")
    assert_refused(RUN, "there is no segmenter 'gaps'; did you mean gasp?", *place, "--set", "segment.segmenter=gaps")
    assert_refused(
        RUN, "--edge_model is of no use with --segmenter watershed", *place, "--segmenter", "watershed", *edges
    )
    assert_refused(RUN, "--edge_model is of no use with --labels", *place, "--labels", volume / "neurites.npy", *edges)
    assert_refused(RUN, "cannot read the model", *place, "--edge_model", tmp_path / "none.npz")
    assert_refused(RUN, "invalid choice: 'magic'", "--segmenter", "magic")
    flat = ("--dataset", volume / "em.npy", "--voxel_size", 50, 8, 8, "--cutout", 72, 72, 6, "--no_align")
    assert_refused(RUN, "was trained on fragments in 3D", *flat, "--quiet", *out, *edges)
