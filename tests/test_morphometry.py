"""The table of objects against brute force: places, grey values, pieces, slabs, degenerate objects, bad input."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import convex_hull_image

from emlib.errors import UserError
from emlib.measure.morphometry import measure_objects, slabs
from emlib.measure.morphometry.crofton import directions, pairs_inside
from emlib.measure.morphometry.slabs import AROUND_NM, number_ids

SIZE = (50.0, 4.6, 9.2)


def blobs(seed=0, shape=(14, 40, 44), ids=6):
    """Ragged objects with gaps and pieces, some cut by the border, with ids that are not 1 … N."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random((ids, *shape)), (0, 1, 3, 3))
    labels = np.where(field.max(axis=0) > 0.53, field.argmax(axis=0) * 1000 + 7, 0)
    return labels.astype(np.int64), rng.integers(0, 255, shape).astype(np.uint8)


def pairs_brute(voxels, step):
    inside = set(map(tuple, voxels.tolist()))
    return sum(tuple(np.add(v, step).tolist()) in inside for v in inside)


def test_each_row_equals_brute_force():
    labels, image = blobs()
    table = measure_objects(labels, SIZE, image).set_index("id")
    assert table.index.tolist() == np.unique(labels)[1:].tolist()
    lines = directions(SIZE)
    for key, row in table.iterrows():
        mask = labels == key
        voxels = np.argwhere(mask)
        crossings = [2 * (len(voxels) - pairs_brute(voxels, step)) for step in lines.steps.tolist()]
        moments = np.cov(voxels.T * np.array(SIZE)[:, None], bias=True) + np.diag(np.square(SIZE)) / 12
        axes = np.sqrt(20 * np.linalg.eigvalsh(moments))[::-1]
        inside = image[mask].astype(float)
        assert row["volume_um3"] == pytest.approx(len(voxels) * np.prod(SIZE) / 1e9)
        assert row["voxels"] == len(voxels)
        assert row["surface_um2"] == pytest.approx(lines.factors @ crossings / 1e6)
        assert row[["major_axis_nm", "middle_axis_nm", "minor_axis_nm"]].tolist() == pytest.approx(axes.tolist())
        assert [row["density_mean"], row["density_sd"]] == pytest.approx([inside.mean(), inside.std()])
        assert row[["z", "y", "x"]].tolist() == pytest.approx(voxels.mean(axis=0).tolist())
        assert row[["z_first", "y_first", "x_first"]].tolist() == voxels.min(axis=0).tolist()
        assert row[["z_last", "y_last", "x_last"]].tolist() == voxels.max(axis=0).tolist()
        assert row["sections"] == len(np.unique(voxels[:, 0]))
        assert row["components"] == label(mask, connectivity=3).max()
        assert row["touches_border"] == bool(((voxels == 0) | (voxels == np.array(mask.shape) - 1)).any())


def test_grey_around_is_that_of_the_nearest_background():
    labels, image = blobs(1, (3, 40, 44))
    table = measure_objects(labels, SIZE, image).set_index("id")
    found = {key: [] for key in table.index}
    for section, grey in zip(labels, image, strict=True):
        objects = np.argwhere(section)
        for y, x in np.argwhere(section == 0):
            distance = np.hypot((objects[:, 0] - y) * SIZE[1], (objects[:, 1] - x) * SIZE[2])
            if len(objects) and distance.min() <= AROUND_NM:
                nearest = {int(section[tuple(objects[i])]) for i in np.flatnonzero(distance <= distance.min() + 1e-9)}
                found[nearest.pop()].append(float(grey[y, x])) if len(nearest) == 1 else None
    for key, values in found.items():  # a few pixels are as near to two objects, and belong to either
        assert table.loc[key, "density_around"] == pytest.approx(np.mean(values), abs=1.5)


def test_a_volume_of_one_object_has_nothing_around():
    table = measure_objects(np.ones((2, 3, 3), np.uint8), SIZE, np.ones((2, 3, 3)))
    assert math.isnan(table["density_around"].item()) and table["density_sd"].item() == 0


@pytest.mark.parametrize("thick", [1, 3, 5])
@pytest.mark.parametrize("size", [SIZE, (5.0, 60.0, 5.0)], ids=str)  # with the latter lines reach over many sections
def test_slabs_change_nothing(monkeypatch, tmp_path, thick, size):
    labels, image = blobs(2)
    whole = measure_objects(labels, size, image)
    stored = zarr.create_array(tmp_path / "labels.zarr", data=labels, chunks=(4, 16, 16))
    monkeypatch.setattr(slabs, "SLAB_VOXELS", thick * labels[0].size)
    in_slabs = measure_objects(stored, size, image)
    assert in_slabs.columns.tolist() == whole.columns.tolist()
    np.testing.assert_allclose(in_slabs.to_numpy(float), whole.to_numpy(float), rtol=1e-9)


def test_a_section_of_its_own_and_an_image_agree_with_brute_force():
    labels, image = blobs(3, (1, 60, 60))
    table = measure_objects(labels[0], (4.6, 9.2), image[0]).set_index("id")
    again = measure_objects(labels[0], (50, 4.6, 9.2), image[0]).set_index("id")
    assert table.equals(again)
    lines = directions((4.6, 9.2))
    for key, row in table.iterrows():
        mask = labels == key
        area, outline = mask.sum() * 4.6 * 9.2, lines.factors @ (2 * (mask.sum() - pairs_inside(mask, 1, lines.steps)))
        assert row["area_um2"] == pytest.approx(area / 1e6) and row["perimeter_um"] == pytest.approx(outline / 1e3)
        assert row["roundness"] == pytest.approx(4 * math.pi * area / outline**2)
        assert row["shape_complexity"] == pytest.approx(1 / row["roundness"])
        hull = convex_hull_image(mask[0], offset_coordinates=False, include_borders=True)
        assert row["solidity"] == pytest.approx(mask.sum() / hull.sum())
    assert not {"z", "z_first", "sections", "volume_um3"} & set(table.columns)


@pytest.mark.parametrize("seed", range(4))
def test_solidity_of_a_volume_is_that_of_its_hull(seed):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random((9, 14, 15)), 1.5) > 0.5
    hull = convex_hull_image(mask, offset_coordinates=False, include_borders=True)
    assert measure_objects(mask.astype(np.uint8), SIZE)["solidity"].item() == pytest.approx(mask.sum() / hull.sum())


def test_solidity_of_convex_and_of_hollow_shapes():
    z, y, x = np.indices((21, 21, 21)) - 10
    ball = (z**2 + y**2 + x**2 <= 81).astype(np.uint8)
    assert measure_objects(ball, SIZE)["solidity"].item() == 1
    shell = ball * (z**2 + y**2 + x**2 >= 49)
    assert measure_objects(shell, SIZE)["solidity"].item() == pytest.approx(shell.sum() / ball.sum())


def one_object(*places, shape=(5, 9, 9)):
    labels = np.zeros(shape, np.int32)
    labels[tuple(np.array(places).T)] = 1
    return labels


DEGENERATE = {
    "voxel": one_object((2, 4, 4)),
    "row": one_object(*((2, 4, x) for x in range(1, 8))),
    "column of sections": one_object(*((z, 4, 4) for z in range(5))),
    "diagonal": one_object(*((2, i, i) for i in range(1, 8))),
    "oblique diagonal": one_object(*((i, i, i) for i in range(5))),
    "two voxels apart": one_object((1, 2, 2), (3, 6, 7)),
    "one section": one_object(*((2, y, x) for y in range(2, 7) for x in range(2, 7))),
    "the whole volume": np.ones((2, 3, 4), np.int32),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_objects_have_finite_measures_and_no_warnings(name):
    labels = DEGENERATE[name]
    image = np.full(labels.shape, 100, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = measure_objects(labels, SIZE, image).iloc[0]
        flat = measure_objects(labels.max(axis=0), SIZE, image[0]).iloc[0]
    may_be_nan = {"solidity"} if name in ("oblique diagonal", "diagonal", "two voxels apart") else set()
    may_be_nan |= {"density_around"} if name == "the whole volume" else set()
    for table in (row, flat):
        assert {key for key, value in table.items() if not np.isfinite(value)} <= may_be_nan
    assert row["surface_um2"] > 0 and row["minor_axis_nm"] > 0


def test_known_numbers_of_a_single_voxel():
    row = measure_objects(one_object((2, 4, 4)), (10, 10, 10)).iloc[0]
    assert row[["elongation", "flatness", "solidity", "sections", "components"]].tolist() == [1, 1, 1, 1, 1]
    assert row["major_axis_nm"] == pytest.approx(10 * math.sqrt(20 / 12))


def test_pieces_that_touch_by_a_corner_are_one():
    labels = one_object((0, 0, 0), (1, 1, 1), (4, 8, 8))
    assert measure_objects(labels, SIZE)["components"].item() == 2


def test_huge_and_foreign_ids():
    labels = one_object((2, 4, 4)).astype(">u8") * np.uint64(2**40)
    assert measure_objects(labels, SIZE)["id"].tolist() == [2**40]
    for array in (np.array([3, 3, 9]), np.array([2**40, 5, 5])):  # without background
        ids, numbered = number_ids(array)
        assert ids[numbered].tolist() == array.tolist() and ids[0] == 0 and numbered.max() == 2


def test_grey_on_a_large_offset_keeps_its_spread():
    labels, image = blobs(4)
    shifted = image.astype(np.float64) + 1e9
    table, again = measure_objects(labels, SIZE, image), measure_objects(labels, SIZE, shifted)
    np.testing.assert_allclose(again["density_sd"], table["density_sd"], rtol=1e-6)


def test_classes_are_named():
    labels = np.array([[1, 1, 0, 4]])
    table = measure_objects(labels, (4, 4), class_ids={1: "mitochondria", 4: "vesicles"})
    assert table["class_id"].tolist() == ["mitochondria", "vesicles"]
    with pytest.raises(UserError, match="object 4 has no class"):
        measure_objects(labels, (4, 4), class_ids={1: 2})


def test_every_column_is_documented():
    text = (Path(__file__).resolve().parent.parent / "docs" / "morphometry.md").read_text(encoding="utf-8")
    for shape in ((2, 2), (2, 2, 2)):
        one = np.ones(shape, np.int32)
        for name in measure_objects(one, SIZE, one, {1: 1}).columns:
            shown = name if not name.endswith(("_first", "_last")) else "z_first"
            assert f"`{shown}`" in text, name


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (0, 5, 6), (0, 0)])
def test_no_objects_give_an_empty_table_with_all_columns(shape):
    empty, one = np.zeros(shape, np.int32), np.ones((2,) * len(shape), np.int32)
    table = measure_objects(empty, SIZE, empty, {})
    assert len(table) == 0 and table.columns.tolist() == measure_objects(one, SIZE, one, {1: 1}).columns.tolist()


@pytest.mark.parametrize(
    ("labels", "size", "image", "message"),
    [
        (np.zeros((3, 3), bool), SIZE, None, "labels hold bool, ids of objects are integers"),
        (np.zeros((3, 3)), SIZE, None, "labels hold float64"),
        (np.zeros(3, int), SIZE, None, r"labels have shape \(3,\)"),
        (np.full((3, 3), -2), SIZE, None, "labels hold -2: ids of objects are positive"),
        (np.ones((3, 3, 3), int), (4, 4), None, "give three positive numbers of nm"),
        (np.ones((3, 3), int), (4, 0), None, "give three positive numbers of nm"),
        (np.ones((3, 3), int), SIZE, np.ones((3, 4)), r"the image has shape \(3, 4\), the labels \(3, 3\)"),
    ],
)
def test_bad_input_is_told_in_one_line(labels, size, image, message):
    with pytest.raises(UserError, match=message) as told:
        measure_objects(labels, size, image)
    assert "\n" not in str(told.value)
