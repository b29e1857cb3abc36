"""Augmentation: image and masks move together, by known amounts, and each sample for itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from emlib.errors import UserError
from emlib.learn.transforms import PRESETS, AugmentSettings, augment, find_grey_range, margin, read_augment
from emlib.learn.transforms.geometry import Geometry, draw_geometry, resample, source_size, spline_basis
from emlib.learn.transforms.grey import blurred, change_grey
from emlib.learn.transforms.hidden import crop_and_pad, erase, lose_tissue

SIZE = 40
EVERYTHING = replace(
    PRESETS["strong"],
    **dict.fromkeys("rotate scale elastic brightness contrast gamma noise blur missing_region erase crop".split(), 1.0),
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
        ({"scale_range": (0.001, 1.0)}, "scale_range rises and lies from 0.1 to 10"),
        ({"crop_range": (0.0, 0.5)}, "crop_range rises and lies from 0.1 to 1"),
        ({"erase": float("nan")}, "erase is a chance from 0 to 1, got nan"),
        ({"erase_count": 0}, "erase_count lies from 1 to 100, got 0"),
        ({"pad": "miror"}, "pad is mirror or constant, not 'miror'; did you mean mirror?"),
        ({"elastic_px": 300.0, "elastic_spacing_px": 5000.0}, "elastic_px lies from 0 to 256"),
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


def test_erased_rectangles_have_their_size_and_keep_their_masks():
    settings = AugmentSettings(erase=1.0, erase_range=(0.25, 0.25), erase_count=1)
    flat, noisy = 0, 0
    for seed in range(40):
        image = torch.from_numpy(smooth(SIZE))[None].clone()
        before = image.clone()
        erase(image, settings, np.random.default_rng(seed))
        changed = (image != before)[0]
        assert changed.sum() == (SIZE // 4) ** 2
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == SIZE // 4 == rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1
        different = len(image[0][changed].unique())
        flat, noisy = flat + (different == 1), noisy + (different > 90)
        assert 0 <= image.min() and image.max() <= 1
    assert flat + noisy == 40 and 8 < flat < 32
    images, masks = source(settings)
    assert torch.equal(augment(images, masks, settings, rngs(0, 1, 2), SIZE)[1], masks.float())


def test_up_to_so_many_rectangles_are_erased_as_often_as_asked():
    settings, hidden = AugmentSettings(erase=0.3, erase_range=(0.05, 0.05), erase_count=3), []
    for seed in range(300):
        image = torch.full((1, SIZE, SIZE), 2.0)
        erase(image, settings, np.random.default_rng(seed))
        hidden.append(int((image != 2).sum()))
    assert 60 < np.count_nonzero(hidden) < 120 and max(hidden) == 12 and {4, 8, 12} <= set(hidden)


@pytest.mark.parametrize("pad", ["mirror", "constant"])
def test_what_is_cropped_is_whole_and_padded_as_asked(pad):
    """Pixels carry their number, so that each can be told where it came from."""
    number = torch.arange(1, SIZE**2 + 1, dtype=torch.float32).reshape(1, SIZE, SIZE)
    settings = AugmentSettings(crop=1.0, crop_range=(0.5, 0.8), pad=pad)
    for seed in range(30):
        image, masks = crop_and_pad(number, number, settings, np.random.default_rng(seed))
        assert torch.equal(image, masks) and image.shape == number.shape
        found = image[0].numpy().astype(int)
        kept = np.unique(found[found > 0])
        rows, columns = np.unique((kept - 1) // SIZE), np.unique((kept - 1) % SIZE)
        assert len(kept) == len(rows) * len(columns) and SIZE // 2 <= len(rows) <= 0.8 * SIZE
        if pad == "constant":
            assert (found > 0).sum() == len(kept)
            continue
        block = number[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].numpy()
        wide = np.pad(block, SIZE, mode="reflect")
        corner = found[0, 0]
        places = np.argwhere(wide[: len(block) + SIZE, : block.shape[1] + SIZE] == corner)
        assert any(np.array_equal(wide[y : y + SIZE, x : x + SIZE], found) for y, x in places)


def test_new_draws_come_last_so_that_old_settings_give_what_they_gave():
    """All but the erased and the padded patches are as without these."""
    before = PRESETS["strong"]
    after = replace(before, erase=0.1, crop=0.05)
    images, masks = (tensor[:1] for tensor in source(before))
    same = [
        torch.equal(*(augment(images, masks, settings, rngs(seed), SIZE)[0] for settings in (before, after)))
        for seed in range(100)
    ]
    assert 70 < sum(same) < 98


@pytest.mark.parametrize("name", ["light", "strong"])
def test_twelve_bits_in_sixteen_are_augmented_like_eight_bits_that_fill_their_type(name):
    """The same tissue, stored differently, must look the same after augmentation; in the whole range it turns black."""
    settings = PRESETS[name]
    eight = np.rint(255 * np.stack([smooth(margin(settings, SIZE), seed) for seed in range(8)])).astype(np.uint8)
    twelve = eight.astype(np.uint16) * 16
    masks = torch.zeros(8, 1, *eight.shape[1:])
    ranges = [find_grey_range(images) for images in (eight, twelve)]
    assert ranges[0] == (0, 1) and ranges[1] == pytest.approx((0, 4080 * 1.05 / 65535), rel=0.02)
    unit = [torch.from_numpy(a.astype(np.float32) / top)[:, None] for a, top in ((eight, 255), (twelve, 65535))]
    out = [augment(a, masks, settings, rngs(*range(8)), SIZE, grey=g)[0] for a, g in zip(unit, ranges, strict=True)]
    contrast = [float(images.std((1, 2, 3)).mean()) for images in out]
    assert contrast[1] / ranges[1][1] == pytest.approx(contrast[0], rel=0.1)
    assert out[1].max() <= ranges[1][1] + 1e-6
    blind = augment(unit[1], masks, settings, rngs(*range(8)), SIZE)[0]
    correlation = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(out[0], blind, strict=True) if b.std()]
    agreeing = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(*out, strict=True)]
    assert min(agreeing) > 0.97 and (len(correlation) < 8 or min(correlation) < 0.9)


def test_a_grey_range_only_changes_the_units():
    """In the range of the data: as if the data were stretched over the whole range, augmented and shrunk again."""
    low, high = 0.25, 0.375
    images, masks = source(EVERYTHING)
    stretched = augment(images, masks, EVERYTHING, rngs(0, 1, 2), SIZE)
    shrunk = augment(low + (high - low) * images, masks, EVERYTHING, rngs(0, 1, 2), SIZE, grey=(low, high))
    assert torch.allclose(shrunk[0], low + (high - low) * stretched[0], atol=1e-5)
    assert torch.equal(shrunk[1], stretched[1])


def test_each_sample_can_have_its_own_grey_range():
    images, masks = source(EVERYTHING)
    ranges = [(0.0, 1.0), (0.2, 0.7), (0.0, 0.0625)]
    together = augment(images, masks, EVERYTHING, rngs(0, 1, 2), SIZE, grey=ranges)[0]
    for i, grey in enumerate(ranges):
        one = slice(i, i + 1)
        assert torch.equal(augment(images[one], masks[one], EVERYTHING, rngs(i), SIZE, grey=grey)[0][0], together[i])


def test_a_grey_range_passes_over_outliers_and_joins_types():
    rng = np.random.default_rng(0)
    image = rng.integers(1000, 3001, (200, 200), np.uint16)
    hot = image.copy()
    hot[0, :10] = 65535
    expected = (900 / 65535, 3100 / 65535)
    assert find_grey_range([image]) == pytest.approx(expected, abs=3e-5)
    assert find_grey_range([hot]) == pytest.approx(expected, abs=3e-5)
    bytes_ = rng.integers(100, 111, (100, 100)).astype(np.uint8)
    assert find_grey_range([bytes_, bytes_]) == pytest.approx((99.5 / 255, 110.5 / 255))
    assert find_grey_range([np.full((4, 4), 7, np.uint8)]) == find_grey_range([]) == (0, 1)
    with pytest.raises(ValueError, match="uint8 or uint16, not float64"):
        find_grey_range([np.zeros((2, 2))])


def test_names_and_files_of_augmentation(tmp_path):
    assert read_augment("none") is None and read_augment("strong") is PRESETS["strong"]
    path = tmp_path / "mine.yaml"
    path.write_text("base: light\nblur: 0.3\nblur_range: [0.5, 2]\nerase_count: 2\nquarter_turns: false\nnoise: 1e-3\n")
    expected = replace(
        PRESETS["light"], blur=0.3, blur_range=(0.5, 2.0), erase_count=2, quarter_turns=False, noise=0.001
    )
    assert read_augment(str(path)) == expected
    path.write_text("crop: 0.5\npad: constant\n")
    assert read_augment(str(path)) == AugmentSettings(crop=0.5, pad="constant")
    path.write_text("")
    assert read_augment(str(path)) == AugmentSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fliip: 0.5", "there is no key 'fliip'; did you mean flip"),
        ("base: ligth", "base: there is no augmentation 'ligth'; did you mean light?"),
        ("flip: often", "flip is a number, not 'often'"),
        ("flip: true", "flip is a number, not True"),
        ("flip: [1, 2]", "flip is a number, not [1, 2]"),
        ("flip: 2", "flip is a chance from 0 to 1, got 2"),
        ("flip: .nan", "flip is a chance from 0 to 1, got nan"),
        ("quarter_turns: 3", "quarter_turns is true or false, not 3"),
        ("scale_range: 0.8", "scale_range is 2 numbers in brackets such as [0.8, 1.25], not 0.8"),
        ("scale_range: [1, 2, 3]", "scale_range is 2 numbers in brackets"),
        ("scale_range: [a, 2]", "scale_range is a number, not 'a'"),
        ("scale_range: [2, 1]", "scale_range rises"),
        ("erase_count: 1.5", "erase_count is a whole number, not 1.5"),
        ("pad: wrap", "pad is mirror or constant, not 'wrap'"),
        ("- flip", "must hold lines of the form 'flip: 0.5'"),
        ("flip: [", "cannot read"),
        ("a: &x 1\nb: *x", "refers to another part of itself"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_augment(str(path))
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_augmentation_suggests_the_nearest(tmp_path):
    with pytest.raises(UserError, match="no augmentation 'strnog'; did you mean strong"):
        read_augment("strnog")
    with pytest.raises(UserError, match=r"no augmentation file .*gone.yaml; name a YAML file"):
        read_augment(str(tmp_path / "gone.yaml"))
