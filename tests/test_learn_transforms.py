"""Augmentation: image and masks move together, by known amounts, and each sample for itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from emlib.errors import UserError
from emlib.learn.transforms import PRESETS, AugmentSettings, augment, margin
from emlib.learn.transforms.geometry import Geometry, draw_geometry, resample, source_size, spline_basis
from emlib.learn.transforms.grey import blurred, change_grey, lose_tissue

SIZE = 40
EVERYTHING = replace(
    PRESETS["strong"],
    **dict.fromkeys("rotate scale elastic brightness contrast gamma noise blur missing_region".split(), 1.0),
)


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def smooth(size, seed=0):
    """An image whose bilinear samples are close to the truth, in [0, 1]."""
    image = gaussian_filter(np.random.default_rng(seed).random((size, size)), 4, mode="wrap")
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


def source(settings, count=3, size=SIZE):
    wide = margin(settings, size)
    images = torch.from_numpy(np.stack([smooth(wide, seed) for seed in range(count)]))[:, None]
    return images, (torch.cat([images, 1 - images], dim=1) > 0.6).to(torch.uint8)


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
@pytest.mark.parametrize("settings", [*PRESETS.values(), EVERYTHING], ids=[*PRESETS, "everything"])
def test_shapes_types_and_ranges(settings, size):
    images, masks = augment(*source(settings, size=size), settings, rngs(0, 1, 2), size)
    assert images.shape == (3, 1, size, size) and masks.shape == (3, 2, size, size)
    assert images.dtype == masks.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and set(masks.unique().tolist()) <= {0.0, 1.0}


def test_nothing_is_changed_by_default():
    images, masks = source(AugmentSettings())
    out = augment(images, masks, AugmentSettings(), rngs(0, 1, 2), SIZE)
    assert torch.equal(out[0], images) and torch.equal(out[1], masks.float())


def test_a_sample_does_not_depend_on_its_batch():
    images, masks = source(EVERYTHING)
    together = augment(images, masks, EVERYTHING, rngs(5, 6, 7), SIZE)
    for i in range(3):
        alone = augment(images[i : i + 1], masks[i : i + 1], EVERYTHING, rngs(5 + i), SIZE)
        assert torch.equal(alone[0][0], together[0][i]) and torch.equal(alone[1][0], together[1][i])
    assert not torch.equal(augment(images, masks, EVERYTHING, rngs(8, 9, 10), SIZE)[0], together[0])


def test_flips_and_turns_are_exact_and_all_eight_occur():
    settings = AugmentSettings(flip=0.5, quarter_turns=True)
    image = torch.rand((1, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    mask = (image > 0.5).float()
    wanted = [torch.rot90(part, k, (-2, -1)) for part in (image, image.flip(-1)) for k in range(4)]
    seen = set()
    for seed in range(80):
        out, out_mask = augment(image, mask, settings, rngs(seed), SIZE)
        seen |= {i for i, one in enumerate(wanted) if torch.equal(out, one)}
        assert torch.equal(out_mask, (out > 0.5).float())
    assert seen == set(range(8))


@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_resampling_agrees_with_the_exact_way(flip_y, flip_x, turns):
    """A displacement of nothing forces the resampling, which must give what flips and turns give."""
    image = torch.rand((1, SIZE + 6, SIZE + 6), generator=torch.Generator().manual_seed(0))
    mask = (image > 0.5).to(torch.uint8)
    exact = resample(image, mask, Geometry(flip_y, flip_x, turns), SIZE)
    warped = resample(image, mask, Geometry(flip_y, flip_x, turns, displacement=torch.zeros(2, SIZE, SIZE)), SIZE)
    assert torch.allclose(exact[0], warped[0], atol=1e-4) and torch.equal(exact[1], warped[1])


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_a_warp_equals_its_formula(size):
    """Rotation, scale and displacement against map_coordinates, of a source without square symmetry."""
    rng = np.random.default_rng(3)
    wide, angle, scale = size + 40, 0.4, 1.2
    image = smooth(wide)
    moved = rng.uniform(-2, 2, (2, 1, 1)) * np.ones((2, size, size))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    rows = (np.cos(angle) * y - np.sin(angle) * x) / scale + moved[0] + (wide - 1) / 2
    columns = (np.sin(angle) * y + np.cos(angle) * x) / scale + moved[1] + (wide - 1) / 2
    expected = map_coordinates(image, [rows, columns], order=1)
    geometry = Geometry(angle=angle, scale=scale, displacement=torch.from_numpy(moved.astype(np.float32)))
    out, mask = resample(torch.from_numpy(image)[None], torch.from_numpy(image > 0.5)[None], geometry, size)
    assert np.allclose(out[0], expected, atol=1e-4)
    soft = map_coordinates((image > 0.5).astype(np.float32), [rows, columns], order=1)
    clear = abs(soft - 0.5) > 1e-3
    assert np.array_equal(mask[0].numpy()[clear], (soft >= 0.5)[clear]) and clear.mean() > 0.95


def test_image_and_mask_stay_on_each_other():
    """The mask of a moved disc is the disc moved: brightness thresholded afterwards agrees."""
    wide = margin(EVERYTHING, SIZE)
    y, x = np.mgrid[:wide, :wide] - wide / 2 + 3
    image = (1 / (1 + np.exp(np.hypot(y, x) - 11))).astype(np.float32)
    geometry = replace(AugmentSettings(), flip=0.5, quarter_turns=True, rotate=1.0, scale=1.0, elastic=1.0)
    image, wide = torch.from_numpy(image)[None, None], margin(geometry, SIZE)
    border = (image.shape[-1] - wide) // 2
    image = image[..., border : border + wide, border : border + wide]
    for seed in range(10):
        out, mask = augment(image, image >= 0.5, geometry, rngs(seed), SIZE)
        assert 100 < mask.sum() < SIZE**2 and ((out >= 0.5) != (mask > 0)).sum() < 0.05 * mask.sum()


def test_no_geometry_leaves_its_source():
    """What lies beyond the margin is never seen: with it set to 1, nothing of a black source becomes bright."""
    settings = replace(EVERYTHING, rotate_degrees=180, scale_range=(0.8, 0.8))
    wide = source_size(settings, SIZE)
    image = torch.zeros(1, wide, wide)
    image[:, [0, -1]] = image[:, :, [0, -1]] = 1  # the outermost pixels
    for seed in range(100):
        geometry = draw_geometry(settings, np.random.default_rng(seed), SIZE)
        assert resample(image, image, geometry, SIZE)[0].max() < 1e-6


def test_splines_add_up_and_stay_between_their_points():
    basis = spline_basis(100, 24.0).double()
    assert torch.allclose(basis.sum(1), torch.ones(100).double(), atol=1e-6) and basis.min() >= 0
    at = torch.arange(basis.shape[1]).double()  # points on a line give the line
    assert torch.allclose(basis @ at, torch.arange(100).double() / 24 + 1, atol=1e-5)


def test_displacement_is_bounded_and_never_folds():
    settings = AugmentSettings(elastic=1.0, elastic_px=11.9, elastic_spacing_px=48)
    for seed in range(20):
        dy, dx = draw_geometry(settings, np.random.default_rng(seed), 120).displacement.numpy().astype(float)
        assert max(abs(dy).max(), abs(dx).max()) <= 11.9
        (dyy, dyx), (dxy, dxx) = np.gradient(dy), np.gradient(dx)
        assert ((1 + dyy) * (1 + dxx) - dyx * dxy).min() > 0


def test_blur_is_a_gaussian():
    image = np.random.default_rng(0).random((SIZE, SIZE)).astype(np.float32)
    expected = gaussian_filter(image.astype(float), 1.3, mode="mirror", radius=4)
    assert np.allclose(blurred(torch.from_numpy(image)[None], 1.3)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (AugmentSettings(gamma=1.0, gamma_range=(2.0, 2.0)), lambda g: g**2),
        (AugmentSettings(contrast=1.0, contrast_range=(1.5, 1.5)), lambda g: np.clip(0.5 + 1.5 * (g - 0.5), 0, 1)),
        (AugmentSettings(brightness=1.0, brightness_range=0.0), lambda g: g),
    ],
    ids=["gamma", "contrast", "brightness"],
)
def test_grey_follows_its_formula(settings, expected):
    image = smooth(SIZE)
    out = change_grey(torch.from_numpy(image)[None], settings, np.random.default_rng(0))[0]
    assert np.allclose(out, expected(image.astype(float)), atol=1e-5)


def test_noise_has_its_deviation_and_brightness_its_range():
    flat = torch.full((1, 200, 200), 0.5)
    noisy = change_grey(flat, AugmentSettings(noise=1.0, noise_range=(0.04, 0.04)), np.random.default_rng(0))
    assert float(noisy.std()) == pytest.approx(0.04, rel=0.03) and float(noisy.mean()) == pytest.approx(0.5, abs=1e-3)
    settings = AugmentSettings(brightness=1.0, brightness_range=0.2)
    shifts = [float(change_grey(flat[:, :1, :1], settings, rng)) - 0.5 for rng in rngs(*range(200))]
    assert -0.2 <= min(shifts) < -0.18 and 0.18 < max(shifts) <= 0.2


def test_lost_tissue_has_one_grey_and_no_organelles():
    settings = AugmentSettings(missing_region=1.0, region_range=(0.25, 0.5))
    greys = set()
    for seed in range(30):
        image, masks = torch.from_numpy(smooth(SIZE))[None].clone(), torch.ones(2, SIZE, SIZE)
        before = image.clone()
        lose_tissue(image, masks, settings, np.random.default_rng(seed))
        lost = masks[0] == 0
        rows, columns = (int(lost.any(axis).sum()) for axis in (1, 0))
        assert 10 <= rows <= 20 and 10 <= columns <= 20 and lost.sum() == rows * columns
        assert torch.equal(masks[0], masks[1]) and torch.equal(image[0][~lost], before[0][~lost])
        assert len(image[0][lost].unique()) == 1
        greys.add(round(float(image[0][lost][0]), 3))
    assert len(greys) == 3 and {0.0, 1.0} < greys


def test_a_lost_section_is_the_whole_patch_and_as_rare_as_asked():
    settings, lost = AugmentSettings(missing_section=0.2), 0
    for seed in range(200):
        image, masks = torch.rand(1, 8, 8), torch.ones(1, 8, 8)
        lose_tissue(image, masks, settings, np.random.default_rng(seed))
        assert masks.sum() in (0, 64)
        lost += not masks.any()
    assert 20 < lost < 60


def test_presets_share_a_centre_with_their_source():
    assert margin(PRESETS["none"], 256) == margin(PRESETS["light"], 256) == 256
    assert all((margin(PRESETS["strong"], size) - size) % 2 == 0 for size in range(60, 70))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": 1.5}, "flip is a chance from 0 to 1, got 1.5"),
        ({"gamma_range": (2.0, 1.0)}, "gamma_range rises"),
        ({"region_range": (0.1, 1.5)}, "region_range rises and lies from 0 to 1"),
        ({"rotate_degrees": 270.0}, "rotate_degrees lies from 0 to 180"),
        ({"elastic_px": 20.0}, "tissue could fold"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        AugmentSettings(**change)


def test_a_source_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected"):
        augment(*source(AugmentSettings()), EVERYTHING, rngs(0, 1, 2), SIZE)
