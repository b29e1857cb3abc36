"""OME-Zarr stores: both versions, shards, several images in one store, pyramids, damage."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from emlib.errors import UserError
from emlib.volumes.companions import open_labels
from emlib.volumes.ome_zarr import add_levels, build_pyramid, create_array, fill_level, level_boxes, open_array
from emlib.volumes.ome_zarr.pyramid import downsample, plan_levels
from emlib.volumes.open import open_volume

SIZE, PLACE = (40.0, 8.0, 4.0), (400.0, 0.0, -16.0)
VERSIONS = [("0.4", None), ("0.5", None), ("0.5", (8, 16, 16))]
RNG = np.random.default_rng(0)


def whole(shape):
    return tuple(slice(0, length) for length in shape)


def make(path: Path, array: np.ndarray, version="0.5", shards=None, **more) -> Path:
    made = create_array(path, array.shape, array.dtype, (4, 8, 8), shards, SIZE, PLACE, version, **more)
    made[...] = array
    return path


def em(shape=(11, 30, 45)) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def ids(shape=(11, 30, 45), dtype=np.uint64, high=5) -> np.ndarray:
    return RNG.integers(0, high, shape).astype(dtype)


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
@pytest.mark.parametrize("array", [em(), ids() * 2**40, em().astype(np.float16)], ids=["uint8", "uint64", "float16"])
def test_round_trip_with_unequal_voxels_and_a_place(tmp_path, array, version, shards):
    source = open_volume(make(tmp_path / "a.zarr", array, version, shards))
    assert source.voxel_size_nm == SIZE
    assert source.notes["offset_nm"] == PLACE
    box = (slice(3, 9), slice(5, 30), slice(0, 45))
    read = source.read(box)
    assert read.dtype == array.dtype
    assert np.array_equal(read, array[box])


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
def test_another_library_reads_every_level(tmp_path, version, shards):
    ts = pytest.importorskip("tensorstore")
    array = ids((11, 70, 90))
    path = make(tmp_path / "v.zarr/labels/neurites", array, version, shards)
    for level in range(len(build_pyramid(path, enough=50))):
        spec = {"driver": "zarr" if version == "0.4" else "zarr3", "kvstore": f"file://{path}/{level}/"}
        found = np.asarray(ts.open(spec).result().read().result())
        assert np.array_equal(found, open_array(path, level)[...])


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
def test_three_images_in_one_store(tmp_path, version, shards):
    store = tmp_path / "volume.zarr"
    made = {"boundaries": em(), "em": em(), "labels/neurites": ids(), "labels/mitochondria": ids()}
    for name, array in made.items():
        make(store / name, array, version, shards)
    for name, array in made.items():
        assert np.array_equal(open_volume(store / name).read(whole(array.shape)), array), name
    assert np.array_equal(open_volume(store).read(whole(em().shape)), made["em"])  # the store shows its em
    root = zarr.open_group(str(store), mode="r")
    assert root.metadata.zarr_format == (2 if version == "0.4" else 3)
    ome = dict(root.attrs) if version == "0.4" else root.attrs["ome"]
    assert [level["path"] for level in ome["multiscales"][0]["datasets"]] == ["em/0"]
    labels = dict(root["labels"].attrs) if version == "0.4" else root["labels"].attrs["ome"]
    assert labels["labels"] == ["mitochondria", "neurites"]
    one = dict(root["labels/neurites"].attrs) if version == "0.4" else root["labels/neurites"].attrs["ome"]
    assert one["image-label"]["source"] == {"image": "../../"}


def test_metadata_of_both_versions_are_where_the_specification_has_them(tmp_path):
    make(tmp_path / "old.zarr", em(), "0.4")
    make(tmp_path / "new.zarr", em(), "0.5")
    old = json.loads((tmp_path / "old.zarr" / ".zattrs").read_text())["multiscales"][0]
    new = json.loads((tmp_path / "new.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert old["version"] == "0.4"
    assert new["version"] == "0.5"
    assert "version" not in new["multiscales"][0]
    for image in (old, new["multiscales"][0]):
        assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
        assert {axis["unit"] for axis in image["axes"]} == {"nanometer"}
        steps = image["datasets"][0]["coordinateTransformations"]
        assert steps == [{"type": "scale", "scale": list(SIZE)}, {"type": "translation", "translation": list(PLACE)}]
    assert (tmp_path / "old.zarr" / "0" / "0" / "0" / "0").is_file()
    assert json.loads((tmp_path / "new.zarr/0/zarr.json").read_text())["dimension_names"] == ["z", "y", "x"]


def test_shards_hold_many_chunks_in_one_file(tmp_path):
    make(tmp_path / "a.zarr", em((16, 32, 32)), shards=(8, 16, 16))
    assert sum(path.is_file() for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*")) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"version": "0.9"}, "OME-Zarr 0.9 is not known; write 0.4 or 0.5"),
        ({"version": "0.4", "shards": (8, 16, 16)}, "OME-Zarr 0.4 has no shards"),
        ({"shards": (8, 16, 12)}, r"shards \(8, 16, 12\) are no multiple of the chunks \(4, 8, 8\)"),
        ({"chunks": (4, 8, 0)}, r"chunks \(4, 8, 0\) is not three sides"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, more, told):
    with pytest.raises(UserError, match=told):
        create_array(tmp_path / "a.zarr", (8, 16, 16), "uint8", **({"chunks": (4, 8, 8)} | more))
    assert not (tmp_path / "a.zarr").exists()


def test_images_of_a_store_have_one_version(tmp_path):
    make(tmp_path / "v.zarr" / "em", em(), "0.4")
    with pytest.raises(UserError, match=r"v\.zarr is Zarr v2; write all its images with one OME-Zarr version"):
        make(tmp_path / "v.zarr" / "boundaries", em(), "0.5")


# ── pyramids ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def brute_mean(array, factors):
    out = np.empty([-(-n // f) for n, f in zip(array.shape, factors, strict=True)], array.dtype)
    for place in np.ndindex(out.shape):
        cell = array[tuple(slice(p * f, (p + 1) * f) for p, f in zip(place, factors, strict=True))]
        out[place] = np.floor(cell.astype(float).mean() + 0.5)
    return out


def brute_counts(array, factors, place):
    cell = array[tuple(slice(p * f, (p + 1) * f) for p, f in zip(place, factors, strict=True))]
    return dict(zip(*np.unique(cell, return_counts=True), strict=True))


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("shape", [(6, 8, 4), (8, 6, 2)])
def test_means_equal_their_definition(factors, shape):
    array = em(shape)
    assert np.array_equal(downsample(array, factors, "mean"), brute_mean(array, factors))


def test_means_of_odd_sides_are_of_what_is_there():
    array = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
    assert np.array_equal(downsample(array, (2, 2, 2), "mean"), brute_mean(array, (2, 2, 2)))


@pytest.mark.parametrize("shape", [(6, 8, 4), (5, 7, 3)])
def test_modes_are_the_most_frequent_label(shape):
    array = ids(shape, high=3) * 2**60
    found = downsample(array, (2, 2, 2), "mode")
    for place in np.ndindex(found.shape):
        counts = brute_counts(array, (2, 2, 2), place)
        assert counts[found[place]] == max(counts.values())


def test_nearest_takes_voxels_as_they_are():
    array = em((4, 6, 8))
    assert np.array_equal(downsample(array, (2, 2, 2), "nearest"), array[::2, ::2, ::2])


def test_levels_become_isotropic_and_end_small():
    levels = plan_levels((500, 4000, 4000), (40, 4, 4))
    sizes = [np.array(level.total) * (40, 4, 4) for level in levels]
    assert [level.total for level in levels][:4] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]
    assert sizes[-1].max() / sizes[-1].min() < 2
    assert max(levels[-1].shape) <= 64 < max(levels[-2].shape)


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
def test_a_pyramid_equals_that_of_the_whole_array(tmp_path, version, shards):
    for name, array, method in (("em", em((11, 70, 90)), "mean"), ("labels/neurites", ids((11, 70, 90)), "mode")):
        path = make(tmp_path / "v.zarr" / name, array, version, shards)
        shapes = build_pyramid(path, enough=20)
        plan = plan_levels(array.shape, SIZE, 20)
        assert shapes == [level.shape for level in plan]
        expected = array
        for number, level in enumerate(plan):
            expected = downsample(expected, level.factors, method) if number else expected
            assert np.array_equal(open_array(path, number)[...], expected)
    root = zarr.open_group(str(tmp_path / "v.zarr"), mode="r")
    ome = dict(root.attrs) if version == "0.4" else root.attrs["ome"]
    assert len(ome["multiscales"][0]["datasets"]) == len(plan)


def test_levels_lie_where_their_voxels_do(tmp_path):
    path = make(tmp_path / "a.zarr", em((8, 40, 80)))
    build_pyramid(path, enough=40)
    levels = zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]["datasets"]
    steps = [{step["type"]: step[step["type"]] for step in level["coordinateTransformations"]} for level in levels]
    assert [step["scale"] for step in steps] == [[40, 8, 4], [40, 8, 8]]
    assert steps[1]["translation"] == [400, 0, -14]  # the middle of two voxels of 4 nm


def test_blocks_of_a_level_may_come_in_any_order_and_size(tmp_path):
    array = em((16, 64, 64))
    path = make(tmp_path / "a.zarr", array, shards=(8, 16, 16))
    add_levels(path, 32)
    boxes = list(level_boxes(path, 1, most_voxels=8 * 8 * 16 * 16))
    assert len(boxes) > 4
    for box in reversed(boxes):
        fill_level(path, 1, box)
    level = plan_levels(array.shape, SIZE, 32)[1]
    assert np.array_equal(open_array(path, 1)[...], downsample(array, level.factors, "mean"))


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def chunk_of(path: Path, version: str, shards) -> Path:
    return path / "0" / Path(*([] if version == "0.4" else ["c"]), "0", "1", "1")


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
@pytest.mark.parametrize("opened", [open_volume, open_labels], ids=["image", "labels"])
def test_a_lost_chunk_is_an_error_unless_it_may_be_empty(tmp_path, version, shards, opened):
    array = np.zeros((11, 30, 45), np.uint8)  # zeros are written too
    array[0, 0, 0] = 1
    path = make(tmp_path / "a.zarr", array, version, shards)
    chunk_of(path, version, shards).unlink()
    with pytest.raises(UserError, match=r"its chunk (c/)?0/1/1 is missing; .*--fill_missing"):
        opened(path).read(whole(array.shape))
    lines = []
    filled = open_volume(path, fill_missing=True, note=lines.append)
    assert np.array_equal(filled.read(whole(array.shape)), array)
    assert len(lines) == 1
    assert "chunks are missing" in lines[0]


def test_chunks_that_others_left_out_are_background_of_labels_but_no_image(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.open_group(str(path), mode="w")
    array = group.create_array("0", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="uint16")
    array[:4, :4, :4] = 9
    assert open_labels(path).read(whole((8, 8, 8))).sum() == 9 * 64
    with pytest.raises(UserError, match="is missing"):
        open_volume(path).read(whole((8, 8, 8)))


@pytest.mark.parametrize(("version", "shards"), VERSIONS)
def test_a_damaged_chunk_is_an_error(tmp_path, version, shards):
    path = make(tmp_path / "a.zarr", em(), version, shards)
    chunk = chunk_of(path, version, shards)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x10
    chunk.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*a\.zarr"):
        open_volume(path).read(whole(em().shape))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_chunk_of_another_shape_than_said_is_an_error(tmp_path, version):
    path = make(tmp_path / "a.zarr", em(), version)
    other = make(tmp_path / "b.zarr", em((11, 30, 45)), version)
    small = create_array(other, (4, 8, 4), "uint8", (4, 8, 4), version=version)
    small[...] = 3
    piece = other / "0" / Path(*([] if version == "0.4" else ["c"]), "0", "0", "0")
    chunk_of(path, version, None).write_bytes(piece.read_bytes())
    with pytest.raises(UserError, match=r"cannot read .*a\.zarr"):
        open_volume(path).read(whole(em().shape))
