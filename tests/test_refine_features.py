"""Features of pixels: slabs equal the whole, and columns are what their names say."""

import numpy as np
import pytest
from scipy import ndimage

from emlib.refine.features import FeatureSettings, feature_names, slab_features, slabs

ISOTROPIC, SECTIONS = (10.0, 10.0, 10.0), (40.0, 8.0, 8.0)


def picture(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("voxel", [ISOTROPIC, SECTIONS, (15.0, 8.0, 8.0)])
@pytest.mark.parametrize("depth", [1, 7, 16])
def test_slabs_give_what_the_whole_volume_gives(voxel, depth):
    em = picture((41, 24, 30))
    whole = slab_features(em, voxel)
    assert whole.shape[-1] == len(feature_names(voxel)) == len(set(feature_names(voxel)))
    parts = [slab_features(em, voxel, slab) for slab in slabs(len(em), depth)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_sections_of_an_anisotropic_volume_do_not_see_each_other():
    em = picture((3, 20, 20))
    other = em.copy()
    other[1] = 0
    assert np.array_equal(slab_features(em, SECTIONS)[0], slab_features(other, SECTIONS)[0])
    assert not np.array_equal(slab_features(em, ISOTROPIC)[0], slab_features(other, ISOTROPIC)[0])


def test_columns_are_what_their_names_say():
    em = picture((1, 60, 60))
    found = dict(zip(feature_names(SECTIONS), np.moveaxis(slab_features(em, SECTIONS)[0], -1, 0), strict=True))
    inside = (slice(25, 35), slice(25, 35))  # the filters differ in where their kernels end
    assert np.array_equal(found["intensity"], em[0])
    assert np.allclose(found["sobel"], np.hypot(ndimage.sobel(em[0], 0), ndimage.sobel(em[0], 1)), atol=1e-5)
    smooth = ndimage.gaussian_filter(em[0].astype(float), 20 / 8)
    assert np.allclose(found["gaussian 20 nm"][inside], smooth[inside], atol=3e-3)
    variance = ndimage.gaussian_filter(em[0].astype(float) ** 2, 20 / 8) - smooth**2
    assert np.allclose(found["variance 20 nm"][inside], variance[inside], atol=3e-3)


def test_the_first_eigenvalue_finds_a_dark_sheet_in_any_direction():
    names = feature_names(ISOTROPIC)
    column = names.index("hessian 10 nm, 1")
    for axis in range(3):
        em = np.ones((25, 25, 25), np.float32)
        em[tuple(slice(12, 13) if a == axis else slice(None) for a in range(3))] = 0
        values = slab_features(em, ISOTROPIC)[..., column]
        assert values[12, 12, 12] > 0.2
        assert values[12, 12, 12] == pytest.approx(values.max(), abs=1e-5)


def test_scales_below_a_pixel_are_widened_rather_than_degenerate():
    em = picture((1, 20, 20))
    wide = slab_features(em, (40, 40, 40), None, FeatureSettings((10.0,), (), (), ()))
    assert wide[..., -1].std() < 0.9 * em.std()
