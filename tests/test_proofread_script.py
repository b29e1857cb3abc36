"""The script as a user runs it: replay, export, and what it says where there is no window."""

import csv
import io

import numpy as np
import pytest
from proofread_run import write_run

from emlib.errors import UserError
from emlib.proofread import Edit, Session
from emlib.proofread.display import require_window
from emlib.proofread.journal import FILE

SCRIPT = "napari_proofread.py"


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A run with some edits, its labels after them, and the bytes of what the session saved."""
    run = tmp_path_factory.mktemp("edited")
    write_run(run)
    with Session.open(run, user="ada") as session:
        session.apply(Edit("merge", {"keep": 1, "gone": 2}))
        session.apply(Edit("delete", {"neurite": 3}))
        session.undo()
        session.accept_section(4)
        session.apply(Edit("name_neurite", {"neurite": 1, "name": "AVAL, left"}))
        session.apply(Edit("flip_synapse", {"synapse": session.synapses()["synapse"][0]}))
        saved = {path: path.read_bytes() for path in session.save()}
        return run, session.labels.copy(), saved


def test_replay_gives_identical_files(edited, run_script):
    run, labels, saved = edited
    for path in saved:
        path.unlink()
    done = run_script(SCRIPT, "--replay", run / FILE, "--outdir", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["4 of 6 journal entries are edits in force", *map(str, saved)]
    assert np.array_equal(np.load(run / "data/neurite_labels_corrected_i32_zyx.npy"), labels)
    assert {path: path.read_bytes() for path in saved} == saved


def test_replay_on_named_labels_into_another_folder(edited, call_script, tmp_path):
    run, labels, _ = edited
    given = ["--labels", run / "data/neurite_labels_i32_zyx.npy", "--outdir", tmp_path / "new", "--quiet"]
    done = call_script(SCRIPT, "--replay", run / FILE, *given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert np.array_equal(np.load(tmp_path / "new/data/neurite_labels_corrected_i32_zyx.npy"), labels)


def test_export_is_the_journal_as_a_table(edited, call_script):
    run, _, _ = edited
    done = call_script(SCRIPT, "--export", "csv", "--outdir", run)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 0 and [row["operation"] for row in rows] == [
        *("merge", "delete", "undo", "accept_section", "name_neurite", "flip_synapse")
    ]
    assert [row["in_force"] for row in rows] == ["True", "False", "", "True", "True", "True"]
    assert {row["user"] for row in rows} == {"ada"} and rows[2]["target"] == "2" and rows[0]["ids"] == "1 2"
    assert rows[1]["voxels"] == rows[2]["voxels"] != "0" and len(rows[1]["box"].split()) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replay", "nowhere.sqlite", "--outdir", "{run}"], "error: no such journal: nowhere.sqlite"),
        (["--export", "csv", "--outdir", "nowhere"], "error: no such journal: nowhere"),
        (["--replay", "x", "--outdir", "nowhere"], "error: there is no run in nowhere"),
        (["--outdir", "{run}"], "error: no display: neither DISPLAY nor WAYLAND_DISPLAY is set"),
        (["--replay", "x", "--export", "csv"], "not allowed with argument"),
    ],
)
def test_one_line_and_exit_code_2(edited, call_script, tmp_path, flags, message):
    flags = [flag.format(run=edited[0]) for flag in flags]
    done = call_script(SCRIPT, *flags, cwd=tmp_path, env={"DISPLAY": "", "WAYLAND_DISPLAY": ""})
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_what_is_missing_for_a_window(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"DISPLAY .* is set; .*--replay JOURNAL applies a journal without a window"):
        require_window()
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    with pytest.raises(UserError, match="QT_QPA_PLATFORM is offscreen, which draws no window; unset it, or --replay"):
        require_window()
    monkeypatch.delenv("QT_QPA_PLATFORM")
    there = {"napari", "PySide6"}
    monkeypatch.setattr("emlib.proofread.display.find_spec", lambda name: name if name in there else None)
    require_window()
    there.remove("PySide6")
    with pytest.raises(UserError, match="package PySide6-Essentials is not installed; pip install -r requirements-gui"):
        require_window()
    there.remove("napari")
    with pytest.raises(UserError, match=r"the package napari is not installed.* or --replay"):
        require_window()


def test_the_package_needs_no_qt():
    import subprocess
    import sys

    code = "import sys, emlib.proofread; print([m for m in ('napari', 'PySide6', 'qtpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
