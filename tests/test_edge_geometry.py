"""Shapes of fragments and contacts against what voxels and faces give one by one."""

import numpy as np
import pytest
from proofread_run import blobs, boundary_of

from emlib.refine import edge_geometry
from emlib.refine.edge_contacts import CONTACT_NAMES, contact_features
from emlib.refine.edge_geometry import contact_shapes, fragment_shapes
from emlib.stages.agglomerate import face_areas, region_graph
from emlib.stages.learned_edges import Cut

SIZES = [(10.0, 10.0, 10.0), (40.0, 8.0, 4.0)]


def scene(size, shape=(7, 18, 22), pieces=14, seed=3):
    """Fragments, of single sections where voxels are flat, with boundary probability and EM."""
    fragments = blobs(shape, pieces, seed=seed, background=0.0)
    if size[0] > 2 * size[1]:
        fragments = fragments + 1000 * np.arange(shape[0])[:, None, None]
    fragments = np.unique(fragments, return_inverse=True)[1].reshape(shape).astype(np.int32) + 1
    boundaries = boundary_of(fragments).astype(np.float32)
    em = np.random.default_rng(seed).random(shape).astype(np.float32)
    return Cut(fragments, region_graph(fragments, boundaries, size), boundaries, em, size)


def check_shape(shapes, row, points, weights, size):
    """Compare one row with the weighted moments of its points."""
    mean = np.average(points, axis=0, weights=weights)
    assert shapes.centre[row] == pytest.approx(mean)
    spread = np.cov(points.T, aweights=weights, ddof=0) + np.diag(np.square(size)) / 12
    values = np.sort(np.linalg.eigvalsh(spread))[::-1]
    assert shapes.extent[row] == pytest.approx(np.sqrt(values), rel=1e-6)
    for k in range(3):
        axis = shapes.axes[row, k]
        assert spread @ axis == pytest.approx(values[k] * axis, abs=1e-6 * values[0])


@pytest.mark.parametrize("size", SIZES)
def test_fragments_are_those_of_their_voxels(size, monkeypatch):
    cut = scene(size)
    count = cut.graph.rag.number_of_nodes
    whole = fragment_shapes(cut.fragments, count, size)
    assert whole.size[0] == 0  # fragment 0 does not exist
    for one in range(1, count):
        points = (np.argwhere(cut.fragments == one) + 0.5) * size
        assert whole.size[one] == pytest.approx(len(points) * np.prod(size))
        check_shape(whole, one, points, np.ones(len(points)), size)
    monkeypatch.setattr(edge_geometry, "_SLAB", 1)
    in_slabs = fragment_shapes(cut.fragments, count, size)
    for name in ("size", "centre", "extent"):  # axes of equal length may point anywhere
        assert np.allclose(getattr(whole, name), getattr(in_slabs, name))


@pytest.mark.parametrize("size", SIZES)
def test_contacts_are_those_of_their_faces(size):
    cut = scene(size)
    fragments, area = cut.fragments, face_areas(size)
    faces = {}
    for z, y, x in np.ndindex(fragments.shape):
        for axis, (v, u, t) in enumerate(((z + 1, y, x), (z, y + 1, x), (z, y, x + 1))):
            if v < fragments.shape[0] and u < fragments.shape[1] and t < fragments.shape[2]:
                a, b = fragments[z, y, x], fragments[v, u, t]
                if a != b:
                    middle = (np.array([z + v, y + u, x + t]) / 2 + 0.5) * size
                    faces.setdefault((min(a, b), max(a, b)), []).append((axis, middle))
    shapes, across = contact_shapes(cut.graph, fragments, size)
    ends = cut.graph.rag.uv_ids()
    assert {tuple(pair) for pair in ends} == set(faces)
    for row, pair in enumerate(map(tuple, ends)):
        axes = np.array([axis for axis, _ in faces[pair]])
        points = np.array([middle for _, middle in faces[pair]])
        assert shapes.size[row] == pytest.approx(area[axes].sum())
        assert across[row] == pytest.approx(area[axes][axes == 0].sum() / area[axes].sum())
        if len(points) > 3:
            check_shape(shapes, row, points, area[axes], size)


@pytest.mark.parametrize("size", SIZES)
def test_features_do_not_depend_on_the_order_of_ids(size):
    cut = scene(size)
    count = cut.graph.rag.number_of_nodes
    section = cut.fragments.reshape(len(cut.fragments), -1).max(axis=1)
    group = np.searchsorted(section, np.arange(1, count)) if cut.graph.between.any() else np.zeros(count - 1, int)
    # Within a section, where fragments lie in one: ids rise with it.
    order = np.lexsort((np.random.default_rng(0).random(count - 1), group))
    renamed = np.zeros(count, np.int32)
    renamed[1 + order] = np.arange(1, count)
    fragments = renamed[cut.fragments]
    other = cut._replace(fragments=fragments, graph=region_graph(fragments, cut.boundaries, size))
    rows = {}
    for one, ids in ((cut, renamed), (other, np.arange(count))):
        features = contact_features(one)
        assert features.shape == (len(features), len(CONTACT_NAMES)) and features.dtype == np.float32
        assert np.isfinite(features).all()
        for pair, row in zip(one.graph.rag.uv_ids(), features, strict=True):
            rows.setdefault(tuple(sorted(ids[pair].tolist())), []).append(row)
    assert all(len(pair) == 2 and np.allclose(*pair, rtol=1e-3, atol=1e-3) for pair in rows.values())


def test_features_tell_a_bar_cut_across_from_two_bars_side_by_side():
    fragments = np.zeros((12, 12, 60), np.int32)
    fragments[:, :6, :30], fragments[:, :6, 30:], fragments[:, 6:] = 1, 2, 3
    size = (10.0, 10.0, 10.0)
    boundaries = np.zeros(fragments.shape, np.float32)
    boundaries[:, 5:7] = 0.9
    em = np.full(fragments.shape, 0.7, np.float32)
    em[:, 5:7] = 0.2
    cut = Cut(fragments, region_graph(fragments, boundaries, size), boundaries, em, size)
    named = {
        tuple(pair): dict(zip(CONTACT_NAMES, row, strict=True))
        for pair, row in zip(cut.graph.rag.uv_ids().tolist(), contact_features(cut), strict=True)
    }
    across, beside = named[(1, 2)], named[(1, 3)]
    assert across["boundary median"] < 0.1 < 0.8 < beside["boundary median"]
    assert across["along long axis, lower"] > 0.99 > beside["along long axis, lower"]
    assert across["contact across the way"] > 0.99 and across["long axes alike"] > 0.99
    assert across["rank at the fragment, higher"] == 0 and beside["rank at the fragment, higher"] == 1
    assert across["above the fragment's weakest, higher"] == 0
    assert across["contact, log nm²"] == pytest.approx(np.log(12 * 6 * 100), rel=1e-5)
    assert across["volume, smaller, log nm³"] == pytest.approx(np.log(12 * 6 * 30 * 1000), rel=1e-5)
    assert across["distance, nm"] == pytest.approx(300, rel=1e-4) and across["contact across z"] == 0
    assert 0.8 < across["contact filled"] < 1.2
    assert across["between sections"] == 0 and across["overlap"] == 0


def test_a_single_fragment_has_no_contacts():
    fragments = np.ones((2, 5, 5), np.int32)
    boundaries = np.zeros(fragments.shape, np.float32)
    size = (10.0, 10.0, 10.0)
    cut = Cut(fragments, region_graph(fragments, boundaries, size), boundaries, boundaries, size)
    assert contact_features(cut).shape == (0, len(CONTACT_NAMES))
