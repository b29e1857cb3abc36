"""Neuroglancer's precomputed volumes: round trips, addresses, a web server, damage."""

import json
import socket
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.volumes.companions import open_labels
from emlib.volumes.levels import open_levels
from emlib.volumes.ome_zarr import build_pyramid, create_array
from emlib.volumes.ome_zarr.pyramid import downsample
from emlib.volumes.open import open_volume
from emlib.volumes.precomputed.address import find_place
from emlib.volumes.volume import VolumeSource

pytest.importorskip("tensorstore")
from emlib.volumes.precomputed import write_precomputed

SIZE = (40.0, 8.0, 4.0)
RNG = np.random.default_rng(0)


def whole(shape):
    return tuple(slice(0, length) for length in shape)


def levels_of(array: np.ndarray, method="mean", size=SIZE):
    source = VolumeSource("array", array.shape, array.dtype, lambda box: array[box])
    return open_levels(source, size, method)


def em(shape=(11, 70, 90)) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def ids(shape=(11, 70, 90)) -> np.ndarray:
    return RNG.integers(0, 9, shape).astype(np.int64) * 2**40


@pytest.fixture
def served(tmp_path):
    """Address of a web server on loopback for ``tmp_path``, and the requests that it has had."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("offset", [(0, 0, 0), (100, -20, 8)])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_image_comes_back_with_voxel_size_and_offset(tmp_path, offset, form):
    array = em()
    write_precomputed(tmp_path / "em", levels_of(array), "image", voxel_offset=offset)
    source = open_volume("precomputed://" + form.format(tmp_path / "em"))
    assert source.shape == array.shape
    assert source.voxel_size_nm == SIZE
    assert source.notes.get("voxel_offset", [0, 0, 0]) == list(offset)
    if any(offset):
        assert source.notes["offset_nm"] == [first * size for first, size in zip(offset, SIZE, strict=True)]
    box = (slice(2, 11), slice(5, 70), slice(0, 77))
    assert np.array_equal(source.read(box), array[box])


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_ids_come_back_in_both_encodings(tmp_path, encoding):
    labels = ids()
    write_precomputed(tmp_path / "s", levels_of(labels, "mode"), "segmentation", encoding=encoding)
    source = open_labels(f"precomputed://{tmp_path / 's'}")
    assert source.dtype == np.uint64
    assert np.array_equal(source.read(whole(labels.shape)), labels)


def test_coarser_scales_are_those_of_the_pyramid(tmp_path):
    labels = ids()
    levels = levels_of(labels, "mode")
    assert write_precomputed(tmp_path / "s", levels, "segmentation") == [level.shape for level in levels.levels]
    info = json.loads((tmp_path / "s" / "info").read_text())
    assert [scale["resolution"] for scale in info["scales"]] == [
        [size * factor for size, factor in zip((4, 8, 40), reversed(level.total), strict=True)]
        for level in levels.levels
    ]
    from emlib.volumes.bossdb import BossOptions

    source = open_volume(f"precomputed://{tmp_path / 's'}", boss=BossOptions(resolution=1), labels=True)
    expected = downsample(labels, levels.levels[1].factors, "mode")
    assert np.array_equal(source.read(whole(source.shape)), expected)


def test_coarser_scales_that_would_lie_between_voxels_are_left_out(tmp_path):
    assert len(write_precomputed(tmp_path / "a", levels_of(em()), "image", voxel_offset=(0, 0, 1))) == 1
    assert len(write_precomputed(tmp_path / "b", levels_of(em()), "image", voxel_offset=(0, 0, 2))) == 2


def test_a_volume_is_replaced_whole(tmp_path):
    write_precomputed(tmp_path / "a", levels_of(em((11, 300, 90))), "image")
    small = em((4, 20, 20))
    write_precomputed(tmp_path / "a", levels_of(small), "image")
    assert np.array_equal(open_volume(f"precomputed://{tmp_path / 'a'}").read(whole(small.shape)), small)
    assert sum(path.is_file() for path in (tmp_path / "a").rglob("*")) == 2  # info and one chunk


def test_a_web_server_is_asked_for_no_more_than_the_box(tmp_path, served):
    address, asked = served
    array = em((8, 200, 200))
    write_precomputed(tmp_path / "em", levels_of(array), "image")
    source = open_volume(f"precomputed://{address}/em")
    box = (slice(0, 8), slice(70, 100), slice(130, 190))
    assert np.array_equal(source.read(box), array[box])
    assert sum("-" in path for path in asked) == 1


def test_stored_levels_are_used_and_equal_those_made_while_reading(tmp_path):
    array = em()
    made = create_array(tmp_path / "a.zarr", array.shape, array.dtype, (8, 32, 32), None, SIZE)
    made[...] = array
    plain = levels_of(array)
    for stored in (False, True):
        if stored:
            build_pyramid(tmp_path / "a.zarr")
        levels = open_levels(open_volume(tmp_path / "a.zarr"), SIZE, "mean")
        for number, level in enumerate(levels.levels):
            box = (slice(1, level.shape[0]), slice(3, level.shape[1]), slice(0, 9))
            assert np.array_equal(levels.read(number, box), plain.read(number, box))


def test_levels_of_other_programs_are_not_used(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = em((8, 80, 80))
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("0", data=array)
    group.create_array("1", data=np.zeros((8, 40, 80), np.uint8))
    group.attrs["multiscales"] = [{"axes": ["z", "y", "x"], "datasets": [{"path": "0"}, {"path": "1"}]}]
    levels = open_levels(open_volume(tmp_path / "a.zarr"), (40.0, 8.0, 8.0), "mean")
    assert np.array_equal(levels.read(1, whole((8, 40, 40))), downsample(array, (1, 2, 2), "mean"))


# ── addresses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("precomputed://https://a.org/em", "https://a.org/em/"),
        ("precomputed://s3://bucket/em/", "s3://bucket/em/"),
        ("precomputed://gs://bucket/em", "https://storage.googleapis.com/bucket/em/"),
        ("precomputed:///data/em", "file:///data/em/"),
        ("/data/em", "file:///data/em/"),
    ],
)
def test_addresses(name, place, monkeypatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert find_place(name) == place


def test_a_private_bucket_is_asked_with_its_own_credentials(monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    assert find_place("precomputed://gs://bucket/em") == "gs://bucket/em/"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("precomputed://", "names no volume"),
        ("precomputed://https://", "names no volume"),
        ("precomputed://ftp://a/b", "unknown scheme ftp://; precomputed:// goes with a folder or https://"),
    ],
)
def test_addresses_that_name_nothing(name, told):
    with pytest.raises(UserError, match=told):
        open_volume(name)


def test_a_place_that_cannot_be_reached_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}/em cannot be reached: .*look at the address"):
            open_volume(f"precomputed://http://127.0.0.1:{port}/em")


def test_a_server_that_never_answers_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        name = f"precomputed://http://127.0.0.1:{silent.getsockname()[1]}/em"
        with pytest.raises(UserError, match=r"does not answer within 1 s; .*--network_timeout"):
            open_volume(name, network_timeout_s=1)


# ── what is not as said ───────────────────────────────────────────────────────────────────────────────────────────────


def test_without_tensorstore_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(UserError, match="precomputed volumes need tensorstore; pip install"):
        open_volume(f"precomputed://{tmp_path}")


def test_a_folder_without_a_volume(tmp_path):
    with pytest.raises(UserError, match="holds no file info"):
        open_volume(f"precomputed://{tmp_path}")
    (tmp_path / "info").write_text('{"@type": "neuroglancer_legacy_mesh"}')
    with pytest.raises(UserError, match="its info describes no volume"):
        open_volume(f"precomputed://{tmp_path}")
    (tmp_path / "info").write_text("{")
    with pytest.raises(UserError, match="cannot read precomputed://"):
        open_volume(f"precomputed://{tmp_path}")


def test_ids_are_no_image_and_a_scale_must_be_there(tmp_path):
    from emlib.volumes.bossdb import BossOptions

    write_precomputed(tmp_path / "s", levels_of(ids(), "mode"), "segmentation")
    with pytest.raises(UserError, match="is a segmentation"):
        open_volume(f"precomputed://{tmp_path / 's'}")
    with pytest.raises(UserError, match=r"has no --resolution 7; there is 0: 4 × 8 × 40, 1: "):
        open_volume(f"precomputed://{tmp_path / 's'}", labels=True, boss=BossOptions(resolution=7))


def chunks(folder: Path) -> list[Path]:
    return sorted((folder / "4_8_40").iterdir())


@pytest.mark.parametrize("remote", [False, True])
def test_a_missing_chunk_is_an_error_unless_it_may_be_empty(tmp_path, served, remote):
    array = em()
    write_precomputed(tmp_path / "em", levels_of(array), "image")
    chunks(tmp_path / "em")[0].unlink()
    name = f"precomputed://{served[0] if remote else tmp_path}/em"
    with pytest.raises(UserError, match=r"a chunk is missing \(.*0-64_0-64_0-11.*--fill_missing"):
        open_volume(name).read(whole(array.shape))
    lines = []
    source = open_volume(name, fill_missing=True, note=lines.append)
    for _ in range(2):
        filled = source.read(whole(array.shape))
        assert not filled[:, :64, :64].any()
        assert np.array_equal(filled[:, 64:], array[:, 64:])
    assert len(lines) == 1 and "chunks are missing" in lines[0] and "0-64_0-64_0-11" in lines[0]


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_a_chunk_of_another_shape_than_said_is_an_error(tmp_path, encoding):
    write_precomputed(tmp_path / "s", levels_of(ids(), "mode"), "segmentation", encoding=encoding)
    chunk = chunks(tmp_path / "s")[0]
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot read precomputed://"):
        open_labels(f"precomputed://{tmp_path / 's'}").read(whole(ids().shape))


def test_what_cannot_be_encoded_is_refused(tmp_path):
    with pytest.raises(UserError, match="image of uint8 cannot be encoded as compressed_segmentation"):
        write_precomputed(tmp_path / "a", levels_of(em()), "image", encoding="compressed_segmentation")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_written(tmp_path, served):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/em"):
        write_precomputed(tmp_path / "file" / "em", levels_of(em()), "image")
    with pytest.raises(UserError, match=r"cannot write http"):
        write_precomputed(f"{served[0]}/em", levels_of(em()), "image")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there and no precomputed volume"):
        write_precomputed(tmp_path, levels_of(em()), "image")
    assert (tmp_path / "notes.txt").read_text() == "mine"


# ── the pipeline ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pipeline_reads_a_volume_from_a_server(tmp_path, served, pipeline):
    """The same cutout as from a file, at the scale that is asked for; a lost chunk ends it, or is stated."""
    array = np.repeat(em((8, 80, 80)), 2, axis=2)
    write_precomputed(tmp_path / "em", levels_of(array), "image", voxel_offset=(4, 8, 16))
    name = f"precomputed://{served[0]}/em"
    box = ("--cutout", 48, 40, 6, "--offset", 20, 30, 1, "--until", "cutout")
    code, _, err = pipeline("--dataset", name, *box, "--outdir", tmp_path / "a")
    assert code == 0, err
    assert np.array_equal(np.load(tmp_path / "a/data/em_cutout_u8_zyx.npy"), array[1:7, 30:70, 20:68])
    sidecar = json.loads((tmp_path / "a/data/em_cutout_u8_zyx.json").read_text())
    assert sidecar["voxel_size_nm"] == list(SIZE)
    code, _, err = pipeline("--dataset", name, "--resolution", 1, *box, "--outdir", tmp_path / "b")
    assert code == 0, err
    coarse = downsample(array, (1, 1, 2), "mean")
    assert np.array_equal(np.load(tmp_path / "b/data/em_cutout_u8_zyx.npy"), coarse[1:7, 30:70, 20:68])
    (tmp_path / "em/4_8_40/16-80_8-72_4-12").unlink()
    code, _, err = pipeline("--dataset", name, *box, "--outdir", tmp_path / "c")
    assert (code, err.count("\n")) == (2, 1)
    assert "a chunk is missing" in err and "--fill_missing" in err
    code, out, err = pipeline("--dataset", name, *box, "--outdir", tmp_path / "d", "--fill_missing")
    assert code == 0, err
    assert "chunks are missing" in out + err


def test_a_lost_chunk_of_a_zarr_ends_the_pipeline_or_is_stated(tmp_path, pipeline):
    array = em((8, 80, 80))
    create_array(tmp_path / "em.zarr", array.shape, array.dtype, (8, 40, 40), None, SIZE)[...] = array
    (tmp_path / "em.zarr/0/c/0/1/1").unlink()
    flags = ("--dataset", tmp_path / "em.zarr", "--cutout", 80, 80, 8, "--offset", 0, 0, 0, "--until", "cutout")
    code, _, err = pipeline(*flags, "--outdir", tmp_path / "a")
    assert (code, err.count("\n")) == (2, 1)
    assert "its chunk c/0/1/1 is missing" in err
    code, out, err = pipeline(*flags, "--outdir", tmp_path / "b", "--fill_missing")
    assert code == 0, err
    assert "chunks are missing, c/0/1/1 is the first" in out + err
    assert not np.load(tmp_path / "b/data/em_cutout_u8_zyx.npy")[:, 40:, 40:].any()
