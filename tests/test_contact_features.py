"""What maps hold along contacts, against a loop over faces; a few sections at a time or all at once."""

import numpy as np
import pytest

from emlib.stages import contact_features
from emlib.stages.contact_features import EVIDENT, FEATURES, evident_features, measure_contacts
from emlib.threads import set_threads


def sections_of_fragments(shape=(11, 12, 14), each=7, seed=0):
    """Random fragments, a few to a section, numbered on from section to section."""
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, each, shape)
    ranks = [np.unique(section, return_inverse=True)[1].reshape(shape[1:]) for section in fragments]
    low = np.cumsum([1, *(one.max() + 1 for one in ranks[:-1])])
    return np.stack([one + first for one, first in zip(ranks, low, strict=True)]).astype(np.int32)


def faces(fragments, values):
    """Values at the faces of each contact, one face at a time."""
    found = {}
    for at in np.ndindex(fragments.shape):
        for axis in range(3):
            ahead = tuple(place + (k == axis) for k, place in enumerate(at))
            if ahead[axis] < fragments.shape[axis] and fragments[at] != fragments[ahead]:
                pair = tuple(sorted((int(fragments[at]), int(fragments[ahead]))))
                found.setdefault(pair, []).append((float(values[at]) + float(values[ahead])) / 2)
    return found


@pytest.mark.parametrize("joined", [False, True], ids=["sections", "through sections"])
@pytest.mark.parametrize("threads", [1, 2])
def test_contacts_against_a_loop_over_faces(joined, threads):
    fragments = sections_of_fragments()
    if joined:
        fragments[5:7] = fragments[5]  # fragments of two sections
    maps = [np.random.default_rng(k).random(fragments.shape, np.float32) for k in (1, 2)]
    set_threads(threads)
    try:
        ends, features = measure_contacts(fragments, maps)
    finally:
        set_threads(None)
    for one, measured in zip(maps, features, strict=True):
        found = faces(fragments, one)
        assert [tuple(pair) for pair in ends.tolist()] == sorted(found)
        for values, row in zip((found[tuple(pair)] for pair in ends.tolist()), measured, strict=True):
            wanted = {"mean": np.mean(values), "min": min(values), "max": max(values), "size": len(values)}
            wanted |= {"median": np.median(values), "p25": np.percentile(values, 25), "p95": np.percentile(values, 95)}
            for name, value in wanted.items():
                assert row[FEATURES.index(name)] == pytest.approx(value, abs=1e-6), name


def test_a_few_sections_at_a_time_change_no_bit(monkeypatch):
    fragments = sections_of_fragments(seed=3)
    values = np.random.default_rng(4).random(fragments.shape, np.float32)
    whole = contact_features._measure(fragments, [values], 1)
    for at_once in (1, 2, 4, 5, 10):
        monkeypatch.setattr(contact_features, "AT_ONCE", at_once)
        ends, features = measure_contacts(fragments, [values])
        np.testing.assert_array_equal(ends, whole[0])
        np.testing.assert_array_equal(features[0], whole[1][0])


@pytest.mark.parametrize("most", [2**16, 2], ids=["packed", "many fragments"])
@pytest.mark.parametrize("depth", [1, 4, 5, 11])
def test_evident_features_of_sections(monkeypatch, most, depth):
    """Those of all features, but for the rounding of the value at a face; wherever the sections begin."""
    monkeypatch.setattr(contact_features, "MOST_LOCAL", most)
    fragments = sections_of_fragments()[:depth] + 500
    values = np.random.default_rng(1).random(fragments.shape, np.float32)
    values[values < 0.5] = -0.0
    ends, (features,) = measure_contacts(fragments, [values])
    for sections in (True, False):
        found, measured = evident_features(fragments, values, sections=sections)
        np.testing.assert_array_equal(found, ends)
        wanted = features[:, [FEATURES.index(name) for name in EVIDENT]]
        np.testing.assert_allclose(measured, wanted, rtol=0, atol=1e-7 if sections else 0)
    if depth > 6:  # a part that begins elsewhere has the same numbers
        part, of_part = evident_features(fragments[3:], values[3:], sections=True)
        there = (ends >= fragments[3].min()).all(axis=1)
        np.testing.assert_array_equal(part, ends[there])
        np.testing.assert_array_equal(of_part, evident_features(fragments, values, sections=True)[1][there])
