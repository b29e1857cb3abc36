"""Damaged and hostile volumes of every format end in a volume or in a `UserError`, never in anything else."""

import functools
import itertools
import json
import os
import pickle
import re
import shutil
import struct
import sys
import warnings
import zlib

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from damaged_files import DAMAGE, damaged, fuzz, listing, outcome, write_zarr_v2
from hypothesis import given
from volume_files import noise, write_all

from emlib.evaluation.mask_inputs import pair_masks
from emlib.volumes.cutout import read_cutout
from emlib.volumes.npy import write_npy
from emlib.volumes.open import open_volume

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory and time as Linux does")
FORMATS = [
    "npy",
    "sidecar",
    "tiff",
    "deflate",
    "ome",
    "mrc",
    "sections",
    "tiff_sections",
    "hdf5",
    "ome_zarr",
    "zarr_v2",
]
CHECKED = (
    "deflate",
    "sections",
    "tiff_sections",
    "zarr_v2",
    "ome_zarr",
)  # whose checksums and codes leave no byte free
CASES, SWEEP = 50, 1000


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One small volume in each format: {format: (path to open, the files in it that are damaged)}."""
    folder, stack = tmp_path_factory.mktemp("originals"), noise((4, 16, 18))
    paths = write_all(folder, stack)
    paths |= {name: folder / f"{name}.tif" for name in ("deflate", "ome")}
    tifffile.imwrite(paths["deflate"], stack, compression="zlib", photometric="minisblack", rowsperstrip=5)
    tifffile.imwrite(paths["ome"], stack, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    paths["tiff_sections"] = folder / "tiff_sections"
    paths["tiff_sections"].mkdir()
    for z, section in enumerate(stack):
        tifffile.imwrite(paths["tiff_sections"] / f"{z}.tif", section, compression="lzw")
    paths["zarr_v2"] = folder / "v2.zarr"
    zarr.save_array(str(paths["zarr_v2"]), stack, zarr_format=2)
    (folder / "with_sidecar").mkdir()
    paths["sidecar"] = folder / "with_sidecar" / "a.npy"
    write_npy(paths["sidecar"], stack)
    paths["sidecar"].with_suffix(".json").write_text(json.dumps({"axes": "zyx", "voxel_size_nm": [50, 4.2, 3.5]}))
    return paths


def read_all(path, headers=None):
    """Open and read; what could be opened is added to ``headers``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_volume(path)
        if headers is not None:
            headers.append(source)
        return read_cutout(source)


def copy_with(original, folder, damage):
    """Copy a volume into a new folder and damage one of its files, chosen by ``damage``."""
    where, changes = damage
    if original.is_dir():
        path = shutil.copytree(original, folder / original.name)
        files = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        path = shutil.copy(original, folder / original.name)
        files = [path]
        if original.parent.name == "with_sidecar":
            files = [shutil.copy(original.with_suffix(".json"), folder / "a.json")]
    file = files[int(where * len(files))]
    file.write_bytes(damaged(file.read_bytes(), changes))
    return path


def fuzz_format(tmp_path, originals, name, examples):
    """Damage a format ``examples`` times; return how many were opened, how many read, and the lines of the others."""
    opened, lines, number = [], [], itertools.count()
    headers = []

    @fuzz(examples)
    @given(damage=DAMAGE)
    def holds(damage):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        path = copy_with(originals[name], folder, damage)
        before = listing(folder)
        volume, line = outcome(lambda: read_all(path, headers))
        assert listing(folder) == before
        shutil.rmtree(folder)
        if volume is None:
            lines.append(line)
        else:
            assert volume.array.ndim == 3 and volume.array.dtype == np.uint8
            opened.append(volume)

    holds()
    return len(headers), len(opened), lines


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(tmp_path, originals, name):
    headers, read, lines = fuzz_format(tmp_path, originals, name, CASES)
    assert read + len(lines) >= CASES
    assert headers >= 5, "some headers survive, so that the voxels behind them are read"
    assert read >= (0 if name in CHECKED else 3), "some damage falls on voxels"
    if name == "sidecar":
        assert not lines, "the sidecar is optional: whatever is in it, the array can be read"
    else:
        assert len(lines) >= 3, "some damage must show"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_sweep(tmp_path, originals, name):
    headers, read, lines = fuzz_format(tmp_path, originals, name, SWEEP)
    assert headers > SWEEP // 20 and read >= (1 if name in CHECKED else SWEEP // 50)
    assert name == "sidecar" or len(lines) > SWEEP // 50


def test_damaged_masks(tmp_path, originals):
    """The masks that `evaluate.py` reads go the same way."""
    number, results = itertools.count(), []
    original = shutil.copy(originals["npy"], tmp_path / "masks.npy")

    @fuzz(20)
    @given(damage=DAMAGE)
    def holds(damage):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        path = copy_with(original, folder, damage)
        results.append(outcome(lambda: [pair.read() for pair in pair_masks(str(path), str(original))]))

    holds()
    assert any(line is None for _, line in results) and any(line is not None for _, line in results)


@pytest.mark.parametrize("name", ["npy", "deflate", "sections", "hdf5"])
def test_a_run_on_a_broken_file_leaves_nothing(tmp_path, originals, call_script, name):
    path = copy_with(originals[name], tmp_path, (0.99, [("cut", 0.6, 0)]))
    out = tmp_path / "out"
    run = call_script(
        "run_pipeline.py", "--dataset", path, "--until", "cutout", "--voxel_size", 50, 4, 4, "--outdir", out
    )
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr and run.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not [p for folder in ("data", "tables", "figures") for p in (out / folder).glob("*")]


# --- files made to harm: they claim too much, unpack to too much, lead elsewhere, or carry code ---


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def npy_header(path, text):
    head = text.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64))
    return path


def npy_claim(folder):
    return npy_header(folder / "a.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (10000, 10000, 10000)}")


def npy_expression(folder):
    return npy_header(folder / "a.npy", f"__import__('os').mkdir({str(folder / 'CANARY')!r})")


def npy_pickle(folder):
    np.save(folder / "a.npy", np.array([[[Evil(folder / "CANARY")]]], dtype=object), allow_pickle=True)
    return folder / "a.npy"


def npz_pickle(folder):
    np.savez(folder / "a.npz", a=np.array([Evil(folder / "CANARY")], dtype=object))
    return (folder / "a.npz").rename(folder / "a.npy")


def zarr_pickle(**meta):
    def save(folder):
        path = write_zarr_v2(folder / "a.zarr", **meta)
        (path / "0.0.0").write_bytes(pickle.dumps(Evil(folder / "CANARY")))
        return path

    return save


def zarr_path(folder):
    zarr.save_array(str(folder / "secret.zarr"), noise((2, 4, 4)))
    level = {"path": "../secret.zarr", "coordinateTransformations": []}
    image = {"axes": [{"name": axis, "type": "space"} for axis in "zyx"], "datasets": [level]}
    zarr.open_group(str(folder / "a.zarr"), mode="w").attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return folder / "a.zarr"


def zarr_link(folder):
    (folder / "secret").write_bytes(bytes(range(32)))
    path = write_zarr_v2(folder / "a.zarr")
    (path / "0.0.0").symlink_to(folder / "secret")
    return path


def zarr_claim(folder):
    return write_zarr_v2(folder / "a.zarr", shape=[10**4] * 3, chunks=[64] * 3)


def zarr_bomb(folder):
    path = write_zarr_v2(folder / "a.zarr", shape=[32] * 3, chunks=[32] * 3, compressor={"id": "zlib", "level": 1})
    (path / "0.0.0").write_bytes(packed_zeros())
    return path


def hdf5(make):
    def save(folder):
        with h5py.File(folder / "secret.h5", "w") as file:
            file["raw"] = noise((2, 4, 4))
        with h5py.File(folder / "a.h5", "w") as file:
            make(file, folder)
        return f"{folder / 'a.h5'}:raw"

    return save


def external_link(file, folder):
    file["raw"] = h5py.ExternalLink("secret.h5", "/raw")


def external_group(file, folder):
    file["elsewhere"] = h5py.ExternalLink("secret.h5", "/")
    file["raw"] = h5py.SoftLink("/elsewhere/raw")


def external_storage(file, folder):
    file.create_dataset("raw", shape=(2, 4, 4), dtype="u1", external=[(str(folder / "secret.h5"), 0, 32)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((2, 4, 4), "u1")
    layout[:] = h5py.VirtualSource("secret.h5", "raw", shape=(2, 4, 4))
    file.create_virtual_dataset("raw", layout)


def soft_ring(file, folder):
    file["raw"] = h5py.SoftLink("/raw")


def hdf5_bomb(file, folder):
    stored = file.create_dataset("raw", shape=(32,) * 3, dtype="u1", chunks=(32,) * 3, compression="gzip")
    stored.id.write_direct_chunk((0, 0, 0), packed_zeros())


@functools.cache
def packed_zeros(size=1 << 28):
    """A quarter of a gigabyte of zeros in a quarter of a megabyte."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(1 << 24)) for _ in range(size >> 24)]) + packer.flush()


def tiff(pages, **change):
    """Little-endian TIFF of 4 × 4 pages; ``pages`` holds, for each, the number of the next or None."""

    def save(folder):
        tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 4, 279: 16}
        tags |= {int(tag): value for tag, value in change.items()}
        step = 2 + 12 * len(tags) + 4
        tags[273] = 8 + step * len(pages)
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
        parts = [b"II*\0", struct.pack("<I", 8)]
        for following in pages:
            offset = 0 if following is None else 8 + step * following
            parts += [struct.pack("<H", len(tags)), entries, struct.pack("<I", offset)]
        (folder / "a.tif").write_bytes(b"".join(parts) + bytes(range(64)))
        return folder / "a.tif"

    return save


def ome(text):
    def save(folder):
        tifffile.imwrite(folder / "a.tif", noise((2, 6, 8)), photometric="minisblack", description=text, metadata=None)
        return folder / "a.tif"

    return save


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels ID="%s" SizeX="8" SizeY="6" '
    'SizeZ="%d" SizeC="1" SizeT="1" Type="uint8" DimensionOrder="XYZCT"><TiffData/></Pixels></Image></OME>'
)
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 20}">' for i in range(1, 9))


def png_claim(folder):
    (folder / "s").mkdir()
    parts = [b"\x89PNG\r\n\x1a\n"]
    head = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0)
    for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")):
        crc = zlib.crc32(kind + content)
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", crc)]
    (folder / "s" / "0.png").write_bytes(b"".join(parts))
    return folder / "s"


PICKLE = {"id": "pickle", "protocol": 5}
HOSTILE = {
    "npy that claims 10^12 voxels": (npy_claim, "shorter than its header says"),
    "npy with an expression": (npy_expression, "cannot read .*a.npy"),
    "npy with a pickle": (npy_pickle, "holds pickled Python objects, which are refused"),
    "npz with a pickle": (npz_pickle, "cannot read .*a.npy"),
    "zarr with a pickle as filter": (zarr_pickle(filters=[PICKLE]), "cannot read .*pickle"),
    "zarr with a pickle as compressor": (zarr_pickle(compressor=PICKLE), "cannot read .*pickle"),
    "zarr of objects": (zarr_pickle(dtype="|O", filters=[PICKLE]), "cannot read .*pickle"),
    "zarr that leads elsewhere": (zarr_path, "lies outside of the store"),
    "zarr with a linked chunk": (zarr_link, "is a link that leads out of the store; copy the file"),
    "zarr that claims 10^12 voxels": (zarr_claim, "the cutout takes 931.3 GiB"),
    "zarr bomb": (zarr_bomb, "takes more bytes than its voxels"),
    "hdf5 link": (hdf5(external_link), r"raw is a link to another file, secret.h5; name that file itself"),
    "hdf5 link of a group": (hdf5(external_group), "raw is a link to another file, secret.h5"),
    "hdf5 external storage": (hdf5(external_storage), "keeps its voxels in other files; export it as one file"),
    "hdf5 virtual dataset": (hdf5(virtual), "keeps its voxels in other files"),
    "hdf5 ring of links": (hdf5(soft_ring), "too many links"),
    "hdf5 bomb": (hdf5(hdf5_bomb), "a chunk takes [0-9,]+ bytes, more than its voxels"),
    "tiff page after itself": (tiff([0]), "after page 1 its pages lead back to an earlier one; export it again"),
    "tiff ring of 300": (tiff([*range(1, 300), 50]), "after page 300 its pages lead back"),
    "tiff that claims 10^18 voxels": (tiff([1, None], **{"256": 2**30, "257": 2**30}), "the cutout takes"),
    "tiff of one huge strip": (tiff([1, None], **{"259": 8, "279": 2**32 - 1}), "a.tif"),
    "ome-xml of 3 · 10^7 planes": (ome(OME % ("a", 30_000_000)), "OME-XML claims 30,000,000 planes, the file has 2"),
    "ome-xml that laughs": (ome(f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>' + OME % ("&a8;", 2)), "cannot read"),
    "ome-xml that reads a file": (
        ome('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + OME % ("&e;", 2)),
        "cannot read .*external entity",
    ),
    "png that claims 10^12 pixels": (png_claim, r"0.png claims 1048576 × 1048576 pixels in \d+ bytes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(tmp_path, case):
    make, says = HOSTILE[case]
    path = make(tmp_path)
    before = listing(tmp_path)
    volume, line = outcome(lambda: read_all(path))
    assert volume is None
    assert re.search(says, line), line
    assert not (tmp_path / "CANARY").exists(), "the file ran code"
    assert listing(tmp_path) == before


def test_the_pickles_would_run(tmp_path):
    """The control of the test above: read by a careless reader, the same file does run code."""
    np.load(npy_pickle(tmp_path), allow_pickle=True)
    assert (tmp_path / "CANARY").is_dir()


def test_many_small_chunks_are_refused_and_a_small_box_is_read(tmp_path):
    path = write_zarr_v2(tmp_path / "a.zarr", shape=[300] * 3, chunks=[1] * 3)
    for z, y, x in itertools.product(range(4), repeat=3):
        (path / f"{z}.{y}.{x}").write_bytes(bytes([7 + x]))
    source = open_volume(path)
    _, line = outcome(lambda: read_cutout(source, (64, 64, 64)))
    assert "is stored in 262,144 chunks of 1 × 1 × 1 voxels here; store it in larger ones" in line
    assert read_cutout(source, (4, 4, 4), (0, 0, 0)).array[0, 0, 0] == 7


def test_links_within_a_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"] = noise((2, 4, 4))
        file["near"] = h5py.SoftLink("/volumes/raw")
        file["volumes/beside"] = h5py.SoftLink("raw")
    for name in ("near", "volumes/beside"):
        assert (read_all(f"{tmp_path / 'a.h5'}:{name}").array == noise((2, 4, 4))).all()
