"""Alignment against known shifts, brute force and scikit-image; damaged, tiny and single sections."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage as ndi
from scipy.signal.windows import tukey
from skimage.io import imread
from skimage.registration import phase_cross_correlation

from emlib.measure.shifts import recovery_error
from emlib.stages.align import AlignSettings, align, apply_shifts, estimate_shifts, simulate_misalignment
from emlib.stages.global_shifts import misplacement, solve_path
from emlib.stages.phase_correlation import Band, match, spectrum, visible
from emlib.stages.preprocess import preprocess
from emlib.stages.translation_check import check_translation

BAND = Band()


def texture(size=256, seed=0):
    """A stand-in for tissue: structures of a few to some twenty pixels, in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    field = sum(s * ndi.gaussian_filter(noise, s) for s in (2, 5, 9))
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


def table(shifts):
    shifts = np.asarray(shifts, float)
    return pd.DataFrame({"z": np.arange(len(shifts)), "dy": shifts[:, 0], "dx": shifts[:, 1]})


def jittered(section, count, px, seed, margin=12):
    """One section repeated, moved by known amounts, cropped so that real content enters at the borders."""
    moved, added = simulate_misalignment(np.repeat(section[None], count, axis=0), px, seed)
    return moved[:, margin:-margin, margin:-margin], added


def pair_shift(first, second, reach=40):
    return match(spectrum(first, BAND), spectrum(second, BAND), first.shape, BAND, reach)


def vnc(folder: Path, sections) -> np.ndarray:
    files = [next((folder / "drosophila-vnc").glob(f"*/raw/{z:02d}.png")) for z in sections]
    return np.stack([imread(f) for f in files])


# --- one pair -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (0.37, -1.81), (-12.5, 8.25), (25, -30)])
def test_pair_recovers_a_known_shift(shift):
    section = texture(320)
    moved = ndi.shift(section, shift, order=3, mode="wrap")
    found = pair_shift(section[32:-32, 32:-32], moved[32:-32, 32:-32])
    assert (found.dy, found.dx) == pytest.approx((-shift[0], -shift[1]), abs=0.02 if max(map(abs, shift)) < 5 else 0.1)
    assert found.peak > 2 * found.chance


def test_pair_equals_the_top_of_the_correlation_by_brute_force():
    """Summed term by term on a fine grid, over what the tapers share, it is highest where the match says."""
    first, second = spectrum(texture(48, 1), BAND), spectrum(np.roll(texture(48, 1), (1, 2), (0, 1)), BAND)
    found = match(first, second, (48, 48), BAND, 10)
    fy = np.fft.fftfreq(len(first), 1 / len(first)) / 48
    fx = np.arange(first.shape[1]) / 48
    taper = tukey(50, 2 * BAND.taper)[1:-1]
    shared = np.correlate(taper, taper, mode="full")[47:51] / (taper @ taper)
    best, where = -np.inf, None
    for dy in np.arange(-3, 3.001, 0.05):
        for dx in np.arange(-3, 3.001, 0.05):
            wave = np.exp(2j * np.pi * (fy[:, None] * dy + fx[None] * dx))
            terms = (first * second.conj() * wave).real
            value = terms[:, 0].sum() + 2 * terms[:, 1:].sum()
            value /= np.prod(np.interp(np.abs([dy, dx]), np.arange(4), shared))
            if value > best:
                best, where = value, (dy, dx)
    assert (found.dy, found.dx) == pytest.approx(where, abs=0.06)


def test_pair_agrees_with_scikit_image():
    """Same band-passed, tapered section, unnormalised correlation, as in skimage with normalization=None."""
    plain = Band(whiten=0)
    section = texture(300, 2)
    first, second = section[20:276, 20:276], ndi.shift(section, (1.3, -2.6), order=3)[20:276, 20:276]
    found = match(spectrum(first, plain), spectrum(second, plain), first.shape, plain, 20)
    window = np.outer(np.hanning(256), np.hanning(256))
    smooth = [ndi.gaussian_filter(s, 2) - ndi.gaussian_filter(s, 20) for s in (first, second)]
    reference = phase_cross_correlation(*(window * s for s in smooth), upsample_factor=50, normalization=None)[0]
    assert (found.dy, found.dx) == pytest.approx(tuple(reference), abs=0.05)


def test_real_pair_agrees_with_scikit_image(real_data):
    section = vnc(real_data, [4])[0] / np.float32(255)
    moved = ndi.shift(section, (2.35, -1.6), order=3)
    first, second = section[100:612, 100:612], moved[100:612, 100:612]
    reference = phase_cross_correlation(first, second, upsample_factor=50, normalization=None)[0]
    found = pair_shift(first, second)
    assert (found.dy, found.dx) == pytest.approx((-2.35, 1.6), abs=0.02)
    assert (found.dy, found.dx) == pytest.approx(tuple(reference), abs=0.05)


def test_illumination_does_not_pull_the_shift():
    """The same shading on both sections says 'no shift'; the tissue says otherwise."""
    section = texture(300, 3)
    shade = np.linspace(0, 0.7, 256, dtype=np.float32) ** 2
    found = pair_shift(section[:256, :256] + shade, section[4:260, 3:259] + shade)
    assert (found.dy, found.dx) == pytest.approx((4, 3), abs=0.1)


def test_sections_that_cannot_match_are_not_reliable():
    stack = np.stack([texture(128, seed) for seed in range(8)])
    _, pairs = estimate_shifts(stack)
    assert pairs["reliability"].median() < 0.2
    _, pairs = estimate_shifts(jittered(texture(150), 8, 1, 0)[0])
    assert pairs["reliability"].min() > 0.5 and pairs["used"].all()


def test_blank_patches_are_seen():
    section = texture(256)
    section[:, :100] = 0.3
    weight = visible(section)
    assert (weight[:, :90] == 0).all() and (weight[:, 130:] == 1).all()
    assert (visible(texture(256)) == 1).all()
    assert (visible(np.full((64, 64), 0.5, np.float32)) == 0).all()


# --- the whole stack ------------------------------------------------------------------------------------------------


def test_joint_solution_equals_dense_least_squares():
    """Without outliers the banded solution is the least-squares one, up to the common offset."""
    rng = np.random.default_rng(0)
    pairs = np.array([(z - d, z) for d in (1, 2, 3) for z in range(d, 12)])
    measured = rng.normal(size=(len(pairs), 2))
    trust = rng.uniform(0.2, 1, len(pairs))
    incidence = np.zeros((len(pairs), 12))
    incidence[np.arange(len(pairs)), pairs[:, 1]] = 1
    incidence[np.arange(len(pairs)), pairs[:, 0]] = -1
    root = np.sqrt(trust)[:, None]
    dense = np.linalg.lstsq(root * incidence, root * measured, rcond=None)[0]
    path = solve_path(*pairs.T, measured, trust, 12, huber_px=100)
    np.testing.assert_allclose(path - path.mean(0), dense - dense.mean(0), atol=1e-5)


def test_joint_solution_ignores_bad_pairs():
    truth = np.random.default_rng(1).normal(size=(30, 2))
    pairs = np.array([(z - d, z) for d in (1, 2, 3) for z in range(d, 30)])
    measured = truth[pairs[:, 1]] - truth[pairs[:, 0]]
    measured[[10, 40, 60]] += 25
    path = solve_path(*pairs.T, measured, np.ones(len(pairs)), 30, huber_px=0.1)
    np.testing.assert_allclose(path - path.mean(0), truth - truth.mean(0), atol=0.15)


def test_jitter_is_undone_and_oblique_tissue_is_kept():
    rng = np.random.default_rng(2)
    jitter = rng.normal(size=(200, 2))
    flow = np.cumsum(0.3 + 0.1 * ndi.gaussian_filter1d(rng.normal(size=(200, 2)), 3, axis=0), axis=0)
    error = misplacement(flow - jitter) + jitter
    error -= error.mean(axis=0)
    assert np.sqrt((error**2).mean()) < 0.35
    assert np.abs(ndi.gaussian_filter1d(error, 10, axis=0)).max() < 0.5
    np.testing.assert_allclose(misplacement(np.outer(np.arange(100), [0.4, -0.2])), 0, atol=0.05)


def test_alignment_moves_the_right_way():
    """A known jitter must shrink; a wrong sign would double it."""
    stack, added = jittered(texture(280), 20, 1, seed=3)
    aligned, shifts = align(stack)
    again, _ = estimate_shifts(aligned)
    assert aligned.dtype == np.float32 and aligned.shape == stack.shape
    assert recovery_error(added, shifts)["mean_px"] < 0.05
    assert np.hypot(again["dy"], again["dx"]).mean() < 0.1 < np.hypot(added["dy"], added["dx"]).mean()
    assert np.abs(np.diff(aligned[:, 20:-20, 20:-20], axis=0)).mean() < np.abs(np.diff(stack, axis=0)).mean() / 3
    assert shifts["residual_after_px"].max() < 0.15 < shifts["residual_before_px"].mean()


@pytest.mark.parametrize("name", ["drosophila-vnc", "fib25-medulla"])
def test_a_real_section_repeated_is_recovered(real_data, name):
    if name == "drosophila-vnc":
        section = vnc(real_data, [1])[0][:536, :536]
    else:
        section = imread(real_data / name / "em_u8_zyx.tif")[0]
    stack, added = jittered(section, 20, 1, seed=4)
    volume = preprocess(stack)
    aligned, shifts = align(volume)
    error = recovery_error(added, shifts)
    before = recovery_error(added, shifts.assign(dy=0.0, dx=0.0))
    assert error["mean_px"] < 0.15 < before["mean_px"]
    left = estimate_shifts(aligned)[0]
    assert np.hypot(left["dy"], left["dx"]).mean() < 0.15


def test_a_real_stack_with_damage_is_recovered(real_data):
    """Shifts of the real stack with and without added jitter differ by that jitter; the same sections are damaged."""
    stack = vnc(real_data, range(20))[:, 256:768, 256:768]
    moved, added = simulate_misalignment(stack, 2, seed=5)
    for volume in (stack, moved):
        volume[7] = 0
        volume[12, :, :205] = 0
    original, recovered = (estimate_shifts(preprocess(v))[0] for v in (stack, moved))
    difference = recovered.assign(dy=recovered["dy"] - original["dy"], dx=recovered["dx"] - original["dx"])
    keep = added["z"] != 7
    error = recovery_error(added[keep], difference[keep])
    assert error["rms_px"] < 0.35 < recovery_error(added[keep], difference[keep].assign(dy=0.0, dx=0.0))["rms_px"]
    assert not recovered.loc[7, "used"] and recovered.loc[12, "used"]


def test_a_well_aligned_real_stack_stays_where_it_is(real_data):
    """Its neurites run obliquely by a quarter of a pixel per section; that must not be straightened."""
    volume = preprocess(imread(real_data / "fib25-medulla" / "em_u8_zyx.tif")[:80])
    shifts = estimate_shifts(volume)[0]
    assert np.hypot(shifts["dy"], shifts["dx"]).max() < 0.5


@pytest.mark.slow
def test_phantom_does_not_drift():
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    phantom = make_phantom(PhantomSettings(seed=0, shape=(64, 192, 192), voxel_size_nm=(40, 8, 8)))
    shifts = estimate_shifts(preprocess(phantom.em))[0]
    error = recovery_error(phantom.shifts, shifts)
    assert error["drift_px"] <= 1
    assert error["rms_px"] < 0.8 * recovery_error(phantom.shifts, shifts.assign(dy=0.0, dx=0.0))["rms_px"]


# --- damage and small inputs ----------------------------------------------------------------------------------------


def test_black_and_masked_sections():
    stack, added = jittered(texture(280, 6), 12, 2, seed=6)
    stack[4] = 0
    stack[8, :, :100] = 0
    shifts, pairs = estimate_shifts(stack)
    assert shifts.loc[4, "reliability"] == 0 and not shifts.loc[4, "used"]
    assert not pairs.loc[(pairs["z0"] == 4) | (pairs["z1"] == 4), "used"].any()
    between = shifts.loc[[3, 5], ["dy", "dx"]].mean()
    np.testing.assert_allclose(shifts.loc[4, ["dy", "dx"]].to_numpy(float), between, atol=1e-6)
    keep = added["z"] != 4
    assert recovery_error(added[keep], shifts[keep])["max_px"] < 0.15


def test_nothing_to_align_is_left_alone():
    for volume in (np.zeros((3, 32, 32)), texture(64)[None], np.stack([texture(64)] * 5)):
        aligned, shifts = align(volume)
        np.testing.assert_allclose(aligned, volume, atol=1e-4)
        np.testing.assert_allclose(shifts[["dy", "dx"]], 0, atol=1e-3)
        assert len(shifts) == len(volume)


def test_two_sections_share_the_shift():
    section = texture(128, 7)
    shifts = align(np.stack([section[:100, :100], section[2:102, 4:104]]))[1]
    np.testing.assert_allclose(shifts[["dy", "dx"]], [[-1, -2], [1, 2]], atol=0.05)


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 5, 9), (2, 1, 1), (40, 16, 24)])
def test_tiny_sections(shape):
    volume = np.random.default_rng(0).random(shape)
    aligned, shifts = align(volume)
    assert aligned.shape == shape and np.isfinite(aligned).all() and np.isfinite(shifts[["dy", "dx"]]).all(axis=None)


def test_what_cannot_be_aligned_is_refused():
    broken = np.zeros((2, 16, 16))
    broken[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        align(broken)
    with pytest.raises(ValueError, match="shape"):
        align(np.zeros((16, 16)))
    with pytest.raises(ValueError, match="shape"):
        align(np.zeros((0, 16, 16)))
    with pytest.raises(ValueError, match="one shift per section"):
        apply_shifts(np.zeros((2, 4, 4)), table([(0, 0)]))
    with pytest.raises(ValueError, match="order"):
        apply_shifts(np.zeros((1, 4, 4)), table([(0, 0)]), order=3)


def test_same_input_same_result():
    stack = jittered(texture(150), 6, 1, 0)[0]
    first, second = align(stack), align(stack)
    assert first[0].tobytes() == second[0].tobytes()
    pd.testing.assert_frame_equal(first[1], second[1])


# --- moving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(1.3, -2.6), (-0.5, 0.25), (4, 0), (0, -7.9), (40, 2)])
def test_moving_equals_map_coordinates(shift):
    section = texture(32)
    moved = apply_shifts(section[None], table([shift]))[0]
    np.testing.assert_allclose(moved, ndi.shift(section, shift, order=1, mode="nearest"), atol=1e-5)


def test_labels_move_by_whole_pixels_and_keep_their_ids():
    labels = np.random.default_rng(0).integers(0, 2**40, (2, 20, 20))
    moved = apply_shifts(labels, table([(1.6, -0.4), (-30, 0)]), order=0, fill=0)
    assert moved.dtype == labels.dtype
    np.testing.assert_array_equal(moved[0, 2:], labels[0, :-2])
    assert not moved[0, :2].any() and not moved[1].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32, np.float64, bool])
def test_no_shift_changes_no_bit(dtype):
    volume = np.random.default_rng(0).normal(100, 50, (3, 9, 11)).astype(dtype)
    for order in (0, 1):
        assert apply_shifts(volume, table(np.zeros((3, 2))), order=order).tobytes() == volume.tobytes()


def test_simulated_misalignment_says_what_it_did():
    volume = np.repeat((texture(128) * 255).astype(np.uint8)[None], 50, axis=0)
    moved, added = simulate_misalignment(volume, 2, seed=1)
    assert moved.dtype == np.uint8 and 1.5 < added[["dy", "dx"]].to_numpy().std() < 2.5
    back = apply_shifts(moved, added.assign(dy=-added["dy"], dx=-added["dx"]))
    inner = (slice(None), slice(10, -10), slice(10, -10))
    assert (
        np.abs(back[inner].astype(int) - volume[inner]).mean()
        < 4
        < np.abs(moved[inner].astype(int) - volume[inner]).mean()
    )
    assert simulate_misalignment(volume, 2, seed=1)[0].tobytes() == moved.tobytes()


# --- measuring ------------------------------------------------------------------------------------------------------


def test_recovery_error_by_hand():
    added = table([(0, 0), (2, 0), (0, 0), (0, 0)])
    perfect = table([(5, 5), (3, 5), (5, 5), (5, 5)])
    assert recovery_error(added, perfect) == pytest.approx({"rms_px": 0, "mean_px": 0, "max_px": 0, "drift_px": 0})
    nothing = recovery_error(added, table(np.zeros((4, 2))))
    assert nothing["max_px"] == pytest.approx(1.5) and nothing["mean_px"] == pytest.approx(0.75)
    assert nothing["rms_px"] == pytest.approx(np.sqrt((1.5**2 + 3 * 0.25) / 4))
    slope = recovery_error(table(np.zeros((100, 2))), table(np.outer(np.arange(100), [0.1, 0])))
    assert slope["drift_px"] == pytest.approx(4.95, abs=1)
    with pytest.raises(ValueError, match="in common"):
        recovery_error(added, added.assign(z=added["z"] + 10))


# --- what translation cannot do ---------------------------------------------------------------------------------------


def test_a_turned_section_is_reported():
    stack, _ = jittered(texture(290, 8), 16, 0.5, seed=8)
    assert check_translation(align(stack)[0]).message == ""
    stack[9] = ndi.rotate(stack[9], 0.8, reshape=False, order=1, mode="nearest")
    found = check_translation(align(stack)[0])
    assert not found.explained and set(found.sections) == {9, 10}
    assert "rotation of about 0.8° at section 9" in found.message and "does not explain" in found.message


def test_a_stretched_rest_of_the_stack_is_reported():
    stack, _ = jittered(texture(290, 9), 12, 0.5, seed=9)
    stack[5:] = [ndi.zoom(s, (1.03, 1), order=1)[: s.shape[0]] for s in stack[5:]]
    found = check_translation(align(stack)[0])
    assert not found.explained and found.sections == (5,)
    assert re.search(r"stretch along y of about (2\.9|3\.0) % from section 5 on", found.message)


def test_too_little_to_tell_counts_as_explained():
    assert check_translation(texture(256)[None]).explained
    assert check_translation(np.zeros((3, 64, 64))).explained
    assert check_translation(np.zeros((3, 256, 256))).explained


def test_reach_bridges_a_lost_section_only_if_asked_to():
    stack, added = jittered(texture(200, 10), 6, 2, seed=10)
    stack[3] = 0
    keep = added["z"] != 3
    assert recovery_error(added[keep], estimate_shifts(stack)[0][keep])["max_px"] < 0.1
    assert recovery_error(added[keep], estimate_shifts(stack, AlignSettings(reach=1))[0][keep])["max_px"] > 0.1
