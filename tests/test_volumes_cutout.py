"""Which box is read, with which voxel size and which grey values."""

import json

import numpy as np
import pytest
import tifffile
from volume_files import VOXEL_NM, noise

from emlib.errors import UserError
from emlib.volumes.cutout import JITTER, read_cutout
from emlib.volumes.grey import to_uint8
from emlib.volumes.npy import write_npy
from emlib.volumes.open import open_volume
from emlib.volumes.volume import VolumeSource

ARRAY = noise((20, 100, 200))


def source_of(array=ARRAY, voxel_size_nm=VOXEL_NM, **options):
    return VolumeSource("an array", array.shape, array.dtype, lambda box: array[box], voxel_size_nm, **options)


def test_offset_is_exact_and_xyz():
    volume = read_cutout(source_of(), (30, 20, 10), (100, 50, 5))
    assert volume.offset == (5, 50, 100)
    np.testing.assert_array_equal(volume.array, ARRAY[5:15, 50:70, 100:130])


def test_without_offset_the_box_is_central_and_seeded():
    starts = np.array([read_cutout(source_of(), (30, 20, 10), None, seed).offset for seed in range(200)])
    centre, reach = np.array([5, 40, 85]), JITTER * np.array(ARRAY.shape)
    assert (np.abs(starts - centre) <= reach + 0.5).all()
    assert len(np.unique(starts, axis=0)) > 50
    assert (np.abs(starts.mean(axis=0) - centre) < reach / 2).all()
    assert read_cutout(source_of(), (30, 20, 10), None, 3).offset == tuple(starts[3])


@pytest.mark.parametrize("seed", range(10))
def test_a_tight_box_stays_inside(seed):
    volume = read_cutout(source_of(), (199, 99, 20), None, seed)
    assert volume.shape == (20, 99, 199)
    assert all(0 <= o <= 1 for o in volume.offset)


def test_no_cutout_is_everything():
    volume = read_cutout(source_of())
    assert volume.array is not None and volume.shape == ARRAY.shape
    assert volume.source["notes"] == []
    assert read_cutout(source_of(), None, (150, 0, 0)).shape == (20, 100, 50)


def test_a_larger_cutout_is_clipped_and_said():
    volume = read_cutout(source_of(), (500, 50, 20))
    assert volume.shape == (20, 50, 200)
    [note] = volume.source["notes"]
    assert note == "the cutout 500 50 20 (x y z) reaches beyond the volume of 200 100 20; reading 200 50 20"
    volume = read_cutout(source_of(), (50, 50, 20), (180, 0, 0))
    assert volume.offset == (0, 0, 180)
    assert volume.shape == (20, 50, 20)
    assert "from offset 180 0 0" in volume.source["notes"][0]


def test_only_the_box_is_asked_for():
    asked = []
    source = VolumeSource("x", (20, 100, 200), np.dtype("u1"), lambda box: asked.append(box) or ARRAY[box], VOXEL_NM)
    read_cutout(source, (30, 20, 10), (100, 50, 5))
    assert asked == [(slice(5, 15), slice(50, 70), slice(100, 130))]


@pytest.mark.parametrize(
    ("cutout", "offset", "message"),
    [
        ((0, 5, 5), None, r"--cutout 0 5 5 is not positive; give three sizes X Y Z"),
        ((5, -5, 5), None, r"--cutout 5 -5 5 is not positive"),
        ((5, 5, 5), (-1, 0, 0), r"--offset -1 0 0 \(x y z\) lies outside of the volume of 200 100 20 voxels"),
        ((5, 5, 5), (0, 0, 20), r"--offset 0 0 20 .* outside"),
    ],
)
def test_impossible_boxes(cutout, offset, message):
    with pytest.raises(UserError, match=message):
        read_cutout(source_of(), cutout, offset)


def test_a_cutout_beyond_memory_is_refused_before_it_is_read():
    source = VolumeSource("huge.zarr", (10**5,) * 3, np.dtype("u1"), lambda box: pytest.fail("was read"), VOXEL_NM)
    with pytest.raises(UserError, match=r"huge\.zarr: the cutout takes 931322\.6 GiB.*--cutout"):
        read_cutout(source)


# --- voxel size


def test_voxel_size_of_the_user_wins():
    assert read_cutout(source_of(), voxel_size_nm=(30, 2, 2)).voxel_size_nm == (30.0, 2.0, 2.0)
    volume = read_cutout(source_of())
    assert volume.voxel_size_nm == VOXEL_NM
    assert volume.source["voxel_size_assumed"] is False


def test_a_missing_voxel_size_is_assumed_aloud():
    volume = read_cutout(source_of(voxel_size_nm=None))
    assert volume.voxel_size_nm == (40.0, 8.0, 8.0)
    assert volume.source["voxel_size_assumed"] is True
    assert volume.source["notes"] == [
        "voxel size not in the file: assumed 40 × 8 × 8 nm (z, y, x); give --voxel_size Z Y X"
    ]


@pytest.mark.parametrize("size", [(0, 4, 4), (40, -4, 4), (40, float("nan"), 4), (40, 4), (float("inf"), 4, 4)])
def test_impossible_voxel_sizes(size):
    with pytest.raises(UserError, match=r"--voxel_size: the voxel size .* is not three positive numbers of nm"):
        read_cutout(source_of(), voxel_size_nm=size)


# --- grey values


def test_uint8_passes_unchanged():
    grey, record = to_uint8(ARRAY)
    assert grey is ARRAY
    assert record == {"rule": "uint8, unchanged"}


def test_int8_and_bool():
    every = np.arange(-128, 128, dtype=np.int8).reshape(4, 8, 8)
    np.testing.assert_array_equal(to_uint8(every)[0].ravel(), np.arange(256))
    np.testing.assert_array_equal(to_uint8(every > 0)[0], np.where(every > 0, 255, 0))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"])
def test_wide_types_are_rescaled_by_the_stated_rule(dtype):
    array = np.random.default_rng(0).normal(9000, 1500, (6, 50, 50)).astype(dtype)
    volume = read_cutout(source_of(array))
    black, white = np.percentile(array.astype(float), [0.05, 99.95])
    expected = np.clip(np.rint((array.astype(float) - black) / (white - black) * 255), 0, 255)
    assert volume.array.dtype == np.uint8
    assert np.abs(volume.array - expected).max() <= (1 if dtype == "float16" else 0)
    record = volume.source["grey"]
    assert (record["black"], record["white"]) == pytest.approx((black, white), rel=1e-3)
    json.dumps(volume.source)


def test_outliers_alone_still_have_contrast():
    array = np.zeros((4, 50, 50), dtype=np.uint16)
    array[2, 3, 4] = 1000
    grey = to_uint8(array)[0]
    assert grey[2, 3, 4] == 255
    assert grey.sum() == 255


def test_nan_is_counted_and_located(tmp_path):
    array = noise((6, 10, 12), dtype="float32")
    array[3, 4, 5] = np.nan
    array[4, 2, 3] = np.inf
    write_npy(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"a\.npy holds 2 NaN or infinite voxels, the first at z=3, y=4, x=5; replace"):
        read_cutout(open_volume(tmp_path / "a.npy"), None, (2, 1, 1))


@pytest.mark.parametrize("value", [0, 77])
def test_a_constant_volume(value):
    with pytest.raises(UserError, match=f"an array holds a single grey value {value}$"):
        read_cutout(source_of(np.full((4, 5, 6), value, dtype=np.uint8)))


def test_a_constant_cutout_says_that_it_is_the_cutout():
    array = ARRAY.copy()
    array[:, :10, :10] = 3
    with pytest.raises(UserError, match="single grey value 3 in this cutout; choose another --offset"):
        read_cutout(source_of(array), (5, 5, 5), (0, 0, 0))
    assert read_cutout(source_of(array), (5, 5, 5), (0, 0, 0), as_grey=False).array.max() == 3


def test_values_beyond_reason():
    array = np.array([-1e308, 0, 1e308]).reshape(1, 1, 3)
    with pytest.raises(UserError, match=r"holds values from .* export it again"):
        to_uint8(array)


def test_stored_type_is_kept_when_grey_is_not_wanted():
    array = ARRAY.astype(np.uint16)
    np.testing.assert_array_equal(read_cutout(source_of(array), as_grey=False).array, array)


def test_a_palette_is_no_grey(tmp_path):
    colours = np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", noise(), photometric="palette", colormap=colours)
    source = open_volume(tmp_path / "a.tif")
    with pytest.raises(UserError, match="has a colour palette"):
        read_cutout(source)
    np.testing.assert_array_equal(read_cutout(source, as_grey=False).array, noise())
