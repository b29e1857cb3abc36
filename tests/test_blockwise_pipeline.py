"""run_pipeline.py --blocks as a user types it."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from emlib.runs.runlog import FILE
from emlib.volumes.ome_zarr import create_array
from emlib.volumes.open import open_volume
from emlib.volumes.phantom import PhantomSettings, make_phantom

PHANTOM = ("--dataset", "sample://phantom", "--cutout", 80, 72, 18)
BLOCKS = ("--blocks", 37, 30, 7)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A near-isotropic volume in a file, without a voxel size of its own."""
    path = tmp_path_factory.mktemp("volume") / "em.npy"
    np.save(path, make_phantom(PhantomSettings(shape=(24, 60, 70), seed=5)).em.astype(np.uint16) * 200 + 7)
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = sorted([*folder.glob("data/*.npy"), *folder.glob("tables/*")])
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_run_in_blocks_leaves_the_bytes_of_a_run_in_memory(pipeline, tmp_path):
    """Aligned sections, truth, graph and scores: every array and table, and the record names the blocks."""
    assert pipeline(*PHANTOM, "--outdir", tmp_path / "memory", "--quiet")[0] == 0
    code, _, err = pipeline(*PHANTOM, *BLOCKS, "--outdir", tmp_path / "blocks", "--quiet")
    assert code == 0, err
    memory, blocks = files(tmp_path / "memory"), files(tmp_path / "blocks")
    assert memory.keys() == blocks.keys() and len(memory) > 12
    assert [name for name in memory if memory[name] != blocks[name]] == []
    with sqlite3.connect(tmp_path / "blocks" / "runs" / FILE) as log:
        (told,) = log.execute("SELECT summary FROM runs").fetchone()
    assert json.loads(told)["blocks"]["blocks_xyz"] == [37, 30, 7]
    assert not (tmp_path / "blocks/runs/blocks").exists()
    assert (tmp_path / "blocks/report.html").is_file()


def test_a_file_of_16_bit_is_done_whole_and_a_window_is_shown(pipeline, tmp_path, volume):
    """Without --cutout all of it; with --npy never no .npy, and the tables are those of the whole volume."""
    call = ("--dataset", volume, "--voxel_size", 10, 10, 10, "--quiet")
    whole = ("--cutout", 70, 60, 24, "--offset", 0, 0, 0)
    assert pipeline(*call, *whole, "--outdir", tmp_path / "memory")[0] == 0
    how = ("--blocks", 40, 40, 16, "--npy", "never", "--memory_gb", 3)
    code, _, err = pipeline(*call, *how, "--outdir", tmp_path / "blocks", figures=True)
    assert code == 0, err
    assert list((tmp_path / "blocks/figures").glob("*.png"))
    assert not list((tmp_path / "blocks/data").glob("*.npy"))
    memory, blocks = files(tmp_path / "memory"), files(tmp_path / "blocks")
    for table in ("synapse_candidates.csv", "graph_edges.csv", "graph_node_stats.csv", "graph.graphml"):
        assert memory[f"tables/{table}"] == blocks[f"tables/{table}"]
    labels = open_volume(tmp_path / "blocks/data/volume.zarr/labels/neurites")
    assert labels.voxel_size_nm == (10, 10, 10)
    everything = tuple(slice(0, n) for n in labels.shape)
    np.testing.assert_array_equal(labels.read(everything), np.load(tmp_path / "memory/data/neurite_labels_i32_zyx.npy"))


def test_a_window_is_drawn_and_the_whole_is_counted(pipeline, tmp_path, volume, monkeypatch):
    """Also where labels come from a file, which is not segmented and has no fragments."""
    call = ("--dataset", volume, "--voxel_size", 10, 10, 10, "--quiet")
    assert pipeline(*call, "--cutout", 70, 60, 24, "--offset", 0, 0, 0, "--outdir", tmp_path / "memory")[0] == 0
    given = tmp_path / "memory/data/neurite_labels_i32_zyx.npy"
    count = len(set(np.unique(np.load(given))) - {0})
    monkeypatch.setattr("emlib.pipeline.block_stages.WINDOW", (5, 20, 20))
    for how in ((), ("--labels", given)):
        out = tmp_path / f"blocks{len(how)}"
        code, _, err = pipeline(*call, *how, "--blocks", 40, 40, 16, "--npy", "never", "--outdir", out)
        assert code == 0, err
        with sqlite3.connect(out / "runs" / FILE) as log:
            assert json.loads(log.execute("SELECT summary FROM runs").fetchone()[0])["neurites"] == count
        for table in ("synapse_candidates.csv", "graph_edges.csv", "graph_node_stats.csv"):
            assert (out / "tables" / table).read_bytes() == (tmp_path / "memory/tables" / table).read_bytes(), table


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workers", 2), "--workers goes with --blocks X Y Z"),
        (("--npy", "never"), "--npy goes with --blocks X Y Z"),
        ((*BLOCKS, "--workers", 2, "--scheduler", "tcp://localhost:1"), "leave --workers out"),
        ((*BLOCKS, "--cutouts", 2), "--cutouts is for small boxes"),
        (("--blocks", 8, 8, 8), r"--blocks 8 8 8 (x y z) are smaller than the margin"),
        ((*BLOCKS, "--memory_gb", 0.1), "give --memory_gb 0."),
        (("--blocks", 0, 8, 8), "must be above 0"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_line(pipeline, tmp_path, flags, message):
    code, _, err = pipeline(*PHANTOM, *flags, "--outdir", tmp_path / "out", "--quiet")
    assert code == 2
    assert message in err and err.strip().count("\n") <= 1  # the first may be the warning of the phantom


@pytest.fixture
def store(tmp_path):
    """A Zarr volume of four chunks, the last of which can be damaged, and flags for a run on it."""
    array = np.random.default_rng(0).integers(0, 255, (8, 80, 80), dtype=np.uint8)
    made = create_array(tmp_path / "em.zarr", array.shape, array.dtype, (8, 40, 40), None, (40.0, 8.0, 8.0))
    made[...] = array
    place = ("--cutout", 80, 80, 8, "--offset", 0, 0, 0, "--until", "cutout")
    return tmp_path / "em.zarr/0/c/0/1/1", ("--dataset", tmp_path / "em.zarr", *place, "--outdir", tmp_path / "out")


def test_the_smallest_blocks_that_are_named_work(pipeline, store):
    _, call = store
    _, _, err = pipeline(*call, "--quiet", "--blocks", 8, 8, 8)
    least = [int(side) for side in err.split("give at least ")[1].split(",")[0].split()]
    assert pipeline(*call, "--quiet", "--blocks", *least)[0] == 0
    for axis in (0, 1):  # x and y; of sections one is enough
        smaller = [side - (axis == at) for at, side in enumerate(least)]
        assert pipeline(*call, "--quiet", "--blocks", *smaller)[0] == 2


def test_a_lost_chunk_ends_a_run_in_blocks_or_is_stated(pipeline, tmp_path, store):
    chunk, call = store
    chunk.unlink()
    code, _, err = pipeline(*call, *BLOCKS, "--quiet")
    assert (code, err.count("\n")) == (2, 1), err
    assert "its chunk c/0/1/1 is missing" in err and "--fill_missing" in err
    for more in ((), ("--resume",)):  # read by the task of each layer, as on a worker; then from its mark
        code, _, err = pipeline(*call, "--blocks", 40, 40, 2, "--fill_missing", "--quiet", *more)
        assert code == 0, err
        assert err.count("chunks are missing") == err.count("warning: ") == 1, err
        assert f"warning: {tmp_path / 'em.zarr/0'}: chunks are missing, c/0/1/1 is the first" in err
    assert not np.load(tmp_path / "out/data/em_cutout_u8_zyx.npy")[:, 40:, 40:].any()


def test_a_chunk_of_another_shape_than_said_ends_a_run_in_blocks(pipeline, tmp_path, store):
    chunk, call = store
    small = create_array(tmp_path / "small.zarr", (4, 8, 8), np.uint8, (4, 8, 8), None, (40.0, 8.0, 8.0))
    small[...] = 3
    chunk.write_bytes((tmp_path / "small.zarr/0/c/0/0/0").read_bytes())
    code, _, err = pipeline(*call, *BLOCKS, "--quiet")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"cannot read {tmp_path / 'em.zarr'}" in err


def test_a_scheduler_out_of_reach_is_one_line_and_on_record(pipeline, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("emlib.blockwise.carriers.CONNECT_S", 1)
    code, _, err = pipeline(*PHANTOM, *BLOCKS, "--scheduler", "tcp://127.0.0.1:9", "--outdir", tmp_path, "--quiet")
    assert code == 2 and "--scheduler tcp://127.0.0.1:9 cannot be reached" in err, err
    assert err.strip().count("\n") <= 1  # the first may be the warning of the phantom
    with sqlite3.connect(tmp_path / "runs" / FILE) as log:
        assert log.execute("SELECT status FROM runs").fetchall() == [("failed",)]


def test_the_budget_that_is_named_works(pipeline, tmp_path):
    """The smallest budget in the message is enough for a run, and the workers are cut to what there is room for."""
    call = (*PHANTOM, *BLOCKS, "--until", "preprocess", "--outdir", tmp_path / "out")
    _, _, err = pipeline(*call, "--memory_gb", 0.05)
    least = float(err.split("give --memory_gb ")[1].split(",")[0])
    code, _, err = pipeline(*call, "--memory_gb", least, "--workers", 3)
    assert code == 0 and "note: 1 of 3 workers" in err
