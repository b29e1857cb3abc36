"""What goes wrong while blocks are done: killed workers and runs, damaged data, clusters that cannot do the work."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import blockwise_tasks as tasks
import numpy as np
import pytest
from blockwise_run import engine_of, everything, segmented

from emlib.blockwise import carriers
from emlib.blockwise.carriers import open_carrier
from emlib.blockwise.engine import TRIES, Here
from emlib.blockwise.grid import lay
from emlib.blockwise.site import DamagedData
from emlib.errors import UserError
from emlib.volumes.phantom import PhantomSettings, make_phantom

SIZE = (10.0, 10.0, 10.0)
BLOCK = (4, 16, 16)
pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(0).integers(0, 255, (16, 24, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two worker processes, as --workers 2 starts them."""
    carriers.REVIVE_S = 12  # the tests kill many
    with open_carrier(2, None, tmp_path_factory.mktemp("cluster")) as carrier:
        yield carrier


def doubled(folder, grey, carrier=None, task=tasks.double, shared=None, resume=False):
    engine = engine_of(folder, grey, SIZE, BLOCK, carrier, resume)
    engine.site.create("em", np.float32)
    engine.run("double", task, shared, lay(grey.shape, BLOCK))
    return engine


def result(engine):
    return engine.site.read("em", everything(engine.site))


def bytes_of(engine, array="em"):
    root = engine.site.place(array)
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_two_workers_give_the_bytes_of_one(tmp_path, two):
    em = make_phantom(PhantomSettings(shape=(12, 60, 60), seed=2)).em
    alone = segmented(engine_of(tmp_path / "one", em, SIZE, (8, 32, 32)))
    shared = segmented(engine_of(tmp_path / "two", em, SIZE, (8, 32, 32), two))
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_killed_worker_is_made_good(tmp_path, grey, two):
    """The nanny starts another one, and the block is done there."""
    engine = doubled(tmp_path, grey, two, tasks.die_once, 8)
    assert (tmp_path / "work" / "died-8").exists()
    np.testing.assert_array_equal(result(engine), 2.0 * grey)


def test_a_block_that_kills_its_workers_is_named(tmp_path, grey, two):
    """And no other that a dead worker had to do; the others are done before."""
    with pytest.raises(UserError, match=rf"block z8-12_y0-16_x0-16 of double was given up: {TRIES} workers died"):
        doubled(tmp_path, grey, two, tasks.die_always, (8, 0, 0))


@pytest.mark.parametrize("carrier", ["here", "two"])
def test_a_poisoned_block_is_named_and_the_others_are_kept(tmp_path, grey, carrier, request):
    carrier = Here() if carrier == "here" else request.getfixturevalue("two")
    message = rf"block z12-16_\S+ of double failed {TRIES} times: ZeroDivisionError: no way; .* --resume"
    with pytest.raises(UserError, match=message):
        doubled(tmp_path, grey, carrier, tasks.fail, 12)
    assert (tmp_path / "work" / "tries").read_text().count("x") >= TRIES
    engine = doubled(tmp_path, grey, carrier, tasks.double, 12, resume=True)  # another task, the same key
    assert engine.skipped["double"] >= 8
    np.testing.assert_array_equal(result(engine), 2.0 * grey)


@pytest.mark.parametrize("carrier", ["here", "two"])
def test_a_hiccup_is_tried_again(tmp_path, grey, carrier, request):
    carrier = Here() if carrier == "here" else request.getfixturevalue("two")
    np.testing.assert_array_equal(result(doubled(tmp_path, grey, carrier, tasks.fail_once, 4)), 2.0 * grey)


@pytest.mark.parametrize("carrier", ["here", "two"])
def test_what_the_user_must_mend_is_not_tried_again(tmp_path, grey, carrier, request):
    carrier = Here() if carrier == "here" else request.getfixturevalue("two")
    with pytest.raises(UserError, match=r"^mend this$"):
        doubled(tmp_path, grey, carrier, tasks.refuse)


def test_marks_of_other_settings_do_not_count(tmp_path, grey):
    doubled(tmp_path, grey, shared=1)
    assert doubled(tmp_path, grey, shared=1, resume=True).skipped["double"] == 16
    assert doubled(tmp_path, grey, shared=2, resume=True).skipped["double"] == 0
    assert "double" not in doubled(tmp_path, grey, shared=2).skipped


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_chunk_is_found_and_made_anew(tmp_path, grey, damage):
    engine = doubled(tmp_path, grey)
    before = bytes_of(engine)
    chunk = next(path for path in sorted(engine.site.place("em").rglob("c/*/*/*")) if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x10
    if damage == "remove":
        chunk.unlink()
    else:
        chunk.write_bytes(content if damage == "flip" else content[:-9])
    with pytest.raises(DamagedData, match=r"em cannot be read at z 0-16 y 0-24 x 0-28 .* --resume"):
        result(engine)
    again = doubled(tmp_path, grey, resume=True)
    assert again.skipped["double"] == 15
    assert bytes_of(again) == before


def test_a_damaged_table_is_found(tmp_path):
    em = make_phantom(PhantomSettings(shape=(6, 40, 40), seed=2)).em
    engine = engine_of(tmp_path, em, SIZE, (6, 32, 32))
    expected = segmented(engine)[2]
    table = next((tmp_path / "work" / "contacts").glob("*.npz"))
    table.write_bytes(table.read_bytes()[:-50])
    with pytest.raises(DamagedData, match="cannot be read"):
        engine.site.read_table("contacts", table.stem)
    again = engine_of(tmp_path, em, SIZE, (6, 32, 32), resume=True)
    np.testing.assert_array_equal(segmented(again)[2], expected)
    assert again.skipped["contacts"] == 3 and again.skipped["seeds"] == 4


def test_a_full_disk_is_told(tmp_path, grey, monkeypatch):
    engine = doubled(tmp_path, grey)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(UserError, match=r"cannot write \S+: No space left on device; free space there"):
        doubled(tmp_path, grey, shared=5, resume=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(result(doubled(tmp_path, grey, shared=5, resume=True)), 2.0 * grey)
    assert engine.site.shape == grey.shape


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def dask(*args, without=""):
    """A process of Dask's command line, in which one package is out of reach."""
    block = f"import sys; sys.modules[{without!r}] = None\n" if without else ""
    code = f"{block}from distributed.cli.{args[0]} import main\nmain({[str(a) for a in args[1:]]!r})"
    # The tasks of these tests are found by workers; a scheduler needs to know nothing of them.
    env = {**os.environ, **({"PYTHONPATH": str(Path(__file__).parent)} if args[0] == "dask_worker" else {})}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def scheduler():
    """A scheduler of its own process, and what was started with it."""
    port, started = free_port(), []
    address = f"tcp://127.0.0.1:{port}"
    started.append(dask("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield address, started
    for process in started:
        process.kill()
        process.wait()


def wait_for_worker(address):
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)


def test_a_scheduler_out_of_reach_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("emlib.blockwise.carriers.CONNECT_S", 1)
    with pytest.raises(UserError, match=r"--scheduler tcp://127.0.0.1:9 cannot be reached"):
        with open_carrier(1, "tcp://127.0.0.1:9", tmp_path):
            pass
    with pytest.raises(UserError, match="--scheduler nonsense:// cannot be reached"):
        with open_carrier(1, "nonsense://", tmp_path):
            pass


def test_a_scheduler_without_workers_and_a_worker_without_emlib(tmp_path, scheduler):
    address, started = scheduler
    with pytest.raises(UserError, match="has no workers; start some with"):
        with open_carrier(1, address, tmp_path):
            pass
    started.append(dask("dask_worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard", without="emlib"))
    wait_for_worker(address)
    with pytest.raises(UserError, match=r"the worker tcp://\S+ has no emlib"):
        with open_carrier(1, address, tmp_path):
            pass


def test_a_scheduler_that_is_lost_ends_the_run(tmp_path, grey, scheduler):
    address, started = scheduler
    started.append(dask("dask_worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard"))
    wait_for_worker(address)
    with pytest.raises(UserError, match=r"scheduler was lost; .* go on with --resume"):
        with open_carrier(1, address, tmp_path) as carrier:
            marks = tmp_path / "work" / "double"

            def kill():
                while len(list(marks.glob("*.json"))) < 3:
                    time.sleep(0.05)
                started[0].send_signal(signal.SIGKILL)

            threading.Thread(target=kill, daemon=True).start()
            doubled(tmp_path, grey, carrier, tasks.slow, 0.3)
    engine = doubled(tmp_path, grey, Here(), tasks.double, 0.3, resume=True)
    assert engine.skipped["double"] >= 3
    np.testing.assert_array_equal(result(engine), 2.0 * grey)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_same_bytes(tmp_path):
    """kill -9 in the middle of the work of the whole pipeline; --resume ends with the bytes of an undisturbed run."""
    root = Path(__file__).resolve().parent.parent
    call = [
        sys.executable,
        str(root / "run_pipeline.py"),
        "--dataset",
        "sample://phantom",
        "--cutout",
        "64",
        "64",
        "16",
    ]
    call += ["--blocks", "32", "32", "8", "--until", "segment", "--quiet"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    marks, process = tmp_path / "killed/runs/blocks/contacts", None
    process = subprocess.Popen([*call, "--outdir", str(tmp_path / "killed")], cwd=root, env=env)
    while len(list(marks.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for name, more in (("killed", ["--resume"]), ("whole", [])):
        subprocess.run([*call, "--outdir", str(tmp_path / name), *more], cwd=root, env=env, check=True, timeout=900)
    found = {
        name: {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for folder in ("data", "tables")
            for path in sorted((tmp_path / name / folder).rglob("*"))
            if path.is_file()
        }
        for name in ("killed", "whole")
    }
    assert "data/volume.zarr/labels/neurites/zarr.json" in found["whole"]
    assert found["killed"].keys() == found["whole"].keys()
    assert [name for name in found["whole"] if found["killed"][name] != found["whole"][name]] == []
    assert not marks.exists()  # what only the run needed is gone
