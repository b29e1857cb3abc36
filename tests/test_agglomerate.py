"""Mean affinity beside the multicut: against a brute-force reference, over the bias, with a model of contacts."""

import numpy as np
import pytest
from bioimage_cpp.graph import UndirectedGraph
from test_segment import ANISOTROPIC, ISOTROPIC, cells

from emlib.errors import UserError
from emlib.measure.instances import score_instances
from emlib.stages.agglomerate import (
    Evidence,
    MulticutSettings,
    RegionGraph,
    contact_areas,
    edge_costs,
    edge_evidence,
    mean_affinity,
    partition,
    region_graph,
)
from emlib.stages.learned_edges import Cut, EdgeTuning, learned_evidence
from emlib.stages.segment import GaspSettings, SegmentSettings, segment
from emlib.stages.watershed import watershed_fragments
from emlib.threads import set_threads

AGGLOMERATING = ["multicut", "gasp"]


def random_graph(nodes, edges, seed):
    rng = np.random.default_rng(seed)
    pairs = np.array([(a, b) for a in range(nodes) for b in range(a + 1, nodes)])
    pairs = pairs[np.sort(rng.choice(len(pairs), edges, replace=False))]
    rag = UndirectedGraph(nodes)
    rag.insert_edges(pairs.astype(np.uint64))
    evidence = Evidence(rng.normal(0.1, 1, edges), rng.integers(1, 30, edges).astype(float))
    return RegionGraph(rag, np.ones((edges, 12)), np.zeros(edges, bool), np.ones(edges)), pairs, evidence


def joined_by_hand(nodes, pairs, evidence):
    """Average linkage by definition: the best pair of all, joined, until none is above 0."""
    segment_of = np.arange(nodes)
    while True:
        total, weight = {}, {}
        for (a, b), same, w in zip(pairs, *evidence, strict=True):
            key = tuple(sorted((segment_of[a], segment_of[b])))
            if key[0] != key[1]:
                total[key] = total.get(key, 0) + same * w
                weight[key] = weight.get(key, 0) + w
        means = {key: total[key] / weight[key] for key in total}
        best = max(means, key=means.get, default=None)
        if best is None or means[best] <= 0:
            return segment_of
        segment_of[segment_of == best[1]] = best[0]


def same_partition(a, b):
    together = lambda ids: ids[:, None] == ids[None]  # noqa: E731
    return np.array_equal(together(np.asarray(a)), together(np.asarray(b)))


@pytest.mark.parametrize("seed", range(12))
def test_mean_affinity_is_average_linkage_down_to_zero(seed):
    nodes, edges = [(6, 9), (12, 40), (20, 60), (30, 45)][seed % 4]
    graph, pairs, evidence = random_graph(nodes, edges, seed)
    found = mean_affinity(graph, evidence)
    assert same_partition(found, joined_by_hand(nodes, pairs, evidence))
    assert len(np.unique(found)) < nodes


def test_a_large_contact_outweighs_a_small_one_by_its_size():
    rag = UndirectedGraph(3)
    rag.insert_edges(np.array([[0, 1], [0, 2], [1, 2]], np.uint64))
    graph = RegionGraph(rag, np.ones((3, 12)), np.zeros(3, bool), np.ones(3))
    same = np.array([5.0, 1.0, -2.0])  # 0 and 1 join first; then 2 against both
    assert len(np.unique(mean_affinity(graph, Evidence(same, np.array([1.0, 9.0, 1.0]))))) == 1
    assert len(np.unique(mean_affinity(graph, Evidence(same, np.array([1.0, 1.0, 9.0]))))) == 2


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_mean_affinity_finds_columns(voxel_size_nm):
    em, truth = cells((10, 140, 140), voxel_size_nm)
    labels = segment(em, voxel_size_nm, SegmentSettings(segmenter="gasp"))
    assert labels.shape == em.shape and labels.dtype == np.int32 and labels.min() == 1
    assert labels.max() == len(np.unique(labels))
    assert score_instances(truth, labels)["voi"] < 0.5


@pytest.mark.parametrize("segmenter", AGGLOMERATING)
def test_the_bias_leads_from_one_segment_to_all_fragments(segmenter):
    em, _ = cells((8, 120, 120), ISOTROPIC)
    count = []
    for bias in (-10, -2, 0, 2, 10):
        settings = SegmentSettings(segmenter=segmenter, bias=bias)
        count.append(segment(em, ISOTROPIC, settings).max())
    assert count == sorted(count) and count[0] == 1 and count[-1] > 2 * count[2]


@pytest.mark.parametrize("segmenter", AGGLOMERATING)
def test_the_bias_adds_to_that_of_the_segmenter(segmenter):
    em, _ = cells((8, 120, 120), ISOTROPIC)
    own = SegmentSettings(segmenter=segmenter, multicut=MulticutSettings(bias=0.9), gasp=GaspSettings(bias=0.9))
    on_top = SegmentSettings(
        segmenter=segmenter, multicut=MulticutSettings(bias=0.4), gasp=GaspSettings(bias=0.4), bias=0.5
    )
    assert np.array_equal(segment(em, ISOTROPIC, own), segment(em, ISOTROPIC, on_top))


@pytest.mark.parametrize("bias", [10.5, -11, float("nan"), float("inf")])
def test_a_bias_out_of_range_is_told(bias):
    em = np.random.default_rng(0).random((2, 20, 20))
    with pytest.raises(UserError, match=r"segment.bias=.*must lie between -10 and 10"):
        segment(em, ISOTROPIC, SegmentSettings(bias=bias))


def test_only_segmenters_of_graphs_partition_one():
    graph, _, evidence = random_graph(5, 6, 0)
    with pytest.raises(ValueError, match="'watershed' does not partition a graph; choose multicut or gasp"):
        partition(graph, evidence, "watershed")


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_costs_are_evidence_times_weight(voxel_size_nm):
    em, _ = cells((5, 100, 100), voxel_size_nm)
    boundaries = 1 - em
    fragments = watershed_fragments(boundaries, voxel_size_nm)
    graph = region_graph(fragments, boundaries, voxel_size_nm)
    same, weight = edge_evidence(graph)
    assert (weight > 0).all() and np.array_equal(edge_costs(graph), same * weight)
    assert graph.between.any() == (voxel_size_nm == ANISOTROPIC)
    faces = contact_areas(graph, voxel_size_nm)[graph.between] / graph.features[graph.between, -1]
    assert np.allclose(faces, 64)  # 8 nm × 8 nm


def test_learned_evidence_is_log_odds_less_the_bias():
    graph, _, _ = random_graph(4, 3, 1)
    graph.features[:, -1] = [4, 9, 16]
    same, weight = learned_evidence(np.array([0.5, 0.9, 1.0]), graph, ISOTROPIC, EdgeTuning(0.5, 0.5))
    assert same == pytest.approx([-0.5, np.log(9) - 0.5, np.log(999) - 0.5])
    assert weight == pytest.approx([20, 30, 40])


class Oracle:
    """A model of contacts that knows the truth, and what it was shown."""

    def __init__(self, truth, bias=0.0):
        self.truth, self.bias, self.seen = truth, bias, None

    def predict(self, cut):
        self.seen = cut
        count = cut.graph.rag.number_of_nodes
        owner = np.zeros(count, int)
        for one in range(1, count):
            owner[one] = np.bincount(self.truth[cut.fragments == one]).argmax()
        ends = cut.graph.rag.uv_ids()
        return np.where(owner[ends[:, 0]] == owner[ends[:, 1]], 0.95, 0.05)

    def tuning(self, segmenter):
        return EdgeTuning(self.bias, 1.0)


@pytest.mark.parametrize("segmenter", AGGLOMERATING)
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_a_model_of_contacts_takes_the_place_of_the_costs(segmenter, voxel_size_nm):
    em, truth = cells((6, 100, 100), voxel_size_nm)
    settings = SegmentSettings(segmenter=segmenter, multicut=MulticutSettings(bias=-9), gasp=GaspSettings(bias=-9))
    model = Oracle(truth)
    labels = segment(em, voxel_size_nm, settings, edges=model)
    assert isinstance(model.seen, Cut) and model.seen.fragments.shape == em.shape
    assert score_instances(truth, labels)["voi"] < 0.4
    everything_apart = segment(em, voxel_size_nm, settings, edges=Oracle(truth, bias=9.0))
    assert everything_apart.max() > 2 * labels.max()


def test_a_model_sees_no_damaged_section():
    em, truth = cells((6, 100, 100), ANISOTROPIC)
    em[2] = 0.5
    model = Oracle(np.delete(truth, 2, axis=0))
    labels = segment(em, ANISOTROPIC, SegmentSettings(segmenter="gasp"), edges=model)
    assert model.seen.em.shape == model.seen.boundaries.shape == (5, 100, 100)
    assert not labels[2].any() and labels[[0, 1, 3, 4, 5]].all()


def test_threads_change_nothing():
    em, _ = cells((20, 110, 110), ISOTROPIC)
    try:
        made = []
        for threads in (1, 3):
            set_threads(threads)
            made.append(segment(em, ISOTROPIC, SegmentSettings(segmenter="gasp")))
    finally:
        set_threads(None)
    assert np.array_equal(*made)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 40), (1, 1, 1), (5, 16, 9)])
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_tiny_volumes(shape, voxel_size_nm):
    em = np.random.default_rng(0).random(shape).astype(np.float32)
    labels = segment(em, voxel_size_nm, SegmentSettings(segmenter="gasp"))
    assert labels.shape == shape and labels.dtype == np.int32
