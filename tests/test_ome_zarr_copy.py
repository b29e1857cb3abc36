"""Volumes copied into OME-Zarr by blocks: from a server, cut short, gone on with."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import boss_server
import numpy as np
import pytest
from boss_server import ARRAY, TOKEN, URI, running

from emlib.errors import UserError
from emlib.volumes import ingest
from emlib.volumes.bossdb import BossOptions
from emlib.volumes.ingest import CopySettings, copy_to_zarr
from emlib.volumes.ome_zarr import open_array
from emlib.volumes.ome_zarr.pyramid import downsample, plan_levels
from emlib.volumes.open import open_volume
from emlib.volumes.volume import VolumeSource

ROOT = Path(__file__).resolve().parent.parent
BOX = tuple(slice(0, n) for n in ARRAY.shape)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A Boss server on loopback, which the client is pointed at."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with running() as server:
        for name, value in (("PROTOCOL", "http"), ("HOST", server.host), ("TOKEN", TOKEN)):
            monkeypatch.setenv(f"INTERN_{name}", value)
        yield server


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(ingest, "BLOCK", (16, 32, 32))


def boss():
    return open_volume(URI, boss=BossOptions(timeout_s=5, backoff_s=0.001, tries=2))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_channel_is_copied_with_its_voxel_size_and_its_place(server, small_blocks, tmp_path, version):
    done = copy_to_zarr(boss(), tmp_path / "em.zarr", CopySettings(version=version))
    copy = open_volume(tmp_path / "em.zarr")
    assert np.array_equal(copy.read(BOX), ARRAY)
    assert copy.voxel_size_nm == (50.0, 4.2, 3.5)
    assert copy.notes["offset_nm"] == pytest.approx([3 * 50, 20 * 4.2, 100 * 3.5])
    assert (done.blocks, done.kept) == (len(list(ingest._blocks(ARRAY.shape))), 0)
    assert done.blocks > 4
    assert [path.name for path in tmp_path.glob("*em.zarr*")] == ["em.zarr"]


def test_coarser_levels_are_made(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (9, 130, 140)).astype(np.uint32)
    source = VolumeSource("labels", labels.shape, labels.dtype, lambda box: labels[box], (40.0, 8.0, 8.0))
    copy_to_zarr(source, tmp_path / "a.zarr", CopySettings(labels=True))
    level = plan_levels(labels.shape, (40, 8, 8))[1]
    assert np.array_equal(open_array(tmp_path / "a.zarr", 1)[...], downsample(labels, level.factors, "mode"))


def test_a_box_is_copied(server, tmp_path):
    copy_to_zarr(boss(), tmp_path / "em.zarr", CopySettings((20, 10, 8), (7, 8, 9)))
    copy = open_volume(tmp_path / "em.zarr")
    assert np.array_equal(copy.read((slice(0, 8), slice(0, 10), slice(0, 20))), ARRAY[9:17, 8:18, 7:27])
    assert copy.notes["offset_nm"][0] == pytest.approx((3 + 9) * 50)


def test_a_copy_that_the_server_cut_short_goes_on(server, small_blocks, tmp_path):
    left = [5]

    def behave(path):
        if "/cutout/" in path:
            left[0] -= 1
            if left[0] < 0:
                return boss_server.reset
        return None

    server.behave = behave
    with pytest.raises(UserError):
        copy_to_zarr(boss(), tmp_path / "em.zarr")
    assert not (tmp_path / "em.zarr").exists()
    server.behave = lambda path: None
    before, asked = [path for path in server.paths if "/cutout/" in path], len(server.paths)
    done = copy_to_zarr(boss(), tmp_path / "em.zarr")
    assert 0 < done.kept < done.blocks
    per_block = 2  # the server's own blocks begin elsewhere
    assert not set(before[: per_block * done.kept]) & set(server.paths[asked:])
    assert np.array_equal(open_volume(tmp_path / "em.zarr").read(BOX), ARRAY)


def test_what_was_left_by_another_copy_is_not_gone_on_with(server, small_blocks, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "build_pyramid", lambda *_: (_ for _ in ()).throw(UserError("stop")))
    with pytest.raises(UserError, match="stop"):
        copy_to_zarr(boss(), tmp_path / "em.zarr")
    with pytest.raises(UserError, match=r"\.em\.zarr\.partial was left by the copy of something else"):
        copy_to_zarr(boss(), tmp_path / "em.zarr", CopySettings((20, 10, 8)))


def test_a_mark_that_was_cut_short_does_not_count(small_blocks, tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(1, 255, (20, 40, 40), np.uint8)
    source = VolumeSource("em", array.shape, array.dtype, lambda box: array[box], (8.0, 8.0, 8.0))
    build = ingest.build_pyramid
    monkeypatch.setattr(ingest, "build_pyramid", lambda *_: (_ for _ in ()).throw(UserError("stop")))
    with pytest.raises(UserError):
        copy_to_zarr(source, tmp_path / "em.zarr")
    marks = tmp_path / ".em.zarr.partial/done"
    marks.write_text(marks.read_text()[:-3])
    monkeypatch.setattr(ingest, "build_pyramid", build)
    done = copy_to_zarr(source, tmp_path / "em.zarr")
    assert done.kept == done.blocks - 1
    assert np.array_equal(open_array(tmp_path / "em.zarr")[...], array)


@pytest.mark.parametrize(
    ("target", "settings", "told"),
    [
        ("em", CopySettings(), "does not end in .zarr"),
        ("there.zarr", CopySettings(), "is there already"),
        ("em.zarr", CopySettings((10, 10, 10), (35, 0, 0)), "the box lies outside of the volume of 40 40 20 voxels"),
        ("em.zarr", CopySettings(None, (-1, 0, 0)), "the box lies outside"),
    ],
)
def test_what_cannot_be_copied_is_one_line(tmp_path, target, settings, told):
    (tmp_path / "there.zarr").mkdir()
    source = VolumeSource("em", (20, 40, 40), np.dtype(np.uint8), lambda box: None)
    with pytest.raises(UserError, match=told):
        copy_to_zarr(source, tmp_path / target, settings)


def test_the_script_copies_from_a_server(server, tmp_path, call_script):
    done = call_script("fetch_data.py", URI, "--zarr", tmp_path / "em.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"written: {tmp_path / 'em.zarr'}" in done.stdout
    assert np.array_equal(open_volume(tmp_path / "em.zarr").read(BOX), ARRAY)


def test_the_script_killed_in_the_middle_goes_on(tmp_path, run_script):
    array = np.random.default_rng(0).integers(0, 255, (64, 1100, 1100), np.uint8)
    np.save(tmp_path / "em.npy", array)
    command = ["fetch_data.py", tmp_path / "em.npy", "--zarr", tmp_path / "em.zarr", "--voxel_size", "40", "8", "8"]
    process = subprocess.Popen([sys.executable, ROOT / command[0], *map(str, command[1:])], stdout=subprocess.DEVNULL)
    marks, end = tmp_path / ".em.zarr.partial/done", time.monotonic() + 120
    while not (marks.is_file() and marks.stat().st_size):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    assert "of them from before" in done.stdout
    assert np.array_equal(open_array(tmp_path / "em.zarr")[...], array)
    image = json.loads((tmp_path / "em.zarr/zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert image["name"] == "em"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["bossdb://a/b/c"], "say with --zarr OUT.zarr where to copy it to"),
        (["precomputed:///nothing/here", "--zarr", "x.zarr"], "holds no file info"),
        (["bossdb://a/b/c", "--zarr", "x.zarr", "--mirror", "http://x"], "--mirror goes with public data sets"),
        (["--zarr", "x.zarr"], "name what to put in place"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(tmp_path, call_script, flags, told):
    done = call_script("fetch_data.py", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
