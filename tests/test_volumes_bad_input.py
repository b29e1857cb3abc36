"""What users get wrong ends in one line that says what, where and what to do."""

import os

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from volume_files import noise, write_all

from emlib.errors import UserError
from emlib.volumes.cutout import read_cutout
from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.npy import write_npy
from emlib.volumes.ome_zarr import write_ome_zarr
from emlib.volumes.open import open_volume
from emlib.volumes.sections import write_sections
from emlib.volumes.swc import read_skeletons


def complaint(path):
    """Open and read all; return the one line that the user sees."""
    with pytest.raises(UserError) as caught:
        read_cutout(open_volume(path))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def save_npy(array):
    def save(folder):
        np.save(folder / "a.npy", array, allow_pickle=True)
        return folder / "a.npy"

    return save


def save_tiff(array, **options):
    def save(folder):
        tifffile.imwrite(folder / "a.tif", array, **options)
        return folder / "a.tif"

    return save


def save_png(*arrays):
    def save(folder):
        (folder / "s").mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / "s" / f"{i}.png")
        return folder / "s"

    return save


def save_mixed(folder):
    Image.fromarray(noise((5, 5))).save(folder / "0.png")
    tifffile.imwrite(folder / "1.tif", noise((5, 5)))
    return folder


def save_stacks(folder):
    tifffile.imwrite(folder / "0.tif", noise(), photometric="minisblack")
    return folder


def save_sizes(folder):
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        tif.write(noise((5, 6)))
        tif.write(noise((7, 6)))
    return folder / "a.tif"


def save_section_sizes(folder):
    for i, shape in enumerate([(5, 6), (4, 6)]):
        tifffile.imwrite(folder / f"{i}.tif", noise(shape))
    return folder


def save_hdf5(datasets):
    def save(folder):
        with h5py.File(folder / "a.h5", "w") as file:
            for name, array in datasets.items():
                file[name] = array
        return folder / "a.h5"

    return save


def save_mrc(array):
    def save(folder):
        with mrcfile.new(folder / "a.mrc") as file:
            file.set_data(array)
        return folder / "a.mrc"

    return save


def save_zarr(array):
    def save(folder):
        zarr.save_array(str(folder / "a.zarr"), array)
        return folder / "a.zarr"

    return save


def save_group(folder):
    group = zarr.open_group(str(folder / "a.zarr"), mode="w")
    for name in ("raw", "labels"):
        group.create_array(name, data=noise())
    return folder / "a.zarr"


def empty_zarr(folder):
    (folder / "a.zarr").mkdir()
    return folder / "a.zarr"


def junk(name):
    def save(folder):
        (folder / name).write_bytes(b"junk" * 300)
        return folder / name

    return save


RGB = noise((4, 5, 6, 3))
CASES = {
    "empty folder": (lambda folder: folder, r"holds no sections; a stack is a folder of \.png \.tif \.tiff images"),
    "mixed folder": (save_mixed, "holds both PNG and TIFF"),
    "stacks in a folder": (save_stacks, r"0\.tif holds 7 images; a folder has one section per file"),
    "section sizes, png": (
        save_png(noise((5, 6)), noise((5, 6)), noise((4, 6))),
        r"sections differ in size: .*0\.png is 5 × 6, .*2\.png is 4 × 6 \(height × width\); crop or pad",
    ),
    "section sizes, tiff": (save_section_sizes, r"0\.tif is 5 × 6, .*1\.tif is 4 × 6"),
    "section types": (
        save_png(noise((5, 6)), noise((5, 6), dtype="uint16")),
        r"sections differ in type: .*0\.png is uint8, .*1\.png is uint16",
    ),
    "RGB png": (save_png(RGB[0]), r"0\.png is RGB; convert it to grey"),
    "RGBA png": (save_png(noise((5, 6, 4))), r"0\.png is RGB; convert it to grey"),
    "RGB tiff": (save_tiff(RGB, photometric="rgb"), r"a\.tif is RGB; convert it to grey"),
    "page sizes": (save_sizes, r"a\.tif holds images of different sizes \(\(5, 6\) and \(7, 6\)\)"),
    "2D npy": (save_npy(noise((5, 6))), r"a\.npy is a single image \(5 × 6\); give a stack"),
    "2D tiff": (save_tiff(noise((5, 6))), r"a\.tif is a single image \(5 × 6\)"),
    "2D mrc": (save_mrc(noise((5, 6), dtype="int16")), r"a\.mrc is a single image"),
    "1D npy": (save_npy(noise((5,))), r"a\.npy is a single image"),
    "4D npy": (save_npy(noise((2, 5, 6, 7))), r"has shape \(2, 5, 6, 7\): a volume has the three axes \(z, y, x\)"),
    "channels, tiff": (
        save_tiff(noise((5, 2, 6, 7)), imagej=True, metadata={"axes": "ZCYX"}),
        r"has shape \(5, 2, 6, 7\).*export one channel",
    ),
    "4D zarr": (save_zarr(noise((2, 5, 6, 7))), r"has shape \(2, 5, 6, 7\)"),
    "empty npy": (save_npy(np.zeros((0, 5, 6))), r"a\.npy is empty: its shape is \(0, 5, 6\)"),
    "empty hdf5": (save_hdf5({"raw": np.zeros((0, 5, 6))}), r"a\.h5:raw is empty"),
    "empty zarr": (save_zarr(np.zeros((3, 0, 6))), r"a\.zarr is empty"),
    "objects": (save_npy(np.full((2, 2, 2), None)), "holds pickled Python objects, which are refused; save a plain"),
    "complex": (save_npy(np.zeros((2, 2, 2), complex)), "holds complex128; convert it to 8-bit"),
    "records": (save_npy(np.zeros((2, 2, 2), [("a", "i4")])), "convert it to 8-bit"),
    "text": (save_hdf5({"raw": np.full((2, 2, 2), b"abc")}), "convert it to 8-bit"),
    "constant": (save_npy(np.full((3, 4, 5), 9, np.uint8)), r"a\.npy holds a single grey value 9$"),
    "several datasets": (
        save_hdf5({"raw": noise(), "labels": noise(), "table": noise((3, 3))}),
        r"holds 2 3D datasets: labels \(7, 20, 31\), raw .*, table \(3, 3\); name one as a\.h5:DATASET",
    ),
    "no dataset": (save_hdf5({}), "holds no 3D dataset: no datasets"),
    "several arrays": (save_group, r"holds (raw|labels) .*, (raw|labels) .*; name one of them, .*a\.zarr/NAME"),
    "no zarr": (empty_zarr, r"a\.zarr is no Zarr group or array"),
    "unknown suffix": (junk("a.jpg"), r"unsupported format \.jpg; supported: \.npy  \.tif \.tiff  \.mrc .*a folder of"),
    "no suffix": (junk("a"), r"unsupported format \(no suffix\)"),
    **{
        f"junk{suffix}": (
            junk(f"a{suffix}"),
            rf"cannot read .*a\{suffix}: .*; the file is damaged or not what its name",
        )
        for suffix in (".npy", ".tif", ".mrc", ".h5")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(tmp_path, case):
    make, message = CASES[case]
    path = make(tmp_path)
    with pytest.raises(UserError, match=message):
        raise UserError(complaint(path))


def test_missing_files_and_a_hint(tmp_path):
    write_npy(tmp_path / "volume.npy", noise())
    with pytest.raises(UserError, match=r"no such file or folder: .*volum\.npy; did you mean .*volume\.npy\?"):
        open_volume(tmp_path / "volum.npy")
    with pytest.raises(UserError, match=r"no such file or folder: .*nowhere/a\.tif$"):
        open_volume(tmp_path / "nowhere" / "a.tif")
    with pytest.raises(UserError, match=r"no such file or folder: .*a\.h5$"):
        open_volume(f"{tmp_path}/a.h5:raw")


def test_wrong_hdf5_dataset_lists_those_there(tmp_path):
    write_hdf5(tmp_path / "a.h5", noise(), (1, 1, 1), "volumes/raw")
    with pytest.raises(UserError, match=r"a\.h5 has no dataset volumes/em; it holds volumes/raw \(7, 20, 31\)"):
        open_volume(f"{tmp_path}/a.h5:volumes/em")
    with pytest.raises(UserError, match=r"a\.h5:volumes is no array; the file holds volumes/raw"):
        open_volume(f"{tmp_path}/a.h5:volumes")


def test_file_without_permission(tmp_path, monkeypatch):
    write_npy(tmp_path / "a.npy", noise())

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.npy"))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(UserError, match=r"no permission to read .*a\.npy"):
        open_volume(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sample://brain", "no such sample; there is sample://phantom"),
        ("sample://phantom", "sections must be at least 8 voxels wide.*choose another --cutout"),
        ("s3://bucket/a.zarr", "unknown scheme s3://; known are sample://, bossdb://, precomputed://"),
        ("bossdb://only/two", "no BossDB address; it has the form bossdb://collection/experiment/channel"),
    ],
)
def test_bad_uris(uri, message):
    with pytest.raises(UserError, match=message):
        open_volume(uri, shape_hint=(2, 2, 2))


@pytest.mark.parametrize("name", ["npy", "tiff", "mrc", "hdf5"])
def test_truncated_files(tmp_path, name):
    path = write_all(tmp_path, noise())[name]
    path.write_bytes(path.read_bytes()[:-1000])
    line = complaint(path)
    assert str(path) in line
    if name in ("npy", "mrc"):
        assert "it is shorter than its header says" in line


def test_a_tiff_that_breaks_off_is_not_taken_for_a_shorter_stack(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((9, 64, 64)), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        middle = tif.pages[5].offset
    path.write_bytes(path.read_bytes()[:middle])
    assert "breaks off after page 5, more are announced; copy the file again" in complaint(path)


def test_damaged_compressed_tiff_names_the_file(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[2].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    assert "a.tif" in complaint(path)


def test_damaged_png_names_the_section(tmp_path):
    write_sections(tmp_path / "s", noise())
    section = tmp_path / "s" / "section_0003.png"
    section.write_bytes(section.read_bytes()[:-100])
    assert "section_0003.png" in complaint(tmp_path / "s")


def test_damaged_chunks_name_the_store(tmp_path):
    paths = write_all(tmp_path, noise())
    (paths["ome_zarr"] / "0" / "c" / "0" / "1" / "1").write_bytes(b"rubbish")
    assert "a.zarr" in complaint(paths["ome_zarr"])
    with h5py.File(paths["hdf5"]) as file:
        chunk = file["volumes/raw"].id.get_chunk_info(0)
    content = bytearray(paths["hdf5"].read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + 50] = bytes(50)
    paths["hdf5"].write_bytes(content)
    assert "a.h5" in complaint(paths["hdf5"])


def test_a_bug_keeps_its_cause(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"junk")
    with pytest.raises(UserError) as caught:
        open_volume(tmp_path / "a.tif")
    assert isinstance(caught.value.__cause__, tifffile.TiffFileError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.mrc", "a.h5", "a.zarr", "stack/01.png", "stack/b.tif"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    (tmp_path / "stack").mkdir()
    os.mkfifo(tmp_path / name)
    line = complaint(tmp_path / name.split("/")[0])
    assert line.startswith(f"{tmp_path / name} is n"), line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_beside_and_inside_a_volume_are_not_waited_for(tmp_path):
    write_npy(tmp_path / "a.npy", noise((4, 8, 8)))
    os.mkfifo(tmp_path / "a.json")
    assert read_cutout(open_volume(tmp_path / "a.npy")).array.shape == (4, 8, 8)
    write_ome_zarr(tmp_path / "a.zarr", noise((4, 8, 8)), (8, 8, 8))
    chunk = next(path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file() and path.suffix != ".json")
    chunk.unlink()
    os.mkfifo(chunk)
    assert f"{chunk} is no file" in complaint(tmp_path / "a.zarr")
    (tmp_path / "swc").mkdir()
    os.mkfifo(tmp_path / "swc/a.swc")
    for path in (tmp_path / "swc", tmp_path / "swc/a.swc"):
        with pytest.raises(UserError, match=r"a\.swc is n"):
            read_skeletons(path, (8, 8, 8))
