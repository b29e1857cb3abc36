"""Fixtures shared by all tests: where the real data lie, and how a user calls a script."""

import io
import os
import runpy
import subprocess
import sys
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

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


@pytest.fixture(scope="session")
def call_script():
    """Return a function that runs a root script in this process, and returns what `run_script` would.

    That takes a tenth of the time. `run_script` is for what a process of its own shows alone: imports, signals,
    memory, threads, and once for each script that it starts at all.
    """
    from emlib.threads import get_threads, set_threads

    def call(script, *args, cwd=None, env=None):
        argv = [str(ROOT / script), *map(str, args)]
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        threads, torch = get_threads(), sys.modules.get("torch")
        torch_threads = torch and torch.get_num_threads()
        code = 0
        with (
            mock.patch.object(sys, "argv", argv),
            mock.patch.dict(os.environ, env or {}),
            chdir(cwd or Path.cwd()),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                runpy.run_path(argv[0], run_name="__main__")
            except SystemExit as stop:
                code = stop.code or 0
            finally:
                set_threads(threads)
                if torch_threads:
                    torch.set_num_threads(torch_threads)
        told = [stream.buffer.getvalue().decode("utf-8") for stream in (out, err)]
        return subprocess.CompletedProcess(argv, code, *told)

    return call


@pytest.fixture(scope="session")
def pipeline(call_script):
    """Return a function that runs ``run_pipeline.py`` in this process and gives (exit code, stdout, stderr).

    Figures take most of the time of a small run; they are drawn with ``figures=True`` alone.
    """

    def call(*argv, figures=False):
        with nullcontext() if figures else mock.patch("emlib.publish.run_report._figures", lambda run: ()):
            done = call_script("run_pipeline.py", *argv)
        return done.returncode, done.stdout, done.stderr

    return call
