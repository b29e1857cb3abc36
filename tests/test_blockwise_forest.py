"""A forest of pixels over blocks: the very bits of the whole volume, however the blocks lie."""

import numpy as np
import pytest
from blockwise_run import engine_of, everything, preprocess

from emlib.blockwise.forest import block_bytes, forest_boundaries
from emlib.refine.features import FeatureSettings, feature_names
from emlib.refine.forest import Forest, ForestSettings, grow_forest
from emlib.refine.pixel_forest import background_probability
from emlib.stages.boundaries import damaged_sections
from emlib.stages.preprocess import preprocess as in_memory
from emlib.volumes.phantom import PhantomSettings, make_phantom

FEATURES = FeatureSettings((10.0, 20.0), (20.0,), (10.0, 20.0), (10.0,))


def a_forest(size: tuple[float, float, float]) -> Forest:
    """A forest that looks at every feature; what it learnt is of no matter."""
    names, rng = feature_names(size, FEATURES), np.random.default_rng(0)
    features = rng.normal(0.3, 0.3, (3000, len(names))).astype(np.float32)
    return grow_forest(features, rng.random(3000) < features.mean(axis=1), names, ForestSettings(trees=8))[0]


@pytest.fixture(scope="module")
def grey():
    """A phantom with a blank section; its last axis leaves voxels over beside those that are computed 16 at once."""
    em = make_phantom(PhantomSettings(shape=(29, 61, 83), seed=4)).em.copy()
    em[6] = 0
    return em


@pytest.mark.parametrize("size", [(10.0, 10.0, 10.0), (40.0, 8.0, 8.0)], ids=["isotropic", "flat"])
def test_a_forest_in_blocks_gives_the_bits_of_the_whole(tmp_path, grey, size):
    forest, em = a_forest(size), in_memory(grey)
    good, expected = ~damaged_sections(em), np.zeros(em.shape, np.float32)
    expected[good] = background_probability(em[good], size, forest, FEATURES)
    assert expected.std() > 0.01
    for number, block in enumerate([(29, 61, 83), (13, 37, 42)]):
        engine = engine_of(tmp_path / str(number), grey, size, block)
        preprocess(engine)
        forest_boundaries(engine, forest, FEATURES)
        found = engine.site.read("boundaries", everything(engine.site))
        np.testing.assert_array_equal(found, expected)
        assert block_bytes(engine.site, FEATURES) > 4 * len(forest.names) * 61 * 83
