"""Graphs that are solved in districts: what is closed, what is left, and that it is what one partition gives."""

import networkx as nx
import numpy as np
import pytest
from scipy.spatial import KDTree

from emlib.blockwise import districts
from emlib.blockwise.contacts import JOINED, UNIT, strength
from emlib.blockwise.engine import Engine, Here
from emlib.blockwise.grid import lay, name, within
from emlib.blockwise.site import Site
from emlib.measure.contingency import contingency
from emlib.measure.instances import score_table

SHAPE, BLOCKS = (60, 60, 60), [(60, 60, 60), (23, 31, 60)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Districts of 20 voxels that see 12 around themselves."""
    monkeypatch.setattr(districts, "SOLID", (20, 20, 20))
    monkeypatch.setattr(districts, "SOLID_MARGIN", (12, 12, 12))


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
    first, told = np.stack(np.unravel_index(ids[ends[:, 0] - 1], SHAPE), axis=1), []
    for box in lay(SHAPE, block):
        here = np.all([(first[:, k] >= side.start) & (first[:, k] < side.stop) for k, side in enumerate(box)], axis=0)
        nothing = {"faces": np.ones(here.sum(), int), "between": np.zeros(here.sum(), bool)}
        site.write_table(JOINED, name(box), ends=ends[here], same=same[here], weight=weight[here], **nothing)
        told.append({"edges": int(here.sum()), "strength": strength(same[here], weight[here])})
    return Engine(site, Here(), quiet=True), told


def contracted(folder, graph, block, segmenter, share=1.0):
    engine, told = stored(folder, graph, block)
    least = share * districts.bound(told, segmenter)
    return (*districts.contract(engine, lay(SHAPE, block), segmenter, least), least)


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_a_contact_is_closed_where_all_districts_that_see_it_agree(tmp_path, graph, segmenter):
    ids, ends, same, weight = graph
    place = np.stack(np.unravel_index(ids, SHAPE), axis=1)
    nodes, seen, joined = nx.empty_graph(len(ids) + 1), np.zeros(len(ends), int), np.zeros(len(ends), int)
    first, left, counts, least = contracted(tmp_path, graph, SHAPE, segmenter)
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
    one, other = (contracted(tmp_path / str(block[0]), graph, block, segmenter)[:3] for block in BLOCKS)
    for mine, expected in zip(one[:2], other[:2], strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert one[2].keys() == other[2].keys() and all((one[2][key] == other[2][key]).all() for key in one[2])


@pytest.mark.parametrize("segmenter", ["multicut", "gasp"])
def test_joining_goes_on_as_if_it_had_not_been_interrupted(tmp_path, graph, segmenter, monkeypatch):
    """Districts, then the rest, are one partition of the whole; without bound and margin they are not."""
    ids, ends, same, weight = graph

    def parted(share):
        first, left, counts, _ = contracted(tmp_path / str(share), graph, SHAPE, segmenter, share)
        found = np.arange(len(ids) + 1)
        nodes, to = districts.solve_rest(left, counts, segmenter)
        found[nodes] = to
        return found[first]

    whole = np.arange(len(ids) + 1)
    nodes, to = districts.join(ends, same, weight, segmenter)
    whole[nodes] = to

    def differ(found):
        return score_table(contingency(whole[1:].astype(np.int64) + 1, found[1:].astype(np.int64) + 1))["voi"]

    assert differ(parted(1.0)) < 0.02
    monkeypatch.setattr(districts, "SOLID_MARGIN", (0, 0, 0))
    assert differ(parted(0.0)) > 0.05
    assert 10 < len(np.unique(whole)) < 300


def test_a_district_sees_what_its_margin_reaches():
    site = Site("", "", SHAPE, SHAPE, (10.0, 10.0, 10.0))
    boxes = districts.districts(site)
    assert len(boxes) == 27
    middle = boxes[13]
    assert within(middle, districts.widened(middle, site)) == (slice(12, 32),) * 3
    assert districts.widened(boxes[0], site) == (slice(0, 32),) * 3
