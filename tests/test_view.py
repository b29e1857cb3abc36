"""A run as a viewer shows it: volumes, meshes, synapses, the local server."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from proofread_run import VOXEL, blobs, write_run

from emlib.errors import UserError
from emlib.proofread.run_files import find_run
from emlib.view.contents import largest_neurites, open_contents
from emlib.view.meshes import Mesher, decode_mesh, encode_mesh
from emlib.view.precomputed_info import chunk_box
from emlib.view.state import make_state
from emlib.volumes.levels import open_levels
from emlib.volumes.ome_zarr import build_pyramid, create_array
from emlib.volumes.synthetic import SYNTHETIC_MARK
from emlib.volumes.volume import VolumeSource

pytest.importorskip("fast_simplification")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path):
    """Folder of a run, and its labels."""
    return tmp_path / "run", write_run(tmp_path / "run", blobs((12, 70, 90), 12, background=0.0))


def whole(shape):
    return tuple(slice(0, length) for length in shape)


# ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_contents_are_those_of_the_run(run):
    folder, labels = run
    contents = open_contents(folder)
    assert contents.voxel_size_nm == VOXEL
    assert np.array_equal(contents.neurites.read(0, whole(labels.shape)), labels)
    em = np.load(folder / "data" / "em_aligned_float32_zyx.npy")
    shown = contents.images["em"].read(0, whole(labels.shape))
    assert shown.dtype == np.uint8
    assert np.abs(shown / 255 - em).max() <= 0.5 / 255 + 1e-6
    assert contents.images["boundaries"].dtype == np.uint8
    assert contents.directed
    assert list(contents.synapses["score"]) == sorted(contents.synapses["score"], reverse=True)


def test_partners_of_a_synapse_have_a_place_inside(run):
    folder, labels = run
    for row in open_contents(folder).synapses.itertuples():
        assert labels[row.pre_z, row.pre_y, row.pre_x] == row.pre_id
        assert labels[row.post_z, row.post_y, row.post_x] == row.post_id


def test_places_do_not_depend_on_how_synapses_are_grouped(run, monkeypatch):
    together = open_contents(run[0]).synapses
    monkeypatch.setattr("emlib.view.partners.CELL", (3, 16, 16))
    pd.testing.assert_frame_equal(open_contents(run[0]).synapses, together)


def test_the_best_synapses_are_taken_where_there_are_too_many(run):
    contents = open_contents(run[0], most=2)
    assert contents.synapses["score"].tolist() == open_contents(run[0]).synapses["score"].tolist()[:2]
    assert contents.total == 6


def test_a_partner_that_is_not_near_has_the_place_of_the_synapse(run):
    path = run[0] / "tables/synapse_candidates.csv"
    pd.read_csv(path).assign(post_id=4711).to_csv(path, index=False)
    table = open_contents(run[0]).synapses
    assert np.array_equal(table[["post_z", "post_y", "post_x"]], table[["z", "y", "x"]])


def test_a_store_of_block_mode_is_as_good_as_arrays(run, tmp_path):
    folder, labels = run
    plain = open_contents(folder)
    for name, file in (("em", "em_aligned_float32_zyx"), ("boundaries", "boundaries_f16_zyx")):
        array = np.load(folder / "data" / f"{file}.npy")
        create_array(folder / "data/volume.zarr" / name, array.shape, array.dtype, (8, 32, 32), None, VOXEL)[...] = (
            array
        )
    stored = folder / "data/volume.zarr/labels/neurites"
    create_array(stored, labels.shape, labels.dtype, (8, 32, 32), None, VOXEL)[...] = labels
    build_pyramid(stored)
    expected = {name: plain.images[name].read(0, whole(labels.shape)) for name in plain.images}
    coarse = plain.neurites.read(1, whole(plain.neurites.levels[1].shape))
    for file in (folder / "data").glob("*.np*"):
        file.unlink()
    (folder / "data" / SYNTHETIC_MARK).write_text("a phantom\n")
    assert find_run(folder).labels.uri.endswith("labels/neurites")
    contents = open_contents(folder)
    assert contents.files.synthetic == "a phantom"
    assert contents.voxel_size_nm == VOXEL
    for name, array in expected.items():
        assert np.array_equal(contents.images[name].read(0, whole(labels.shape)), array)
    assert np.array_equal(contents.neurites.read(1, whole(coarse.shape)), coarse)


def test_the_largest_neurites_come_first(run):
    folder, labels = run
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    shown = largest_neurites(open_contents(folder).neurites, 3)
    assert shown == list(np.argsort(-counts)[:3])


def test_no_run_and_a_table_of_another_run(run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_contents(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no labels"):
        open_contents(tmp_path / "empty")
    table = pd.read_csv(run[0] / "tables/synapse_candidates.csv")
    table.loc[0, "x"] = 90
    table.to_csv(run[0] / "tables/synapse_candidates.csv", index=False)
    with pytest.raises(UserError, match=r"the synapse at .* lies outside of the labels \(12, 70, 90\)"):
        open_contents(run[0])


# ── meshes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def levels_of(labels, size=VOXEL):
    return open_levels(VolumeSource("a", labels.shape, labels.dtype, lambda box: labels[box]), size, "mode")


def ball(radius_nm, size, shape=(24, 80, 90)):
    places = (np.indices(shape).reshape(3, -1).T + 0.5) * size
    inside = np.linalg.norm(places - np.array(shape) * size / 2, axis=1) <= radius_nm
    return (inside.reshape(shape) * 7).astype(np.uint32)


def middle_of(mesh):
    return (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2


@pytest.mark.parametrize("size", [(10.0, 10.0, 10.0), (40.0, 8.0, 8.0)])
def test_a_ball_has_the_volume_and_the_place_of_a_ball(size):
    radius = 0.4 * min(n * s for n, s in zip((24, 80, 90), size, strict=True))
    labels = ball(radius, np.array(size))
    mesh = Mesher(levels_of(labels, size)).make(7)
    assert mesh.volume == pytest.approx(np.count_nonzero(labels) * np.prod(size), rel=0.02)
    middle = (np.array(labels.shape) * size / 2)[::-1]
    assert middle_of(mesh) == pytest.approx(middle, abs=max(size) / 10)
    away = np.linalg.norm(mesh.vertices - middle, axis=1)
    assert np.abs(away - radius).max() < max(size)


def test_meshes_are_closed_at_the_faces_of_the_volume(run):
    labels = run[1]
    mesher = Mesher(levels_of(labels))
    assert mesher.ids == sorted(set(labels.ravel().tolist()) - {0})
    for neurite in mesher.ids[:4]:
        mesh = mesher.make(neurite)
        edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
        assert mesh.vertices.min() >= -1  # nm; simplifying moves a vertex a little
        assert (mesh.vertices.max(0) <= (np.array(labels.shape) * VOXEL)[::-1] + 1).all()
        assert mesh.volume == pytest.approx(np.count_nonzero(labels == neurite) * np.prod(VOXEL), rel=0.03)


def test_a_neurite_that_is_not_there_has_no_mesh(run):
    assert Mesher(levels_of(run[1])).make(999) is None


def test_meshes_made_at_once_are_those_made_one_by_one(run):
    """The library that simplifies keeps its mesh in global variables."""
    labels = np.kron(run[1], np.ones((1, 2, 2), np.int32))
    mesher = Mesher(levels_of(labels))
    ids = mesher.ids * 3
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(mesher.make, ids))
    for neurite, mesh in zip(ids, at_once, strict=True):
        assert np.array_equal(mesh.vertices, mesher.make(neurite).vertices)


def test_a_large_neurite_is_drawn_from_a_coarser_level(monkeypatch):
    labels = ball(200.0, np.array((10.0, 10.0, 10.0)), (60, 90, 100))
    fine = Mesher(levels_of(labels, (10.0, 10.0, 10.0))).make(7)
    monkeypatch.setattr("emlib.view.meshes.MOST_VOXELS", 20_000)
    monkeypatch.setattr("emlib.view.meshes.FIND_VOXELS", 100_000)
    coarse = Mesher(levels_of(labels, (10.0, 10.0, 10.0))).make(7)
    assert coarse.volume == pytest.approx(fine.volume, rel=0.05)
    assert middle_of(coarse) == pytest.approx(middle_of(fine), abs=10)
    assert len(coarse.faces) != len(fine.faces)


def test_a_mesh_survives_its_file(run):
    mesh = Mesher(levels_of(run[1])).make(1)
    again = decode_mesh(encode_mesh(mesh))
    assert np.array_equal(again.vertices, mesh.vertices)
    assert np.array_equal(again.faces, mesh.faces)


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_state_shows_all_layers_at_the_centre(run):
    state = make_state(open_contents(run[0]), "http://here/data", "a run")
    assert [layer["name"] for layer in state["layers"]] == ["em", "boundaries", "neurites", "synapses"]
    assert state["position"] == [45, 35, 6]
    assert state["dimensions"]["z"] == [4e-8, "m"]
    synapses = state["layers"][-1]
    assert synapses["linkedSegmentationLayer"] == {"pre": "neurites", "post": "neurites"}
    first, table = synapses["annotations"][0], open_contents(run[0]).synapses.iloc[0]
    assert first["segments"] == [[str(int(table.pre_id))], [str(int(table.post_id))]]
    assert first["pointA"] == [table.pre_x + 0.5, table.pre_y + 0.5, table.pre_z + 0.5]
    assert "→" in first["description"]
    json.dumps(state)


def test_synapses_of_unknown_direction_have_no_arrow(run):
    path = run[0] / "tables/synapse_candidates.csv"
    pd.read_csv(path).assign(direction="unknown").to_csv(path, index=False)
    contents = open_contents(run[0])
    assert not contents.directed
    layer = make_state(contents, "http://here", "a run")["layers"][-1]
    assert "→" not in layer["annotations"][0]["description"]
    assert "vec3(1.0, 0.55, 0.0)" not in layer["shader"]


@pytest.mark.parametrize("name", ["info", "0-65_0-10_0-2", "0-10_0-10_0-3", "5-5_0-1_0-1", "../../x", "0-1_0-1"])
def test_what_is_no_chunk_is_told(name):
    assert chunk_box(name, (2, 100, 100)) is None


@pytest.fixture
def page(run):
    pytest.importorskip("neuroglancer")
    from emlib.view.server import Page

    lines = []
    page = Page(open_contents(run[0]), "a run", warn=lines.append)
    page.lines = lines
    yield page
    page.close()


def get(page, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}{path}", timeout=30) as answer:
        return answer.read()


def status(page, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(page, path)
    return error.value.code


def test_the_server_gives_what_the_page_asks_for(page, run):
    base, labels = f"/data/{page.token}", run[1]
    assert b"<html" in get(page, f"/v/{page.token}/")
    info = json.loads(get(page, f"{base}/neurites/info"))
    assert info["scales"][0]["size"] == [90, 70, 12]
    assert info["scales"][0]["resolution"] == [8, 8, 40]
    chunk = np.frombuffer(get(page, f"{base}/neurites/0/64-90_0-64_0-12"), np.uint32).reshape(12, 64, 26)
    assert np.array_equal(chunk, labels[:, :64, 64:])
    fragment = json.loads(get(page, f"{base}/neurites/mesh/3:0"))["fragments"][0]
    mesh = decode_mesh(get(page, f"{base}/neurites/mesh/{fragment}"))
    assert mesh.volume == pytest.approx(np.count_nonzero(labels == 3) * np.prod(VOXEL), rel=0.03)


def test_the_server_gives_nothing_else(page):
    base = f"/data/{page.token}"
    for path in ("/data/em/info", "/data/x/em/info", f"{base}/em/9/0-1_0-1_0-1", f"{base}/em/../info", f"{base}/x"):
        assert status(page, path) == 404
    assert status(page, "/v/x/") == 404
    assert status(page, f"{base}/neurites/mesh/999") == 404


def test_the_server_listens_on_this_machine_alone(page):
    import psutil

    bound = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN" and c.laddr.port == page.port]
    assert {address.ip for address in bound} == {"127.0.0.1"}


def test_credentials_of_other_services_are_not_given(page):
    request = urllib.request.Request(f"http://127.0.0.1:{page.port}/credentials/{page.token}", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    assert error.value.code == 403


def test_sharing_is_for_those_who_have_the_address(run):
    pytest.importorskip("neuroglancer")
    import psutil

    from emlib.view.server import Page

    page = Page(open_contents(run[0]), "a run", share=True)
    try:
        bound = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"]
        assert "0.0.0.0" in {address.ip for address in bound if address.port == page.port}
        assert get(page, f"/data/{page.token}/em/info")
        assert status(page, "/data/guessed/em/info") == 404
    finally:
        page.close()


def test_damage_is_told_once_and_the_page_goes_on(page, run):
    file = run[0] / "data/boundaries_f16_zyx.npy"
    file.write_bytes(file.read_bytes()[:200])
    for _ in range(2):
        assert status(page, f"/data/{page.token}/boundaries/0/0-64_0-64_0-12") == 500
    assert len(page.lines) == 1
    assert "boundaries_f16_zyx.npy" in page.lines[0]
    assert get(page, f"/data/{page.token}/em/0/0-64_0-64_0-12")


def test_a_port_in_use_is_one_line(run, run_script):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_script("view.py", "--outdir", run[0], "--port", port, "--no_browser", timeout=100)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"--port {port} cannot be used: Address already in use" in done.stderr


def test_no_run_is_one_line(tmp_path, call_script):
    done = call_script("view.py", "--outdir", tmp_path / "x", "--no_browser")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no run in" in done.stderr


def test_the_script_serves_until_it_is_stopped(run):
    command = [sys.executable, ROOT / "view.py", "--outdir", run[0], "--no_browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"<html" in answer.read()
        assert "6 synapses; 90 × 70 × 12 voxels" in process.stdout.readline()
    finally:
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "closed" in out
    assert err == ""


def test_without_neuroglancer_one_line_says_so(run, monkeypatch):
    from emlib.view.server import Page

    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(UserError, match=r"the viewer needs neuroglancer; pip install -r requirements-view\.txt"):
        Page(open_contents(run[0]), "a run")


def test_without_the_library_for_meshes_one_line_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    monkeypatch.setattr("emlib.view.meshes.MANY_FACES", 1)
    with pytest.raises(UserError, match="meshes need fast-simplification; pip install"):
        Mesher(levels_of(run[1])).make(1)


def test_other_labels_are_shown_with_the_newest_synapses(run, tmp_path):
    folder, _ = run
    shutil.copy(folder / "data/neurite_labels_i32_zyx.npy", tmp_path / "other.npy")
    changed = np.load(tmp_path / "other.npy")
    changed[changed == 1] = 2
    np.save(tmp_path / "other.npy", changed)
    contents = open_contents(folder, tmp_path / "other.npy")
    assert 1 not in Mesher(contents.neurites).ids
    assert contents.voxel_size_nm == VOXEL
