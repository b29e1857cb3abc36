"""`train_refine_rf.py` as a user calls it: learns, writes what it promises, and refuses in one line."""

import json
import sqlite3

import numpy as np
import pytest
from proofread_run import VOXEL, blobs, write_corrected_run, write_run

from emlib.refine.model_file import read_model
from emlib.runs.artefacts import Outputs

SCRIPT = "train_refine_rf.py"
LABELS = "neurite_labels_refined_rf_i32_zyx"
QUICK = ("--trees", 40, "--set", "edges.forest.trees=10", "--threads", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_script):
    folder = tmp_path_factory.mktemp("trained")
    labels = write_corrected_run(folder, synthetic="SYNTHETIC PHANTOM: a test")
    done = run_script(SCRIPT, "--outdir", folder, "--edges", *QUICK)
    assert done.returncode == 0, done.stderr
    return folder, labels, done


def test_what_is_promised_is_written(trained):
    folder, labels, done = trained
    found = np.load(folder / "data" / f"{LABELS}.npy")
    assert found.shape == labels.shape and found.dtype == np.int32 and found.min() == 1
    sidecar = json.loads((folder / "data" / f"{LABELS}.json").read_text())
    assert sidecar["voxel_size_nm"] == list(VOXEL) and sidecar["source"]["sections"] == [1, 3, 6]
    assert sidecar["synthetic"].startswith("SYNTHETIC") and sidecar["settings"]["forest"]["trees"] == 40
    for name in ("pixels", "edges"):
        assert name in json.loads((folder / "tables" / "refine_rf_validation.json").read_text())
    for name in ("importance", "edge_importance"):
        assert (folder / "tables" / f"refine_rf_{name}.csv").read_text().startswith("feature,impurity,auc_fall\n")
        assert {path.suffix for path in folder.glob(f"figures/refine_rf_{name}.*")} == {".png", ".pdf"}
    assert "neighbours leak" in done.stdout and "held-out sections" in done.stdout and f"{LABELS}.npy" in done.stdout
    assert set(read_model(folder / "data" / "refine_rf_model.npz")[0]) == {"pixels", "edges"}


def test_sections_that_were_not_corrected_are_told_apart_well(trained):
    """The EM of this run is its truth with noise: a forest must find it."""
    folder, _, _ = trained
    told = json.loads((folder / "tables" / "refine_rf_validation.json").read_text())["pixels"]
    assert told["auc_held_out_sections"] > 0.85 and told["auc_held_out_pixels"] > 0.85
    assert set(told["auc_by_section"]) == {"1", "3", "6"}


def test_the_run_log_has_an_entry(trained):
    folder, _, _ = trained
    with sqlite3.connect(folder / "runs" / "pipeline_runs.sqlite") as db:
        status, command, summary, stages = db.execute(
            "SELECT status, command, summary, stage_seconds FROM runs"
        ).fetchone()
    assert status == "done" and SCRIPT in command and "auc_held_out_sections" in summary
    assert {"learn", "classify", "edges", "segment"} <= set(json.loads(stages))


def test_equal_commands_give_equal_bytes(trained, tmp_path, call_script):
    folder, _, _ = trained
    write_corrected_run(tmp_path, synthetic="SYNTHETIC PHANTOM: a test")
    assert call_script(SCRIPT, "--outdir", tmp_path, "--edges", *QUICK[:-1], 2).returncode == 0
    for name in (f"data/{LABELS}.npy", "tables/refine_rf_importance.csv", "tables/refine_rf_validation.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    models = [read_model(path / "data" / "refine_rf_model.npz")[0]["edges"] for path in (folder, tmp_path)]
    assert np.array_equal(models[0].threshold, models[1].threshold)


@pytest.mark.slow
def test_a_model_can_be_applied_to_another_run(trained, tmp_path, call_script):
    folder, _, _ = trained
    write_run(tmp_path, blobs((5, 40, 40), 12, seed=4, background=0.0))
    model = folder / "data" / "refine_rf_model.npz"
    done = call_script(SCRIPT, "--outdir", tmp_path, "--model", model, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "with its edge forest" in done.stdout
    assert np.load(tmp_path / "data" / f"{LABELS}.npy").shape == (5, 40, 40)
    done = call_script(SCRIPT, "--outdir", tmp_path, "--model", model, "--voxel_size", 10, 10, 10)
    assert_refused(done, "was trained on other features: 18")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--model", model, "--edges"), "leave out --slices")


def assert_refused(done, message):
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_one_section_is_enough_and_a_damaged_one_is_left_out(tmp_path, call_script):
    write_corrected_run(tmp_path)
    em = np.load(tmp_path / "data" / "em_aligned_float32_zyx.npy")
    em[2] = 0.5
    Outputs(tmp_path).array("em_aligned_float32_zyx", em, "em", voxel_size_nm=VOXEL)
    done = call_script(SCRIPT, "--outdir", tmp_path, "--slices", 4, "--classifier", "hgb", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "no section to hold out" in done.stdout and "none to hold out" in done.stderr
    found = np.load(tmp_path / "data" / f"{LABELS}.npy")
    assert not found[2].any() and found[[0, 1, 3, 4, 5, 6, 7]].all()
    assert_refused(
        call_script(SCRIPT, "--outdir", tmp_path, "--slices", 2, *QUICK), "section 2 holds a single grey value"
    )


def test_mistakes_are_told_in_one_line(tmp_path, call_script):
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path / "none"), "there is no run in")
    write_corrected_run(tmp_path, slices=[])
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path), "there are no corrected sections")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--slices", 1, 8), "there is no section 8")
    (tmp_path / "data" / "model.npz").write_bytes(b"PK")
    done = call_script(SCRIPT, "--outdir", tmp_path, "--model", tmp_path / "data" / "model.npz")
    assert_refused(done, "is no model that train_refine_rf.py wrote")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--set", "forest.tree=3"), "there is no 'tree'")


def test_settings_are_listed(call_script):
    done = call_script(SCRIPT, "--list_settings")
    assert "examples.band_px=2" in done.stdout and "edges.bias=" in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("forest.classifier=svm", "choose from rf, hgb"),
        ("edges.forest.trees=0", "edges.forest.trees=0: must be at least 1"),
        ("examples.held_out=1", "must lie between 0 and 1"),
        ("features.tensor_nm=[10, 0]", "every scale must be above 0 nm"),
        ("segment.segmenter=watershed", "only multicut uses a forest"),
    ],
)
def test_settings_that_cannot_be_learnt_with_are_told(given, message):
    from emlib.errors import UserError
    from emlib.refine.command import check_settings
    from emlib.refine.refining import RefineSettings
    from emlib.runs.settings import override

    check_settings(RefineSettings())
    with pytest.raises(UserError, match=message):
        check_settings(override(RefineSettings(), [given]))
