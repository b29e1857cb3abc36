"""The table of neurites against the morphometry of each, counted mitochondria, and the graph's synapses."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from emlib.measure.morphometry import measure_objects
from emlib.stages import neurite_stats as module
from emlib.stages.graph import build_graph
from emlib.stages.neurite_stats import NeuriteSettings, neurite_stats


def blobs(shape=(9, 30, 26), count=12, seed=0, ids=None):
    """Cells around random points, with background between some of them."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (count, 3)) * shape
    at = np.moveaxis(np.indices(shape), 0, -1)[..., None, :]
    distance = (((at - points) * (3, 1, 1)) ** 2).sum(-1)
    labels = distance.argmin(-1) + 1
    labels[distance.min(-1) > 90] = 0
    return labels.astype(np.int32) if ids is None else np.concatenate([[0], ids])[labels]


@pytest.mark.parametrize("size", [(50, 4.6, 4.6), (10, 10, 10), (40, 8, 8)])
@pytest.mark.parametrize("ids", [None, 10**12 + 7 * np.arange(12)])
def test_sizes_boxes_and_surfaces_are_those_of_the_morphometry(size, ids, monkeypatch):
    """Slab by slab, two sections each, all ids at once; against each object by itself."""
    labels = blobs(ids=ids)
    monkeypatch.setattr(module, "_SLAB", 2 * 30 * 26)
    found, expected = neurite_stats(labels, size), measure_objects(labels, size)
    assert found["neurite_id"].tolist() == expected["id"].tolist()
    for name in ("voxels", "volume_um3", "surface_um2", "sections", "z_first", "y_first", "x_first", "touches_border"):
        assert found[name].to_numpy() == pytest.approx(expected[name].to_numpy()), name
    for at, axis in enumerate("zyx"):
        sides = (expected[f"{axis}_last"] - expected[f"{axis}_first"] + 1) * size[at]
        assert found[f"extent_{axis}_nm"].to_numpy() == pytest.approx(sides.to_numpy())


def test_synapses_are_those_of_the_graph():
    labels = blobs()
    rows = {"pre_id": [1, 1, 2, 3, 5], "post_id": [2, 2, 1, 4, 5], "score": [0.5, 0.2, 0.9, 0.01, 0.9]}
    table = neurite_stats(labels, (40, 8, 8), build_graph(pd.DataFrame(rows))).set_index("neurite_id")
    assert table["synapses_out"].to_dict() == {**dict.fromkeys(range(1, 13), 0), 1: 2, 2: 1}
    assert table["synapses_in"].to_dict() == {**dict.fromkeys(range(1, 13), 0), 1: 1, 2: 2}


def test_synapses_of_unknown_direction_are_one_number():
    graph = nx.Graph()
    graph.add_edge(1, 2, weight=3)
    table = neurite_stats(blobs(), (40, 8, 8), graph).set_index("neurite_id")
    assert table["synapses"].to_dict() == {**dict.fromkeys(range(1, 13), 0), 1: 3, 2: 3}
    assert "synapses_in" not in table


def test_mitochondria_are_counted_where_most_of_them_lies():
    """One inside 1, one mostly in 1 that reaches into 2, one speck, one in the background."""
    labels = np.zeros((6, 20, 20), np.int32)
    labels[:, :10, :12], labels[:, 10:18, :12] = 4, 9
    probability = np.zeros(labels.shape, np.float16)
    probability[1:3, 2:4, 2:5] = 0.9  # 12 voxels of 4
    probability[1:4, 7:11, 6:9] = 0.5  # 27 of 4, 9 of 9
    probability[5, 0, 0] = 1  # a speck
    probability[:, 3:6, 15:18] = 0.8  # in no neurite
    probability[:, 14:17, 2:5] = 0.49
    size, um3 = (40, 10, 10), 4e-6
    table = neurite_stats(labels, size, None, probability, NeuriteSettings(0.5, 3 * um3)).set_index("neurite_id")
    assert table["mitochondria"].to_dict() == {4: 2, 9: 0}
    assert table["mitochondria_um3"].tolist() == pytest.approx([39 * um3, 9 * um3])
    assert table["mitochondria_share"].tolist() == pytest.approx([39 / 720, 9 / 576])
    everything = neurite_stats(labels, size, None, probability, NeuriteSettings(0.45, 0)).set_index("neurite_id")
    assert everything["mitochondria"].to_dict() == {4: 3, 9: 1}
    none = neurite_stats(labels, size, None, 0 * probability)
    assert (none[["mitochondria", "mitochondria_um3", "mitochondria_share"]] == 0).all(axis=None)


def test_without_neurites_the_table_is_empty_with_its_columns():
    empty = np.zeros((3, 5, 5), np.int32)
    table = neurite_stats(empty, (40, 8, 8), nx.DiGraph(), np.ones(empty.shape, np.float16))
    assert len(table) == 0 and list(table)[:2] == ["neurite_id", "voxels"] and list(table)[-1] == "mitochondria_share"
    assert table.dtypes["touches_border"].kind == "b"


def test_what_does_not_fit_is_refused():
    labels = blobs()
    with pytest.raises(ValueError, match="mitochondria have shape"):
        neurite_stats(labels, (1, 1, 1), None, np.zeros((2, 2, 2), np.float16))
    with pytest.raises(ValueError, match="array of integers"):
        neurite_stats(labels.astype(float), (1, 1, 1))
