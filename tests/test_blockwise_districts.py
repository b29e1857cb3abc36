"""Graphs that are solved in districts: what is closed, what is left, and that it is what one partition gives."""

import networkx as nx
import numpy as np
import pytest
from scipy.spatial import KDTree

from emlib.blockwise import contracted, districts, flood
from emlib.blockwise.budget import GB, graph_bytes, plan_blocks
from emlib.blockwise.contacts import JOINED, UNIT, strength
from emlib.blockwise.engine import Engine, Here
from emlib.blockwise.grid import lay, name, sides, within
from emlib.blockwise.partition import MOST_EDGES
from emlib.blockwise.site import Site
from emlib.measure.contingency import contingency
from emlib.measure.instances import score_table
from emlib.pipeline.settings import StageSettings

SHAPE, BLOCKS = (60, 60, 60), [(60, 60, 60), (23, 31, 60)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Districts of 20 voxels that see 12 around themselves; columns of fragments in several parts."""
    monkeypatch.setattr(districts, "SOLID", (20, 20, 20))
    monkeypatch.setattr(districts, "SOLID_MARGIN", (12, 12, 12))
    monkeypatch.setattr(flood, "PART", 137)


@pytest.fixture(scope="module")
def graph():
    """Seeds in groups, contacts of those that are near: for joining in one group mostly, against it else."""
    rng = np.random.default_rng(3)
    ids = np.sort(rng.choice(np.prod(SHAPE), 900, replace=False))
    place = np.stack(np.unravel_index(ids, SHAPE), axis=1)
    group = KDTree(rng.uniform(0, 60, (40, 3))).query(place)[1]
    ends = KDTree(place).query_pairs(9, output_type="ndarray")
    ends = np.sort(ends, axis=1)[np.lexsort(np.sort(ends, axis=1).T[::-1])]
    same = np.where(group[ends[:, 0]] == group[ends[:, 1]], 1.0, -1.0) + rng.normal(0, 0.8, len(ends))
    return ids, ends + 1, same, rng.integers(1, 40, len(ends)).astype(float)


def stored(folder, graph, block):
    """An engine whose contacts are known, and what the blocks told of them."""
    ids, ends, same, weight = graph
    site = Site(str(folder / "work"), str(folder / "none"), SHAPE, block, (10.0, 10.0, 10.0))
    (folder / "work").mkdir(parents=True)
    site.save("ids", ids)
    site.save("place", np.stack(np.unravel_index(ids, SHAPE), axis=1).astype(np.int32))
    first, told = np.stack(np.unravel_index(ids[ends[:, 0] - 1], SHAPE), axis=1), []
    for box in lay(SHAPE, block):
        here = np.all([(first[:, k] >= side.start) & (first[:, k] < side.stop) for k, side in enumerate(box)], axis=0)
        nothing = {"faces": np.ones(here.sum(), int), "between": np.zeros(here.sum(), bool)}
        site.write_table(JOINED, name(box), ends=ends[here], same=same[here], weight=weight[here], **nothing)
        told.append({"edges": int(here.sum()), "strength": strength(same[here], weight[here])})
    return Engine(site, Here(), quiet=True), told


def contract(folder, graph, block, segmenter, most=10**9):
    """The engine, the last level, the first fragment of each node, and what is left with its counts."""
    engine, told = stored(folder, graph, block)
    level = districts.contract(engine, lay(SHAPE, block), segmenter, told, most)
    tables = [engine.site.read_table(contracted.of_level("gathered", level), name(box)) for box in lay(SHAPE, block)]
    counts = [{key: table[key] for key in contracted.COUNTS} for table in tables]
    ends, summed = contracted.add_up([table["ends"] for table in tables], counts)
    assert len(ends) == sum(len(table["ends"]) for table in tables)  # each lies in one table alone
    return engine, level, np.array(engine.site.load(contracted.of_level("first", level))), ends, summed


def parted(folder, graph, block, segmenter, most=10**9):
    """The segment of each fragment."""
    engine, level, first, _, _ = contract(folder, graph, block, segmenter, most)
    found = np.arange(len(first))
    nodes, to = districts.solve_rest(engine.site, lay(SHAPE, block), level, segmenter)
    found[nodes] = to
    return found[first]


def at_once(graph, segmenter):
    ids, ends, same, weight = graph
    whole = np.arange(len(ids) + 1)
    nodes, to = districts.join(ends, same, weight, segmenter)
    whole[nodes] = to
    return whole


def differ(whole, found):
    return score_table(contingency(whole[1:].astype(np.int64) + 1, found[1:].astype(np.int64) + 1))["voi"]


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_a_contact_is_closed_where_all_districts_that_see_it_agree(tmp_path, graph, segmenter):
    ids, ends, same, weight = graph
    place = np.stack(np.unravel_index(ids, SHAPE), axis=1)
    nodes, seen, joined = nx.empty_graph(len(ids) + 1), np.zeros(len(ends), int), np.zeros(len(ends), int)
    _, _, first, left, counts = contract(tmp_path, graph, SHAPE, segmenter)
    least = districts.bound([{"edges": len(ends), "strength": strength(same, weight)}], segmenter)
    for z, y, x in np.ndindex(3, 3, 3):
        low = 20 * np.array([z, y, x])
        inside = ((place >= low - 12) & (place < low + 32)).all(axis=1)
        here = np.flatnonzero(inside[ends - 1].all(axis=1))
        fragments, to = districts.join(ends[here], same[here], weight[here], segmenter, least)
        head = dict(zip(fragments.tolist(), to.tolist(), strict=True))
        seen[here] += 1
        joined[here] += [head[u] == head[v] for u, v in ends[here].tolist()]
    nodes.add_edges_from(ends[(seen > 0) & (joined == seen)].tolist())
    for group in nx.connected_components(nodes):
        assert (first[list(group)] == min(group)).all()
    assert 0 < len(left) < 0.6 * len(ends)
    apart = first[ends[:, 0]] != first[ends[:, 1]]
    assert counts["evidence"].sum() == pytest.approx((same * weight)[apart].sum() * UNIT, abs=len(ends))
    assert counts["faces"].sum() == apart.sum()


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_districts_do_not_depend_on_the_blocks(tmp_path, graph, segmenter):
    for most, levels in ((10**9, 1), (0, 2)):
        one, other = (contract(tmp_path / f"{block[0]} {most}", graph, block, segmenter, most)[1:] for block in BLOCKS)
        assert one[0] == other[0] == levels - 1
        for mine, expected in zip(one[1:3], other[1:3], strict=True):
            np.testing.assert_array_equal(mine, expected)
        assert one[3].keys() == other[3].keys() and all((one[3][key] == other[3][key]).all() for key in one[3])


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_joining_goes_on_as_if_it_had_not_been_interrupted(tmp_path, graph, segmenter, monkeypatch):
    """Districts, then the rest, are one partition of the whole; without bound and margin they are not."""
    whole = at_once(graph, segmenter)
    assert differ(whole, parted(tmp_path / "bound", graph, SHAPE, segmenter)) < 0.02
    monkeypatch.setattr(districts, "SOLID_MARGIN", (0, 0, 0))
    monkeypatch.setattr(districts, "SHARE", 0.0)
    assert differ(whole, parted(tmp_path / "none", graph, SHAPE, segmenter)) > 0.05
    assert 10 < len(np.unique(whole)) < 300


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_a_second_level_goes_on_where_the_first_one_ended(tmp_path, graph, segmenter):
    """More is joined, nodes of the first level stay together, and in the end it is the partition at once."""
    _, last, first, left, counts = contract(tmp_path / "one", graph, SHAPE, segmenter)
    _, level, further, fewer, sums = contract(tmp_path / "two", graph, SHAPE, segmenter, most=0)
    assert (last, level) == (0, 1) and 0 < len(fewer) < 0.8 * len(left)
    np.testing.assert_array_equal(further, further[first])
    apart = further[left[:, 0]] != further[left[:, 1]]
    assert all(sums[key].sum() == counts[key][apart].sum() for key in sums)
    assert differ(at_once(graph, segmenter), parted(tmp_path / "parted", graph, SHAPE, segmenter, most=0)) < 0.02


def test_a_district_sees_what_its_margin_reaches():
    site = Site("", "", SHAPE, SHAPE, (10.0, 10.0, 10.0))
    boxes = districts.districts(site)
    assert len(boxes) == 27
    middle = boxes[13]
    assert within(middle, districts.widened(middle, site)) == (slice(12, 32),) * 3
    assert districts.widened(boxes[0], site) == (slice(0, 32),) * 3
    assert len(districts.districts(site, 1)) == 8
    assert districts.widened(districts.districts(site, 1)[7], site, 1) == (slice(16, 60),) * 3


@pytest.mark.parametrize(("shape", "level"), [((60, 60, 60), 0), ((60, 60, 60), 1), ((17, 41, 100), 0)])
def test_the_largest_district_is_the_one_that_is_planned(shape, level):
    site = Site("", "", shape, shape, (10.0, 10.0, 10.0))
    seen = [np.prod(sides(districts.widened(box, site, level))) for box in districts.districts(site, level)]
    assert districts.seen_by(site, level) == max(seen)


def test_a_gigavoxel_of_sections_is_planned_within_four_gigabytes(monkeypatch):
    """Levels of districts are gone through until what is left fits into the process of the run."""
    monkeypatch.undo()
    sections, settings = (40.0, 8.0, 8.0), StageSettings()
    sites = [Site("", "", (depth, 1024, 1024), (64, 512, 512), sections) for depth in (16, 128, 1024)]
    assert [len(_expected(site)) for site in sites] == [2, 2, 4]
    assert max(graph_bytes(site) for site in sites) < 1.2 * 2**30 - 230 * 2**20
    assert plan_blocks(sites[-1], settings, 1, 4 * GB, 2).workers == 2


def _expected(site):
    contacts = np.prod(site.shape, dtype=float) * 0.07
    found = districts.expected(site, contacts, "multicut", MOST_EDGES)
    assert found == sorted(found, reverse=True) and found[-1] < 2 * MOST_EDGES
    return found
