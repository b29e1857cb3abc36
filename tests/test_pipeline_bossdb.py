"""run_pipeline.py on a Boss server: what was downloaded stays, coarser levels, listings, annotations."""

import json

import numpy as np
import pytest
from boss_server import TOKEN, running

CUTOUT = ["--cutout", "40", "30", "8", "--offset", "0", "0", "0", "--until", "preprocess"]


@pytest.fixture
def call(run_script, tmp_path):
    """Return a function that runs the pipeline against a server on loopback, and that server."""
    with running() as server:
        known = {"INTERN_PROTOCOL": "http", "INTERN_HOST": server.host, "INTERN_TOKEN": TOKEN, "HOME": str(tmp_path)}
        yield lambda *args: run_script("run_pipeline.py", *args, "--outdir", tmp_path / "out", env=known), server


def sidecar(folder):
    return json.loads((folder / "out" / "data" / "em_cutout_u8_zyx.json").read_text())


def test_a_second_run_downloads_no_voxel_again(call, tmp_path):
    run, server = call
    first = run("--dataset", "bossdb://lab/brain/em", *CUTOUT)
    assert first.returncode == 0, first.stderr
    fetched = [path for path in server.paths if "/cutout/" in path]
    em = np.load(tmp_path / "out" / "data" / "em_cutout_u8_zyx.npy")
    server.paths.clear()
    assert run("--dataset", "bossdb://lab/brain/em", *CUTOUT).returncode == 0
    assert fetched and not [path for path in server.paths if "/cutout/" in path]
    assert np.array_equal(em, np.load(tmp_path / "out" / "data" / "em_cutout_u8_zyx.npy"))
    assert sidecar(tmp_path)["voxel_size_nm"] == [50, 4.2, 3.5]


def test_a_coarser_level(call, tmp_path):
    run, _ = call
    size = ["--cutout", "20", "15", "8", "--offset", "0", "0", "0", "--until", "preprocess"]
    done = run("--dataset", "bossdb://lab/brain/em", "--resolution", "1", *size)
    assert done.returncode == 0, done.stderr
    assert sidecar(tmp_path)["voxel_size_nm"] == [50, 8.4, 7]
    wrong = run("--dataset", "bossdb://lab/brain/em", "--resolution", "9", *size)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "0" in wrong.stderr and "2" in wrong.stderr


def test_a_listing(call):
    run, _ = call
    done = run("--list", "bossdb://lab")
    assert done.returncode == 0, done.stderr
    assert "bossdb://lab/brain/em" in done.stdout and "uint64" in done.stdout


def test_annotations_are_no_em(call):
    run, _ = call
    refused = run("--dataset", "bossdb://lab/brain/neurites", *CUTOUT)
    assert refused.returncode == 2 and "annotation" in refused.stderr and refused.stderr.count("\n") == 1
