"""Preprocessing against its definition, and on sections that are tiny, blank or broken."""

import numpy as np
import pytest
from scipy import ndimage as ndi
from skimage.exposure import equalize_adapthist

from emlib.stages.preprocess import PreprocessSettings, preprocess

rng = np.random.default_rng(0)


def texture(shape, seed=0):
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 2, 2)[-len(shape) :])
    return np.clip(128 + 200 * noise, 0, 255).astype(np.uint8)


def test_a_section_is_smoothed_then_equalised():
    volume = texture((3, 96, 80))
    expected = equalize_adapthist(ndi.gaussian_filter(volume[1] / 255.0, 0.7), kernel_size=(12, 10), clip_limit=0.01)
    np.testing.assert_allclose(preprocess(volume)[1], expected, atol=1e-3)


def test_range_type_and_contrast():
    volume = (texture((2, 128, 128)) // 6 + 90).astype(np.uint8)  # faint contrast
    result = preprocess(volume)
    assert result.dtype == np.float32 and result.shape == volume.shape
    assert result.min() >= 0 and result.max() <= 1
    assert result.std() > 2 * (volume / 255).std()


def test_sections_do_not_influence_each_other():
    volume = texture((4, 64, 64))
    changed = volume.copy()
    changed[3] = 0
    np.testing.assert_array_equal(preprocess(volume)[:3], preprocess(changed)[:3])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 7), (1, 3, 5), (2, 17, 33)])
def test_tiny_sections(shape):
    result = preprocess(rng.integers(0, 256, shape, dtype=np.uint8))
    assert result.shape == shape and np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("grey", [0, 77, 255])
def test_a_constant_section_stays_constant(grey):
    volume = texture((3, 64, 64))
    volume[1] = grey
    result = preprocess(volume)
    np.testing.assert_allclose(result[1], grey / 255, atol=1e-6)
    assert np.isfinite(result).all()


@pytest.mark.filterwarnings("error")
def test_a_blank_patch_and_a_nearly_black_section_survive():
    volume = texture((3, 64, 64))
    volume[0, :, :26] = 0
    volume[2] = 0
    volume[2, 5, 5] = 1
    result = preprocess(volume)
    assert np.isfinite(result).all()
    assert np.ptp(result[0, :, :20]) < 0.05
    assert np.ptp(result[2]) < 0.05, "one grey level of noise was stretched to full contrast"


def test_integer_types_count_as_their_range():
    volume = texture((2, 64, 64))
    wide = volume.astype(np.uint16) * 257
    np.testing.assert_allclose(preprocess(wide), preprocess(volume), atol=1e-3)
    np.testing.assert_allclose(preprocess(volume / 255.0), preprocess(volume), atol=1e-3)


def test_steps_can_be_switched_off():
    volume = texture((2, 32, 32))
    plain = preprocess(volume, PreprocessSettings(sigma_px=0, clip_limit=0))
    np.testing.assert_allclose(plain, volume / 255, atol=1e-6)


def test_what_cannot_be_processed_is_refused():
    with pytest.raises(ValueError, match="constant"):
        preprocess(np.full((3, 16, 16), 9, np.uint8))
    broken = np.random.default_rng(0).random((2, 16, 16))
    broken[0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        preprocess(broken)
    with pytest.raises(ValueError, match="shape"):
        preprocess(np.zeros((16, 16), np.uint8))
    with pytest.raises(ValueError, match="shape"):
        preprocess(np.zeros((0, 16, 16), np.uint8))


def test_same_input_same_bytes():
    volume = texture((4, 64, 64))
    assert preprocess(volume).tobytes() == preprocess(volume).tobytes()
