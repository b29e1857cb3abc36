"""The slice-wise baseline in layers gives the labels of the whole volume."""

import numpy as np
import pytest
from blockwise_run import engine_of, everything, preprocess

from emlib.blockwise.partition import sizes
from emlib.blockwise.slices import baseline
from emlib.stages.preprocess import preprocess as in_memory
from emlib.stages.segment import SegmentSettings, segment
from emlib.volumes.phantom import PhantomSettings, make_phantom

SIZE = (40.0, 8.0, 8.0)
SETTINGS = SegmentSettings(segmenter="watershed")


@pytest.mark.parametrize("flat", [[], [0, 6, 7, 8]], ids=["all sections", "some blank"])
def test_the_baseline_in_layers(tmp_path, flat):
    """Layers of three sections, of which one may be blank as a whole."""
    grey = make_phantom(PhantomSettings(shape=(14, 70, 81), seed=2)).em.copy()
    grey[flat] = 0
    engine = engine_of(tmp_path, grey, SIZE, (3, 40, 40))
    preprocess(engine)
    count = baseline(engine, SETTINGS.baseline)
    found, expected = engine.site.read("neurites", everything(engine.site)), segment(in_memory(grey), SIZE, SETTINGS)
    np.testing.assert_array_equal(found, expected)
    assert count == expected.max() > 20
    np.testing.assert_array_equal(sizes(engine.site)[1:], np.bincount(expected.ravel())[1:])
