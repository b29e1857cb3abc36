"""The phantom is reproducible, its truth sits on its image, and it is hard."""

import itertools

import cc3d
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from emlib.threads import set_threads
from emlib.volumes.phantom import PhantomSettings, make_phantom

SMALL = {"shape": (8, 64, 64)}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(PhantomSettings(shape=(24, 192, 192)))


@pytest.fixture
def one_thread():
    set_threads(1)
    yield
    set_threads(None)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_same_seed_same_bytes_whatever_the_threads(one_thread):
    first = make_phantom(PhantomSettings(**SMALL))
    set_threads(2)
    again = make_phantom(PhantomSettings(**SMALL))
    assert (first.em == again.em).all() and (first.labels == again.labels).all()
    assert first.synapses.equals(again.synapses) and first.shifts.equals(again.shifts)
    other = make_phantom(PhantomSettings(seed=1, **SMALL))
    assert (first.em != other.em).mean() > 0.5 and (first.labels != other.labels).mean() > 0.5


def test_damage_leaves_the_tissue_alone():
    whole = make_phantom(PhantomSettings(**SMALL))
    lost = make_phantom(PhantomSettings(damaged_section=5, damage="black", **SMALL))
    assert whole.damaged == () and lost.damaged == (5,)
    assert (whole.labels == lost.labels).all()
    assert (np.delete(whole.em, 5, axis=0) == np.delete(lost.em, 5, axis=0)).all()
    assert lost.em[5].mean() < 20 < whole.em[5].mean()


@pytest.mark.parametrize("damage", ["partial", "fold"])
def test_damage_covers_part_of_a_section(damage):
    whole, hurt = (
        make_phantom(PhantomSettings(**SMALL, damaged_section=where, damage=damage)) for where in (None, True)
    )
    (z,) = hurt.damaged
    changed = np.abs(whole.em[z].astype(float) - hurt.em[z]) > 40
    assert 0.02 < changed.mean() < 0.9
    assert (np.delete(whole.em, z, axis=0) == np.delete(hurt.em, z, axis=0)).all()


def test_truth_sits_on_the_image(phantom):
    em = phantom.em.astype(float)
    walls, inside = em[phantom.membranes].mean(), em[~phantom.membranes].mean()
    assert 70 < walls < 105 and 120 < inside < 155
    # moved by four pixels, the truth has lost half of its contrast
    elsewhere = em[np.roll(phantom.membranes, 4, axis=2)].mean()
    assert inside - elsewhere < 0.55 * (inside - walls)
    assert em[phantom.mitochondria].mean() < inside - 20
    assert em[phantom.clefts > 0].mean() < walls - 10


def test_label_borders_are_dark(phantom):
    grown = phantom.labels
    across = (grown[:, :, 2:] != grown[:, :, :-2]) & (grown[:, :, 2:] > 0) & (grown[:, :, :-2] > 0)
    em = phantom.em[:, :, 1:-1].astype(float)
    assert em[across].mean() < em[~across].mean() - 30


def test_ids_are_consecutive_and_each_is_one_piece(phantom):
    ids = np.unique(phantom.labels)
    assert (ids == np.arange(len(ids))).all() and len(ids) > 100
    assert cc3d.connected_components(phantom.labels, connectivity=26, return_N=True)[1] == len(ids) - 1


def test_zero_is_membrane_only(phantom):
    assert 0.02 < (phantom.labels == 0).mean() < 0.2
    # no gap holds a disc of 7 px (56 nm) across
    holes = gaussian_filter((phantom.labels == 0).astype(float), (0, 2, 2)) > 0.97
    assert holes.mean() < 2e-4


def test_default_size_has_a_hundred_neurites_and_two_dozen_synapses():
    settings = PhantomSettings()
    assert settings.shape == (64, 256, 256)
    volume = np.prod(np.multiply(settings.shape, settings.voxel_size_nm)) * 1e-9
    assert round(settings.synapses_per_um3 * volume) > 20


def test_profiles_vary_as_in_neuropil(phantom):
    areas = np.concatenate([np.bincount(section.ravel())[1:] for section in phantom.labels])
    diameter = 8 * 2 * np.sqrt(areas[areas > 4] / np.pi)
    small, median, large = np.percentile(diameter, [10, 50, 98])
    assert small < 120 and 130 < median < 330 and large > 430


def test_partners_touch_at_each_synapse(phantom):
    table = phantom.synapses
    assert len(table) >= 3
    assert (table.pre_id != table.post_id).all() and (table[["pre_id", "post_id"]] > 0).all(axis=None)
    for row in table.itertuples():
        z, y, x = row.z, round(row.y), round(row.x)
        around = phantom.labels[max(z - 1, 0) : z + 2, max(y - 7, 0) : y + 8, max(x - 7, 0) : x + 8]
        assert {row.pre_id, row.post_id} <= set(np.unique(around).tolist())
        assert phantom.labels[row.pre_z, round(row.pre_y), round(row.pre_x)] == row.pre_id
        assert phantom.labels[row.post_z, round(row.post_y), round(row.post_x)] == row.post_id
        # the cleft lies where the table says
        cleft = np.argwhere(phantom.clefts == row.Index + 1) * [40, 8, 8]
        assert np.linalg.norm(cleft - np.array([z, row.y, row.x]) * [40, 8, 8], axis=1).min() < 45


def test_synapse_positions_move_with_their_sections(phantom):
    table, moves = phantom.synapses, phantom.shifts.loc[phantom.synapses.z]
    assert np.allclose(table.y - table.y_aligned, moves.dy) and np.allclose(table.x - table.x_aligned, moves.dx)
    assert (table.z == table.z_aligned).all()


def test_vesicles_gather_at_the_presynaptic_side(phantom):
    owners = []
    z, y, x = np.nonzero(phantom.vesicles)
    for row in phantom.synapses.itertuples():
        near = np.linalg.norm((np.c_[z, y, x] - [row.z, row.y, row.x]) * [40, 8, 8], axis=1) < 200
        label = phantom.labels[z[near], y[near], x[near]]
        owners.append([(label == row.pre_id).sum(), (label == row.post_id).sum()])
    pre, post = np.sum(owners, axis=0)
    assert pre > 4 * post and pre > 50 * len(owners)


def test_shifts_undo_the_jitter():
    """Moving sections back by the shifts makes neighbours agree; moving them on makes it worse."""
    phantom = make_phantom(PhantomSettings(shape=(12, 128, 128), jitter_px=2.5))
    moves = phantom.shifts[["dy", "dx"]].to_numpy()
    smooth = [gaussian_filter(section.astype(float), 1) for section in phantom.em]

    def agreement(sign):
        moved = [shift(s, sign * m)[12:-12, 12:-12].ravel() for s, m in zip(smooth, moves, strict=True)]
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(moved)])

    assert agreement(-1) > agreement(0) + 0.07 > agreement(+1) + 0.12
    assert 0.7 < moves.std() / 2.5 < 1.3


def test_truth_moves_with_the_image():
    """A jittered volume is the still one with image, masks and synapses moved by the shifts."""
    still, moved = (make_phantom(PhantomSettings(shape=(6, 96, 96), jitter_px=j, noise=0)) for j in (0, 1.5))
    assert (still.shifts[["dy", "dx"]] == 0).all(axis=None)
    inner = np.s_[10:-10, 10:-10]
    for z, dy, dx in moved.shifts.itertuples(index=False):
        steps = round(dy), round(dx)
        assert (np.roll(still.membranes[z], steps, (0, 1))[inner] == moved.membranes[z][inner]).all()
        assert (np.roll(still.mitochondria[z], steps, (0, 1))[inner] == moved.mitochondria[z][inner]).all()
        image = shift(still.em[z].astype(float), (dy, dx), order=3)
        assert np.abs(image - moved.em[z])[inner].mean() < 2
    assert np.allclose(still.synapses[["z", "y", "x"]], moved.synapses[["z_aligned", "y_aligned", "x_aligned"]])


def test_borders_hold_tissue_not_repeated_edges():
    phantom = make_phantom(PhantomSettings(shape=(6, 64, 64), jitter_px=4, noise=0))
    em = phantom.em.astype(float)
    first = np.abs(np.diff(em[:, :4], axis=1)).mean()
    middle = np.abs(np.diff(em[:, 30:34], axis=1)).mean()
    assert first > 0.5 * middle
    assert (phantom.labels[:, [0, -1]] > 0).mean() > 0.7


def test_a_threshold_does_not_solve_it(phantom):
    smooth = np.stack([gaussian_filter(s.astype(float), 1) for s in phantom.em])
    scores, largest = [], []
    for level in np.percentile(smooth, range(10, 50, 4)):
        dark = smooth < level
        scores.append(dice(dark, phantom.membranes))
        pieces = cc3d.connected_components(~dark, connectivity=6)
        largest.append(np.bincount(pieces.ravel())[1:].max() / (~dark).sum())
    best = int(np.argmax(scores))
    assert 0.4 < scores[best] < 0.8
    assert largest[best] > 0.5  # through the gaps, most of the volume is one object


@pytest.mark.parametrize(
    ("shape", "voxel"),
    [
        ((8, 32, 32), (40, 8, 8)),
        ((1, 48, 96), (50, 4, 4)),
        ((3, 8, 9), (40, 8, 8)),
        ((96, 40, 33), (40, 8, 8)),
        ((40, 41, 42), (10, 10, 10)),
        ((10, 33, 47), (35, 16, 18)),
    ],
)
def test_any_size_and_resolution(shape, voxel):
    phantom = make_phantom(PhantomSettings(shape=shape, voxel_size_nm=voxel))
    for array in (
        phantom.em,
        phantom.labels,
        phantom.membranes,
        phantom.mitochondria,
        phantom.vesicles,
        phantom.clefts,
    ):
        assert array.shape == shape
    assert phantom.em.dtype == np.uint8 and phantom.labels.dtype == np.int32 and phantom.clefts.dtype == np.int32
    assert len(phantom.shifts) == shape[0] and phantom.em.std() > 10
    assert phantom.labels.max() >= 1
    assert list(phantom.synapses.columns[:5]) == ["z", "y", "x", "pre_id", "post_id"]


def test_other_voxel_size_same_kind_of_tissue():
    coarse = make_phantom(PhantomSettings(shape=(16, 64, 64), voxel_size_nm=(20, 16, 16)))
    fine = make_phantom(PhantomSettings(shape=(16, 128, 128), voxel_size_nm=(20, 8, 8)))
    assert abs(coarse.em.mean() - fine.em.mean()) < 8
    assert 0.7 < coarse.membranes.mean() / fine.membranes.mean() < 1.4


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ({"shape": (4, 64)}, "shape"),
        ({"shape": (4, 4, 64)}, "8 voxels"),
        ({"shape": (0, 64, 64)}, "shape"),
        ({"shape": (400, 4000, 4000)}, "smaller shape"),
        ({"voxel_size_nm": (40, 0, 8)}, "voxel_size_nm"),
        ({"jitter_px": -1}, "jitter_px"),
        ({"jitter_px": 100}, "jitter_px"),
        ({"noise": float("nan")}, "noise"),
        ({"mitochondria": 0.9}, "mitochondria"),
        ({"damage": "burnt"}, "damage"),
        ({"damaged_section": 64}, "damaged_section"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_say_what_is_wrong(bad, names):
    with pytest.raises(ValueError, match=names):
        PhantomSettings(**bad)
