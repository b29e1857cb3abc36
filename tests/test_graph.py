"""The wiring graph against hand-worked cases, PageRank's own equation, and its input in any order."""

import xml.etree.ElementTree as ET

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from emlib.stages.graph import (
    EDGE_COLUMNS,
    NODE_COLUMNS,
    GraphSettings,
    build_graph,
    edge_table,
    node_table,
    to_graphml,
)


def rows(*triples):
    return pd.DataFrame(triples, columns=["pre_id", "post_id", "score"])


def random_rows(seed=0, count=400, ids=30):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"pre_id": rng.integers(1, ids, count), "post_id": rng.integers(1, ids, count), "score": rng.random(count)}
    )


def test_reciprocal_pairs_stay_two_edges():
    graph = build_graph(rows((1, 2, 0.5), (2, 1, 0.25), (1, 2, 0.75)))
    assert dict(graph.edges) == {
        (1, 2): {"weight": 2, "mean_score": 0.625, "max_score": 0.75, "sum_score": 1.25},
        (2, 1): {"weight": 1, "mean_score": 0.25, "max_score": 0.25, "sum_score": 0.25},
    }
    assert node_table(graph).set_index("node")["reciprocal"].to_dict() == {1: 1, 2: 1}


def test_self_loops_background_and_nan_scores_are_dropped():
    graph = build_graph(rows((3, 3, 0.9), (0, 2, 0.9), (2, 0, 0.9), (-1, 2, 0.9), (4, 5, np.nan)))
    assert len(graph) == 0
    assert nx.number_of_selfloops(build_graph(random_rows())) == 0


@pytest.mark.parametrize(("score", "kept"), [(0.10, True), (np.nextafter(0.10, 0), False), (0.11, True)])
def test_the_threshold_is_inclusive(score, kept):
    assert build_graph(rows((1, 2, score))).has_edge(1, 2) is kept


def test_the_threshold_is_a_setting():
    assert len(build_graph(random_rows(), settings=GraphSettings(min_score=1.1))) == 0
    assert build_graph(rows((1, 2, 0.0)), settings=GraphSettings(min_score=0)).has_edge(1, 2)


@pytest.mark.parametrize("candidates", [rows(), rows((1, 2, 0.01)), rows((7, 7, 1.0))])
def test_empty_graphs_give_typed_empty_tables(candidates):
    graph = build_graph(candidates, np.ones((1, 2, 2), np.int32), voxel_size_nm=(1, 1, 1))
    assert len(graph) == 0
    assert node_table(graph).dtypes.astype(str).to_dict() == NODE_COLUMNS
    assert edge_table(graph).dtypes.astype(str).to_dict() == EDGE_COLUMNS
    assert len(nx.parse_graphml(to_graphml(graph))) == 0


def test_tables_have_the_same_types_with_rows():
    graph = build_graph(random_rows())
    assert node_table(graph).dtypes.astype(str).to_dict() == NODE_COLUMNS
    assert edge_table(graph).dtypes.astype(str).to_dict() == EDGE_COLUMNS


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter(seed):
    candidates = random_rows()
    shuffled = candidates.sample(frac=1, random_state=seed)
    one, other = build_graph(candidates), build_graph(shuffled)
    pd.testing.assert_frame_equal(node_table(one), node_table(other), check_exact=True)
    pd.testing.assert_frame_equal(edge_table(one), edge_table(other), check_exact=True)
    assert to_graphml(one) == to_graphml(other)


def test_weights_equal_a_count_by_hand():
    candidates = random_rows(3)
    graph = build_graph(candidates)
    kept = [(int(a), int(b)) for a, b, s in candidates.itertuples(index=False) if s >= 0.10 and a != b]
    assert {(s, t): w for s, t, w in graph.edges(data="weight")} == {pair: kept.count(pair) for pair in kept}
    table = node_table(graph)
    assert table["in_weight"].sum() == table["out_weight"].sum() == len(kept)
    assert table["in_degree"].sum() == table["out_degree"].sum() == len(set(kept))


def test_tables_are_sorted_by_weight_then_id():
    graph = build_graph(rows((5, 6, 0.5), (2, 1, 0.5), (2, 1, 0.5), (3, 4, 0.5)))
    assert node_table(graph)["node"].tolist() == [1, 2, 3, 4, 5, 6]
    assert edge_table(graph)[["source", "target"]].to_numpy().tolist() == [[2, 1], [3, 4], [5, 6]]


def test_components_are_numbered_from_the_largest():
    table = node_table(build_graph(rows((9, 8, 0.5), (1, 2, 0.5), (2, 3, 0.5)))).set_index("node")
    assert table["component"].to_dict() == {1: 1, 2: 1, 3: 1, 8: 2, 9: 2}
    assert table["component_size"].to_dict() == {1: 3, 2: 3, 3: 3, 8: 2, 9: 2}


def test_pagerank_solves_its_equation():
    """Against the linear system (I − d·P) r = (1 − d)/n, solved densely; dangling nodes link to all."""
    graph = build_graph(random_rows(1, 60, 20))
    nodes = sorted(graph)
    weight = nx.to_numpy_array(graph, nodelist=nodes, weight="weight")
    out = weight.sum(1, keepdims=True)
    step = np.where(out > 0, weight / np.maximum(out, 1), 1 / len(nodes))
    rank = np.linalg.solve(np.eye(len(nodes)) - 0.85 * step.T, np.full(len(nodes), 0.15 / len(nodes)))
    table = node_table(graph).set_index("node").loc[nodes]
    np.testing.assert_allclose(table["pagerank"], rank, atol=1e-5)


def test_pagerank_of_a_pair_by_hand():
    """1 -> 2, 2 dangling: r1 = 0.5/(1 + 0.425), r2 = 1 − r1."""
    table = node_table(build_graph(rows((1, 2, 0.9)))).set_index("node")
    assert table.loc[1, "pagerank"] == pytest.approx(0.5 / 1.425, abs=1e-5)
    assert table["pagerank"].sum() == pytest.approx(1)


def test_ten_thousand_nodes_have_a_row_each():
    graph = build_graph(random_rows(0, 60_000, 10_000))
    table = node_table(graph)
    assert len(table) == len(graph) > 9_000
    assert table["pagerank"].sum() == pytest.approx(1, abs=1e-3)


def test_volumes_are_voxels_times_their_size():
    labels = np.zeros((2, 10, 10), np.int32)
    labels[0, :3, :4], labels[1, 0, :5] = 1, 7
    graph = build_graph(rows((1, 7, 0.9), (9, 1, 0.9)), labels, voxel_size_nm=(50, 4, 5))
    table = node_table(graph).set_index("node")
    assert table.loc[1, "volume_um3"] == pytest.approx(12 * 1000e-9)
    assert table.loc[7, "volume_um3"] == pytest.approx(5 * 1000e-9)
    assert table.loc[9, "volume_um3"] == 0
    assert node_table(build_graph(rows((1, 7, 0.9))))["volume_um3"].isna().all()


def test_graphml_reads_back_with_plain_types():
    labels = np.arange(1, 31, dtype=np.int32).reshape(1, 5, 6)
    graph = build_graph(random_rows(2), labels, voxel_size_nm=(10, 10, 10))
    text = to_graphml(graph)
    ET.fromstring(text)
    back = nx.parse_graphml(text, node_type=int)
    assert dict(back.nodes) == dict(graph.nodes) and dict(back.edges) == dict(graph.edges)


def test_missing_columns_and_a_missing_voxel_size_are_named():
    with pytest.raises(ValueError, match="score"):
        build_graph(pd.DataFrame({"pre_id": [1], "post_id": [2]}))
    with pytest.raises(ValueError, match="voxel_size_nm"):
        build_graph(rows((1, 2, 0.5)), np.ones((1, 2, 2), np.int32))
