"""Artefacts and the run log: whole files, equal bytes, two runs at once."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.runs.artefacts import Outputs, plain
from emlib.runs.runlog import COLUMNS, RunLog
from emlib.runs.stopwatch import Stopwatch


def test_an_array_comes_with_a_sidecar_that_explains_it(tmp_path):
    outputs = Outputs(tmp_path / "out")
    array = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    outputs.array("em", array, "test array", voxel_size_nm=(40.0, 8.0, 8.0), offset=(0, np.int64(5), 0), seed=3)
    assert np.array_equal(np.load(tmp_path / "out/data/em.npy"), array)
    sidecar = json.loads((tmp_path / "out/data/em.json").read_text())
    assert (sidecar["axes"], sidecar["shape"], sidecar["dtype"]) == ("zyx", [2, 3, 4], "float16")
    assert (sidecar["voxel_size_nm"], sidecar["offset"], sidecar["seed"]) == ([40.0, 8.0, 8.0], [0, 5, 0], 3)
    assert outputs.written[0].path.as_posix() == "data/em.npy" and outputs.written[0].size == 48 + 128


def test_equal_content_gives_equal_bytes_and_another_checksum_shows_a_change(tmp_path):
    outputs = [Outputs(tmp_path / name) for name in "ab"]
    for out in outputs:
        out.array("em", np.ones((2, 2, 2)), "x")
        out.table("t", pd.DataFrame({"a": [1, 2], "b": [0.1 + 0.2, 1e-9]}), "x")
        out.json("j", {"z": np.float32(1.5), "a": [float("nan")]}, "x")
    for name in ("data/em.npy", "data/em.json", "tables/t.csv", "tables/j.json"):
        assert outputs[0].path(name).read_bytes() == outputs[1].path(name).read_bytes()
    outputs[1].array("em", np.zeros((2, 2, 2)), "x")
    assert outputs[0].path("data/em.json").read_bytes() != outputs[1].path("data/em.json").read_bytes()


def test_plain_values():
    assert plain({"a": (np.int8(3), float("inf")), 2: np.array([1.5])}) == {"a": [3, None], "2": [1.5]}


def test_outdir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        Outputs(tmp_path / "file")


def test_outdir_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Outputs(tmp_path / "file" / "deeper")


def test_only_what_a_dead_process_left_is_removed(tmp_path):
    outputs = Outputs(tmp_path)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = [
        tmp_path / f"data/.em.tmp{int(ended.stdout)}-0123abcd.npy",
        tmp_path / ".report.tmp2147483646-0123abcd.html",
    ]
    left.append(tmp_path / f"tables/.a.tmp{os.getpid()}-0123abcd.csv")  # of an earlier process with this one's id
    kept = [
        tmp_path / f"tables/.t.tmp{os.getppid()}-0123abcd.csv",
        tmp_path / "data/.mine.npy",
        tmp_path / "data/em.npy",
    ]
    for path in (*left, *kept):
        path.touch()
    outputs.remove_stale()
    assert not [path for path in left if path.exists()] and [path for path in kept if path.exists()] == kept


def test_a_killed_write_leaves_a_name_that_is_known_for_stale(tmp_path):
    code = (
        "import os, signal, sys\nfrom emlib.volumes.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n    os._exit(9)"
    )
    for name in ("tables/graph.graphml", "data/a.b.npy", "figures/noending"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
        assert len(list((tmp_path / name).parent.iterdir())) == 1
    Outputs(tmp_path).remove_stale()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_where_a_folder_of_the_run_should_be(tmp_path):
    (tmp_path / "tables").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder .*tables: File exists; choose another --outdir"):
        Outputs(tmp_path)


def test_an_array_that_finds_the_disk_full_is_told_as_that(tmp_path, monkeypatch):
    """A library may only say how many items are missing."""
    outputs = Outputs(tmp_path)

    def full(file, header):
        raise OSError("1024 requested and 0 written")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    with pytest.raises(UserError, match=r"cannot write .*em\.npy: No space left on device; free space"):
        outputs.array("em", np.zeros((1, 2, 3)), "x")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    with pytest.raises(UserError, match="1024 requested and 0 written"):
        outputs.array("em", np.zeros((1, 2, 3)), "x")


def test_an_array_counts_with_its_sidecar(tmp_path):
    outputs = Outputs(tmp_path)
    outputs.array("em", np.zeros((1, 2, 3)), "x")
    outputs.table("t", pd.DataFrame({"a": [1]}), "x")
    files = [path.as_posix() for artefact in outputs.written for path in artefact.files]
    assert files == ["data/em.npy", "data/em.json", "tables/t.csv"]
    assert all(outputs.path(name).is_file() for name in files)


def test_a_run_is_in_the_log_from_its_start(tmp_path):
    log = RunLog(tmp_path, {"seed": 4, "dataset": "x"}, "python run_pipeline.py")
    with sqlite3.connect(tmp_path / "pipeline_runs.sqlite") as db:
        row = dict(zip(COLUMNS, db.execute("SELECT * FROM runs").fetchone(), strict=True))
    assert [row[name] for name in ("run_id", "status", "seed", "command")] == [
        log.run_id,
        "running",
        4,
        "python run_pipeline.py",
    ]
    assert json.loads(row["versions"])["numpy"] == np.__version__
    assert json.loads((tmp_path / f"{log.run_id}_config.json").read_text()) == {"seed": 4, "dataset": "x"}
    log.update(status="done", stage_seconds={"align": 0.5}, offset_xyz=(1, 2, 3))
    with sqlite3.connect(tmp_path / "pipeline_runs.sqlite") as db:
        assert db.execute("SELECT status, stage_seconds, offset_xyz FROM runs").fetchone() == (
            "done",
            '{"align": 0.5}',
            "[1, 2, 3]",
        )
    with pytest.raises(ValueError, match="no column colour"):
        log.update(colour=1)


def _many_updates(folder):
    log = RunLog(folder, {"seed": 0}, "x")
    for step in range(25):
        log.update(status=f"step {step}")


def test_runs_at_once_share_the_log(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_many_updates, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    with sqlite3.connect(tmp_path / "pipeline_runs.sqlite") as db:
        assert db.execute("SELECT status FROM runs").fetchall() == [("step 24",)] * 3


def test_a_log_that_is_no_database(tmp_path):
    (tmp_path / "pipeline_runs.sqlite").write_text("this is not a database, it is a text of some length\n" * 20)
    with pytest.raises(UserError, match="cannot write the run log"):
        RunLog(tmp_path, {}, "x")


def test_the_stopwatch_keeps_a_failed_stage():
    watch = Stopwatch()
    with watch.stage("good"):
        pass
    with pytest.raises(RuntimeError), watch.stage("fails"):
        raise RuntimeError
    assert list(watch.seconds) == list(watch.peak_mib) == ["good", "fails"]


def test_the_stopwatch_sees_memory_that_is_gone_at_the_end():
    """In a fresh process, where no memory that was freed before can be taken again."""
    code = (
        "import time\nimport numpy as np\nfrom emlib.runs.stopwatch import Stopwatch\nwatch = Stopwatch()\n"
        "with watch.stage('small'):\n    pass\n"
        "with watch.stage('large'):\n    block = np.ones(100 * 2**17); time.sleep(0.2); del block\n"
        "print(watch.peak_mib['large'] - watch.peak_mib['small'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 80 < float(done.stdout) < 150
