"""Runs that survive: killed, interrupted, out of space, damaged; what is resumed equals what was never disturbed.

Runs happen in processes forked from a server that has everything imported, so that each costs about a second. Figures
only read what a run has made; they are drawn where a test is about them.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.pipeline import STAGES, PipelineSettings, StageSettings
from emlib.pipeline.dependence import FREE, code_fingerprint, dependence
from emlib.pipeline.packing import pack, unpack
from emlib.pipeline.run import terminable
from emlib.pipeline.state import Run
from emlib.runs import cli
from emlib.runs.lock import run_lock
from emlib.runs.settings import override
from emlib.stages.fragment_planes import FragmentPlanes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills and forks as POSIX knows them")
ROOT = Path(__file__).resolve().parent.parent
CUTOUT = (96, 96, 16)


def settings(*assignments, **more):
    """A small phantom as a run's settings; assignments are those of --set."""
    chosen = {"dataset": "sample://phantom", "cutout_xyz": CUTOUT, **more}
    return PipelineSettings(**chosen, stages=override(StageSettings(), list(assignments)))


# ---- what happens in the forked process


def _work(chosen, outdir, resume, mishap, figures, stderr):
    """Run the pipeline as the script does, with something that goes wrong on the way."""
    file = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 2)
    from emlib import pipeline
    from emlib.publish import run_report

    if not figures:
        run_report._figures = lambda run: ()
    if mishap:
        globals()[mishap[0]](*mishap[1:])
    code = cli.run(lambda: pipeline.run_pipeline(chosen, outdir, command="test", resume=resume) and None)
    sys.stderr.flush()
    os._exit(code)


def _die_after(stage):
    """The process is killed when a stage is done but not yet on record."""
    _after(stage, lambda: os.kill(os.getpid(), signal.SIGKILL))


def _wait_after(stage):
    """The process waits for its end when a stage is done."""
    _after(stage, lambda: time.sleep(600))


def _after(stage, action):
    from emlib.pipeline import run

    step = run.STEPS[stage]

    def stepping(state):
        step(state)
        action()

    run.STEPS[stage] = stepping


def _die_at_write(number, before):
    """The process is killed just before or just after it puts its n-th file in place."""
    _at_write(number, lambda: os.kill(os.getpid(), signal.SIGKILL), before)


def _full_at_write(number):
    """The disk is full when the n-th file is written."""

    def fail():
        raise OSError(28, "No space left on device")

    _at_write(number, fail, True)


def _at_write(number, action, before):
    from emlib.volumes import atomic

    count, replacing = [0], atomic._replace

    def counting(temporary, path):
        count[0] += 1
        if count[0] == number and before:
            action()
        replacing(temporary, path)
        if count[0] == number and not before:
            action()

    atomic._replace = counting


def _other_code():
    from emlib.pipeline import resume

    resume.code_fingerprint = lambda versions: "another"


# ---- how the tests start it


class Runs:
    """Starts runs and compares what they leave."""

    def __init__(self, folder):
        self.folder = folder
        self.known = {}
        self.context = multiprocessing.get_context("forkserver")
        modules = ["pytest", "emlib.pipeline", "emlib.publish.report", "matplotlib.backends.backend_pdf", "jinja2"]
        self.context.set_forkserver_preload(modules)

    def start(self, chosen, outdir, *, resume=False, mishap=None, figures=False):
        work = (chosen, outdir, resume, mishap, figures, f"{outdir}.stderr")
        Path(f"{outdir}.stderr").unlink(missing_ok=True)
        process = self.context.Process(target=_work, args=work)
        process.start()
        return process

    def __call__(self, chosen, outdir, **more):
        """Return exit code (negative: the signal) and what was said."""
        process = self.start(chosen, outdir, **more)
        process.join(120)
        assert process.exitcode is not None
        return process.exitcode, Path(f"{outdir}.stderr").read_text()

    def undisturbed(self, chosen, figures=False):
        """What a run leaves that nothing disturbs; made once for all tests."""
        if (chosen, figures) not in self.known:
            outdir = self.folder / f"undisturbed{len(self.known)}"
            assert self(chosen, outdir, figures=figures)[0] == 0
            self.known[chosen, figures] = contents(outdir)
        return self.known[chosen, figures]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def tissue(tmp_path_factory):
    """Settings of a run on files, whose first stage takes no time: EM, true labels, true synapses."""
    from emlib.volumes.phantom import PhantomSettings
    from emlib.volumes.phantom_files import write_phantom

    folder = tmp_path_factory.mktemp("tissue")
    write_phantom(PhantomSettings(shape=CUTOUT[::-1], seed=3, synapses_per_um3=8), folder)
    truth = {"truth": str(folder / "neurites_i32_zyx.tif"), "truth_synapses": str(folder / "synapses.csv")}
    return settings(dataset=str(folder / "em_u8_zyx.tif"), **truth)


def contents(outdir):
    """Every file of data/, tables/ and figures/ with its bytes."""
    return {
        path.relative_to(outdir).as_posix(): path.read_bytes()
        for folder in ("data", "tables", "figures")
        for path in sorted((outdir / folder).iterdir())
    }


def assert_same(outdir, expected):
    found = contents(outdir)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    assert not (outdir / "runs" / "resume").exists(), "the scratch folder is left"


def rows(outdir):
    with sqlite3.connect(outdir / "runs" / "pipeline_runs.sqlite") as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM runs ORDER BY rowid")]


# ---- kill -9


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(runs, tissue, tmp_path):
    """32 kills spread over the length of a run; most runs that resume are killed too."""
    rng = np.random.default_rng(4)
    expected, lengths = runs.undisturbed(tissue), []
    for attempt in range(2):
        started = time.monotonic()
        assert runs(tissue, tmp_path / f"whole{attempt}")[0] == 0
        lengths.append(time.monotonic() - started)
        assert_same(tmp_path / f"whole{attempt}", expected)
    length = min(lengths)
    killed, went_on = 0, set()
    for trial in range(60):
        outdir = tmp_path / f"run{trial}"
        moments = [(trial * 7 % 18 + rng.random()) / 18, *rng.uniform(0, 0.6, trial % 3)]  # shares of a run's length
        for attempt, moment in enumerate(moments):
            process = runs.start(tissue, outdir, resume=attempt > 0)
            time.sleep(moment * length)
            process.kill()
            process.join(30)
            killed += process.exitcode == -signal.SIGKILL
        code, said = runs(tissue, outdir, resume=True)
        assert code == 0, said
        went_on.add(said.splitlines()[0].removeprefix("--resume: "))
        assert_same(outdir, expected)
        assert not [path for path in outdir.rglob(".*") if path.is_file()], "temporary files are left"
        shutil.rmtree(outdir)
        if killed >= 32:
            break
    assert killed >= 30
    assert any(line.startswith("going on after") for line in went_on), went_on


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_beside_a_write_ends_as_if_undisturbed(before, runs, tissue, tmp_path):
    """The moments at which a record and its files can disagree."""
    expected = runs.undisturbed(tissue)
    for number in np.random.default_rng(before).choice(np.arange(2, 28), 8, replace=False):
        outdir = tmp_path / f"run{number}"
        code, said = runs(tissue, outdir, mishap=("_die_at_write", int(number), before))
        assert code == -signal.SIGKILL, (number, said)
        code, said = runs(tissue, outdir, resume=True)
        assert code == 0, said
        assert_same(outdir, expected)
        assert not [path for path in outdir.rglob(".*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="all", marks=pytest.mark.slow),
        pytest.param({"save_minimal": True, "aligned_dtype": "float16"}, id="minimal"),
        pytest.param({"simulate_misalignment_px": 1.5, "until": "synapses"}, id="moved", marks=pytest.mark.slow),
    ],
)
def test_a_phantom_goes_on_with_its_truth_and_its_figures(more, runs, tmp_path):
    expected = runs.undisturbed(settings(**more), figures=True)
    outdir = tmp_path / "run"
    for stage, resume in (("align", False), ("synapses", True)):
        assert runs(settings(**more), outdir, mishap=("_die_after", stage), resume=resume)[0] == -signal.SIGKILL
    code, said = runs(settings(**more), outdir, resume=True, figures=True)
    assert code == 0 and "--resume: going on after segment\n" in said
    assert_same(outdir, expected)
    assert json.loads(rows(outdir)[-1]["summary"])["resumed_after"] == "segment"
    assert [row["status"] for row in rows(outdir)][-1] == "done"
    report = (outdir / "report.html").read_text()
    assert "data/em_aligned" in report and "left from an earlier run" not in report


def test_without_resume_a_run_starts_afresh(runs, tissue, tmp_path):
    expected = runs.undisturbed(tissue)
    runs(tissue, tmp_path / "run", mishap=("_die_after", "graph"))
    made = (tmp_path / "run/data/em_cutout_u8_zyx.npy").stat().st_mtime_ns
    code, said = runs(tissue, tmp_path / "run")
    assert code == 0 and "resume" not in said
    assert made < (tmp_path / "run/data/em_cutout_u8_zyx.npy").stat().st_mtime_ns
    assert_same(tmp_path / "run", expected)


def test_with_nothing_to_resume_a_run_starts_afresh_and_says_so(runs, tissue, tmp_path):
    for _ in range(2):  # in an empty folder, and after a run that ended well
        code, said = runs(tissue, tmp_path / "run", resume=True)
        assert code == 0 and said == f"--resume: no interrupted run in {tmp_path / 'run'}, starting afresh\n"


# ---- what has changed


def _resumed_equals_fresh(runs, old, new, outdir, said_of, *, stage="graph", **more):
    """Break off a run of old settings, resume it with new ones, compare with an undisturbed run of those."""
    assert runs(old, outdir, mishap=("_die_after", stage))[0] == -signal.SIGKILL
    code, said = runs(new, outdir, resume=True, **more)
    assert code == 0 and said.count("\n") == ("has changed" in said) + ("going on after" in said) and said_of in said, (
        said
    )
    assert_same(outdir, runs.undisturbed(new))
    return said


def test_a_changed_setting_redoes_its_stage_and_what_follows(runs, tissue, tmp_path):
    new = replace(tissue, stages=override(tissue.stages, ["segment.multicut.bias=0.8"]))
    what = "--resume: segment.multicut.bias has changed (0.25 -> 0.8), segment and what follows is done again\n"
    said = _resumed_equals_fresh(runs, tissue, new, tmp_path / "run", what)
    assert "--resume: going on after boundaries\n" in said


def test_a_truth_that_is_given_later_costs_no_stage(runs, tissue, tmp_path):
    blind = replace(tissue, truth=None, truth_synapses=None)
    said = _resumed_equals_fresh(runs, blind, tissue, tmp_path / "run", "--resume: going on after synapses\n")
    assert "done again" not in said


def test_a_changed_input_file_redoes_what_came_from_it(runs, tissue, tmp_path):
    em = tmp_path / "em.npy"
    np.save(em, np.random.default_rng(0).integers(0, 255, (8, 64, 64), np.uint8))
    chosen = settings(dataset=str(em), voxel_size_nm=(40.0, 8.0, 8.0), cutout_xyz=(64, 64, 8))
    runs(chosen, tmp_path / "run", mishap=("_die_after", "segment"))
    np.save(em, np.random.default_rng(1).integers(0, 255, (8, 64, 64), np.uint8))
    code, said = runs(chosen, tmp_path / "run", resume=True)
    assert code == 0
    assert said == f"--resume: the content of {em} has changed, starting afresh\n"
    assert_same(tmp_path / "run", runs.undisturbed(chosen))


def test_folders_are_inputs_too(tmp_path):
    stack = tmp_path / "stack"
    (stack / "deep").mkdir(parents=True)
    (stack / "deep" / "z0.png").write_bytes(b"12")
    chosen = settings(dataset=str(stack))
    first = dependence(chosen, "cutout")
    assert f"the content of {stack}" in first and dependence(chosen, "cutout") == first
    (stack / "deep" / "z0.png").write_bytes(b"123")
    second = dependence(chosen, "cutout")
    (stack / "z1.png").touch()
    assert first != second != dependence(chosen, "cutout")


@pytest.mark.parametrize("folder", [False, True])
def test_an_input_that_changes_in_its_content_alone_has_changed(folder, tmp_path):
    """Of the same size and the same time; and one that is only touched has not."""
    file = tmp_path / ("stack/z0.png" if folder else "em.npy")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"12")
    chosen = settings(dataset=str(file.parent if folder else file))
    first, times = dependence(chosen, "cutout"), (0, file.stat().st_mtime_ns)
    file.write_bytes(b"21")
    os.utime(file, ns=times)
    assert dependence(chosen, "cutout") != first
    file.write_bytes(b"12")
    os.utime(file, ns=(0, 0))
    assert dependence(chosen, "cutout") == first


def test_sections_that_change_their_folders_have_changed(tmp_path):
    for name, content in (("a/z0.png", b"1"), ("b/z0.png", b"2")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    chosen = settings(dataset=str(tmp_path))
    first = dependence(chosen, "cutout")
    (tmp_path / "a").rename(tmp_path / "c")
    assert dependence(chosen, "cutout") != first


def test_of_what_is_large_size_and_time_count(tmp_path, monkeypatch):
    monkeypatch.setattr("emlib.pipeline.dependence.MOST_BYTES", 3)
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"34")  # does not fit any more
    chosen, times = settings(dataset=str(tmp_path)), (0, (tmp_path / "b").stat().st_mtime_ns)
    first = dependence(chosen, "cutout")
    (tmp_path / "b").write_bytes(b"43")
    os.utime(tmp_path / "b", ns=times)
    assert dependence(chosen, "cutout") == first
    os.utime(tmp_path / "b", ns=(0, 0))
    assert dependence(chosen, "cutout") != first


def test_another_version_of_the_code_starts_afresh(runs, tissue, tmp_path):
    what = "made by another version of emlib or its libraries"
    assert runs(tissue, tmp_path / "run", mishap=("_die_after", "graph"))[0] == -signal.SIGKILL
    code, said = runs(tissue, tmp_path / "run", resume=True, mishap=("_other_code",))
    assert code == 0 and what in said and "starting afresh" in said and said.count("\n") == 1
    assert len(code_fingerprint({})) == 64 and code_fingerprint({}) != code_fingerprint({"numpy": "1"})


def test_records_of_other_settings_are_never_mixed(runs, tissue, tmp_path):
    """A to the end, B to the segmentation, back to A: what A made of its own labels must not meet those of B."""
    new = replace(tissue, stages=override(tissue.stages, ["segment.multicut.bias=0.8"]))
    outdir = tmp_path / "run"
    runs(tissue, outdir, mishap=("_die_after", "graph"))
    assert runs(new, outdir, resume=True, mishap=("_die_after", "synapses"))[0] == -signal.SIGKILL
    code, said = runs(tissue, outdir, resume=True)
    assert code == 0 and "has changed (0.8 -> 0.25)" in said
    assert_same(outdir, runs.undisturbed(tissue))


def test_every_setting_matters_to_a_stage_or_is_known_not_to():
    def names(chosen):
        return {name for stage in STAGES for name in dependence(chosen, stage)}

    assert {f.name for f in fields(PipelineSettings)} <= {*names(PipelineSettings()), *FREE, "stages"}
    from emlib.runs.settings import listing

    learned = PipelineSettings(boundaries_from="experts", model_path="drosophila-vnc-experts")
    assert {line.split("=")[0] for line in listing(StageSettings())} <= names(PipelineSettings()) | names(learned)


def test_boundaries_depend_on_what_makes_them_not_on_who_uses_them():
    def boundaries(*assignments, **more):
        return dependence(settings(*assignments, **more), "boundaries")

    usual = boundaries()
    assert usual == boundaries("segment.segmenter=gasp") == boundaries("segment.bias=1", "experts.axes=1")
    assert usual != boundaries("segment.segmenter=watershed") and usual != boundaries(labels_from="labels.tif")
    assert boundaries(labels_from="a.tif") == boundaries("segment.boundaries.threshold=1", labels_from="b.tif")
    assert usual != boundaries("segment.boundaries.threshold=1")
    learned = {"boundaries_from": "experts", "model_path": "drosophila-vnc-experts"}
    assert boundaries(**learned) == boundaries("segment.boundaries.threshold=1", "segment.segmenter=gasp", **learned)
    assert boundaries(**learned) != boundaries("experts.axes=1", **learned)


def test_another_segmenter_takes_the_boundaries_that_are_there(runs, tissue, tmp_path):
    new = replace(tissue, stages=override(tissue.stages, ["segment.segmenter=gasp"]))
    what = "--resume: segment.segmenter has changed (multicut -> gasp), segment and what follows is done again\n"
    said = _resumed_equals_fresh(runs, tissue, new, tmp_path / "run", what)
    assert "--resume: going on after boundaries\n" in said


# ---- damage


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "said_of"),
    [
        ("data/neurite_labels_i32_zyx.npy", _flip, "is damaged, segment and what follows"),
        ("data/em_aligned_float32_zyx.json", _flip, "is damaged, align and what follows"),
        ("tables/synapse_candidates.csv", Path.unlink, "is missing, synapses and what follows"),
        ("runs/resume/boundaries.npz", lambda path: path.write_bytes(b""), "is damaged, boundaries and what follows"),
        ("data/em_cutout_u8_zyx.npy", _flip, "is damaged, starting afresh"),
        ("runs/resume/stages.json", _flip, "record of the interrupted run is damaged"),
        ("runs/resume/stages.json", lambda path: path.write_text("[]\n{}\n"), "interrupted run is damaged"),
        ("runs/resume/stages.json", lambda path: path.write_bytes(b"\xff\x00"), "interrupted run is damaged"),
    ],
)
def test_a_damaged_file_is_made_again(name, damage, said_of, runs, tissue, tmp_path):
    outdir = tmp_path / "run"
    runs(tissue, outdir, mishap=("_die_after", "graph"))
    damage(outdir / name)
    code, said = runs(tissue, outdir, resume=True)
    assert code == 0 and said_of in said, said
    assert_same(outdir, runs.undisturbed(tissue))


def test_state_comes_back_as_it_was():
    table = pd.DataFrame({"z": [0, 1], "dy": [np.nan, 0.1], "used": [True, False], "partners": ["1;2", ""]})
    empty = table.iloc[:0].reset_index(drop=True)
    run = Run(PipelineSettings(), None, None, candidates=table, shifts=empty, synthetic="x", scores={"a": float("nan")})
    run.fragments = FragmentPlanes(np.eye(2, dtype=np.int32), np.ones((3, 2), np.int32), np.zeros((3, 2), np.int32), 7)
    names = ("candidates", "shifts", "synthetic", "scores", "added", "fragments")
    arrays, values = pack(run, names)
    again = Run(PipelineSettings(), None, None)
    unpack(again, arrays, json.loads(json.dumps(values)))
    pd.testing.assert_frame_equal(again.candidates, table)
    pd.testing.assert_frame_equal(again.shifts, empty)
    assert (
        again.fragments.count == 7
        and (again.fragments.xz == 1).all()
        and again.fragments.xy.tolist() == [[1, 0], [0, 1]]
    )
    assert again.synthetic == "x" and np.isnan(again.scores["a"]) and again.added is None


# ---- signals, the lock, a full disk, a folder that cannot be written


def _wait_for(path, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline and process.is_alive(), path
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_so_and_goes_on(number, runs, tissue, tmp_path):
    outdir = tmp_path / "run"
    process = runs.start(tissue, outdir, mishap=("_wait_after", "segment"))
    _wait_for(outdir / "data/neurite_labels_i32_zyx.json", process)
    time.sleep(0.2)
    os.kill(process.pid, number)
    process.join(30)
    said = Path(f"{outdir}.stderr").read_text()
    assert process.exitcode == 130 and said.startswith("interrupted: ") and said.count("\n") == 1
    assert rows(outdir)[0]["status"] == "interrupted"
    code, said = runs(tissue, outdir, resume=True)
    assert code == 0 and said == "--resume: going on after boundaries\n"
    assert_same(outdir, runs.undisturbed(tissue))


@pytest.mark.slow
def test_sigterm_ends_the_script_in_one_line_and_resume_is_a_flag_of_it(tmp_path, run_script):
    command = ["run_pipeline.py", "--dataset", "sample://phantom", "--cutout", "96", "96", "16", "--outdir", tmp_path]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*_config.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith("interrupted: ") and err.count("\n") == 1, err
    assert rows(tmp_path)[0]["status"] == "interrupted"
    done = run_script(*command, "--resume")
    assert done.returncode == 0 and done.stderr.startswith("--resume: "), done.stderr


def test_a_swallowed_sigterm_is_remembered_and_a_second_one_does_not_hurt():
    before = signal.getsignal(signal.SIGTERM)
    with terminable() as stopped:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.is_set()
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_runs_in_one_folder_do_not_mix(runs, tissue, tmp_path):
    outdir = tmp_path / "run"
    first = runs.start(tissue, outdir, mishap=("_wait_after", "align"))
    _wait_for(outdir / "data/em_aligned_float32_zyx.json", first)
    code, said = runs(tissue, outdir)
    assert code == 2 and said.count("\n") == 1
    assert f"another run (process {first.pid}, since 2" in said and "choose another --outdir" in said
    assert len(rows(outdir)) == 1, "a run that was refused is no run"
    first.kill()  # a dead process holds nothing
    first.join()
    assert runs(tissue, outdir, resume=True)[0] == 0
    assert_same(outdir, runs.undisturbed(tissue))


def test_the_lock_is_one_per_folder_and_needs_no_valid_text(tmp_path):
    with run_lock(tmp_path), run_lock(tmp_path / "other"):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), run_lock(tmp_path):
            pass
        (tmp_path / "runs/lock").write_text("{")
        with pytest.raises(UserError, match=f"^another run is writing to {tmp_path}; wait"), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "runs/lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("number", [4, 8, 15, 21, 26])
def test_a_disk_that_fills_at_any_file_is_one_line_and_resumed(number, runs, tissue, tmp_path):
    outdir = tmp_path / "run"
    code, said = runs(tissue, outdir, mishap=("_full_at_write", number))
    assert code == 2 and said.count("\n") == 1 and "No space left on device; free space there" in said
    assert f"error: cannot write {outdir}" in said and rows(outdir)[0]["status"] == "failed"
    assert not [path for path in outdir.rglob(".*") if path.is_file()]
    assert runs(tissue, outdir, resume=True)[0] == 0
    assert_same(outdir, runs.undisturbed(tissue))


@contextmanager
def _small_disk(folder, size):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", ["64k", "400k", "900k", "1500k"])
def test_a_disk_that_is_really_full(size, runs, tissue, tmp_path):
    disk = tmp_path / "disk"
    with _small_disk(disk, size):
        outdir = disk / "run"
        process = runs.start(tissue, outdir)
        process.join(60)
        said = Path(f"{outdir}.stderr").read_text()
        assert process.exitcode == 2, said
    assert said.count("\n") == 1 and "cannot write" in said, said


def test_a_full_disk_that_gets_room_again(runs, tissue, tmp_path):
    disk = tmp_path / "disk"
    with _small_disk(disk, "1500k"):
        outdir = disk / "run"
        code, said = runs(tissue, outdir)
        assert code == 2 and said.count("\n") == 1 and f"cannot write {outdir}" in said and "No space left" in said
        assert not [path for path in outdir.rglob(".*") if path.is_file()]
        for array in (outdir / "data").glob("*.npy"):
            np.load(array)  # whole
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        code, said = runs(tissue, outdir, resume=True)
        assert code == 0 and "going on after" in said
        assert_same(outdir, runs.undisturbed(tissue))


@pytest.mark.parametrize("obstacle", ["data", "tables", "figures", "runs", "runs/resume", "runs/lock"])
def test_a_folder_that_cannot_be_written_is_one_line(obstacle, runs, tissue, tmp_path):
    """Root writes everywhere, so that something in the way stands for a read-only folder."""
    path = tmp_path / "run" / obstacle
    path.parent.mkdir(parents=True)
    path.mkdir() if obstacle == "runs/lock" else path.write_text("")
    code, said = runs(tissue, tmp_path / "run", resume=True)
    last = said.splitlines()[-1]
    assert code == 2 and "Traceback" not in said and str(path) in last, said
    assert "choose another --outdir" in last or "move it away" in last, said


def test_a_read_only_disk_is_one_line(runs, tissue, tmp_path):
    disk = tmp_path / "disk"
    with _small_disk(disk, "8m"):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        process = runs.context.Process(
            target=_work, args=(tissue, disk / "run", False, None, False, tmp_path / "stderr")
        )
        process.start()
        process.join(60)
    said = (tmp_path / "stderr").read_text()
    assert process.exitcode == 2 and said.count("\n") == 1 and "Read-only file system" in said


def test_an_undisturbed_run_leaves_no_scratch(runs, tissue, tmp_path):
    assert runs(tissue, tmp_path / "run")[0] == 0
    left = {path.name for path in (tmp_path / "run/runs").iterdir() if not path.name.endswith("_config.json")}
    assert left == {"lock", "pipeline_runs.sqlite", "finished.json"}
