"""Expected run length against hand-worked cases and a plain reference; made skeletons against known shapes."""

import numpy as np
import pytest
import tifffile

from emlib.measure.skeletonize import make_skeletons
from emlib.measure.skeletons import NodeLabels, expected_run_length
from emlib.volumes.swc import Skeleton

NM = (10.0, 10.0, 10.0)
SHARES = ("correct", "split", "merged", "unlabelled")


def line(count=11, y=0, name="line"):
    """Nodes 10 nm apart along x."""
    nodes = np.array([[0.0, y, x] for x in range(count)])
    return Skeleton(name, nodes, np.stack([np.arange(count - 1), np.arange(1, count)], axis=1))


def y_shape(arm=10):
    """Three arms of ``arm`` edges of 10 nm that meet in node 0; the nodes of arm k follow each other."""
    ways = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    nodes = np.concatenate([[[0, 0, 0]], *(way * np.arange(1, arm + 1)[:, None] for way in ways)])
    edges = [(0 if i % arm == 0 else i, i + 1) for i in range(3 * arm)]
    return Skeleton("y", nodes.astype(float), np.array(edges))


def shares(result):
    return [round(result[name], 12) for name in SHARES]


def test_a_perfect_segmentation_reaches_the_maximum():
    result = expected_run_length([line(), y_shape()], np.repeat([3, 4], [11, 31]), NM)
    assert result["erl_nm"] == result["erl_max_nm"] == pytest.approx((100**2 + 300**2) / 400)
    assert result["erl_ratio"] == 1 and result["path_nm"] == 400 and result["skeletons"] == 2
    assert shares(result) == [1, 0, 0, 0] and result["nodes_outside"] == 0


def test_a_split_in_the_middle_halves_the_run_length():
    """The one edge across the split is lost as well: (50² + 40²) / 100 of 100."""
    ids = np.repeat([7, 8], [6, 5])
    result = expected_run_length([line()], ids, NM)
    assert result["erl_nm"] == pytest.approx((50**2 + 40**2) / 100)
    assert shares(result) == [0.9, 0.1, 0, 0]
    long = expected_run_length([line(10_002)], np.repeat([7, 8], [5001, 5001]), NM)
    assert long["erl_ratio"] == pytest.approx(0.5, abs=1e-3)


def test_an_arm_cut_off_a_y():
    ids = np.ones(31, int)
    ids[21:] = 2  # the third arm, at the branch point
    result = expected_run_length([y_shape()], ids, NM)
    assert result["erl_nm"] == pytest.approx((200**2 + 90**2) / 300) and result["split"] == pytest.approx(1 / 30)


def test_a_merge_scores_zero_for_both_and_leaves_others_alone():
    both = [line(name="a"), line(y=50, name="b"), line(y=90, name="c")]
    result = expected_run_length(both, np.repeat([3, 3, 5], 11), NM, min_merge_nm=50)
    assert result["erl_nm"] == pytest.approx(100**2 / 300) and result["merged_ids"] == 1
    assert shares(result) == [round(1 / 3, 12), 0, round(2 / 3, 12), 0]
    assert expected_run_length(both[:2], np.full(22, 3), NM, 50)["erl_nm"] == 0


def test_an_id_that_merges_does_not_void_other_ids_on_its_skeletons():
    ids = np.concatenate([np.repeat([1, 2], [6, 5]), np.repeat(2, 11)])
    result = expected_run_length([line(), line(y=50)], ids, NM, min_merge_nm=45)
    assert result["erl_nm"] == pytest.approx(50**2 / 200) and shares(result) == [0.25, 0.05, 0.7, 0]


def test_a_merge_needs_some_path():
    """Node 10 of the first line, 5 nm of its path, slips into the other's id."""
    ids = np.repeat([3, 4], 11)
    ids[10] = 4
    pair = [line(), line(y=50)]
    assert expected_run_length(pair, ids, NM)["erl_nm"] == pytest.approx((90**2 + 100**2) / 200)
    assert expected_run_length(pair, ids, NM, min_merge_nm=5.0)["erl_nm"] == pytest.approx(90**2 / 200)
    assert expected_run_length(pair, ids, NM, min_merge_nm=5.1)["merged_ids"] == 0
    single = Skeleton("dot", np.zeros((1, 3)), np.empty((0, 2), int))
    assert expected_run_length([line(), single], np.full(12, 3), NM)["erl_ratio"] == 1
    assert expected_run_length([line(), single], np.full(12, 3), NM, min_merge_nm=0)["erl_ratio"] == 0


def test_a_border_that_is_off_by_a_voxel_is_no_merge(real_data):
    """Where every node counts, it would be: hence the default of ``min_merge_nm``."""
    labels = tifffile.imread(real_data / "fib25-medulla" / "neurites_u16_zyx.tif")[:40]
    moved = labels.copy()
    moved[:, 1:] = labels[:, :-1]
    skeletons = make_skeletons(labels, NM)
    nodes = NodeLabels(skeletons, labels.shape)
    nodes.add(0, moved)
    assert expected_run_length(skeletons, nodes.ids, NM)["erl_ratio"] > 0.9
    assert expected_run_length(skeletons, nodes.ids, NM, min_merge_nm=0)["erl_ratio"] < 0.3


def test_stretches_of_a_merge_do_not_add_up():
    """Three nodes of the second line slip into the first one's id: 30 nm apart from each other, 30 nm in a row."""
    pair = [line(), line(y=50)]
    for slipped, erl in (([13, 16, 19], 40**2 + 100**2), ([15, 16, 17], 60**2 + 20**2 + 100**2)):
        ids = np.repeat([3, 4], 11)
        ids[slipped] = 3
        assert expected_run_length(pair, ids, NM, min_merge_nm=30.1)["merged_ids"] == 0
        assert expected_run_length(pair, ids, NM, min_merge_nm=30.1)["erl_nm"] == pytest.approx(erl / 200)
    ids = np.repeat([3, 4], 11)
    ids[[13, 16, 19]] = 3
    assert expected_run_length(pair, ids, NM, min_merge_nm=10.1)["merged_ids"] == 0
    assert expected_run_length(pair, ids, NM, min_merge_nm=10.0)["merged_ids"] == 1


def test_an_unlabelled_gap_costs_its_edges_but_not_the_run():
    ids = np.full(11, 3)
    ids[5] = 0
    result = expected_run_length([line()], ids, NM)
    assert result["erl_nm"] == pytest.approx(80**2 / 100) and shares(result) == [0.8, 0, 0, 0.2]


def test_unlabelled_nodes_of_two_skeletons_are_no_merge():
    ids = np.repeat([3, 0, 4, 0], [6, 5, 6, 5])
    result = expected_run_length([line(), line(y=50)], ids, NM, min_merge_nm=0)
    assert result["merged_ids"] == 0 and result["erl_nm"] == pytest.approx(2 * 50**2 / 200)


def test_what_lies_outside_is_not_scored():
    skeleton = line(21)
    labels = np.full((1, 1, 11), 9)
    nodes = NodeLabels([skeleton], labels.shape)
    nodes.add(0, labels)
    result = expected_run_length([skeleton], nodes.ids, NM)
    assert result["nodes_outside"] == 10 and result["path_outside_nm"] == 100 and result["path_nm"] == 100
    assert result["erl_nm"] == result["erl_max_nm"] == 100 and shares(result) == [1, 0, 0, 0]


def test_a_neurite_that_leaves_and_comes_back_is_two_runs():
    """One id for both pieces is right, and so are two; they are no merge, and neither makes a run of both."""
    there_and_back = Skeleton("u", np.array([[0.0, 0, x] for x in range(21)]), line(21).edges)
    outside = np.arange(21) == 10
    for ids in (np.full(21, 3), np.repeat([3, 4], [10, 11])):
        result = expected_run_length([there_and_back], np.ma.MaskedArray(ids, outside), NM, min_merge_nm=0)
        assert result["erl_nm"] == result["erl_max_nm"] == pytest.approx(90.0)


@pytest.mark.parametrize("skeletons", [[], [Skeleton("dot", np.zeros((1, 3)), np.empty((0, 2), np.int64))]])
def test_nothing_to_score_is_nan(skeletons):
    result = expected_run_length(skeletons, np.ones(len(skeletons), int), NM)
    assert all(np.isnan(result[name]) for name in ("erl_nm", "erl_max_nm", "erl_ratio", *SHARES))
    assert result["path_nm"] == 0 and result["skeletons"] == len(skeletons)


def test_ids_that_do_not_fit_the_nodes_are_refused():
    with pytest.raises(ValueError, match="11 nodes, but ids of shape"):
        expected_run_length([line()], np.ones(10, int), NM)


def reference(skeletons, ids, size, least):
    """The definition, edge by edge."""
    ids = [list(part) for part in np.split(ids, np.cumsum([len(s.nodes) for s in skeletons])[:-1])]
    length, held = {}, {}
    for s, skeleton in enumerate(skeletons):
        for a, b in skeleton.edges:
            length[s, a, b] = float(np.sqrt((((skeleton.nodes[a] - skeleton.nodes[b]) * size) ** 2).sum()))
            for end in (a, b):
                held[s, end] = held.get((s, end), 0) + length[s, a, b] / 2
    owners = {}
    for s, skeleton in enumerate(skeletons):
        for node in range(len(skeleton.nodes)):
            stretch, grew = {node}, True
            while grew:  # along edges, as long as the id stays the same
                near = {
                    int(e) for a, b in skeleton.edges for e in (a, b) if ids[s][a] == ids[s][b] and {a, b} & stretch
                }
                grew = not near <= stretch
                stretch |= near
            if ids[s][node] and sum(held.get((s, end), 0) for end in stretch) >= least:
                owners.setdefault(ids[s][node], set()).add(s)
    runs = {}
    for (s, a, b), nm in length.items():
        one = ids[s][a]
        if one and one == ids[s][b] and len(owners.get(one, ())) < 2:
            runs[s, one] = runs.get((s, one), 0) + nm
    return sum(run**2 for run in runs.values()) / sum(length.values())


@pytest.mark.parametrize("seed", range(8))
def test_run_length_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    skeletons = []
    for count in rng.integers(2, 40, 5):
        parents = np.array([rng.integers(max(0, i - 3), i) for i in range(1, count)])
        skeletons.append(
            Skeleton("s", rng.uniform(0, 20, (count, 3)), np.stack([parents, np.arange(1, count)], axis=1))
        )
    total = sum(len(skeleton.nodes) for skeleton in skeletons)
    ids = np.repeat(rng.integers(0, 9, total // 4 + 1), 4)[:total].astype(np.uint64) * np.uint64(2**60)
    for least in (0.0, 300.0, 1000.0):
        found = expected_run_length(skeletons, ids, (40.0, 5.0, 4.0), least)
        assert found["erl_nm"] == pytest.approx(reference(skeletons, ids, (40, 5, 4), least), rel=1e-12)
        assert sum(shares(found)) == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_lookup_by_slabs_equals_lookup_at_once(dtype):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 200, (13, 9, 8)).astype(dtype)
    if dtype == "uint64":
        labels += np.uint64(2**63)  # no float and no int64 holds these
    skeletons = [Skeleton("s", rng.uniform(-3, 15, (n, 3)), np.empty((0, 2), int)) for n in (50, 0, 70)]
    whole, slabs = (NodeLabels(skeletons, labels.shape) for _ in range(2))
    whole.add(0, labels)
    for z in range(0, 13, 3):
        slabs.add(z, labels[z : z + 3])
    assert np.array_equal(whole.ids.filled(0), slabs.ids.filled(0)) and np.array_equal(whole.ids.mask, slabs.ids.mask)
    for place, found in zip(np.concatenate([s.nodes for s in skeletons]), whole.ids, strict=True):
        voxel = tuple(int(np.floor(p + 0.5)) for p in place)
        inside = all(0 <= v < n for v, n in zip(voxel, labels.shape, strict=True))
        assert found is np.ma.masked if not inside else int(found) == int(labels[voxel])


def test_a_slab_that_was_forgotten_is_noticed():
    nodes = NodeLabels([line()], (1, 1, 11))
    with pytest.raises(ValueError, match="section 0 holds nodes but was not added"):
        _ = nodes.ids


def tube(start, end, radius_nm, size, shape):
    """A rod with round ends between two points in nm."""
    grid = np.stack(np.indices(shape), axis=-1) * np.array(size)
    start, end = np.array(start, float), np.array(end, float)
    along = np.clip((grid - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
    return np.linalg.norm(grid - (start + along[..., None] * (end - start)), axis=-1) <= radius_nm


def length_nm(skeleton, size):
    ends = skeleton.nodes[skeleton.edges] * np.array(size)
    return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum()


@pytest.mark.parametrize("size", [(10.0, 10.0, 10.0), (40.0, 5.0, 5.0), (25.0, 30.0, 30.0)])
@pytest.mark.parametrize("end", [(1100, 150, 150), (400, 1000, 500), (900, 1000, 1000)])
@pytest.mark.parametrize("radius", [50, 120])
def test_a_tube_is_as_long_as_it_is(size, end, radius):
    start = (150, 150, 150)
    shape = tuple(int((max(start[i], end[i]) + 150) / size[i]) + 1 for i in range(3))
    labels = tube(start, end, radius, size, shape) * np.int64(2**40)
    (skeleton,) = make_skeletons(labels, size)
    expected = np.linalg.norm(np.subtract(end, start)) + 2 * radius
    assert skeleton.name == str(2**40) and length_nm(skeleton, size) == pytest.approx(expected, rel=0.1)
    middle = skeleton.nodes[np.bincount(skeleton.edges.ravel()) == 2] * size
    along = np.clip((middle - start) @ np.subtract(end, start) / np.sum(np.subtract(end, start) ** 2), 0, 1)
    off = np.linalg.norm(middle - (start + along[:, None] * np.subtract(end, start)), axis=1)
    assert np.median(off) < 20  # on the axis, within a cell


def test_arms_and_pieces_become_branches_and_trees():
    labels = np.zeros((60, 200, 200), np.uint16)
    for end in ((300, 1800, 300), (300, 300, 1800), (300, 1500, 1500)):
        labels[tube((300, 300, 300), end, 60, NM, labels.shape)] = 5
    labels[tube((300, 1850, 800), (300, 1850, 1700), 50, NM, labels.shape)] = 5  # a piece apart
    labels[tube((500, 1000, 1900), (500, 1150, 1900), 50, NM, labels.shape)] = 3  # a crumb
    (skeleton,) = make_skeletons(labels, NM)
    degree = np.bincount(skeleton.edges.ravel())
    assert skeleton.name == "5"
    assert len(skeleton.nodes) - len(skeleton.edges) == 2  # two trees
    assert sorted(degree[degree != 2]) == [1] * 5 + [3]  # ends of three arms and of the rod; where the arms meet
    assert [s.name for s in make_skeletons(labels, NM, min_length_nm=100)] == ["3", "5"]


def test_a_volume_of_one_neurite_and_an_empty_one():
    (skeleton,) = make_skeletons(np.ones((60, 60, 60), np.uint8), NM)
    assert length_nm(skeleton, NM) == pytest.approx(600 * 3**0.5, rel=0.1)
    assert make_skeletons(np.zeros((4, 4, 4), np.uint8), NM) == []


def test_every_node_of_made_skeletons_lies_in_its_neurite(real_data):
    labels = tifffile.imread(real_data / "larval-vnc-3d" / "neurites_u8_zyx.tif")[:7]
    size = (50.0, 4.0, 4.0)
    skeletons = make_skeletons(labels, size)
    nodes = NodeLabels(skeletons, labels.shape)
    nodes.add(0, labels)
    assert np.array_equal(
        nodes.ids.filled(0), np.repeat([int(s.name) for s in skeletons], [len(s.nodes) for s in skeletons])
    )
    result = expected_run_length(skeletons, nodes.ids, size)
    assert result["erl_ratio"] == 1 and len(skeletons) > 30 and result["nodes_outside"] == 0
    merged = NodeLabels(skeletons, labels.shape)
    merged.add(0, (labels > 0).astype(np.uint8))
    assert expected_run_length(skeletons, merged.ids, size)["erl_nm"] == 0
