"""Labels and probabilities that belong to a volume are cut by its box."""

import h5py
import numpy as np
import pytest
import tifffile
from volume_files import VOXEL_NM, noise, write_all

from emlib.errors import UserError
from emlib.volumes.companions import read_labels, read_probability
from emlib.volumes.cutout import read_cutout
from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.npy import write_npy
from emlib.volumes.open import open_volume

WHOLE = (8, 20, 30)
BOX = (slice(2, 6), slice(3, 13), slice(5, 20))


@pytest.fixture
def like(tmp_path):
    """A cutout of a volume."""
    write_npy(tmp_path / "em.npy", noise(WHOLE))
    return read_cutout(open_volume(tmp_path / "em.npy"), (15, 10, 4), (5, 3, 2), voxel_size_nm=VOXEL_NM)


@pytest.mark.parametrize("name", ["npy", "tiff", "mrc", "sections", "hdf5", "ome_zarr"])
def test_labels_from_every_format(tmp_path, like, name):
    labels = noise(WHOLE, dtype="uint16")
    read = read_labels(write_all(tmp_path, labels)[name], like)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels[BOX])


def test_labels_of_the_cutout_are_taken_whole(tmp_path, like):
    labels = noise(like.shape)
    write_npy(tmp_path / "labels.npy", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.npy", like), labels)


@pytest.mark.parametrize(
    ("highest", "stored", "dtype"),
    [(2**31 - 1, "uint64", "int32"), (2**31, "uint32", "int64"), (2**62, "int64", "int64"), (1, "bool", "int32")],
)
def test_label_types(tmp_path, like, highest, stored, dtype):
    labels = np.zeros(like.shape, stored)
    labels[1, 2, 3] = highest
    write_npy(tmp_path / "labels.npy", labels)
    read = read_labels(tmp_path / "labels.npy", like)
    assert read.dtype == dtype
    assert read[1, 2, 3] == highest


def test_cremi_no_label_becomes_background(tmp_path, like):
    labels = np.full(like.shape, 2**64 - 1, np.uint64)
    labels[0, 0, 0] = 5
    write_npy(tmp_path / "clefts.npy", labels)
    assert read_labels(tmp_path / "clefts.npy", like).sum() == 5


def test_offsets_of_cremi_files_are_honoured(tmp_path):
    """Labels of a part of the padded raw volume; both files say where they start, in nm."""
    raw, labels = noise(WHOLE), noise((5, 12, 18), seed=1)
    write_hdf5(tmp_path / "raw.h5", raw, VOXEL_NM, offset_nm=(-50, 0, 0))
    write_hdf5(tmp_path / "labels.h5", labels, VOXEL_NM, offset_nm=(50, 8.4, 10.5))  # 2, 2, 3 voxels further
    like = read_cutout(open_volume(tmp_path / "raw.h5"), (10, 8, 3), (5, 3, 3))
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.h5", like), labels[1:4, 1:9, 2:12])
    like = read_cutout(open_volume(tmp_path / "raw.h5"), (10, 8, 3), (0, 3, 3))
    with pytest.raises(UserError, match="fits neither"):
        read_labels(tmp_path / "labels.h5", like)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 5, 6), "u1"), r"\(4, 5, 6\), which fits neither the volume \(8, 20, 30\) nor its cutout \(4, 10"),
        (np.zeros(WHOLE, "f4"), r"holds float32; labels must be integers"),
        (np.full(WHOLE, -1), r"holds the label -1; labels must not be negative"),
        (np.full(WHOLE, 2**63, "u8"), r"holds the label 9223372036854775808"),
    ],
)
def test_impossible_labels(tmp_path, like, labels, message):
    write_npy(tmp_path / "labels.npy", labels)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "labels.npy", like)


@pytest.mark.parametrize(("dtype", "one"), [("uint8", 255), ("uint16", 65535), ("float32", 1), ("float64", 1)])
def test_probability(tmp_path, like, dtype, one):
    stored = np.random.default_rng(0).random(WHOLE) * one
    stored[2, 3, 5:7] = 0, one
    stored = stored.astype(dtype)
    tifffile.imwrite(tmp_path / "p.tif", stored, photometric="minisblack")
    probability = read_probability(tmp_path / "p.tif", like)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, stored[BOX] / one, atol=1e-7)
    assert list(probability[0, 0, :2]) == [0, 1]


@pytest.mark.parametrize("axis", [0, 3])
def test_probability_as_ilastik_writes_it(tmp_path, like, axis):
    stored = noise(WHOLE, dtype="float32")
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["exported_data"] = np.expand_dims(stored, axis)
        file["both"] = np.stack([stored, 1 - stored], axis)
    np.testing.assert_array_equal(read_probability(f"{tmp_path}/p.h5:exported_data", like), stored[BOX])
    with pytest.raises(UserError, match=r"p\.h5:both has shape .*export one channel"):
        read_probability(f"{tmp_path}/p.h5:both", like)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.full(WHOLE, 1.5), "holds values from 1.5 to 1.5; a probability lies in"),
        (np.full(WHOLE, np.nan), "holds values from nan to nan"),
        (np.zeros(WHOLE, "i4"), "holds int32; a probability is uint8"),
    ],
)
def test_impossible_probabilities(tmp_path, like, stored, message):
    write_npy(tmp_path / "p.npy", stored)
    with pytest.raises(UserError, match=message):
        read_probability(tmp_path / "p.npy", like)
