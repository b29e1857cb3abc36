"""Every format: what is written comes back, voxel size included, and the variants found in the wild are understood."""

import json
import subprocess
import sys

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from volume_files import VOXEL_NM, noise, whole, write_all

from emlib.volumes import mrc, npy, tiff
from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.open import open_volume
from emlib.volumes.sections import write_sections

FORMATS = ("npy", "tiff", "mrc", "sections", "hdf5", "ome_zarr")
WITHOUT_VOXEL_SIZE = ("npy", "sections")
BOX = (slice(2, 6), slice(3, 19), slice(5, 30))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_round_trip(tmp_path, name, dtype):
    array = noise(dtype=dtype)
    source = open_volume(write_all(tmp_path, array)[name])
    stored = (array ^ 0x80).view(np.int8) if (name, dtype) == ("mrc", "uint8") else array
    assert source.shape == array.shape
    assert source.dtype == stored.dtype
    assert source.voxel_size_nm == (None if name in WITHOUT_VOXEL_SIZE else VOXEL_NM)
    np.testing.assert_array_equal(source.read(BOX), stored[BOX])
    np.testing.assert_array_equal(whole(source), stored)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float32", "float64"])
def test_tiff_holds_every_type(tmp_path, dtype):
    array = noise(dtype=dtype)
    tiff.write_tiff(tmp_path / "a.tif", array, VOXEL_NM)
    source = open_volume(tmp_path / "a.tif")
    assert source.voxel_size_nm == VOXEL_NM
    np.testing.assert_array_equal(whole(source), array)


def test_opening_npy_imports_no_other_format(tmp_path):
    npy.write_npy(tmp_path / "a.npy", noise())
    code = (
        "import sys; from emlib.volumes.open import open_volume; from emlib.volumes.cutout import read_cutout;"
        f"read_cutout(open_volume({str(tmp_path / 'a.npy')!r}));"
        "print([m for m in ('h5py', 'zarr', 'tifffile', 'mrcfile', 'intern', 'PIL', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- NumPy


def test_npy_takes_the_voxel_size_from_its_sidecar(tmp_path):
    npy.write_npy(tmp_path / "a.npy", noise())
    (tmp_path / "a.json").write_text(json.dumps({"voxel_size_nm": VOXEL_NM}))
    assert open_volume(tmp_path / "a.npy").voxel_size_nm == VOXEL_NM
    (tmp_path / "a.json").write_text("{broken")
    assert open_volume(tmp_path / "a.npy").voxel_size_nm is None


def test_npy_in_foreign_byte_order_and_fortran_order(tmp_path):
    array = noise(dtype="uint16")
    np.save(tmp_path / "a.npy", np.asfortranarray(array.astype(">u2")))
    source = open_volume(tmp_path / "a.npy")
    assert source.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(source.read(BOX), array[BOX])


# --- TIFF


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "rowsperstrip": 3},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib", "bigtiff": True},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"metadata": None},
        {"metadata": None, "contiguous": False, "align": 64},
        {"photometric": "miniswhite"},
        {"photometric": "miniswhite", "compression": "zlib"},
    ],
    ids=str,
)
def test_tiff_layouts(tmp_path, options):
    array = noise((7, 40, 61), dtype="uint16")
    white = options.get("photometric") == "miniswhite"
    tifffile.imwrite(tmp_path / "a.tif", ~array if white else array, **{"photometric": "minisblack"} | options)
    source = open_volume(tmp_path / "a.tif")
    box = (slice(1, 6), slice(15, 39), slice(17, 60))
    np.testing.assert_array_equal(source.read(box), array[box])
    np.testing.assert_array_equal(whole(source), array)


def test_tiff_tiles_outside_of_the_box_are_not_decoded(tmp_path):
    """A broken tile does not matter to a box that does not need it."""
    array = noise((3, 64, 64))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, tile=(16, 16), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    box = (slice(0, 3), slice(16, 64), slice(0, 64))
    np.testing.assert_array_equal(open_volume(path).read(box), array[box])


def test_tiff_pages_outside_of_the_box_are_not_decoded(tmp_path, monkeypatch):
    array = noise((9, 16, 16))
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", photometric="minisblack")
    decoded = []
    monkeypatch.setattr(tiff, "read_page", lambda page, *rest: decoded.append(page.index) or np.zeros((16, 16), "u1"))
    open_volume(tmp_path / "a.tif").read((slice(3, 5), slice(0, 16), slice(0, 16)))
    assert sorted(decoded) == [3, 4]


def test_imagej_hyperstack_in_micrometres(tmp_path):
    array = noise()
    metadata = {"axes": "TZCYX", "spacing": 0.05, "unit": "um"}
    hyperstack = array[None, :, None]
    tifffile.imwrite(
        tmp_path / "a.tif", hyperstack, imagej=True, resolution=(1 / 0.0035, 1 / 0.0042), metadata=metadata
    )
    source = open_volume(tmp_path / "a.tif")
    assert source.voxel_size_nm == pytest.approx(VOXEL_NM, rel=1e-6)
    np.testing.assert_array_equal(source.read(BOX), array[BOX])


def test_imagej_stack_saved_as_time_series(tmp_path):
    array = noise()
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "TYX"})
    np.testing.assert_array_equal(whole(open_volume(tmp_path / "a.tif")), array)


def test_ome_tiff_units(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.05, "PhysicalSizeY": 42, "PhysicalSizeX": 3.5}
    units = {"PhysicalSizeYUnit": "Å", "PhysicalSizeXUnit": "nm"}  # z is in the default, µm
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(), photometric="minisblack", metadata=metadata | units)
    assert open_volume(tmp_path / "a.ome.tif").voxel_size_nm == VOXEL_NM


@pytest.mark.parametrize("unit", ["INCH", "NONE", "CENTIMETER"])
def test_dots_per_inch_are_no_voxel_size(tmp_path, unit):
    tifffile.imwrite(tmp_path / "a.tif", noise(), photometric="minisblack", resolution=(72, 72), resolutionunit=unit)
    assert open_volume(tmp_path / "a.tif").voxel_size_nm is None


# --- MRC


def test_mrc_unknown_voxel_size_and_extended_header(tmp_path):
    array = noise(dtype="int16")
    with mrcfile.new(tmp_path / "a.rec") as file:
        file.set_data(array)
        file.set_extended_header(np.zeros(96, "u1").view("V96"))
    source = open_volume(tmp_path / "a.rec")
    assert source.voxel_size_nm is None
    np.testing.assert_array_equal(source.read(BOX), array[BOX])


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_mrc_mode_0_of_imod(tmp_path, flags, dtype):
    """IMOD's stamp at byte 152 says whether its bytes are signed; without the stamp they are."""
    array = noise()
    mrc.write_mrc(tmp_path / "a.st", array.view(np.int8), VOXEL_NM)
    assert open_volume(tmp_path / "a.st").dtype == np.int8
    content = bytearray((tmp_path / "a.st").read_bytes())
    content[152:160] = np.array([mrc.IMOD_STAMP, flags], "<i4").tobytes()
    (tmp_path / "a.st").write_bytes(content)
    source = open_volume(tmp_path / "a.st")
    assert source.dtype == dtype
    np.testing.assert_array_equal(whole(source), array.view(dtype))


def test_mrc_with_permuted_axes(tmp_path):
    array = noise(dtype="int16")
    with mrcfile.new(tmp_path / "a.map") as file:
        file.set_data(np.ascontiguousarray(array.transpose(2, 1, 0)))
        file.header.mapc, file.header.mapr, file.header.maps = 3, 2, 1
    np.testing.assert_array_equal(open_volume(tmp_path / "a.map").read(BOX), array[BOX])


# --- sections


def test_sections_in_natural_order_and_only_those_needed(tmp_path):
    array = noise((12, 8, 9))
    for z, section in enumerate(array):
        Image.fromarray(section).save(tmp_path / f"s{z}.png")
    (tmp_path / "s11.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".s3.png").touch()
    source = open_volume(tmp_path)
    assert source.shape == array.shape
    box = (slice(1, 11), slice(2, 7), slice(0, 9))
    np.testing.assert_array_equal(source.read(box), array[box])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 4}, {"tile": (16, 16)}], ids=str)
def test_sections_as_tiff(tmp_path, options):
    array = noise((4, 30, 41), dtype="uint16")
    for z, section in enumerate(array):
        tifffile.imwrite(tmp_path / f"{z}.TIF", section, **options)
    box = (slice(1, 4), slice(7, 29), slice(3, 40))
    np.testing.assert_array_equal(open_volume(tmp_path).read(box), array[box])


def test_sections_beyond_pillows_limit(tmp_path):
    """Pillow refuses images of more than 179 megapixels unless told otherwise; EM sections are larger."""
    Image.new("1", (20_000, 9_500)).save(tmp_path / "0.png")
    assert open_volume(tmp_path).shape == (1, 9_500, 20_000)


@pytest.mark.parametrize(
    ("names", "gap"),
    [
        (
            ["s1", "s2", "s4", "s9"],
            "sections are missing, the first between s2.png and s4.png; they are read as neighbours",
        ),
        (["s10", "s20", "s30"], None),
        (["a", "b", "c"], None),
        (["x2_y1", "x5_y1"], None),
    ],
)
def test_missing_sections_are_told(tmp_path, names, gap):
    for name in names:
        Image.fromarray(noise((5, 6))).save(tmp_path / f"{name}.png")
    assert open_volume(tmp_path).notes.get("messages") == ([gap] if gap else None)


# --- HDF5


def test_hdf5_attributes_and_names(tmp_path):
    write_hdf5(tmp_path / "a.hdf", noise(), VOXEL_NM, "volumes/raw", (400, 84, 70))
    with h5py.File(tmp_path / "a.hdf", "a") as file:
        file["volumes/labels"] = noise(seed=1)
        file["volumes/labels"].attrs["element_size_um"] = np.array(VOXEL_NM) / 1e3
        file["table"] = np.zeros((5, 2))
    source = open_volume(f"{tmp_path}/a.hdf:/volumes/raw")
    assert source.voxel_size_nm == VOXEL_NM
    assert source.notes["offset_nm"] == [400, 84, 70]
    assert open_volume(f"{tmp_path}/a.hdf:volumes/labels").voxel_size_nm == VOXEL_NM


def test_hdf5_axistags_and_channel_axis(tmp_path):
    array = noise()
    tags = {"axes": [{"key": key} for key in "xyzc"]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exported_data"] = array.transpose(2, 1, 0)[..., None]
        file["exported_data"].attrs["axistags"] = json.dumps(tags)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.h5").read(BOX), array[BOX])


# --- Zarr


def make_zarr(path, array, axes, scale, *, version="0.4", whole_scale=None):
    """Write a multiscale image with two levels, as other programs do."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", data=array, chunks=(1,) * (array.ndim - 3) + (4, 8, 8))
    group.create_array("s1", data=array[..., ::2, ::2], chunks=(1,) * (array.ndim - 3) + (4, 8, 8))
    levels = [
        {"path": f"s{i}", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]} for i in range(2)
    ]
    image = {"axes": axes, "datasets": levels}
    if whole_scale:
        image["coordinateTransformations"] = [{"type": "scale", "scale": list(whole_scale)}]
    if version == "0.4":
        group.attrs["multiscales"] = [image]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}


def space(unit, names="zyx"):
    return [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in names]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_with_channel_and_time_axes(tmp_path, version):
    array = noise()
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("micrometer")]
    scale = (1, 1, 0.025, 0.0042, 0.0035)
    make_zarr(tmp_path / "a.zarr", array[None, None], axes, scale, version=version, whole_scale=(1, 1, 2, 1, 1))
    for path in ("a.zarr", "a.zarr/s0"):
        source = open_volume(tmp_path / path)
        assert source.voxel_size_nm == VOXEL_NM
        np.testing.assert_array_equal(source.read(BOX), array[BOX])
    assert open_volume(tmp_path / "a.zarr/s1").shape == (7, 10, 16)


def test_ome_zarr_axes_in_other_order(tmp_path):
    array = noise()
    make_zarr(tmp_path / "a.zarr", array.transpose(2, 1, 0), space("angstrom", "xyz"), (35, 42, 500))
    source = open_volume(tmp_path / "a.zarr")
    assert source.voxel_size_nm == VOXEL_NM
    np.testing.assert_array_equal(source.read(BOX), array[BOX])


def test_ome_zarr_without_unit_is_not_trusted(tmp_path):
    make_zarr(tmp_path / "a.zarr", noise(), space(None), (1, 1, 1))
    source = open_volume(tmp_path / "a.zarr")
    assert source.voxel_size_nm is None
    assert "has no unit" in source.notes["messages"][0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_array(tmp_path, zarr_format):
    array = noise()
    folder = tmp_path / "folder"
    stored = zarr.create_array(str(folder), data=array, chunks=(4, 8, 8), zarr_format=zarr_format)
    stored.attrs["resolution"] = VOXEL_NM
    stored.attrs["offset"] = [50, 0, 0]
    source = open_volume(folder)
    assert source.voxel_size_nm == VOXEL_NM
    assert source.notes["offset_nm"] == [50, 0, 0]
    np.testing.assert_array_equal(source.read(BOX), array[BOX])


def test_zarr_chunks_outside_of_the_box_are_not_read(tmp_path):
    array = noise((16, 16, 16))
    zarr.create_array(str(tmp_path / "a.zarr"), data=array, chunks=(8, 8, 8))
    (tmp_path / "a.zarr" / "c" / "1" / "1" / "1").write_bytes(b"rubbish")
    box = (slice(0, 16), slice(0, 8), slice(0, 16))
    np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").read(box), array[box])


# --- samples


def test_phantom_sample():
    source = open_volume("sample://phantom", shape_hint=(3, 40, 32), seed=5)
    assert source.shape == (3, 40, 32)
    assert source.dtype == np.uint8
    assert source.truth.labels.shape == source.shape
    assert source.voxel_size_nm == source.truth.settings.voxel_size_nm
    again = open_volume("sample://phantom", shape_hint=(3, 40, 32), seed=5)
    np.testing.assert_array_equal(whole(source), whole(again))


def test_section_folder_written_by_us(tmp_path):
    write_sections(tmp_path / "s", noise((12, 8, 9)))
    assert sorted(p.name for p in (tmp_path / "s").iterdir())[-1] == "section_0011.png"
