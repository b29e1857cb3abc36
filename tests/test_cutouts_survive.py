"""--cutouts on different places, on a server that dies, taken up again, and beside other runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boss_server import TOKEN, running

from emlib.errors import UserError
from emlib.pipeline import PipelineSettings, cutouts
from emlib.pipeline import finished as record
from emlib.pipeline.cutouts import cutout_lines, run_cutouts
from emlib.pipeline.finished import finished
from emlib.pipeline.rerun import checksums
from emlib.pipeline.run import run_pipeline
from emlib.runs.artefacts import SYNTHETIC_MARK
from emlib.runs.history import read_runs
from emlib.runs.lock import run_lock
from emlib.volumes.tiff import write_tiff

ROOT = Path(__file__).resolve().parent.parent
NO_NETWORK = {"INTERN_PROTOCOL": "http", "INTERN_HOST": "127.0.0.1:9", "INTERN_TOKEN": "public"}
BOSS = "bossdb://lab/brain/em"


@pytest.fixture
def em(tmp_path):
    """A volume of noise with 128 × 128 × 8 voxels, as a file."""
    path = tmp_path / "em.tif"
    write_tiff(path, np.random.default_rng(0).integers(0, 255, (8, 128, 128), dtype=np.uint8), (40, 8, 8))
    return path


@pytest.fixture
def offline(monkeypatch):
    """A Boss server that nobody reaches."""
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


def small(dataset, **more):
    """Settings of a run that ends early."""
    return PipelineSettings(**{"dataset": str(dataset), "cutout_xyz": (64, 64, 8), "until": "preprocess", **more})


def statuses(folder):
    return [run["status"] for run in read_runs(folder)]


# ---- places


@pytest.mark.slow
def test_figures_are_those_of_different_places(em, tmp_path, pipeline):
    """Labels whose number differs from quarter to quarter: each cutout must find that of its own place."""
    labels = np.zeros((8, 128, 128), np.uint16)
    for quarter, (y, x) in enumerate(((0, 0), (0, 64), (64, 0), (64, 64))):
        rows = np.arange(64) * (quarter + 2) // 64
        labels[:, y : y + 64, x : x + 64] = (100 * quarter + 1 + rows)[None, :, None]
    write_tiff(tmp_path / "labels.tif", labels, (40, 8, 8))
    out = tmp_path / "out"
    flags = ["--dataset", em, "--cutout", 64, 64, 8, "--labels", tmp_path / "labels.tif", "--until", "segment"]
    code, text, err = pipeline(*flags, "--cutouts", 4, "--outdir", out)
    assert code == 0, err
    assert "4 places in 128 128 8 (x y z): two of them share 0 % of their voxels at most" in text
    content = json.loads((out / "tables/cutouts.json").read_text())
    places = [place["offset_xyz"] for place in content["cutouts"]]
    assert sorted(places) == [[0, 0, 0], [0, 64, 0], [64, 0, 0], [64, 64, 0]]
    found = content["figures"]["neurites"]
    assert found["each"] == [len(np.unique(labels[:, y : y + 64, x : x + 64])) for x, y, _ in places]
    assert sorted(found["each"]) == [2, 3, 4, 5] and found["mean"] == 3.5
    assert found["sd"] == pytest.approx(1.291, abs=1e-3)

    runs = read_runs(out)
    assert sorted(run["settings"]["offset_xyz"] for run in runs) == sorted(places)
    for run in runs[:2]:
        code, text, err = pipeline("--rerun", run["run_id"], "--outdir", out)
        assert code == 0 and f"repeated {run['run_id']}: the same bytes in all" in text, (text, err)


def test_places_that_nearly_coincide_are_warned_of_and_equal_ones_refused(em, tmp_path, pipeline):
    flags = ["--dataset", em, "--until", "cutout", "--outdir", tmp_path / "out"]
    code, text, err = pipeline(*flags, "--cutout", 120, 120, 8, "--cutouts", 2)
    assert code == 0 and "warning: 2 places in 128 128 8 (x y z): two of them share 87 % of their voxels at most" in err
    code, text, err = pipeline(*flags, "--cutout", 256, 256, 64, "--cutouts", 2)
    assert code == 2 and err.count("\n") == 1 and "has 1 for a cutout of 128 128 8; take a smaller --cutout" in err
    assert "cutout_" not in text


# ---- a server that dies, and what stands in for it


def test_after_the_server_has_died_no_phantom_is_counted(tmp_path, monkeypatch, capsys):
    with running() as server:
        for name, value in (("PROTOCOL", "http"), ("HOST", server.host), ("TOKEN", TOKEN)):
            monkeypatch.setenv(f"INTERN_{name}", value)

        def run_and_die(*args, **options):
            run = run_pipeline(*args, **options)
            server.shutdown()
            server.server_close()
            return run

        monkeypatch.setattr(cutouts, "run_pipeline", run_and_die)
        done = run_cutouts(small(BOSS, cutout_xyz=(20, 15, 8)), 3, tmp_path)
    assert [bool(cutout.error) for cutout in done] == [False, True, True]
    assert all("cannot be reached" in cutout.error for cutout in done[1:])
    assert "2 of 3 cutouts failed: cutout_01, cutout_02" in cutout_lines(done, tmp_path)
    assert "PHANTOM" not in capsys.readouterr().err and not list(tmp_path.rglob(SYNTHETIC_MARK))
    assert [(run["status"], run["synthetic"]) for run in read_runs(tmp_path)].count(("failed", None)) == 2
    cost = pd.read_csv(tmp_path / "runs/cutouts_cost.csv").set_index("figure")
    assert (cost["n"] == 1).all()


def test_out_of_reach_from_the_start_all_are_phantoms(offline, tmp_path, capsys):
    done = run_cutouts(small(BOSS, voxel_size_nm=(5, 5, 5)), 2, tmp_path, quiet=True)
    note = f"SYNTHETIC PHANTOM, NOT REAL DATA: {BOSS} could not be reached"
    assert [(c.error, c.synthetic) for c in done] == [(None, note)] * 2 and note in cutout_lines(done, tmp_path)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ALL CUTOUTS ARE OF THE SYNTHETIC PHANTOM INSTEAD; --no-fallback" in err
    assert {(run["dataset"], run["seed"]) for run in read_runs(tmp_path)} == {("sample://phantom", n) for n in (0, 1)}
    first, second = (np.load(tmp_path / f"cutout_0{n}/data/em_cutout_u8_zyx.npy") for n in (0, 1))
    assert (first != second).any()
    assert json.loads((tmp_path / "cutout_00/data/em_cutout_u8_zyx.json").read_text())["voxel_size_nm"] == [40, 8, 8]
    with pytest.raises(UserError, match="cannot be reached"):
        run_cutouts(small(BOSS, fallback=False), 2, tmp_path / "none")


@pytest.mark.parametrize("flag", ["--truth", "--truth_synapses", "--labels", "--boundaries"])
@pytest.mark.parametrize("several", [[], ["--cutouts", 2]])
def test_the_phantom_is_not_measured_with_files_of_another_volume(flag, several, offline, tmp_path, pipeline):
    file = tmp_path / "theirs.csv"
    file.write_text("z,y,x\n1,2,3\n")
    flags = ["--dataset", BOSS, "--cutout", 64, 64, 8, flag, file, "--outdir", tmp_path / "out"]
    code, _, err = pipeline(*flags, *several)
    assert code == 2 and err.count("\n") == 1 and "cannot be reached" in err
    assert f"The phantom cannot stand in, since {flag} {file} would not belong to it; leave that out" in err
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_the_phantom_keeps_its_own_voxel_size_and_place(offline, tmp_path, pipeline):
    flags = ["--dataset", BOSS, "--cutout", 64, 64, 8, "--until", "cutout", "--outdir", tmp_path]
    code, _, err = pipeline(*flags, "--offset", 1000, 1000, 10, "--voxel_size", 5, 5, 5)
    assert code == 0, err
    sidecar = json.loads((tmp_path / "data/em_cutout_u8_zyx.json").read_text())
    assert sidecar["voxel_size_nm"] == [40, 8, 8] and sidecar["offset"] == [0, 0, 0]


# ---- taken up again


def test_a_killed_run_is_taken_up_where_it_was(em, tmp_path, pipeline):
    code = """if True:
        import os, runpy, signal, sys
        from emlib.pipeline import run
        step, count = run.STEPS["preprocess"], []
        def die(state):
            count.append(1)
            if len(count) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            step(state)
        run.STEPS["preprocess"] = die
        runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
    """
    flags = [str(n) for n in ("--dataset", em, "--cutout", 64, 64, 8, "--until", "align", "--cutouts", 3)]
    out, whole = tmp_path / "out", tmp_path / "whole"
    killed = [sys.executable, "-c", code, str(ROOT / "run_pipeline.py"), *flags, "--outdir", str(out)]
    assert subprocess.run(killed, cwd=ROOT, capture_output=True).returncode == -9
    assert statuses(out / "cutout_00") == ["done"] and statuses(out / "cutout_01") == ["killed"]
    first = read_runs(out / "cutout_00")[0]["run_id"]

    code, text, err = pipeline(*flags, "--outdir", out, "--resume")
    assert code == 0, err
    assert text.count(f", as {first} found\n") == text.count(" found\n") == 1, err
    assert statuses(out / "cutout_00") == ["done"], "it was not done again"
    assert statuses(out / "cutout_01") == ["done", "killed"] and "going on after cutout" in err
    assert pipeline(*flags, "--outdir", whole)[0] == 0
    for folder in ("", "cutout_00", "cutout_01", "cutout_02"):
        assert checksums(out / folder) == checksums(whole / folder) != {}

    before = {path: path.stat().st_mtime_ns for path in out.rglob("data/*")}
    code, text, err = pipeline(*flags, "--outdir", out, "--resume")
    assert code == 0 and text.count(" found\n") == 3 and checksums(out) == checksums(whole)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("data/*")}


def test_what_is_not_as_it_was_is_done_again(em, tmp_path, monkeypatch, capsys):
    settings = small(em, truth=str(tmp_path / "truth.tif"))
    write_tiff(tmp_path / "truth.tif", np.ones((8, 128, 128), np.uint16), (40, 8, 8))
    run_cutouts(settings, 1, tmp_path / "out", quiet=True)
    folder = tmp_path / "out/cutout_00"
    settings = replace(settings, offset_xyz=tuple(read_runs(folder)[0]["offset_xyz"]), fallback=False)

    def reason(settings=settings):
        return finished(folder, settings)[1]

    assert finished(folder, settings)[0]["status"] == "done" and reason() == ""
    assert finished(folder, replace(settings, network_timeout_s=99.0))[0], "a longer wait changes no outcome"
    assert reason(replace(settings, until="align")) == "until has changed"
    assert reason(replace(settings, seed=7)) == "seed has changed"
    assert reason(replace(settings, truth=None)) == "truth has changed"
    with monkeypatch.context() as patch:
        patch.setattr(record, "code_fingerprint", lambda versions: "another")
        assert reason() == "emlib or its libraries has changed"
    array, report = folder / "data/em_preprocessed_f32_zyx.npy", folder / "report.html"
    kept, drawn = array.read_bytes(), report.read_bytes()
    array.write_bytes(kept[:-1] + b"x")
    assert reason() == f"{array} is damaged"
    array.unlink()
    assert reason() == f"{array} is missing"
    array.write_bytes(kept)
    report.unlink()
    assert reason() == f"{report} is missing"
    report.write_bytes(drawn)
    assert reason() == ""
    write_tiff(tmp_path / "truth.tif", np.full((8, 128, 128), 2, np.uint16), (40, 8, 8))
    assert reason() == f"the content of {tmp_path / 'truth.tif'} has changed"

    capsys.readouterr()
    done = run_cutouts(replace(settings, offset_xyz=None), 1, tmp_path / "out", resume=True)
    assert done[0].recorded is None and len(read_runs(folder)) == 2
    assert f"--resume: cutout_00 is done again: the content of {tmp_path}" in capsys.readouterr().err
    (folder / "runs/finished.json").write_text("[1")
    assert reason() == "what the run rested on is not on record"


# ---- beside other runs


def test_one_run_of_cutouts_at_a_time_in_a_folder(em, tmp_path, monkeypatch):
    with run_lock(tmp_path / "out"), pytest.raises(UserError, match="is writing to"):
        run_cutouts(small(em), 2, tmp_path / "out")
    tried = []

    def run(settings, folder, **options):
        with pytest.raises(UserError, match=f"is writing to {tmp_path / 'out'};"):
            run_cutouts(small(em), 2, tmp_path / "out")
        tried.append(folder)
        return run_pipeline(settings, folder, **options)

    monkeypatch.setattr(cutouts, "run_pipeline", run)
    done = run_cutouts(small(em), 2, tmp_path / "out", quiet=True)
    assert len(tried) == 2 and not any(cutout.error for cutout in done)


def test_the_mark_of_synthetic_data_stays_as_long_as_any_is_left(em, tmp_path):
    marks = [tmp_path / folder / SYNTHETIC_MARK for folder in ("data", "tables")]
    run_pipeline(small("sample://phantom", until="align"), tmp_path, quiet=True)
    assert all("SYNTHETIC" in mark.read_text() for mark in marks)
    run_cutouts(small(em), 2, tmp_path, quiet=True)
    assert marks[0].is_file(), "the phantom's arrays are still there"
    assert "left from an earlier run: alignment_shifts" in marks[1].read_text()
    assert not list(tmp_path.glob(f"cutout_*/*/{SYNTHETIC_MARK}"))

    run_pipeline(small(em), tmp_path, quiet=True)
    text = marks[0].read_text()
    assert "em_aligned_float32_zyx" in text and "em_cutout" not in text, "only what is left of it"
    run_pipeline(small(em, until="align"), tmp_path, quiet=True)
    assert not any(mark.exists() for mark in marks)

    run_cutouts(small("sample://phantom"), 2, tmp_path, quiet=True)
    assert marks[1].is_file() and not marks[0].exists(), "the parent's data/ holds nothing of the cutouts"
    run_cutouts(small(em), 2, tmp_path, quiet=True)
    assert not any(mark.exists() for mark in marks)
