"""What to look at next: contacts, cuts and their evidence against brute force, the ranking against truth."""

import numpy as np
import pandas as pd
import pytest
from proofread_run import blobs, boundary_of, write_run

from emlib.errors import UserError
from emlib.measure.instances import score_instances
from emlib.proofread import Edit, Session
from emlib.proofread.boxes import Boxes
from emlib.proofread.suspects import COLUMNS, KINDS, find_suspects
from emlib.proofread.suspects.contacts import SUMS, cut_at_borders, find_contacts
from emlib.proofread.suspects.cuts import distinct, find_cuts
from emlib.proofread.suspects.evidence import CUT, JOIN, NAMES, describe, worth
from emlib.proofread.suspects.joins import find_joins
from emlib.proofread.suspects.trees import spanning_forest
from emlib.refine.validation import auc
from emlib.threads import set_threads

SIZE = (10.0, 10.0, 10.0)


def two_tubes(width=40, ridge=0.9):
    """Two tubes side by side along x with a ridge between them; returns truth and boundary."""
    truth = np.ones((12, 24, width), np.int32)
    truth[:, 12:] = 2
    boundary = np.random.default_rng(0).random(truth.shape).astype(np.float32) * 0.1
    boundary[:, 11:13] = ridge
    return truth, boundary


@pytest.mark.parametrize("seed", range(4))
def test_fragments_are_cut_where_labels_change(seed):
    rng = np.random.default_rng(seed)
    fragments = rng.integers(1, 9, (3, 6, 7)).astype(np.int32)
    fragments[1:] += 8 * np.arange(1, 3)[:, None, None].astype(np.int32)
    labels = rng.integers(0, 3, fragments.shape) * 2**35
    cut, neurite = cut_at_borders(fragments, labels)
    assert np.array_equal(neurite[cut], labels)
    pairs = set(zip(fragments.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(cut)) == cut.max()
    origin = np.zeros(cut.max() + 1, int)
    origin[cut.ravel()] = fragments.ravel()
    assert (np.diff(origin[1:]) >= 0).all()  # ids still rise with the section


def test_fragments_that_keep_to_neurites_stay_as_they_are():
    fragments = np.arange(1, 9, dtype=np.int32).reshape(2, 2, 2)
    assert cut_at_borders(fragments, fragments // 3)[0] is fragments


def random_graph(seed, nodes=30, edges=60):
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(1, nodes, (edges, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return nodes, *pairs.T, rng.random(len(pairs))


@pytest.mark.parametrize("seed", range(6))
def test_trees_hold_the_strongest_edges(seed):
    import networkx as nx

    count, first, second, strength = random_graph(seed)
    forest = spanning_forest(count, first, second, strength)
    graph = nx.Graph()
    graph.add_nodes_from(range(1, count))
    graph.add_weighted_edges_from(zip(first.tolist(), second.tolist(), strength.tolist(), strict=True))
    expected = {frozenset(edge[:2]) for edge in nx.maximum_spanning_edges(graph, data=False)}
    assert {frozenset((n, int(forest.parent[n]))) for n in range(1, count) if forest.parent[n] > 0} == expected
    assert sorted(forest.place) == list(range(count))


@pytest.mark.parametrize("seed", range(6))
def test_what_crosses_a_cut_is_counted_right(seed):
    count, first, second, strength = random_graph(seed)
    forest = spanning_forest(count, first, second, strength)
    values = np.random.default_rng(seed).random((len(first), 2))
    crossing, below = forest.crossing(first, second, values), forest.below(np.eye(count))
    for node in range(1, count):
        inside = np.zeros(count, bool)
        climb = np.arange(count)
        while (climb >= 0).any():
            inside |= climb == node
            climb = np.where(climb >= 0, forest.parent[climb], -1)
        assert np.array_equal(below[node], inside)
        apart = inside[first] != inside[second]
        assert crossing[node] == pytest.approx(values[apart].sum(axis=0), abs=1e-9)


@pytest.mark.parametrize("size", [SIZE, (40.0, 8.0, 8.0)])
def test_contacts_of_neurites_are_their_shared_faces(size):
    labels = blobs((6, 20, 24), 7, background=0.02)
    contacts = find_contacts(labels, boundary_of(labels), size)
    joins = find_joins(contacts, float(np.prod(size)))
    faces = dict.fromkeys(map(tuple, joins.ids.tolist()), 0)
    found = {frozenset(pair): 0.0 for pair in faces}
    sections = size[0] == size[1]
    area = [100.0] * 3 if sections else [64.0, 320.0, 320.0]
    for axis in range(3):
        one, other = np.moveaxis(labels, axis, 0)[:-1].ravel(), np.moveaxis(labels, axis, 0)[1:].ravel()
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if a != b and a and b:
                found[frozenset((a, b))] += area[axis]
    told = joins.sides.sums[:, [SUMS.index("area"), SUMS.index("area_between")]].sum(axis=1)
    expected = np.array([found[frozenset(pair)] for pair in joins.ids.tolist()])
    assert np.allclose(told, expected * (told.sum() / expected.sum()), rtol=0.01)
    volumes = np.bincount(labels.ravel())[joins.ids] * np.prod(size)
    assert np.allclose(joins.sides.volume, volumes) and (volumes[:, 0] <= volumes[:, 1]).all()


def test_faces_of_the_volume_that_a_neurite_touches():
    labels = np.ones((6, 8, 10), np.int32)
    labels[:3, 2:5, 3:6] = 2
    joins = find_joins(find_contacts(labels, np.zeros(labels.shape), SIZE), 1e3)
    assert joins.ids.tolist() == [[2, 1]]
    assert joins.sides.faces[0].tolist() == [[True] + [False] * 5, [True] * 6]


def test_a_cut_lies_where_a_neurite_hangs_by_little():
    truth, boundary = two_tubes()
    boundary[5:7, 11:13, 20:22] = 0.05
    contacts = find_contacts(np.ones_like(truth), boundary, SIZE)
    cuts = find_cuts(contacts, 1e3, 1e5)
    best = np.argsort(-CUT.probability(describe(cuts.sides)) * worth(cuts.sides.volume, truth.size * 1e3))[0]
    side = np.isin(contacts.fragments, cuts.members(best))
    assert max((side == (truth == 1)).mean(), (side == (truth == 2)).mean()) > 0.9
    assert cuts.sides.volume[best] == pytest.approx(np.sort([side.sum(), (~side).sum()]) * 1e3)


def test_cuts_that_say_the_same_are_named_once():
    truth, boundary = two_tubes()
    contacts = find_contacts(np.ones_like(truth), boundary, SIZE)
    cuts = find_cuts(contacts, 1e3, 0)
    score = worth(cuts.sides.volume, 1.0)
    kept = distinct(cuts, score, 5)
    sides = [np.isin(contacts.fragments, cuts.members(row)) for row in kept]
    sides = [side if 2 * side.sum() <= side.size else ~side for side in sides]
    for place, one in enumerate(sides):
        assert all((one & other).sum() <= 0.5 * (one | other).sum() for other in sides[:place])
    assert score[kept[0]] == score.max() and (np.diff(score[kept]) <= 0).all() and 1 <= len(kept) <= 5


@pytest.mark.parametrize(("a", "b"), [(500, 500), (900, 100), (30, 2)])
def test_worth_is_what_mending_takes_from_voi(a, b):
    one, two = np.ones((1, 40, 50), np.int32), np.full((1, 40, 50), 7, np.int32)
    two.ravel()[: a + b] = 1
    apart = two.copy()
    apart.ravel()[:a] = 2
    assert worth(np.array([[b, a]], float), one.size)[0] == pytest.approx(score_instances(two, apart)["voi_split"])
    assert worth(np.array([[b, a]], float), one.size)[0] == pytest.approx(score_instances(apart, two)["voi_merge"])


def test_weights_are_there_for_each_name():
    assert len(JOIN.weights) == len(CUT.weights) == len(NAMES) and any(JOIN.weights) and any(CUT.weights)


def test_a_weaker_boundary_makes_a_split_more_probable_and_a_merge_less():
    joined, cut = [], []
    for ridge in (0.1, 0.5, 0.95):
        truth, boundary = two_tubes(ridge=ridge)
        joins = find_joins(find_contacts(truth, boundary, SIZE), 1e3)
        joined.append(JOIN.probability(describe(joins.sides))[0])
        contacts = find_contacts(np.ones_like(truth), boundary, SIZE, fragments=truth)
        cut.append(CUT.probability(describe(find_cuts(contacts, 1e3, 0).sides))[0])
    assert joined[0] > joined[1] > joined[2] and cut[0] < cut[1] < cut[2]


def phantom_case(seed=11):
    from emlib.stages.boundaries import intensity_boundaries
    from emlib.stages.preprocess import preprocess
    from emlib.stages.segment import segment
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    made = make_phantom(PhantomSettings(shape=(24, 128, 128), seed=seed, jitter_px=0.0))
    em = preprocess(made.em)
    boundary = intensity_boundaries(em, (40.0, 8.0, 8.0))
    return made.labels, segment(em, (40.0, 8.0, 8.0), boundaries=boundary), boundary


@pytest.fixture(scope="module")
def phantom():
    return phantom_case()


def test_the_table_is_as_promised(phantom):
    _, labels, boundary = phantom
    boxes = Boxes(labels)
    table = find_suspects(labels, boundary, boxes, (40.0, 8.0, 8.0), limit=60)
    assert tuple(table.columns) == COLUMNS and table["rank"].tolist() == list(range(1, len(table) + 1))
    assert (np.diff(table["score"]) <= 0).all() and (table["score"] > 0).all() and len(table) <= 60
    assert set(table["kind"]) <= set(KINDS)
    for row in table.itertuples():
        assert labels[row.z, row.y, row.x] == row.id_a
        around = labels[tuple(slice(max(0, at - 1), at + 2) for at in (row.z, row.y, row.x))]
        if row.kind == "weak merge":
            assert row.id_a == row.id_b
        else:
            assert row.id_b in around and boxes.voxels(row.id_a) <= boxes.voxels(row.id_b)
    assert not table.duplicated(["id_a", "id_b", "z", "y", "x"]).any()


def test_true_errors_are_more_probable_than_others(phantom):
    """Two neurites that truth says are one, against all that touch, on a phantom that the weights do not know."""
    truth, labels, boundary = phantom
    joins = find_joins(find_contacts(labels, boundary, (40.0, 8.0, 8.0)), 2560.0)
    table = pd.crosstab(labels[truth > 0], truth[truth > 0])
    known = np.isin(joins.ids, table.index).all(axis=1)
    main = table.idxmax(axis=1)
    first, second = (main.loc[ids].to_numpy() for ids in joins.ids[known].T)
    one = first == second
    assert 5 < one.sum() < 0.3 * len(one)
    assert auc(one, JOIN.probability(describe(joins.sides))[known]) > 0.75


def test_the_table_does_not_depend_on_threads(phantom):
    _, labels, boundary = phantom
    tables = []
    for count in (1, 2):
        set_threads(count)
        tables.append(find_suspects(labels, boundary, Boxes(labels), (40.0, 8.0, 8.0)))
    set_threads(None)
    assert tables[0].equals(tables[1])


def test_kinds_follow_where_a_neurite_ends():
    labels = np.ones((40, 60, 120), np.int32)
    labels[:, :, 60:] = 2  # leaves the volume on five sides
    labels[10:30, 20:40, 10:50] = 3  # ends inside
    labels[18:20, 5:8, 100:103] = 4  # tiny
    table = find_suspects(labels, np.zeros(labels.shape, np.float32), Boxes(labels), SIZE)
    kinds = {(row.id_a, row.id_b): row.kind for row in table.itertuples() if row.kind != "weak merge"}
    assert kinds == {(2, 1): "probable split", (3, 1): "end inside", (4, 2): "orphan"} or kinds == {
        (1, 2): "probable split", (3, 1): "end inside", (4, 2): "orphan"
    }  # fmt: skip


def test_background_and_empty_labels_have_no_suspects():
    empty = np.zeros((4, 8, 8), np.int32)
    assert not len(find_suspects(empty, np.zeros(empty.shape), Boxes(empty), SIZE))
    alone = empty.copy()
    alone[1:3, 2:6, 2:6] = 5
    table = find_suspects(alone, np.zeros(alone.shape), Boxes(alone), SIZE)
    assert tuple(table.columns) == COLUMNS and not (table["kind"] != "weak merge").any()


def test_a_session_keeps_its_table_without_what_is_done(tmp_path):
    labels = write_run(tmp_path)
    with Session.open(tmp_path) as session:
        table = session.suspects()
        direct = find_suspects(labels, session.boundary, session.boxes, session.voxel_size_nm)
        assert table.equals(direct) and len(table) > 3
        done = table[table["kind"] != "weak merge"].iloc[0]
        session.apply(Edit("merge", {"keep": int(done["id_b"]), "gone": int(done["id_a"])}))
        kept = session.suspects()
        assert 0 < len(kept) < len(table) and done["id_a"] not in {*kept["id_a"], *kept["id_b"]}
        assert set(kept["rank"]) < set(table["rank"])
        session.undo()
        assert session.suspects().equals(table)
        session.apply(Edit("merge", {"keep": int(done["id_b"]), "gone": int(done["id_a"])}))
        fresh = session.suspects(refresh=True)
        assert fresh["rank"].tolist() == list(range(1, len(fresh) + 1))


def test_a_run_without_boundary_and_em_has_no_suspects(tmp_path):
    write_run(tmp_path, em=False, boundaries=False)
    with Session.open(tmp_path) as session, pytest.raises(UserError, match="neither a boundary probability nor EM"):
        session.suspects()
