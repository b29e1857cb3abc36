"""A run for other programs: precomputed folders, CAVE and neuPrint tables, skeletons."""

import json
import struct
import subprocess

import numpy as np
import pandas as pd
import pytest
from proofread_run import VOXEL, blobs, write_run

from emlib.errors import UserError
from emlib.runs.artefacts import Outputs
from emlib.view.contents import open_contents
from emlib.view.export_tables import count_neurites, export_cave, export_neuprint, export_skeletons
from emlib.view.meshes import decode_mesh
from emlib.volumes.companions import open_labels
from emlib.volumes.open import open_volume
from emlib.volumes.swc import read_skeletons

BOUND = ["pre_pt_root_id", "post_pt_root_id"]


@pytest.fixture
def run(tmp_path):
    """Folder of a run, and its labels."""
    return tmp_path / "run", write_run(tmp_path / "run", blobs((12, 70, 90), 12, background=0.0))


def whole(shape):
    return tuple(slice(0, length) for length in shape)


# ── precomputed ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def exported(run, tmp_path):
    for library in ("tensorstore", "neuroglancer", "fast_simplification"):
        pytest.importorskip(library)
    from emlib.view.export_precomputed import export_precomputed

    export_precomputed(open_contents(run[0]), tmp_path / "out", "a run", "https://host/run1/")
    return tmp_path / "out", run[1]


def test_volumes_come_back(exported, run):
    folder, labels = exported
    found = open_labels(f"precomputed://{folder / 'neurites'}")
    assert found.voxel_size_nm == VOXEL
    assert np.array_equal(found.read(whole(labels.shape)), labels)
    em = np.load(run[0] / "data/em_aligned_float32_zyx.npy")
    shown = open_volume(f"precomputed://{folder / 'em'}").read(whole(em.shape))
    assert np.abs(shown / 255 - em).max() < 0.003
    assert json.loads((folder / "neurites/info").read_text())["mesh"] == "mesh"


def test_every_neurite_has_a_mesh(exported):
    folder, labels = exported
    for neurite in np.unique(labels):
        manifest = json.loads((folder / f"neurites/mesh/{neurite}:0").read_text())
        mesh = decode_mesh((folder / "neurites/mesh" / manifest["fragments"][0]).read_bytes())
        assert mesh.volume == pytest.approx(np.count_nonzero(labels == neurite) * np.prod(VOXEL), rel=0.04)


def test_synapses_are_lines_found_by_place_and_by_partner(exported, run):
    folder, synapses = exported[0] / "synapses", open_contents(run[0]).synapses
    info = json.loads((folder / "info").read_text())
    assert (info["@type"], info["annotation_type"]) == ("neuroglancer_annotations_v1", "line")
    assert info["dimensions"] == {"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [4e-8, "m"]}
    assert [one["id"] for one in info["relationships"]] == ["pre", "post"]
    content = (folder / "spatial0/0_0_0").read_bytes()
    (count,) = struct.unpack("<Q", content[:8])
    lines = np.frombuffer(content, "<f4", count * 7, 8).reshape(count, 7)
    columns = [f"{side}_{axis}" for side in ("pre", "post") for axis in "xyz"]
    assert np.array_equal(lines[:, :6], synapses[columns].to_numpy() + 0.5)
    assert lines[:, 6] == pytest.approx(synapses["score"])
    assert (np.minimum(lines[:, :3], lines[:, 3:6]) >= info["lower_bound"]).all()
    assert (np.maximum(lines[:, :3], lines[:, 3:6]) <= info["upper_bound"]).all()
    for side in ("pre", "post"):
        for neurite, rows in synapses.groupby(f"{side}_id"):
            (found,) = struct.unpack("<Q", (folder / f"rel_{side}" / str(int(neurite))).read_bytes()[:8])
            assert found == len(rows)


def test_the_state_names_the_address(exported):
    state = json.loads((exported[0] / "state.json").read_text())
    sources = [layer["source"] for layer in state["layers"]]
    assert sources == [f"precomputed://https://host/run1/{n}" for n in ("em", "boundaries", "neurites", "synapses")]


def test_an_export_is_replaced_and_nothing_else(exported, run, tmp_path):
    from emlib.view.export_precomputed import export_precomputed

    contents = open_contents(run[0])
    (exported[0] / "left.txt").write_text("old")
    export_precomputed(contents, exported[0], "again")
    assert not (exported[0] / "left.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else than an export"):
        export_precomputed(contents, tmp_path / "mine", "a run")
    with pytest.raises(UserError, match="is a file; name a folder"):
        export_precomputed(contents, tmp_path / "mine/notes.txt", "a run")


def test_equal_runs_give_equal_bytes(exported, run, tmp_path):
    from emlib.view.export_precomputed import export_precomputed

    export_precomputed(open_contents(run[0]), tmp_path / "again", "a run", "https://host/run1/")
    assert subprocess.run(["diff", "-r", exported[0], tmp_path / "again"], capture_output=True).returncode == 0


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_counts_are_exact_whatever_the_blocks(run):
    labels = run[1]
    contents = open_contents(run[0])
    for block in (128, 17):
        table = count_neurites(contents, block)
        ids, counts = np.unique(labels, return_counts=True)
        assert table["neurite_id"].tolist() == ids.tolist()
        assert table["voxels"].tolist() == counts.tolist()
        assert (labels[table["z"], table["y"], table["x"]] == table["neurite_id"]).all()


def test_cave_columns_are_those_of_a_synapse_query_in_nm(run, tmp_path):
    labels, synapses = run[1], open_contents(run[0]).synapses
    export_cave(open_contents(run[0]), tmp_path)
    table = pd.read_csv(tmp_path / "synapses.csv")
    points = [f"{point}_pt_position_{axis}" for point in ("pre", "post", "ctr") for axis in "xyz"]
    assert {"id", "valid", "size", *points, *BOUND} <= set(table.columns)
    assert table["pre_pt_root_id"].tolist() == synapses["pre_id"].tolist()
    for side in ("pre", "post"):
        z, y, x = (table[f"{side}_pt_position_{axis}"] // size for axis, size in zip("zyx", VOXEL, strict=True))
        assert (labels[z.astype(int), y.astype(int), x.astype(int)] == table[f"{side}_pt_root_id"]).all()
    assert (table["ctr_pt_position_z"] == ((synapses["z"] + 0.5) * 40).astype(int)).all()
    neurons = pd.read_csv(tmp_path / "neurons.csv")
    assert neurons["pt_root_id"].tolist() == np.unique(labels).tolist()
    assert json.loads((tmp_path / "tables.json").read_text())["synapses"]["schema_type"] == "synapse"


def test_neuprint_columns_are_those_of_its_client_in_voxels(run, tmp_path):
    labels, synapses = run[1], open_contents(run[0]).synapses
    export_neuprint(open_contents(run[0]), tmp_path)
    table = pd.read_csv(tmp_path / "synapses.csv")
    assert list(table.columns) == [
        *("bodyId_pre", "bodyId_post", "roi_pre", "roi_post", "x_pre", "y_pre", "z_pre", "x_post", "y_post", "z_post"),
        *("confidence_pre", "confidence_post"),
    ]
    assert (labels[table["z_pre"], table["y_pre"], table["x_pre"]] == table["bodyId_pre"]).all()
    neurons = pd.read_csv(tmp_path / "neurons.csv").set_index("bodyId")
    assert neurons["size"].to_dict() == dict(zip(*np.unique(labels, return_counts=True), strict=True))
    assert neurons["pre"].to_dict() == {n: int((synapses["pre_id"] == n).sum()) for n in neurons.index}
    assert neurons["post"].sum() == len(synapses)
    connections = pd.read_csv(tmp_path / "connections.csv")
    assert list(connections.columns) == ["bodyId_pre", "bodyId_post", "weight"]
    assert connections["weight"].sum() == len(synapses)


def test_unknown_direction_invented_data_and_names_are_told(run, tmp_path):
    folder, labels = run
    path = folder / "tables/synapse_candidates.csv"
    pd.read_csv(path).assign(direction="unknown").to_csv(path, index=False)
    em = np.load(folder / "data/em_aligned_float32_zyx.npy")
    Outputs(folder).array("em_aligned_float32_zyx", em, "em", voxel_size_nm=VOXEL, synthetic="a phantom")
    named = pd.DataFrame({"neurite_id": [99], "name": ["AVAL"], "note": [""], "z": [3], "y": [4], "x": [5]})
    named.to_csv(folder / "tables/neurite_names.csv", index=False)  # the place counts: ids change
    export_neuprint(open_contents(folder), tmp_path)
    about = json.loads((tmp_path / "tables.json").read_text())
    assert about["direction"].startswith("unknown")
    assert about["synthetic"] == "a phantom"
    neurons = pd.read_csv(tmp_path / "neurons.csv").set_index("bodyId")
    assert neurons.loc[labels[3, 4, 5], "instance"] == "AVAL"
    assert neurons["instance"].notna().sum() == 1


def test_a_run_without_synapses_is_exported_too(tmp_path):
    write_run(tmp_path / "run", candidates=False)
    contents = open_contents(tmp_path / "run")
    export_cave(contents, tmp_path / "cave")
    export_neuprint(contents, tmp_path / "neuprint")
    for path in (*tmp_path.glob("*/synapses.csv"), tmp_path / "neuprint/connections.csv"):
        assert len(pd.read_csv(path)) == 0
    assert len(pd.read_csv(tmp_path / "cave/neurons.csv")) == 9


# ── skeletons ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_skeletons_lie_inside_their_neurites(run, tmp_path):
    folder, labels = run
    written = export_skeletons(open_contents(folder), tmp_path / "swc")
    assert written
    for path in written:
        (skeleton,) = read_skeletons(path, VOXEL)
        z, y, x = np.rint(skeleton.nodes).astype(int).T
        assert (labels[z, y, x] == int(path.stem)).all()


def test_skeletons_of_a_large_volume_come_from_a_coarser_level(run, tmp_path, monkeypatch):
    folder, labels = run
    monkeypatch.setattr("emlib.view.export_tables.SKELETON_VOXELS", labels.size // 2)
    for path in export_skeletons(open_contents(folder), tmp_path / "swc"):
        (skeleton,) = read_skeletons(path, VOXEL)
        z, y, x = np.rint(skeleton.nodes).astype(int).T
        assert (labels[z, y, x] == int(path.stem)).mean() > 0.9


# ── the script ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_script_exports(run, tmp_path, call_script):
    done = call_script("view.py", "--outdir", run[0], "--export", "cave", tmp_path / "cave", "--skeletons")
    assert done.returncode == 0, done.stderr
    assert f"written: {tmp_path / 'cave' / 'synapses.csv'}" in done.stdout
    assert list((run[0] / "data/skeletons").glob("*.swc"))


def test_an_unknown_format_is_one_line(run, tmp_path, call_script):
    done = call_script("view.py", "--outdir", run[0], "--export", "catmaid", tmp_path / "x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--export catmaid is not known; write precomputed, cave, neuprint" in done.stderr
