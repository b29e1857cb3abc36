"""The run log read back: list, show, export, run again; and logs that are old, new, locked or damaged."""

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.pipeline import PipelineSettings, announce, defaults
from emlib.pipeline.rerun import checksums, recall
from emlib.pipeline.settings import settings_of_record
from emlib.runs import history, runlog
from emlib.runs.artefacts import plain
from emlib.runs.history import changed, find_run, headline, read_runs
from emlib.runs.history_lines import answer
from emlib.runs.runlog import COLUMNS, FILE, SCHEMA_VERSION, RunLog

ROOT = Path(__file__).resolve().parent.parent
USUAL = plain(defaults())


@pytest.fixture
def command(pipeline):
    """Run run_pipeline.py in this process."""
    return pipeline


@pytest.fixture
def outdir(tmp_path):
    """An output folder with three runs, of which one is that of a cutout, one failed, one was killed."""
    done = logged(tmp_path / "runs", {**USUAL, "seed": 3}, "python run_pipeline.py --seed 3")
    scores = {
        "segmentation": {"voi": 1.25, "arand": 0.2, "chance": {"one_segment": {"voi": 4.0}}},
        "graph": {"f1": None},
    }
    summary = {"neurites": 12, "edges": 4, "scores": scores}
    done.update(status="done", dataset="a.tif", peak_mib=300.5, stage_seconds={"align": 0.5}, summary=summary)
    failed = logged(tmp_path / "cutout_00" / "runs", {**USUAL, "dataset": "absent.tif"}, "x")
    failed.update(status="failed", error="UserError: no such file")
    logged(tmp_path / "runs", USUAL, "x")
    edit(tmp_path, "UPDATE runs SET environment = json_set(environment, '$.pid', 0) WHERE status = 'running'")
    return tmp_path


def logged(folder, settings, command):
    """A new row in the log of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return RunLog(folder, settings, command)


def edit(outdir, statement, values=()):
    with closing(sqlite3.connect(outdir / "runs" / FILE)) as db, db:
        db.execute(statement, values)


def old_log(folder, columns, version):
    """A log with fewer columns, as earlier versions wrote it, with one run in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute(f"CREATE TABLE runs ({', '.join(f'{name} {COLUMNS[name]}' for name in columns)})")
        values = {"run_id": "20250101T000000-aaaaaa", "status": "done", "started": "2025-01-01T00:00:00+00:00"}
        known = {name: value for name, value in values.items() if name in columns}
        db.execute(f"INSERT INTO runs ({', '.join(known)}) VALUES ({', '.join('?' * len(known))})", (*known.values(),))
        db.execute(f"PRAGMA user_version = {version}")
    return folder / FILE


def schema(path):
    with closing(sqlite3.connect(path)) as db:
        names = {row[1] for row in db.execute("PRAGMA table_info(runs)")}
        return db.execute("PRAGMA user_version").fetchone()[0], names


VERSION_0 = ("run_id", "status", "started", "settings")
VERSION_1 = tuple(name for name in COLUMNS if name != "environment")


@pytest.mark.parametrize(("columns", "version"), [(VERSION_0, 0), (VERSION_1, 1)])
def test_an_older_log_is_brought_up_to_date_and_keeps_its_runs(tmp_path, columns, version):
    path = old_log(tmp_path / "runs", columns, version)
    before = path.read_bytes()
    assert [run["run_id"] for run in read_runs(tmp_path)] == ["20250101T000000-aaaaaa"]
    assert path.read_bytes() == before, "reading changed the log"
    log = logged(tmp_path / "runs", {"seed": 1}, "x")
    log.update(status="done")
    assert schema(path) == (SCHEMA_VERSION, set(COLUMNS))
    new, old = read_runs(tmp_path)
    assert (new["run_id"], old["run_id"], old["status"]) == (log.run_id, "20250101T000000-aaaaaa", "done")
    assert new["environment"]["threads"] >= 1 and old["environment"] is None
    logged(tmp_path / "runs", {"seed": 1}, "x")
    assert len(read_runs(tmp_path)) == 3


def test_a_migration_that_fails_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    path = old_log(tmp_path / "runs", VERSION_0, 0)
    monkeypatch.setitem(runlog.COLUMNS, "broken", "TEXT NOT NULL")  # SQLite cannot add it to rows that exist
    with pytest.raises(UserError, match="cannot write the run log"):
        logged(tmp_path / "runs", {}, "x")
    assert schema(path) == (0, set(VERSION_0))


def test_a_log_of_a_newer_schema_is_refused_and_left_alone(tmp_path):
    path = old_log(tmp_path / "runs", (*COLUMNS,), SCHEMA_VERSION + 1)
    before = path.read_bytes()
    for call in (lambda: logged(tmp_path / "runs", {}, "x"), lambda: read_runs(tmp_path)):
        with pytest.raises(UserError, match=f"has schema {SCHEMA_VERSION + 1}, this emlib .* update emlib"):
            call()
    assert path.read_bytes() == before


def test_a_locked_log_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "LOCK_WAIT_S", 0.05)
    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.05)
    log = logged(tmp_path / "runs", {}, "x")
    with closing(sqlite3.connect(log.folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for call in (lambda: log.update(status="done"), lambda: read_runs(tmp_path)):
            with pytest.raises(UserError, match=r"pipeline_runs.sqlite: database is locked; another program holds it"):
                call()
    log.update(status="done")
    assert read_runs(tmp_path)[0]["status"] == "done"


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_a_damaged_log_is_one_line_that_names_the_file(tmp_path, damage):
    path = tmp_path / "runs" / FILE
    if damage == "text":
        path.parent.mkdir()
        path.write_text("this is not a database, it is a text of some length\n" * 20)
    else:
        for _ in range(30):
            logged(tmp_path / "runs", USUAL, "x" * 400)
        path.write_bytes(path.read_bytes()[:6000])
    for call, verb in ((lambda: logged(tmp_path / "runs", {}, "x"), "write"), (lambda: read_runs(tmp_path), "read")):
        with pytest.raises(UserError, match=f"cannot {verb} the run log {re.escape(str(path))}: .*; move it away"):
            call()


def test_a_table_of_something_else_is_no_run_log(tmp_path):
    (tmp_path / "runs").mkdir()
    with closing(sqlite3.connect(tmp_path / "runs" / FILE)) as db, db:
        db.execute("CREATE TABLE runs (winner TEXT)")
        db.execute("INSERT INTO runs VALUES ('Zatopek')")
    with pytest.raises(UserError, match="no run log"):
        logged(tmp_path / "runs", {}, "x")
    with pytest.raises(UserError, match="no run log"):
        read_runs(tmp_path)


def test_a_process_that_died_while_it_wrote_costs_nothing(tmp_path):
    """What SQLite wrote and did not commit is rolled back when the log is next opened, also for reading."""
    log = logged(tmp_path / "runs", {}, "x")
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE')\n"
        "for n in range(500): db.execute('INSERT INTO runs (run_id, status) VALUES (?, ?)', (n, 'x' * 2000))\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, log.folder / FILE]).returncode == 9
    assert (log.folder / f"{FILE}-journal").is_file(), "nothing was left half written"
    assert [run["run_id"] for run in read_runs(tmp_path)] == [log.run_id]


def test_the_list_shows_what_matters_newest_first(outdir):
    runs = read_runs(outdir)
    assert [run["status"] for run in sorted(runs, key=lambda run: run["status"])] == ["done", "failed", "killed"]
    assert runs == sorted(runs, key=lambda run: run["started"], reverse=True)
    head, *lines = answer(outdir, defaults())
    assert head.split()[:4] == ["run", "status", "seconds", "peak"] and len(lines) == 3
    line = next(line for line in lines if " done " in line)
    assert re.search(r"300 +12 +4 +1\.25 +0\.20 +– +– +a\.tif +seed=3$", line), line
    assert next(line for line in lines if " failed " in line).endswith("absent.tif")


def test_a_run_that_still_runs_is_running(tmp_path):
    logged(tmp_path / "runs", USUAL, "x")
    assert read_runs(tmp_path)[0]["status"] == "running"
    edit(tmp_path, "UPDATE runs SET environment = json_set(environment, '$.host', 'elsewhere', '$.pid', 0)")
    assert read_runs(tmp_path)[0]["status"] == "running", "nothing is known of another machine"
    edit(tmp_path, "UPDATE runs SET environment = '{half'")
    assert read_runs(tmp_path)[0]["environment"] is None


def test_show_tells_everything(outdir):
    text = "\n".join(
        answer(outdir, defaults(), show=next(r["run_id"] for r in read_runs(outdir) if r["status"] == "done"))
    )
    for expected in (
        *("python run_pipeline.py --seed 3", "seed *", "segment.multicut.bias ", "scores.segmentation.voi "),
        *("0.50 s", "threads", "cpu", np.__version__, str(outdir), "a.tif"),
    ):
        assert expected in text, expected


def test_export_is_a_table_of_all_runs(outdir):
    rows = list(csv.DictReader(io.StringIO("\n".join(answer(outdir, defaults(), export="csv")))))
    done = next(row for row in rows if row["status"] == "done")
    assert len(rows) == 3 and (done["voi"], done["neurites"], done["edge_f1"]) == ("1.25", "12", "")
    assert json.loads(done["settings_changed"]) == {"seed": 3}
    assert next(row for row in rows if row["status"] == "failed")["error"] == "UserError: no such file"


def test_runs_are_found_by_the_beginning_of_their_id():
    runs = [{"run_id": name} for name in ("20260203T1-b", "20260102T1-a", "20260102T1-ab")]
    assert find_run(runs, "last") is runs[0] and find_run(runs, "202602") is runs[0]
    assert find_run(runs, "20260102T1-a") is runs[1], "a whole id wins over longer ones"
    with pytest.raises(UserError, match="2 runs begin with 202601: 20260102T1-a, 20260102T1-ab; give more"):
        find_run(runs, "202601")
    with pytest.raises(UserError, match="no run '20260203T1-x'; the nearest is 20260203T1-b"):
        find_run(runs, "20260203T1-x")
    with pytest.raises(UserError, match="no run ''"):
        find_run(runs, "")


def test_only_what_differs_is_changed():
    assert changed(USUAL, defaults()) == {} and headline(None) == {}
    assert changed({**USUAL, "cutout_xyz": [8, 8, 4], "new": 1}, defaults()) == {"cutout_xyz": [8, 8, 4], "new": 1}


def test_settings_come_back_from_their_record():
    settings = PipelineSettings(dataset="a", cutout_xyz=(9, 8, 7), offset_xyz=(1, 2, 3), voxel_size_nm=(4.0, 5.0, 6.0))
    record = json.loads(json.dumps(plain(settings)))
    assert settings_of_record(record) == settings
    del record["aligned_dtype"], record["stages"]["graph"]
    assert settings_of_record(record) == settings, "what an older record lacks has its default"
    with pytest.raises(UserError, match=r"setting stages.graph.colour and this emlib has none"):
        settings_of_record({"stages": {"graph": {"colour": 1}}})
    with pytest.raises(UserError, match="the record is damaged: stages should hold settings, not 3"):
        settings_of_record({"stages": 3})


def test_bad_questions_are_one_line(command, outdir, tmp_path):
    runs = len(read_runs(outdir))
    for argv, expected in (
        (["--runs", "--outdir", tmp_path / "new"], "no runs yet in"),
        (["--show", "last", "--outdir", tmp_path / "new"], "no runs yet in"),
        (["--rerun", "last", "--outdir", tmp_path / "new"], "no runs yet in"),
        (["--show", "1999", "--outdir", outdir], "no run '1999'; the nearest is 2"),
        (["--show", "20", "--outdir", outdir], "3 runs begin with 20"),
        (["--rerun", "last", "--seed", 5, "--outdir", outdir], "leave out what sets seed"),
        (["--runs", "--show", "last"], "argument --show: not allowed with argument --runs"),
        (["--cutouts", 2, "--rerun", "last"], "not allowed with argument --cutouts"),
        (["--export", "xml"], "invalid choice: 'xml'"),
    ):
        code, out, err = command(*argv)
        assert (code, out) == (2, "") and err.count("\n") == 1 and expected in err, (argv, err)
    assert not (tmp_path / "new").exists() and len(read_runs(outdir)) == runs


def test_a_record_without_settings_cannot_be_repeated(outdir):
    edit(outdir, "UPDATE runs SET settings = NULL")
    with pytest.raises(UserError, match="are not on record; it cannot be repeated"):
        recall(next(run["run_id"] for run in read_runs(outdir) if run["status"] == "done"), outdir)


def test_a_run_is_repeated_from_its_record(command, tmp_path, capsys):
    """The same bytes in data/ and tables/, and a word on whatever is not as it was."""
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    np.save(tmp_path / "em.npy", make_phantom(PhantomSettings(shape=(8, 96, 96), seed=2)).em)
    out = tmp_path / "out"
    flags = ["--voxel_size", 40, 8, 8, "--cutout", 64, 64, 6, "--seed", 4, "--set", "graph.min_score=0.05"]
    assert command("--dataset", tmp_path / "em.npy", *flags, "--outdir", out)[0] == 0
    shutil.copytree(out, tmp_path / "kept")
    before, run = checksums(out), read_runs(out)[0]
    assert {"data/neurite_labels_i32_zyx.npy", "tables/graph_edges.csv"} <= set(before)

    code, text, err = command("--rerun", run["run_id"][:-2], "--outdir", out)
    assert code == 0 and err == "" and checksums(out) == before
    assert f"repeated {run['run_id']}: the same bytes in all {len(before)} files" in text
    assert [r["settings"] for r in read_runs(out)] == [run["settings"]] * 2
    again = recall("last", out)
    (out / "data/neurite_labels_i32_zyx.npy").write_bytes(b"lost")
    assert again.verdict().endswith(f": 1 of {len(before)} files differ: data/neurite_labels_i32_zyx.npy")
    (out / "data/neurite_labels_i32_zyx.npy").write_bytes(
        (tmp_path / "kept/data/neurite_labels_i32_zyx.npy").read_bytes()
    )
    assert again.warning() is None

    statement = "UPDATE runs SET versions = json_set(versions, '$.numpy', '1.0'), git_commit = 'beef'"
    edit(tmp_path / "kept", statement + ", environment = json_set(environment, '$.cpu', 'Z80')")
    again = recall("last", tmp_path / "kept")
    assert f"numpy 1.0, now {np.__version__}" in again.warning() and "CPU Z80, now " in again.warning()
    announce(again.settings, again, quiet=True)
    assert capsys.readouterr() == ("", f"warning: {again.warning()}\n")
    for folder in ("data", "tables"):
        for path in (tmp_path / "kept" / folder).iterdir():
            assert path.read_bytes() == (out / folder / path.name).read_bytes()


def test_the_files_of_another_run_are_not_compared(outdir):
    done = next(run["run_id"] for run in read_runs(outdir) if run["status"] == "done")
    edit(outdir, "UPDATE runs SET started = '2020-01-01T00:00:00+00:00' WHERE status = 'done'")
    again = recall(done, outdir)
    assert again.checksums is None and "nothing to compare with" in again.verdict()
