"""Synapses of a network's map in blocks: the very table of the whole volume in memory."""

import numpy as np
import pandas as pd
import pytest
from blockwise_run import engine_of
from scipy import ndimage as ndi

from emlib.blockwise import clefts
from emlib.errors import UserError
from emlib.stages.expert_synapse_components import ExpertSynapseSettings
from emlib.stages.expert_synapses import find_expert_candidates
from emlib.stages.synapses import SynapseSettings
from emlib.volumes.phantom import PhantomSettings, make_phantom

ISOTROPIC, FLAT = (10.0, 10.0, 10.0), (40.0, 4.6, 4.6)
SHAPE = (21, 75, 92)


@pytest.fixture(scope="module")
def volume():
    """EM, neurites that leave gaps, and a map whose pieces reach over several sections, branch and touch borders."""
    made = make_phantom(PhantomSettings(shape=SHAPE, seed=4))
    noise = ndi.gaussian_filter(np.random.default_rng(3).normal(size=SHAPE), (1.2, 3, 3))
    probability = (1 / (1 + np.exp(-6 * (noise / noise.std() - 1.2)))).astype(np.float16)
    return (made.em / 255).astype(np.float32), made.labels.astype(np.int32), probability


def engine_with(folder, volume, size, block):
    em, labels, probability = volume
    engine = engine_of(folder, np.zeros(em.shape, np.uint8), size, block)
    for name, array in (("em", em), ("neurites", labels), (clefts.MAP, probability)):
        engine.site.create(name, array.dtype)
        engine.site.write(name, tuple(slice(0, n) for n in array.shape), array)
    return engine


@pytest.mark.parametrize("block", [SHAPE, (3, 37, 46)], ids=str)
@pytest.mark.parametrize(("size", "least"), [(ISOTROPIC, 3000), (FLAT, 600)], ids=["isotropic", "sections"])
def test_blocks_give_the_table_of_the_whole(tmp_path, volume, size, least, block):
    """None is found twice, none is lost where layers meet, and partners are the same to the last digit."""
    settings = SynapseSettings(experts=ExpertSynapseSettings(min_area_nm2=least))
    em, labels, probability = volume
    expected = find_expert_candidates(probability, em, labels, size, settings)
    assert len(expected) > 3 and (expected["direction_confidence"] > 0).any()
    found = clefts.find_candidates_in_blocks(engine_with(tmp_path, volume, size, block), settings)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_a_map_without_synapses_gives_an_empty_table(tmp_path, volume):
    em, labels, probability = volume
    nothing = em, labels, np.zeros_like(probability)
    settings = SynapseSettings(directed=False)
    found = clefts.find_candidates_in_blocks(engine_with(tmp_path, nothing, FLAT, (4, 40, 40)), settings)
    pd.testing.assert_frame_equal(found, find_expert_candidates(nothing[2], em, labels, FLAT, settings))


def test_a_piece_that_fills_the_volume_is_told(tmp_path, volume, monkeypatch):
    em, labels, probability = volume
    monkeypatch.setattr(clefts, "MOST", 1000)
    engine = engine_with(tmp_path, (em, labels, np.ones_like(probability)), ISOTROPIC, (8, 40, 40))
    with pytest.raises(UserError, match=r"at 0 0 0 reaches over 92 75 21 voxels \(x y z\), which is no synapse"):
        clefts.find_candidates_in_blocks(engine, SynapseSettings())
