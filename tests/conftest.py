"""Fixtures shared by all tests: where the real data lie, and how a user calls a script."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from emlib.runs import cli

ROOT = Path(__file__).resolve().parent.parent
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core of its own; threads that wait for each other would take those of the others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real EM data sets; tests that need it skip where it is absent.

    ``EMLIB_DATA`` names another place than ``../shared/data``.
    """
    folder = Path(os.environ.get("EMLIB_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "fib25-medulla").is_dir():
        pytest.skip(f"real EM data not found under {folder}; set EMLIB_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_domain(tmp_path_factory) -> Path:
    """A data root with one synthetic domain, ``phantom``: sections of 96 × 128 px, train 8, val 2, test 2.

    Every split has all four organelles. Shared by all tests of a session: copy it before changing a file.
    """
    from emlib.volumes.phantom_files import domain_settings, write_domain

    root = tmp_path_factory.mktemp("domains")
    write_domain(domain_settings((128, 96, 12), None, seed=3), root / "phantom")
    return root


@pytest.fixture(scope="session")
def run_script():
    """Return a function that runs a root script as a user does and returns the completed process."""

    def call(script, *args, cwd=None, env=None, timeout=300):
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, args)],
            cwd=cwd or ROOT,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call


@pytest.fixture
def pipeline(capsys, monkeypatch):
    """Return a function that runs the script's main in this process and gives (exit code, stdout, stderr)."""
    script = runpy.run_path(str(ROOT / "run_pipeline.py"))

    def call(*argv):
        argv = [str(a) for a in argv]
        monkeypatch.setattr(sys, "argv", ["run_pipeline.py", *argv])
        try:
            code = cli.run(lambda: script["main"](argv))
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return call
