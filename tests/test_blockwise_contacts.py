"""Learned contacts over blocks: what the model says, and the neurites, are those of the whole volume."""

import numpy as np
import pytest
from blockwise_run import engine_of, everything, preprocess

from emlib.blockwise import segmenting
from emlib.blockwise.contacts import JOINED, grouped
from emlib.blockwise.grid import name, sides
from emlib.refine.edge_contacts import CONTACT_NAMES, contact_features
from emlib.refine.edge_model import ContactModel
from emlib.refine.forest import ForestSettings, grow_forest
from emlib.stages.agglomerate import region_graph
from emlib.stages.boundaries import damaged_sections, intensity_boundaries
from emlib.stages.contact_features import percentile
from emlib.stages.learned_edges import Cut, EdgeTuning
from emlib.stages.preprocess import preprocess as in_memory
from emlib.stages.segment import SegmentSettings, segment
from emlib.stages.watershed import watershed_fragments
from emlib.volumes.phantom import PhantomSettings, make_phantom

SIZES = [(10.0, 10.0, 10.0), (40.0, 8.0, 8.0)]


@pytest.fixture(scope="module", params=SIZES, ids=["isotropic", "flat"])
def scene(request):
    """Grey values with a blank section, what memory makes of them, and a model that looks at every feature."""
    grey = make_phantom(PhantomSettings(shape=(20, 66, 75), seed=4)).em.copy()
    grey[7] = 0
    em, size = in_memory(grey), request.param
    boundaries, good = intensity_boundaries(em, size), ~damaged_sections(em)
    fragments = watershed_fragments(boundaries[good], size)
    cut = Cut(fragments, region_graph(fragments, boundaries[good], size), boundaries[good], em[good], size)
    features = contact_features(cut)
    spread = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    rng = np.random.default_rng(0)
    answer = spread @ rng.normal(0, 1, features.shape[1]) - 3 * spread[:, CONTACT_NAMES.index("boundary median")] > 0
    forest = grow_forest(features, answer, CONTACT_NAMES, ForestSettings("hgb", trees=30, min_leaf=5))[0]
    tunings = {"multicut": EdgeTuning(0.2, 0.7), "gasp": EdgeTuning(-0.1, 0.5)}
    return grey, em, boundaries, cut, ContactModel(forest, 0.9, 0.1, tunings, size)


@pytest.mark.parametrize("block", [(20, 66, 75), (9, 31, 40)], ids=str)
def test_learned_contacts_in_blocks(tmp_path, scene, block):
    grey, em, boundaries, cut, model = scene
    engine, settings = engine_of(tmp_path, grey, cut.voxel_size_nm, block), SegmentSettings(bias=0.3)
    preprocess(engine)
    segmenting.intensity_boundaries(engine, settings.boundaries)
    segmenting.neurites(engine, settings, model)
    site = engine.site
    there = [box for box in segmenting.blocks_of(engine) if sides(site.seen_part(box))[0]]
    tables = [site.read_table(JOINED, name(box)) for box in there]
    ends, same, weight = (np.concatenate([table[key] for table in tables]) for key in ("ends", "same", "weight"))
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    np.testing.assert_array_equal(ends[order], cut.graph.rag.uv_ids())
    odds = model.predict(cut)
    expected = np.log(odds / (1 - odds)) - 0.2 - 0.3
    np.testing.assert_allclose(same[order], np.clip(expected, -10, 10), atol=1e-9)
    assert np.ptp(same) > 1 and (weight > 0).all()
    labels = segment(em, cut.voxel_size_nm, settings, boundaries, model)
    np.testing.assert_array_equal(site.read("neurites", everything(site)), labels)
    assert labels.max() > 5


def test_percentiles_of_groups_are_those_of_each():
    rng = np.random.default_rng(1)
    pairs, values = rng.integers(0, 4, (200, 2)), rng.random(200)
    named, starts, count, ordered = grouped(pairs, values)
    for percent in (5, 50, 90):
        found = percentile(ordered, starts, count, percent)
        for pair, mine in zip(named, found, strict=True):
            assert mine == pytest.approx(np.percentile(values[(pairs == pair).all(axis=1)], percent))
