"""Synapse candidates: drawn scenes with a known answer, nothing to find, the same scene at other voxel sizes."""

import numpy as np
import pandas as pd
import pytest

from emlib import threads
from emlib.measure.synapses.matching import average_precision, match_synapses, pr_curve
from emlib.stages.synapses import COLUMNS, SynapseSettings, find_candidates

CELL_NM = 450.0  # width of a drawn neurite
WALL_NM = 15.0  # half thickness of a drawn membrane
ISOTROPIC, SERIAL = (10.0, 10.0, 10.0), (50.0, 5.0, 5.0)


def scene(voxel_size_nm, densities, extent_nm=(300, 1800, 1800), gap=False, seed=0):
    """Square neurites along z, and dark balls of 45 nm radius at the given places (z, y, x in nm)."""
    shape = [round(e / v) for e, v in zip(extent_nm, voxel_size_nm, strict=True)]
    z, y, x = (np.arange(n) * v for n, v in zip(shape, voxel_size_nm, strict=True))
    rows, columns = np.floor(y / CELL_NM).astype(int), np.floor(x / CELL_NM).astype(int)
    flat = 1 + rows[:, None] * (columns.max() + 1) + columns[None, :]
    to_wall = [np.abs((c + CELL_NM / 2) % CELL_NM - CELL_NM / 2) for c in (y, x)]
    wall = np.minimum(to_wall[0][:, None], to_wall[1][None, :]) < WALL_NM
    rng = np.random.default_rng(seed)
    em = np.broadcast_to(np.where(wall, 0.25, 0.65), shape) + rng.normal(0, 0.04, shape)
    for cz, cy, cx in densities:
        far = (z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2
        em = np.where(far <= 45**2, 0.05, em)
    labels = np.broadcast_to(np.where(wall & gap, 0, flat), shape).astype(np.int32)
    return np.clip(em, 0, 1).astype(np.float32), labels


def at_nm(nm, voxel_size_nm):
    return pd.DataFrame(np.asarray(nm, float) / voxel_size_nm, columns=["z", "y", "x"])


# Two densities on walls along y, one on a wall along x; each 25 nm inside its sender.
PLACES = [(150, 650, 475), (150, 1150, 925), (150, 875, 1500)]
PARTNERS = {(6, 5), (11, 10), (8, 12)}


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, SERIAL, (40.0, 8.0, 8.0), (10.0, 4.0, 4.0)])
@pytest.mark.parametrize("gap", [False, True])
def test_drawn_synapses_are_found_with_partners_and_direction(voxel_size_nm, gap):
    em, labels = scene(voxel_size_nm, PLACES, gap=gap)
    found = find_candidates(em, labels, voxel_size_nm)
    found = found[found["score"] >= 0.10]
    match = match_synapses(found, at_nm(PLACES, voxel_size_nm), voxel_size_nm, 60)
    assert match.precision == match.recall == 1
    assert set(zip(found["pre_id"], found["post_id"], strict=True)) == PARTNERS


def test_membranes_alone_score_low():
    em, labels = scene(ISOTROPIC, [])
    assert (find_candidates(em, labels, ISOTROPIC)["score"] < 0.10).all()


def test_a_density_away_from_contacts_is_none():
    em, labels = scene(ISOTROPIC, [(150, 675, 675)])
    assert (find_candidates(em, labels, ISOTROPIC)["score"] < 0.10).all()


def test_a_contact_across_sections_counts_where_sections_are_thin():
    """One neurite above the other: no section by itself shows two neurites."""
    em, labels = scene(ISOTROPIC, [(150, 600, 600)], extent_nm=(300, 1200, 1200))
    labels = np.where(np.arange(30)[:, None, None] < 16, 1, 2) * np.ones_like(labels)
    found = find_candidates(em, labels, ISOTROPIC).iloc[:1]
    assert match_synapses(found, at_nm([(150, 600, 600)], ISOTROPIC), ISOTROPIC, 80).f1 == 1
    assert {found["pre_id"][0], found["post_id"][0]} == {1, 2}


def test_one_synapse_over_several_sections_is_one_candidate():
    em, labels = scene(SERIAL, [(z, 650, 475) for z in (100, 150, 200)])
    strong = find_candidates(em, labels, SERIAL)
    assert (strong["score"] >= 0.10).sum() == 1
    apart = find_candidates(em, labels, SERIAL, SynapseSettings(separation_nm=1))
    assert (apart["score"] >= 0.10).sum() == 3


def test_the_table_is_what_it_promises():
    em, labels = scene(SERIAL, PLACES)
    found = find_candidates(em, labels, SERIAL)
    assert found.dtypes.astype(str).to_dict() == COLUMNS
    assert found["score"].is_monotonic_decreasing and found["score"].between(0.01, 1).all()
    assert found["direction_confidence"].between(0, 1).all()
    assert (found["pre_id"] != found["post_id"]).all() and (found[["pre_id", "post_id"]] > 0).all(axis=None)
    assert (found[["z", "y", "x"]] >= 0).all(axis=None) and (found[["z", "y", "x"]].to_numpy() < em.shape).all()
    ids = set(np.unique(labels))
    for row in found.itertuples():
        others = {int(i) for i in row.partners.split(";") if i}
        assert others <= ids - {0, row.pre_id, row.post_id}


def test_the_number_of_threads_changes_nothing():
    em, labels = scene(ISOTROPIC, PLACES)
    before = em.copy(), labels.copy()
    try:
        threads.set_threads(1)
        one = find_candidates(em, labels, ISOTROPIC)
        threads.set_threads(3)
        pd.testing.assert_frame_equal(one, find_candidates(em, labels, ISOTROPIC), check_exact=True)
    finally:
        threads.set_threads(None)
    np.testing.assert_array_equal(em, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_ids_are_only_names():
    """Renumbering neurites renames partners and changes nothing else, 64-bit integers included."""
    em, labels = scene(SERIAL, PLACES)
    names = np.random.default_rng(1).permutation(np.arange(10_000, 10_000 + labels.max() + 1))
    plain, renamed = find_candidates(em, labels, SERIAL), find_candidates(em, names[labels], SERIAL)
    np.testing.assert_array_equal(names[plain["pre_id"]], renamed["pre_id"])
    np.testing.assert_array_equal(names[plain["post_id"]], renamed["post_id"])
    np.testing.assert_array_equal(plain["score"], renamed["score"])


def test_a_speck_is_no_partner():
    em, labels = scene(ISOTROPIC, PLACES[:1])
    labels[:, 64:66, 44:46] = 99
    found = find_candidates(em, labels, ISOTROPIC)
    assert found["score"][0] >= 0.10 and (found.loc[0, ["pre_id", "post_id"]] == [6, 5]).all()
    assert "99" not in found["partners"][0].split(";")


def blank(shape, fill=0):
    return np.full(shape, fill, np.int32)


NOISE = np.random.default_rng(0).random((4, 40, 40)).astype(np.float32)


@pytest.mark.parametrize(
    ("em", "labels"),
    [
        (NOISE, blank(NOISE.shape)),
        (NOISE, blank(NOISE.shape, 7)),
        (np.zeros((3, 30, 30), np.float32), np.arange(2700, dtype=np.int32).reshape(3, 30, 30)),
        (np.zeros((0, 30, 30), np.float32), blank((0, 30, 30))),
        (np.zeros((3, 0, 30), np.float32), blank((3, 0, 30))),
        (NOISE[:1, :1, :1], blank((1, 1, 1), 1)),
        (NOISE[:, :2, :3], np.arange(24, dtype=np.int32).reshape(4, 2, 3) % 2),
    ],
    ids=["no labels", "one neurite", "constant", "no sections", "no rows", "one voxel", "tiny"],
)
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, SERIAL, (30.0, 2.0, 2.0)])
def test_nothing_to_find_gives_a_typed_empty_table(em, labels, voxel_size_nm):
    found = find_candidates(em, labels, voxel_size_nm)
    assert len(found) == 0
    assert found.dtypes.astype(str).to_dict() == COLUMNS


def test_a_constant_section_among_others_is_passed_over():
    em, labels = scene(SERIAL, PLACES)
    em[2] = 0.5
    found = find_candidates(em, labels, SERIAL)
    assert (found["z"] != 2).all() and (found["score"] >= 0.10).sum() == 3


@pytest.mark.parametrize(
    ("em", "labels", "words"),
    [
        (NOISE, blank((4, 40, 41)), "one shape"),
        (NOISE[0], blank((40, 40)), "Z, Y, X"),
        (NOISE, np.zeros(NOISE.shape), "integers"),
    ],
)
def test_wrong_arrays_are_named(em, labels, words):
    with pytest.raises(ValueError, match=words):
        find_candidates(em, labels, ISOTROPIC)


def test_real_synapses_are_found(real_data):
    """Two training sections with the true membranes: far above chance, whose average precision is below 0.02."""
    from scipy import ndimage as ndi
    from skimage.io import imread

    from emlib.measure.synapses.matching import components_to_table
    from emlib.stages.preprocess import preprocess

    folder, far_apart = real_data / "drosophila-vnc" / "train", (1e4, 4.6, 4.6)
    raw, membranes, synapses = (
        np.stack([imread(folder / kind / name) for name in ("05.png", "12.png")])
        for kind in ("raw", "membranes", "synapses")
    )
    labels = np.stack([ndi.label(section < 128)[0] for section in membranes])
    truth = components_to_table(synapses >= 128, far_apart, per_section=True, min_size=1000)
    found = find_candidates(preprocess(raw), labels, far_apart)
    assert average_precision(pr_curve(found, truth, far_apart)) > 0.6
    assert match_synapses(found[found["score"] >= 0.10], truth, far_apart).f1 > 0.55
