"""The real window under Xvfb: buttons and mouse, a killed process, a full disk, a prediction, the plugin."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from proofread_run import blobs, write_run

from emlib.proofread import Journal, Session, replay

pytestmark = pytest.mark.gui
CHILD = Path(__file__).parent / "window_child.py"
LAYERS = "open EM boundary_probability neurites seeds_of_a_split synapses"


@pytest.fixture
def window(tmp_path):
    """Return a function that starts the child on a run; skips with a reason where no window can be opened."""
    for package in ("napari", "PySide6"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: requirements-gui.txt")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: apt-get install xvfb, and the libraries that docs/proofreading.md names")
    reader, writer = os.pipe()
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1400x900x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as told:
        number = told.readline().strip()
    assert number, "Xvfb did not start"
    started = []

    def start(run, what, **environment):
        settings = tmp_path / "napari.yaml"  # of napari itself, which would else write to the home folder
        env = {**os.environ, "DISPLAY": f":{number}", "NAPARI_CONFIG": str(settings), "QT_QPA_PLATFORM": "xcb"}
        env["PYTHONPATH"] = str(CHILD.parent.parent)
        env["MESA_SHADER_CACHE_DISABLE"] = "true"  # its thread runs only where a machine has nothing else to do
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(run), what],
            env={**env, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()
    display.terminate()
    display.wait()


def lines_of(child):
    """All lines of a child that ends by itself."""
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err[-3000:]
    return out.splitlines()


def line_of(child):
    line = child.stdout.readline().rstrip("\n")
    assert line, child.communicate()[1][-3000:]
    return line


def test_buttons_and_mouse_then_sigkill_and_nothing_is_lost(window, tmp_path):
    start = write_run(tmp_path / "run", blobs((6, 40, 48), 8))
    child = window(tmp_path / "run", "work")
    assert line_of(child) == LAYERS
    assert line_of(child).startswith("said merged ")
    assert line_of(child) == "edits merge paint delete name_neurite accept_section"
    child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=120) == -signal.SIGKILL
    seen = np.load(tmp_path / "run/seen.npy")
    with Session.open(tmp_path / "run") as session:
        assert np.array_equal(session.labels, seen) and not np.array_equal(seen, start)
        assert session.accepted_sections == [2] and session.neurite_names()["name"].tolist() == ["AVAL"]
    with Journal(tmp_path / "run/runs/proofreading.sqlite") as journal:
        assert np.array_equal(replay(journal, start)[0], seen)


def test_a_full_disk_leaves_the_window_open(window, tmp_path):
    write_run(tmp_path / "run", blobs((6, 40, 48), 8))
    lines = lines_of(window(tmp_path / "run", "full"))
    assert lines[0] == LAYERS and lines[1] == "refused True True True"
    assert lines[2].startswith("said deleted ") and lines[3] == "closed"


def test_a_prediction_in_its_thread(window, tmp_path):
    if find_spec("torch") is None:
        pytest.skip("torch is not installed: requirements.txt")
    write_run(tmp_path / "run", blobs((6, 40, 48), 8))
    lines = lines_of(window(tmp_path / "run", "predict", EMLIB_TEST_MODEL="drosophila-vnc-experts"))
    assert lines[1].startswith("predicted True (1, 40, 48) drosophila-vnc-experts, section 2, y 0 … 39")
    lines = lines_of(window(tmp_path / "run", "predict", EMLIB_TEST_MODEL="nowhere.pth"))
    assert "there is no model nowhere.pth" in lines[1]


def test_the_plugin_in_a_napari_that_runs_already(window, tmp_path):
    write_run(tmp_path / "run", blobs((6, 40, 48), 8))
    lines = lines_of(window(tmp_path / "run", "plugin"))
    assert "there is no run in" in lines[0] and lines[1] == LAYERS
