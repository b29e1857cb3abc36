"""`train_unet2d_selftrain.py` as a user calls it: learns, writes what it promises, and refuses in one line."""

import json
import sqlite3

import numpy as np
import pytest
from proofread_run import VOXEL, blobs, write_corrected_run, write_run

from emlib.refine.unet.settings import PRESETS
from emlib.runs.artefacts import Outputs

SCRIPT = "train_unet2d_selftrain.py"
LABELS = "neurite_labels_refined_unet_i32_zyx"
QUICK = ("--preset", "safe8gb", "--threads", 1, "--device", "cpu", "--set", "epochs=2", "steps=2", "patch_px=32")
QUICK += ("batch_size=2", "renew_every=1", "widths=[4, 4, 4, 4]", "expert_widths=[4, 4, 4, 4]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_script):
    folder = tmp_path_factory.mktemp("trained")
    labels = write_corrected_run(folder, synthetic="SYNTHETIC PHANTOM: a test")
    done = run_script(SCRIPT, "--outdir", folder, *QUICK)
    assert done.returncode == 0, done.stderr
    return folder, labels, done


def test_what_is_promised_is_written(trained):
    folder, labels, done = trained
    found = np.load(folder / "data" / f"{LABELS}.npy")
    assert found.shape == labels.shape and found.dtype == np.int32 and found.min() == 1
    sidecar = json.loads((folder / "data" / f"{LABELS}.json").read_text())
    assert sidecar["voxel_size_nm"] == list(VOXEL) and sidecar["source"]["sections"] == [1, 3, 6]
    assert sidecar["synthetic"].startswith("SYNTHETIC") and sidecar["settings"]["epochs"] == 2
    boundaries = np.load(folder / "data" / "boundaries_refined_unet_f16_zyx.npy")
    assert boundaries.dtype == np.float16 and boundaries.shape == labels.shape
    told = json.loads((folder / "tables" / "refine_unet_validation.json").read_text())
    assert "held-out strips" in told["judged_by"] and told["change"]["neurites_before"] == len(np.unique(labels))
    assert told["change"]["neurites"] == found.max()
    history = (folder / "tables" / "refine_unet_history.csv").read_text().splitlines()
    assert history[0].startswith("epoch,steps,loss,lr,iou,dice,auc") and len(history) == 3
    assert {path.suffix for path in folder.glob("figures/refine_unet_curves.*")} == {".png", ".pdf"}
    assert "neurites became" in done.stdout and "new pseudo-labels" in done.stdout and f"{LABELS}.npy" in done.stdout


def test_the_run_log_has_an_entry(trained):
    folder, _, _ = trained
    with sqlite3.connect(folder / "runs" / "pipeline_runs.sqlite") as db:
        columns = "status, command, summary, stage_seconds"
        status, command, summary, stages = db.execute(f"SELECT {columns} FROM runs").fetchone()
    assert status == "done" and SCRIPT in command and "voi_split" in summary
    assert {"read", "train", "classify", "segment", "write"} <= set(json.loads(stages))


def test_equal_commands_give_equal_bytes(trained, tmp_path, call_script):
    folder, _, _ = trained
    write_corrected_run(tmp_path, synthetic="SYNTHETIC PHANTOM: a test")
    assert call_script(SCRIPT, "--outdir", tmp_path, *QUICK, "--quiet").stdout == ""
    names = (f"data/{LABELS}.npy", f"data/{LABELS}.json", "data/refine_unet_model.pth")
    for name in (*names, "tables/refine_unet_history.csv", "tables/refine_unet_validation.json"):
        if name.endswith("json") and name.startswith("data"):
            continue  # names the folder
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_model_is_one_for_predict(trained, tmp_path, call_script):
    folder, _, _ = trained
    model, em = folder / "data" / "refine_unet_model.pth", folder / "data" / "em_aligned_float32_zyx.npy"
    done = call_script("predict.py", "--model_path", model, "--input", em, "--outdir", tmp_path, "--threads", 1)
    assert done.returncode == 0, done.stderr


def test_resume_goes_on_with_the_same_training_alone(trained, call_script):
    folder, _, _ = trained
    before = (folder / "data" / f"{LABELS}.npy").read_bytes()
    done = call_script(SCRIPT, "--outdir", folder, *QUICK, "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder / "data" / f"{LABELS}.npy").read_bytes() == before
    done = call_script(SCRIPT, "--outdir", folder, *QUICK, "--resume", "--seed", 1)
    assert_refused(done, "was trained with other --seed")
    done = call_script(SCRIPT, "--outdir", folder, *QUICK, "--resume", "--slices", 1, 3)
    assert_refused(done, "was trained with other corrected sections")


def assert_refused(done, message):
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_nothing_is_learnt_from_a_segmentation_alone_unless_asked(tmp_path, call_script):
    write_run(tmp_path, blobs((8, 56, 60), 24, background=0.0))
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path), "has no corrected labels")
    both = call_script(SCRIPT, "--outdir", tmp_path, "--without_corrections", "--slices", 1)
    assert_refused(both, "leave out --slices and --labels")
    done = call_script(SCRIPT, "--outdir", tmp_path, "--without_corrections", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "nothing holds the network to the truth" in done.stderr and "not with truth" in done.stdout
    assert np.load(tmp_path / "data" / f"{LABELS}.npy").shape == (8, 56, 60)


def test_a_damaged_section_is_left_out(tmp_path, call_script):
    write_corrected_run(tmp_path)
    em = np.load(tmp_path / "data" / "em_aligned_float32_zyx.npy")
    em[2] = 0.5
    Outputs(tmp_path).array("em_aligned_float32_zyx", em, "em", voxel_size_nm=VOXEL)
    done = call_script(SCRIPT, "--outdir", tmp_path, "--slices", 4, *QUICK)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "data" / f"{LABELS}.npy")
    assert not found[2].any() and found[[0, 1, 3, 4, 5, 6, 7]].all()
    done = call_script(SCRIPT, "--outdir", tmp_path, "--slices", 2, *QUICK)
    assert_refused(done, "section 2 holds a single grey value")


def test_mistakes_are_told_in_one_line(tmp_path, call_script):
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path / "none"), "there is no run in")
    labels = write_corrected_run(tmp_path, slices=[])
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path), "there are no corrected sections")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--slices", 1, 8), "there is no section 8")
    labels[3] = 7
    Outputs(tmp_path).array("neurite_labels_corrected_i32_zyx", labels, "corrected", voxel_size_nm=VOXEL)
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--slices", 3), "holds one neurite only (7)")
    np.save(tmp_path / "other.npy", labels[:, :20])
    done = call_script(SCRIPT, "--outdir", tmp_path, "--labels", tmp_path / "other.npy", "--slices", 1)
    assert_refused(done, "both must be of one run")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--set", "epoch=3"), "there is no 'epoch'")
    assert_refused(call_script(SCRIPT, "--outdir", tmp_path, "--set", "steps=0"), "steps=0: must be at least 1")


def test_settings_are_listed_and_presets_are_those_of_the_script(call_script):
    for preset in PRESETS:
        done = call_script(SCRIPT, "--list_settings", "--preset", preset)
        assert f"epochs={PRESETS[preset].epochs}" in done.stdout and "segment.multicut.bias=" in done.stdout
