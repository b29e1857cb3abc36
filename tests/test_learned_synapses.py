"""Synapse candidates from the map of a network: drawn maps with a known answer, and ``run_pipeline.py --synapses``."""

import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage as ndi
from test_learned_boundaries import SHAPE, save, write_cells

from emlib import threads
from emlib.errors import UserError
from emlib.learn.volumes.boundary_model import load_boundary_model
from emlib.pipeline import PipelineSettings, StageSettings
from emlib.pipeline.dependence import dependence
from emlib.pipeline.rebuild import RebuildSettings, rebuild
from emlib.runs.settings import override
from emlib.stages.expert_boundaries import ExpertSettings, expert_boundaries
from emlib.stages.expert_synapse_components import ExpertSynapseSettings, find_pieces, piece_score
from emlib.stages.expert_synapses import COLUMNS, find_expert_candidates
from emlib.stages.graph import build_graph, edge_table, node_table, to_graphml
from emlib.stages.synapse_direction import leave_direction_open, sender_and_receiver
from emlib.stages.synapses import SynapseSettings, find_candidates

ISOTROPIC, SERIAL = (10.0, 10.0, 10.0), (50.0, 5.0, 5.0)


def stripes(shape, width):
    """Neurites 1, 2, … side by side along x, and EM without any structure but noise."""
    labels = np.broadcast_to(1 + np.arange(shape[2]) // width, shape).astype(np.int32)
    return labels, np.random.default_rng(0).normal(0.6, 0.05, shape).clip(0, 1).astype(np.float32)


def balls(shape, voxel_size_nm, places, radius_nm):
    """Probability 0.9 in balls (z, y, x in voxels), 0.1 elsewhere."""
    grid = np.stack(np.indices(shape), -1)
    found = np.full(shape, 0.1, np.float16)
    for place in places:
        far = np.linalg.norm((grid - place) * np.array(voxel_size_nm), axis=-1)
        found[far <= radius_nm] = 0.9
    return found


# ---- pieces


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, SERIAL])
def test_pieces_are_what_was_drawn(voxel_size_nm):
    shape = (30, 60, 80) if voxel_size_nm == ISOTROPIC else (8, 120, 160)
    places = [(4, 20, 20), (4, 40, 60)] if voxel_size_nm == ISOTROPIC else [(4, 40, 40), (4, 80, 120)]
    probability = balls(shape, voxel_size_nm, places, 60)
    found = find_pieces(probability, voxel_size_nm)
    assert sorted(map(tuple, found.place.tolist())) == places
    assert found.area_nm2 == pytest.approx(np.pi * 60**2, rel=0.1)
    assert sum(map(len, found.voxels)) == (probability > 0.5).sum()
    assert not len(find_pieces(probability, voxel_size_nm, ExpertSynapseSettings(min_probability=0.95)).place)
    assert not len(find_pieces(probability, voxel_size_nm, ExpertSynapseSettings(min_area_nm2=20_000)).place)


def test_a_flat_piece_counts_by_its_face_whichever_way_it_lies():
    probability = np.zeros((40, 40, 40), np.float16)
    for axis in range(3):
        plane = np.moveaxis(probability.copy(), axis, 0)
        plane[20, 5:15, 5:15] = 1
        found = find_pieces(np.moveaxis(plane, 0, axis), ISOTROPIC)
        assert found.area_nm2.tolist() == [10_000.0]


def test_pieces_of_sections_are_joined_where_they_lie_on_each_other():
    """Serial sections: what is oblique goes on, what only comes near is another synapse."""
    probability = np.zeros((3, 80, 80), np.float16)
    probability[0, 10:30, 10:30] = probability[1, 15:35, 15:35] = 1
    probability[1, 45:59, 45:59] = 1  # 14 pixels beside the second
    probability[2, 66:76, 66:76] = 1  # lies on it by 1 of 100 once that is widened by 8
    size = ExpertSynapseSettings(min_area_nm2=1000)
    assert sorted(map(len, find_pieces(probability, SERIAL, size).voxels)) == [100, 196, 800]
    probability[2] = 0
    probability[2, 60:70, 45:55] = 1  # one pixel below it
    assert sorted(map(len, find_pieces(probability, SERIAL, size).voxels)) == [296, 800]
    plain = ExpertSynapseSettings(min_area_nm2=1000, slant_nm=0)
    assert sorted(map(len, find_pieces(probability, SERIAL, plain).voxels)) == [100, 196, 800]
    assert find_pieces(probability, SERIAL, size).area_nm2.tolist() == [10000.0, 4900.0]  # the largest in a section


def test_an_empty_section_between_parts_two_synapses():
    probability = np.zeros((3, 40, 40), np.float16)
    probability[[0, 2], 10:30, 10:30] = 1
    assert len(find_pieces(probability, SERIAL).place) == 2


@pytest.mark.parametrize("seed", range(3))
def test_pieces_in_3d_equal_a_plain_labelling(seed):
    noise = ndi.gaussian_filter(np.random.default_rng(seed).random((14, 30, 30)), 1.5)
    probability = (noise - noise.min()) / np.ptp(noise)
    found = find_pieces(probability, ISOTROPIC, ExpertSynapseSettings(min_area_nm2=0, min_probability=0.6))
    labels, count = ndi.label(probability >= 0.6, np.ones((3, 3, 3)))
    assert len(found.voxels) == count
    for voxels, place in zip(found.voxels, found.place, strict=True):
        names = np.unique(labels[tuple(voxels.T)])
        assert len(names) == 1 and (labels == names[0]).sum() == len(voxels)
        centre = ndi.center_of_mass(probability, labels, names[0])
        far = np.linalg.norm(voxels - centre, axis=1)
        assert np.linalg.norm(place - centre) == pytest.approx(far.min())


def test_nothing_gives_nothing():
    for voxel in (ISOTROPIC, SERIAL):
        found = find_pieces(np.zeros((3, 20, 20), np.float16), voxel)
        assert found.place.shape == (0, 3) and not len(found.score)
    labels, em = stripes((3, 20, 20), 10)
    table = find_expert_candidates(np.zeros(em.shape, np.float16), em, labels, SERIAL)
    assert list(table) == list(COLUMNS) and not len(table) and table["z"].dtype == np.int64


def test_the_score_grows_with_the_area_and_is_a_half_at_the_threshold():
    scores = piece_score(np.array([0.0, 1000, 3000, 9000, 1e6]))
    assert (np.diff(scores) > 0).all() and scores[0] == 0 and scores[2] == 0.5 and scores[-1] < 1


# ---- candidates


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, SERIAL])
@pytest.mark.parametrize("gap", [False, True])
def test_partners_are_the_neurites_that_it_lies_on(voxel_size_nm, gap):
    """A piece mostly in neurite 3, partly in 2, and 1 and 4 far away."""
    px = voxel_size_nm[1]
    width = int(400 / px)
    labels, em = stripes((6, width, 4 * width), width)
    if gap:
        labels = np.where((np.arange(labels.shape[2]) % width < 30 / px)[None, None], 0, labels)
    place = (3, width // 2, 2 * width + int(30 / px))
    probability = balls(labels.shape, voxel_size_nm, [place], 60)
    found = find_expert_candidates(probability, em, labels, voxel_size_nm)
    assert len(found) == 1 and found["partners"][0] == ""
    assert {found["pre_id"][0], found["post_id"][0]} == {2, 3}
    assert np.abs(found.loc[0, ["z", "y", "x"]].to_numpy(float) - place).max() <= 1
    assert found["contact"][0] == pytest.approx(1)


def test_a_piece_inside_one_neurite_takes_the_nearest_other_or_is_left_out():
    labels, em = stripes((4, 80, 240), 80)
    near, far = (balls(labels.shape, SERIAL, [(2, 40, x)], 40) for x in (95, 120))
    found = find_expert_candidates(near, em, labels, SERIAL)  # 75 nm from the wall, its rim 35 nm
    assert len(found) == 1 and {found["pre_id"][0], found["post_id"][0]} == {1, 2}
    assert not len(find_expert_candidates(far, em, labels, SERIAL))


def test_further_partners_are_ranked_by_contact():
    labels, em = stripes((4, 120, 240), 80)
    labels = labels.copy()
    labels[:, 40:, :80] = 7  # below neurite 1
    probability = balls(labels.shape, SERIAL, [(2, 50, 85)], 90)
    found = find_expert_candidates(probability, em, labels, SERIAL)
    assert len(found) == 1 and {found["pre_id"][0], found["post_id"][0]} | {int(found["partners"][0])} == {1, 2, 7}
    assert found["post_id"][0] != 1 and found["partners"][0] in ("1", "7") and found["contact"][0] < 1


def test_dark_spots_make_the_sender():
    """Two neurites alike but for the vesicles of one."""
    labels, em = stripes((2, 120, 120), 60)
    rng = np.random.default_rng(1)
    dots = ndi.binary_dilation(rng.random(em.shape) < 0.01, np.ones((1, 6, 6)))
    probability = balls(labels.shape, SERIAL, [(0, 60, 60)], 50)
    for sender in (1, 2):
        dark = np.where(dots & (labels == sender), 0.1, em).astype(np.float32)
        found = find_expert_candidates(probability, dark, labels, SERIAL)
        assert found["pre_id"].tolist() == [sender] and found["direction_confidence"][0] > 0.5


def test_results_do_not_depend_on_threads_or_on_the_digits_of_the_map():
    labels, em = stripes((6, 120, 240), 40)
    rng = np.random.default_rng(3)
    places = rng.uniform(0, labels.shape, (12, 3))
    probability = balls(labels.shape, SERIAL, places, 60)
    tables = []
    for count in (1, 3):
        threads.set_threads(count)
        tables.append(find_expert_candidates(probability, em, labels, SERIAL))
    threads.set_threads(None)
    tables.append(find_expert_candidates(probability.astype(np.float32), em, labels, SERIAL))
    assert len(tables[0]) > 3
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=True)


@pytest.mark.parametrize(
    ("probability", "labels", "said"),
    [
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 9), int), "of one shape"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), "they must be integers"),
    ],
)
def test_wrong_arrays_are_refused(probability, labels, said):
    with pytest.raises(ValueError, match=said):
        find_expert_candidates(probability, np.zeros((2, 8, 8), np.float32), labels, SERIAL)


# ---- direction left open


def test_who_sends_can_be_left_open():
    rows = pd.DataFrame({"pre_id": [5, 2, 3], "post_id": [2, 5, 9], "score": [0.5, 0.75, 0.9]})
    graph = build_graph(leave_direction_open(rows))
    assert type(graph) is nx.Graph and graph.graph == {"direction": "unknown"}
    edges, nodes = edge_table(graph), node_table(graph)
    assert edges[["source", "target", "weight", "direction"]].to_numpy().tolist() == [
        [2, 5, 2, "unknown"],
        [3, 9, 1, "unknown"],
    ]
    assert nodes[["node", "degree", "weight", "component"]].to_numpy().tolist() == [
        [2, 1, 2, 1],
        [5, 1, 2, 1],
        [3, 1, 1, 2],
        [9, 1, 1, 2],
    ]
    assert set(nodes["direction"]) == {"unknown"} and "in_degree" not in nodes
    again = nx.parse_graphml(to_graphml(graph))
    assert not again.is_directed() and again.graph["direction"] == "unknown" and again["2"]["5"]["weight"] == 2
    empty = build_graph(leave_direction_open(rows.iloc[:0]))
    assert not empty.is_directed() and list(edge_table(empty)) == list(edges) and list(node_table(empty)) == list(nodes)
    flipped = rows.rename(columns={"pre_id": "post_id", "post_id": "pre_id"})
    assert to_graphml(build_graph(leave_direction_open(flipped))) == to_graphml(graph)


def test_the_sender_has_the_most_votes_and_the_first_other_receives():
    near, vote = np.array([[4, 7, 9, 0], [3, 8, 0, 0]]), np.array([[0.0, 2.0, 1.0, 99], [1.0, 1.0, 99, 99]])
    found = sender_and_receiver(near, vote)
    assert found["pre_id"].tolist() == [7, 3] and found["post_id"].tolist() == [4, 8]
    assert found["partners"] == ["9", ""] and found["direction_confidence"].tolist() == [np.tanh(1), 0]


def test_candidates_of_dark_densities_leave_it_open_as_well():
    from test_synapses import PLACES, scene

    em, labels = scene(SERIAL, PLACES)
    known = find_candidates(em, labels, SERIAL)
    left_open = find_candidates(em, labels, SERIAL, SynapseSettings(directed=False))
    assert (left_open["direction"] == "unknown").all() and (left_open["direction_confidence"] == 0).all()
    pairs = np.sort(known[["pre_id", "post_id"]].to_numpy(), axis=1)
    assert (left_open[["pre_id", "post_id"]].to_numpy() == pairs).all() and len(known)
    pd.testing.assert_series_equal(known["score"], left_open["score"])


# ---- a run


@pytest.fixture(scope="module")
def em(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("em"))


LOW = ["--set", "synapses.experts.min_area_nm2=0", "synapses.experts.min_probability=0.3"]


def flags(em, out, *more):
    box = ["--cutout", *reversed(SHAPE), "--offset", 0, 0, 0, "--voxel_size", 10, 10, 10]
    return ["--dataset", em, *box, "--outdir", out, *more]


def table(out):
    return pd.read_csv(out / "tables" / "synapse_candidates.csv")


def test_one_pass_gives_all_maps_and_the_candidates(pipeline, em, tmp_path, monkeypatch):
    path, out = save(tmp_path / "m.pth", ["membranes", "mitochondria", "synapses"]), tmp_path / "out"
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs["maps"])
        return expert_boundaries(*args, **kwargs)

    monkeypatch.setattr("emlib.pipeline.boundary_sources.expert_boundaries", counted)
    argv = flags(em, out, "--boundaries", "experts", "--model_path", path, *LOW, "experts.axes=1")
    code, _, err = pipeline(*argv)
    assert code == 0 and len(calls) == 1 and "which neurite of a synapse sends was never validated" in err, err
    model, grey, along_z = load_boundary_model(path), tifffile.imread(em), ExpertSettings(axes=1)
    names = ("boundaries", "mitochondria", "synapses")
    maps = expert_boundaries(grey, (10, 10, 10), model, along_z, maps=names)
    for name in ("synapse", "mitochondria"):
        found = np.load(out / "data" / f"{name}_probability_f16_zyx.npy")
        assert found.dtype == np.float16 and (found == getattr(maps, name.replace("synapse", "synapses"))).all()
        about = json.loads((out / "data" / f"{name}_probability_f16_zyx.json").read_text())["settings"]
        assert about == {"model": "m.pth", "model_sha256": model.sha256}
    assert (np.load(out / "data" / "boundaries_f16_zyx.npy") == maps.boundaries).all()
    assert "area_nm2" in table(out)
    alone = expert_boundaries(grey, (10, 10, 10), model, along_z, maps=("synapses",))
    assert alone.boundaries is None and (alone.synapses == maps.synapses).all()


def test_without_the_output_or_by_request_dark_densities_are_used(pipeline, em, tmp_path):
    lacking = save(tmp_path / "lacking.pth", ["membranes"])
    whole = save(tmp_path / "whole.pth", ["membranes", "synapses"])
    runs = {"a": [lacking], "b": [whole, "--synapses", "heuristic"]}
    for name, (path, *more) in runs.items():
        argv = flags(em, tmp_path / name, "--boundaries", "experts", "--model_path", path, *more, "--until", "synapses")
        code, _, err = pipeline(*argv)
        assert (code, err) == (0, "")
        assert "density" in table(tmp_path / name) and not list(tmp_path.glob(f"{name}/data/synapse*"))


@pytest.mark.parametrize("boundaries", ["intensity", "labels"])
def test_a_network_can_find_synapses_alone(pipeline, em, tmp_path, boundaries):
    path, out = save(tmp_path / "m.pth", ["synapses"]), tmp_path / "out"
    own = ["--labels", em.parent / "labels.tif"] if boundaries == "labels" else []
    code, _, err = pipeline(*flags(em, out, *own, "--synapses", "experts", "--model_path", path, *LOW))
    assert code == 0, err
    assert "area_nm2" in table(out) and (out / "data" / "synapse_probability_f16_zyx.npy").is_file()


def test_own_labels_beside_experts_still_get_learned_synapses(pipeline, em, tmp_path):
    path, out = save(tmp_path / "m.pth", ["membranes", "synapses"]), tmp_path / "out"
    argv = flags(em, out, "--labels", em.parent / "labels.tif", "--boundaries", "experts", "--model_path", path, *LOW)
    assert pipeline(*argv, "--until", "synapses")[0] == 0
    assert "area_nm2" in table(out) and not (out / "data" / "boundaries_f16_zyx.npy").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--synapses", "experts"],
            "--synapses experts needs a network that tells synapses: --model_path NAME|FILE.pth",
        ),
        (
            ["--synapses", "experts", "--boundaries", "experts", "--model_path", "MODEL"],
            "has no output that tells synapses, only membranes, mitochondria; give a model with a synapse or cleft "
            "output, or take --synapses heuristic",
        ),
        (["--synapses", "experts", "--model_path", "MODEL"], "has no output that tells synapses"),
        (
            ["--synapses", "experts", "--boundaries", "forest", "--model_path", "x.npz"],
            "--synapses experts needs a network and --boundaries forest a forest",
        ),
        (["--synapses", "heuristic", "--model_path", "MODEL"], "goes with --boundaries experts (a network)"),
        (["--synapses", "expert"], "invalid choice: 'expert'"),
        (["--set", "synapses.experts.min_area_nm2=large"], "expected a value like 3000.0"),
    ],
)
def test_what_does_not_go_together_is_one_line(pipeline, em, tmp_path, more, said):
    path = save(tmp_path / "m.pth", ["membranes", "mitochondria"])
    code, _, err = pipeline(*flags(em, tmp_path / "out", *(path if word == "MODEL" else word for word in more)))
    assert code == 2 and said in err
    assert err.strip().count("\n") == 0 or "usage" in err
    assert not list((tmp_path / "out").glob("data/*"))


@pytest.mark.slow
def test_resume_reads_the_map_back(pipeline, em, tmp_path, monkeypatch):
    path, out = save(tmp_path / "m.pth", ["membranes", "mitochondria", "synapses"]), tmp_path / "out"
    argv = ["--boundaries", "experts", "--model_path", path, *LOW]

    def fail(*args, **kwargs):
        raise UserError("stopped here")

    for minimal in ([], ["--save_minimal"]):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("emlib.pipeline.steps", fromlist=["x"]).STEPS, "segment", fail)
            assert pipeline(*flags(em, out, *argv, *minimal))[0] == 2
        with monkeypatch.context() as patch:
            patch.setattr("emlib.pipeline.boundary_sources.expert_boundaries", fail)
            code, _, err = pipeline(*flags(em, out, *argv, *minimal, "--resume"))
        assert code == 0 and "going on after boundaries" in err, err
        assert (out / "data" / "synapse_probability_f16_zyx.npy").is_file()
        whole = tmp_path / f"whole{len(minimal)}"
        assert pipeline(*flags(em, whole, *argv, *minimal))[0] == 0
        for name in ("synapse_candidates.csv", "graph.graphml"):
            assert (out / "tables" / name).read_bytes() == (whole / "tables" / name).read_bytes()


def test_a_rebuilt_graph_finds_its_synapses_on_the_same_map(pipeline, em, tmp_path):
    path, out = save(tmp_path / "m.pth", ["membranes", "mitochondria", "synapses"]), tmp_path / "out"
    argv = flags(em, out, "--boundaries", "experts", "--model_path", path, *LOW, "--undirected", "--save_minimal")
    assert pipeline(*argv)[0] == 0
    before = {name: (out / "tables" / name).read_bytes() for name in ("synapse_candidates.csv", "graph.graphml")}
    rebuilt = rebuild(RebuildSettings(), out, quiet=True)
    assert {name: (out / "tables" / name).read_bytes() for name in before} == before
    assert "area_nm2" in rebuilt.run.candidates and (rebuilt.edges["change"] == "kept").all()
    (out / "data" / "synapse_probability_f16_zyx.npy").unlink()
    with pytest.raises(UserError, match=r"is missing, and run .* found its synapses on it"):
        rebuild(RebuildSettings(), out, quiet=True)


def test_an_undirected_run_says_so_everywhere(pipeline, tmp_path):
    out = tmp_path / "out"
    argv = ["--dataset", "sample://phantom", "--cutout", 96, 96, 8, "--undirected", "--min_score", 0.01]
    code, _, err = pipeline(*argv, "--outdir", out, figures=True)
    assert code == 0, err
    for name in ("synapse_candidates", "graph_edges", "graph_node_stats"):
        assert "direction" in pd.read_csv(out / "tables" / f"{name}.csv")
    assert not nx.read_graphml(out / "tables" / "graph.graphml").is_directed()
    assert "direction" in (out / "report.html").read_text() and "unknown" in (out / "report.html").read_text()


def test_the_maps_depend_on_where_synapses_come_from():
    own = PipelineSettings(boundaries_from="experts", model_path="drosophila-vnc-experts")
    other = PipelineSettings(boundaries_from="experts", model_path="drosophila-vnc-experts", synapses_from="heuristic")
    assert dependence(own, "boundaries") != dependence(other, "boundaries")
    left_open = PipelineSettings(stages=override(StageSettings(), ["synapses.directed=false"]))
    assert dependence(left_open, "synapses") != dependence(PipelineSettings(), "synapses")
