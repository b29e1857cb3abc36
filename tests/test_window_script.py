"""What the script says where the window cannot be opened, in one line; and that its documentation is true."""

from pathlib import Path

import numpy as np
import pytest
from proofread_run import blobs, write_run

from emlib.proofread import Edit, Session
from emlib.proofread.journal import FILE
from emlib.proofread.window.commands import COMMANDS
from emlib.proofread.window.dock import shown_key

SCRIPT = "napari_proofread.py"
NOBODY = {"DISPLAY": ":97", "WAYLAND_DISPLAY": "", "QT_QPA_PLATFORM": ""}  # a display that nobody serves


@pytest.fixture
def run(tmp_path):
    for package in ("napari", "PySide6"):
        pytest.importorskip(package, reason=f"{package} is not installed: requirements-gui.txt")
    write_run(tmp_path / "run")
    with Session.open(tmp_path / "run") as session:
        session.apply(Edit("delete", {"neurite": 3}))
        session.apply(Edit("delete", {"neurite": 4}))
    return tmp_path / "run"


def one_line(run_script, run, *flags):
    done = run_script(SCRIPT, "--outdir", run, *flags, env=NOBODY)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_display_that_does_not_answer(run, run_script):
    assert "error: no window: Qt ended with" in (told := one_line(run_script, run)), told
    assert "--replay JOURNAL applies a journal without a window" in told


def test_labels_and_em_of_different_shapes(run, run_script):
    np.save(run / "data/em_aligned_float32_zyx.npy", np.zeros((6, 20, 25), np.float32))
    (run / "data/em_aligned_float32_zyx.json").unlink()
    assert "(6, 20, 24)" in (told := one_line(run_script, run)) and "(6, 20, 25)" in told and "one run" in told


def test_a_journal_of_another_volume(run, run_script, tmp_path):
    write_run(tmp_path / "other", blobs(seed=5))
    told = one_line(run_script, tmp_path / "other", "--journal", run / FILE)
    assert "is of other labels than" in told and "start a new journal with --journal FILE" in told


def test_a_journal_that_was_cut_short(run, run_script):
    path = run / FILE
    path.write_bytes(path.read_bytes()[:-4096])
    told = one_line(run_script, run)
    assert "is damaged" in told and "go on with --journal" in told


def test_a_folder_that_another_window_has_open(run, run_script):
    with Session.open(run):
        told = one_line(run_script, run)
    assert "error: " in told and str(run) in told


def test_none_outlives_a_session_on_every_python():
    import sys

    from emlib.proofread.window.references import keep_none

    keep_none()
    keep_none()
    assert 2**30 < sys.getrefcount(None) < 2**42  # 2^32 - 1 where Python itself sees to it


def test_the_documented_keys_are_those_that_there_are():
    text = (Path(__file__).parent.parent / "docs/proofreading.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.count("|") == 5 and "`" in line]
    listed = [tuple(cell.strip() for cell in row[1:]) for row in rows]
    wanted = [(command.label, f"`{shown_key(command.key)}`", command.help) for command in COMMANDS.values()]
    assert [row for row in listed if row in wanted] == wanted
