"""Stages over blocks: the very results of the whole volume in memory, however the blocks lie."""

import numpy as np
import pandas as pd
import pytest
from blockwise_run import candidates, engine_of, everything, segmented

from emlib.blockwise import aligning, districts, flood, partition, sections, segmenting
from emlib.blockwise.given import boundaries_of_file, labels_of_file, sizes_of_labels
from emlib.blockwise.grid import around, lay, overlapping, part_of, sides
from emlib.blockwise.reading import copy_volume
from emlib.blockwise.seeds import seeds_within
from emlib.errors import UserError
from emlib.measure.contingency import contingency
from emlib.measure.instances import fill_zero, score_table
from emlib.stages.align import AlignSettings, align, apply_shifts, estimate_shifts, simulate_misalignment
from emlib.stages.boundaries import intensity_boundaries
from emlib.stages.preprocess import PreprocessSettings
from emlib.stages.preprocess import preprocess as in_memory
from emlib.stages.segment import SegmentSettings, segment
from emlib.stages.synapses import find_candidates
from emlib.stages.translation_check import check_translation
from emlib.stages.watershed import FragmentSettings, watershed_fragments
from emlib.volumes.companions import read_labels, read_probability
from emlib.volumes.grey import to_uint8
from emlib.volumes.phantom import PhantomSettings, make_phantom
from emlib.volumes.volume import Volume, VolumeSource

ISOTROPIC, FLAT = (10.0, 10.0, 10.0), (40.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def grey():
    """A phantom of 21 sections of which one is blank and one holds a single grey value."""
    em = make_phantom(PhantomSettings(shape=(21, 74, 91), seed=4)).em.copy()
    em[6], em[13] = 0, 137
    return em


@pytest.fixture(scope="module", params=[ISOTROPIC, FLAT], ids=["isotropic", "flat"])
def whole(request, grey):
    """Voxel size, and em, boundaries and labels of the volume in memory."""
    em = in_memory(grey)
    boundaries = intensity_boundaries(em, request.param)
    return request.param, em, boundaries, segment(em, request.param, boundaries=boundaries)


@pytest.mark.parametrize("block", [(21, 74, 91), (11, 37, 46), (8, 25, 31)], ids=str)
def test_blocks_give_the_bytes_of_the_whole(tmp_path, grey, whole, block):
    size, em, _, labels = whole
    engine = engine_of(tmp_path, grey, size, block)
    found = segmented(engine)
    for name, mine, expected in zip(("em", "boundaries", "labels"), found, whole[1:], strict=True):
        np.testing.assert_array_equal(mine, expected, err_msg=name)
    assert labels.max() > 5  # else there is nothing to cut apart
    expected = find_candidates(em, labels, size)
    pd.testing.assert_frame_equal(candidates(engine), expected, check_exact=True)


def test_mean_affinity_in_blocks(tmp_path, grey, whole):
    size, em, boundaries, _ = whole
    settings = SegmentSettings(segmenter="gasp", bias=0.3)
    engine = engine_of(tmp_path, grey, size, (11, 40, 50))
    np.testing.assert_array_equal(segmented(engine, settings)[2], segment(em, size, settings, boundaries))


def test_several_cells_give_the_same_whatever_the_blocks(tmp_path, grey, whole, monkeypatch):
    """Cells cut fragments on a grid of their own; few voxels differ from a flood without cells, none between blocks."""
    size, _, _, labels = whole
    monkeypatch.setattr(flood, "SOLID", (16, 32, 32))
    monkeypatch.setattr(flood, "SOLID_CHUNK", (16, 32, 32))
    monkeypatch.setattr(flood, "FLAT", (8, 32, 32))
    monkeypatch.setattr(flood, "FLAT_CHUNK", (8, 32, 32))
    found = []
    for number, block in enumerate([(21, 74, 91), (7, 33, 47)]):
        engine = engine_of(tmp_path / str(number), grey, size, block)
        found.append(segmented(engine)[2])
        assert len(flood.cells(engine.site)) > 8
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] > 0).sum() == (labels > 0).sum()


def test_one_district_gives_the_partition_of_the_whole(tmp_path, grey, whole, monkeypatch):
    """A graph that is too large is solved in districts; with one of them nothing is lost."""
    size, _, _, labels = whole
    monkeypatch.setattr(partition, "MOST_EDGES", 0)
    monkeypatch.setattr(flood, "PART", 100)
    engine = engine_of(tmp_path, grey, size, (11, 40, 50))
    found = segmented(engine)[2]
    table = contingency(fill_zero(labels), fill_zero(found))
    assert score_table(table)["voi"] == 0 and found.max() == labels.max()
    np.testing.assert_array_equal(partition.sizes(engine.site)[1:], np.bincount(found.ravel())[1:])
    seeds_at = np.unravel_index(engine.site.load("ids"), engine.site.seen)
    np.testing.assert_array_equal(engine.site.load("place"), np.stack(seeds_at, axis=1))


def test_districts_do_not_depend_on_the_blocks(tmp_path, grey, whole, monkeypatch):
    size = whole[0]
    monkeypatch.setattr(partition, "MOST_EDGES", 0)
    monkeypatch.setattr(districts, "district_size", lambda site: (9, 40, 40))
    found = []
    for number, block in enumerate([(21, 74, 91), (7, 33, 47)]):
        engine = engine_of(tmp_path / str(number), grey, size, block)
        found.append(segmented(engine)[2])
        assert len(districts.districts(engine.site)) == 18
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].max() > 2


def test_a_plateau_across_faces_is_one_seed(tmp_path):
    """A flat trough through all blocks: in memory it is one seed, and so it must be here."""
    boundaries = np.ones((12, 40, 44), np.float32)
    boundaries[5:7, 3:37, 4:40] = 0
    boundaries[0:12, 18:22, 20:24] = 0
    boundaries[2:4, 30:38, 2:8] = 0.5
    none = FragmentSettings(smooth_nm=1e-3, seed_window_nm=30)
    expected = watershed_fragments(boundaries, ISOTROPIC, none)
    for number, block in enumerate([(12, 40, 44), (5, 11, 13)]):
        engine = engine_of(tmp_path / str(number), np.ones(boundaries.shape, np.uint8), ISOTROPIC, block)
        engine.site.create("boundaries", np.float32)
        for box in segmenting.blocks_of(engine):
            engine.site.write("boundaries", box, boundaries[box])
        segmenting.neurites(engine, SegmentSettings(fragments=none))
        assert len(engine.site.load("ids")) == expected.max()
        place, _ = seeds_within(engine.site, everything(engine.site), engine.site.load("renamed"))
        assert len(place) == len(np.unique(place))
        local, rank = flood.read_fragments(engine.site, everything(engine.site))
        assert (rank[local] == expected).mean() > 0.9  # equal heights everywhere: which flood comes first is open


@pytest.mark.parametrize("depth", [9, 40])
def test_alignment_in_layers(tmp_path, depth):
    """Pairs, tiles, the solution, the moved sections and the check are those of the whole stack."""
    em = make_phantom(PhantomSettings(shape=(depth, 200, 210), seed=1)).em
    moved, _ = simulate_misalignment(em, 2.0, seed=3)
    moved[4] = 0
    settings = AlignSettings()
    engine = engine_of(tmp_path, moved, FLAT, (4, 64, 64))
    site = engine.site
    site.create("preprocessed", np.float32)
    shared = (PreprocessSettings(), "preprocessed")
    engine.run("preprocess", sections.preprocess_layer, shared, sections.layers(site))
    volume = in_memory(moved)
    shifts = aligning.estimate(engine, settings)
    pd.testing.assert_frame_equal(shifts, estimate_shifts(volume, settings)[0], check_exact=True)
    site.create("em", np.float32)
    moves = shifts[["dy", "dx"]].to_numpy().tolist()
    engine.run("align", sections.move_layer, moves, sections.layers(site))
    aligned = align(volume, settings)[0]
    np.testing.assert_array_equal(site.read("em", everything(site)), aligned)
    assert aligning.check(engine, settings) == check_translation(aligned, settings.band, settings.min_reliability)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 0, 255), ("int8", -100, 90), ("uint16", 900, 5000), ("int16", -3000, 200), ("float32", -1.5, 7)],
)
def test_grey_values_are_those_of_the_whole(tmp_path, dtype, low, high):
    """Percentiles are exact: counted by their leading digits, not guessed from a part."""
    values = np.random.default_rng(0).normal(0.5, 0.2, (9, 30, 40)) * (high - low) + low
    volume = np.clip(values, low, high).astype(dtype)
    source = VolumeSource("grey.npy", volume.shape, volume.dtype, lambda box: volume[box])
    engine = engine_of(tmp_path, np.zeros((5, 24, 32), np.uint8), FLAT, (2, 16, 16))
    rule = copy_volume(engine, source, (3, 4, 5))
    grey, expected = to_uint8(volume[3:8, 4:28, 5:37])
    np.testing.assert_array_equal(engine.site.read("raw", everything(engine.site)), grey)
    assert rule == expected


def test_grey_that_is_no_number_is_refused(tmp_path):
    volume = np.ones((4, 8, 8), np.float32)
    volume[2, 3, 4], volume[0] = np.nan, 0
    source = VolumeSource("bad.npy", volume.shape, volume.dtype, lambda box: volume[box])
    with pytest.raises(UserError, match="1 NaN or infinite"):
        copy_volume(engine_of(tmp_path, np.zeros((4, 8, 8), np.uint8), FLAT, (2, 8, 8)), source, (0, 0, 0))


def test_a_volume_of_one_grey_value_is_refused(tmp_path):
    volume = np.full((4, 8, 8), 7, np.uint8)
    source = VolumeSource("flat.npy", volume.shape, volume.dtype, lambda box: volume[box])
    with pytest.raises(UserError, match="single grey value"):
        copy_volume(engine_of(tmp_path, volume, FLAT, (2, 8, 8)), source, (0, 0, 0))


def test_boundaries_and_labels_of_a_file(tmp_path):
    """Read in layers, cut by the box of the volume and moved like its sections."""
    rng = np.random.default_rng(2)
    shape, offset = (7, 20, 24), (1, 3, 2)
    edges, labels = rng.random((9, 26, 30)).astype(np.float32), rng.integers(0, 2**40, (9, 26, 30))
    np.save(tmp_path / "edges.npy", edges)
    np.save(tmp_path / "labels.npy", labels)
    like = Volume(np.zeros(shape, np.uint8), FLAT, offset, {"shape": [9, 26, 30]})
    shifts = pd.DataFrame({"z": range(7), "dy": rng.normal(0, 2, 7), "dx": rng.normal(0, 2, 7)})
    engine = engine_of(tmp_path, like.array, FLAT, (3, 16, 16))
    boundaries_of_file(engine, str(tmp_path / "edges.npy"), like, shifts)
    labels_of_file(engine, str(tmp_path / "labels.npy"), like, shifts)
    expected = apply_shifts(read_probability(tmp_path / "edges.npy", like), shifts)
    np.testing.assert_array_equal(engine.site.read("boundaries", everything(engine.site)), expected)
    expected = apply_shifts(read_labels(tmp_path / "labels.npy", like), shifts, order=0, fill=0)
    np.testing.assert_array_equal(engine.site.read("neurites", everything(engine.site)), expected)
    for found, wanted in zip(
        sizes_of_labels(engine.site), np.unique(expected[expected > 0], return_counts=True), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    np.save(tmp_path / "edges.npy", edges + 1)
    with pytest.raises(UserError, match="a probability lies in"):
        boundaries_of_file(engine, str(tmp_path / "edges.npy"), like, shifts)


def test_blocks_tile_the_volume_and_margins_stay_inside():
    shape, size = (13, 50, 90), (5, 16, 33)
    count = np.zeros(shape, int)
    for box in lay(shape, size):
        count[box] += 1
        outer, inner = around(box, (2, 3, 4), shape)
        assert sides(outer) >= sides(box) and all(
            0 <= s.start and s.stop <= n for s, n in zip(outer, shape, strict=True)
        )
        canvas = np.zeros(shape, int)
        canvas[outer][inner] = 1
        assert canvas[box].all() and canvas.sum() == np.prod(sides(box))
        assert box in list(overlapping(box, shape, size))
    assert (count == 1).all()
    assert all(length % part_of(length, 64) == 0 for length in range(1, 600))
