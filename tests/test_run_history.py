"""The run log read back: list, show, export, run again; and logs that are old, new, locked or damaged."""

import csv
import io
import json
import os
import platform
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
from emlib.pipeline import STAGES, PipelineSettings, announce, defaults, run_pipeline
from emlib.pipeline.rerun import checksums, recall
from emlib.pipeline.settings import UNTIL, settings_of_record
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
    (text,) = answer(outdir, defaults(), export="csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    done = next(row for row in rows if row["status"] == "done")
    assert len(rows) == 3 and (done["voi"], done["neurites"], done["edge_f1"]) == ("1.25", "12", "")
    assert json.loads(done["settings_changed"]) == {"seed": 3}
    assert next(row for row in rows if row["status"] == "failed")["error"] == "UserError: no such file"


@pytest.mark.parametrize("odd", ["a\x85b", "a\x0cb", "a\u2028b", "a\r\nb", "a\nb", "a\rb", 'a,"b"', "a\x1cb"])
def test_whatever_a_value_holds_the_export_reads_back(odd, tmp_path, pipeline):
    (tmp_path / "runs").mkdir()
    log = RunLog(tmp_path / "runs", defaults(), command=odd)
    log.update(status="failed", error=odd)
    _, out, _ = pipeline("--export", "csv", "--outdir", tmp_path)
    (row,) = csv.DictReader(io.StringIO(out, newline=""))
    assert (row["command"], row["error"], row["status"]) == (odd, odd, "failed")


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
    del record["refresh"], record["stages"]["graph"]["min_score"]
    assert settings_of_record(record) == settings, "what an older record lacks has its default"
    assert UNTIL == STAGES and settings_of_record(USUAL) == PipelineSettings()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("stages.graph.colour", 1, "setting stages.graph.colour and this emlib has none"),
        ("stages", 3, "the record is damaged: stages should hold settings, not 3"),
        ("cutout_xyz", "x", "the record is damaged: cutout_xyz is 'x', which it cannot be"),
        ("cutout_xyz", None, "cutout_xyz is 'None'"),
        ("cutout_xyz", ["a", 2, 3], "cutout_xyz is"),
        ("cutout_xyz", [8, 8], "cutout_xyz is"),
        ("cutout_xyz", [8, 8, 0], "cutout_xyz has a value that no run can have"),
        ("voxel_size_nm", [8, 8, -1], "voxel_size_nm has a value that no run can have"),
        ("voxel_size_nm", [8, 8, float("nan")], "voxel_size_nm is"),
        ("seed", "x", "seed is 'x'"),
        ("seed", True, "seed is 'True'"),
        ("seed", 2**63, "seed is"),
        ("seed", -1, "seed has a value"),
        ("network_timeout_s", 0, "network_timeout_s has a value"),
        ("dataset", 5, "dataset is '5'"),
        ("until", "lunch", "until has a value"),
        ("aligned_dtype", "int8", "aligned_dtype has a value"),
        ("stages.segment.segmenter", "zz", "stages.segment.segmenter has a value"),
        ("stages.segment.multicut.bias", "zz", "stages.segment.multicut.bias is 'zz'"),
        ("stages.synapses.grain_nm", [1], "stages.synapses.grain_nm is"),
    ],
)
def test_a_damaged_record_is_one_line_and_runs_nothing(path, value, says):
    record = json.loads(json.dumps(USUAL))
    *above, name = path.split(".")
    place = record
    for part in above:
        place = place[part]
    place[name] = value
    with pytest.raises(UserError, match=re.escape(says)):
        settings_of_record(record)


@pytest.mark.parametrize("lost", ["dataset", "seed", "cutout_xyz", "stages", "stages.graph"])
def test_a_record_that_is_not_whole_is_not_filled_up_with_defaults(lost, outdir, command):
    with pytest.raises(UserError, match="the record is damaged: it lacks"):
        settings_of_record({})
    statement = f"UPDATE runs SET settings = json_remove(settings, '$.{lost}') WHERE status = 'done'"
    edit(outdir, statement)
    done = next(run["run_id"] for run in read_runs(outdir) if run["status"] == "done")
    code, _, err = command("--rerun", done, "--outdir", outdir)
    assert code == 2 and err == f"error: the record is damaged: it lacks {lost}; it cannot be repeated\n"


ODD = (
    *("[1]", '{"a":"x","b":2}', '"x"', "5", "null", "{", '{"a":{}}', '{"a":NaN}', '{"a":Infinity}', '{"a":[[{}]]}'),
    *(
        '{"pid":99999999999999999999}',
        '{"host":5,"pid":-1}',
        '{"dataset":[5]}',
        '{"a":"\\udc80"}',
        "[" * 900 + "]" * 900,
    ),
    *('{"a":' * 900 + "1" + "}" * 900, '{"scores":{"segmentation":[1]}}', b"\xff\x00", "", 5, -1.5, 2**62, None),
)


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "run_id"])
def test_one_odd_cell_does_not_hide_the_other_runs(column, outdir, tmp_path):
    """Whatever SQLite can hold, in any column of a run that is done and of one on record as running."""
    host = json.dumps(platform.node())
    ids = [run["run_id"] for run in read_runs(outdir)]
    for odd in ODD:
        value = odd.replace('{"pid"', f'{{"host":{host},"pid"') if isinstance(odd, str) else odd
        if value is None and column == "status":
            continue  # which the schema refuses
        with closing(sqlite3.connect(outdir / "runs" / FILE, isolation_level=None)) as db:
            kept = db.execute(f"SELECT run_id, {column} FROM runs").fetchall()
            db.execute(f"UPDATE runs SET {column} = ?", (value,))
            assert sorted(run["run_id"] for run in read_runs(outdir)) == sorted(ids), odd
            for question in ({}, {"export": "csv"}, *({"show": run_id} for run_id in ids)):
                "\n".join(answer(outdir, defaults(), **question)).encode("utf-8")
            db.executemany(f"UPDATE runs SET {column} = ? WHERE run_id = ?", [(old, name) for name, old in kept])


def test_a_log_of_0_bytes_is_told(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs" / FILE
    path.touch()
    with pytest.raises(UserError, match="no runs yet"):
        read_runs(tmp_path)
    warning = (
        f"warning: the run log {path} has 0 bytes; what it may have held is lost, and the next run begins it anew\n"
    )
    assert capsys.readouterr().err == warning
    logged(tmp_path / "runs", USUAL, "x")
    assert capsys.readouterr().err == warning
    assert len(read_runs(tmp_path)) == 1 and capsys.readouterr().err == ""


def finished_run(outdir, **told):
    """Files of the run that is done in ``outdir``, with the record that a run leaves of them."""
    run = next(run for run in read_runs(outdir) if run["status"] == "done")
    (outdir / "tables").mkdir()
    (outdir / "tables/graph_edges.csv").write_text("source,target\n")
    record = {"run_id": run["run_id"], "basis": {}, "files": checksums(outdir), **told}
    (outdir / "runs/finished.json").write_text(json.dumps(record))
    return run


def after(outdir, settings, status="failed"):
    """A later run in the same folder that did not end well."""
    log = logged(outdir / "runs", settings, "x")
    log.update(status=status)
    edit(outdir, "UPDATE runs SET started = '2999-01-01T00:00:00+00:00' WHERE run_id = ?", (log.run_id,))
    return log.run_id


@pytest.mark.parametrize("status", ["failed", "interrupted", "killed"])
def test_a_repeat_that_failed_does_not_cost_the_comparison(outdir, status):
    run = finished_run(outdir)
    failed = after(outdir, run["settings"], status)
    for name in ("last", failed, run["run_id"]):
        again = recall(name, outdir)
        assert (again.run_id, again.checksums) == (run["run_id"], checksums(outdir)), name
    assert again.verdict() == f"repeated {run['run_id']}: the same bytes in all 1 files of data/ and tables/"
    (outdir / "tables/graph_edges.csv").write_text("half of it")
    again = recall("last", outdir)
    assert (again.run_id, again.checksums) == (failed, None), "the run that failed had written"


def test_a_failed_run_of_other_settings_is_not_compared_with_what_lies_there(outdir):
    finished_run(outdir)
    failed = after(outdir, {**USUAL, "seed": 99})
    again = recall("last", outdir)
    assert (again.run_id, again.settings.seed, again.checksums) == (failed, 99, None)


def test_a_repeat_from_another_folder_finds_the_files(outdir, tmp_path, monkeypatch):
    """Relative paths begin in the folder that the run was started in, and so do those of its repeat."""
    place, here = tmp_path / "there", tmp_path / "here"
    for folder in (place, here):
        folder.mkdir()
    edit(outdir, "UPDATE runs SET environment = json_set(environment, '$.folder', ?)", (str(place),))
    edit(outdir, "UPDATE runs SET settings = json_set(settings, '$.dataset', 'em.npy') WHERE status = 'done'")
    done = next(run["run_id"] for run in read_runs(outdir) if run["status"] == "done")
    monkeypatch.chdir(here)
    again = recall(done, Path(os.path.relpath(outdir)))
    assert again.settings.dataset == "em.npy" and again.folder == outdir.resolve() and again.warning() is None
    with again.place():
        assert Path.cwd() == place.resolve()
    assert Path.cwd() == here.resolve()
    monkeypatch.chdir(place)
    assert recall(done, outdir).started_in is None
    monkeypatch.chdir(here)
    place.rmdir()
    again = recall(done, outdir)
    assert again.started_in is None and f"folder it is started in {place}, now {here}" in again.warning()
    edit(outdir, "UPDATE runs SET settings = json_set(settings, '$.dataset', 'sample://phantom')")
    assert recall(done, outdir).warning() is None


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


def test_a_file_where_the_record_of_stages_goes_is_one_line(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/resume").write_text("mine")
    with pytest.raises(UserError, match=r"runs/resume is no folder, .*; move it away"):
        run_pipeline(PipelineSettings(dataset="sample://phantom", cutout_xyz=(32, 32, 4)), tmp_path, quiet=True)
    assert (tmp_path / "runs/resume").read_text() == "mine"


def test_the_seeds_of_cutouts_end_where_seeds_end(command, tmp_path):
    flags = ("--dataset", "sample://phantom", "--outdir", tmp_path / "out", "--seed", 2**63 - 2, "--cutouts", 3)
    code, _, err = command(*flags)
    assert code == 2 and err.endswith(
        f"--cutouts 3 from --seed {2**63 - 2} passes the last seed, {2**63 - 1}; lower --seed\n"
    )
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_locked_log_is_not_waited_for_longer_than_a_person_waits():
    assert history.LOCK_WAIT_S == runlog.LOCK_WAIT_S <= 10
