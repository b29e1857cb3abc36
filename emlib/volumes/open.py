"""Open a volume of any format by its name; nothing but the header is read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.reading import reading
from emlib.volumes.volume import Box, VolumeSource

if TYPE_CHECKING:
    from emlib.volumes.bossdb import BossOptions

FORMATS = (
    ".npy  .tif .tiff  .mrc .rec .map .st  file.h5:dataset  .zarr, a folder of PNG or TIFF sections, "
    "sample://phantom, bossdb://collection/experiment/channel, precomputed://…"
)
SCHEMES = ("sample://", "bossdb://", "precomputed://")
SAMPLES = ("phantom",)
HDF5 = re.compile(r"(?P<file>.*\.(?:h5|hdf5|hdf))(?::(?P<dataset>.*))?", re.IGNORECASE)
MRC_SUFFIXES = (".mrc", ".rec", ".map", ".st")


def open_volume(
    spec: str | Path,
    *,
    shape_hint: tuple[int, int, int] | None = None,
    seed: int = 0,
    network_timeout_s: float = 30,
    boss: BossOptions | None = None,
    labels: bool = False,
    progress: bool = False,
    fill_missing: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> VolumeSource:
    """Open a volume without reading its voxels.

    Parameters
    ----------
    spec : str or Path
        A file, a folder of sections, ``file.h5:dataset``, ``sample://phantom``,
        ``bossdb://collection/experiment/channel`` or ``precomputed://`` with a folder or an address.
    shape_hint : (Z, Y, X), optional
        Size of a sample that is made on demand; files have their own.
    seed : int
        Seed of a sample.
    network_timeout_s : float
        How long to wait for a server, in seconds; not used where ``boss`` is given.
    boss : BossOptions, optional
        Server, resolution, tries and cache for a ``bossdb://`` address; of a ``precomputed://`` one the resolution.
    labels : bool
        Whether ids are wanted; where a source tells images from annotations, these are refused otherwise.
    progress : bool
        Draw a bar while voxels are downloaded, if stderr is a terminal.
    fill_missing : bool
        Take the chunks of a Zarr or precomputed volume that are not there as empty, which is an error otherwise.
    note : function of a line
        Told what the user should know and need not act on: about a download, or chunks that are missing.

    Returns
    -------
    VolumeSource
        Its ``read`` returns native-endian (z, y, x) arrays and raises `UserError` where the file is damaged.

    Raises
    ------
    UserError
        If there is no such volume, the format is unknown, or the header is damaged or holds no grey (Z, Y, X) stack.
    NetworkUnreachable
        If a server cannot be reached (see `emlib.volumes.bossdb`).
    """
    name = str(spec)
    if name.startswith("bossdb://"):
        from emlib.volumes.bossdb import BossOptions, open_bossdb

        options = boss or BossOptions(timeout_s=network_timeout_s)
        source = open_bossdb(name, options, labels=labels, progress=progress, note=note)
    elif name.startswith("precomputed://"):
        from emlib.volumes.precomputed import open_precomputed

        asked = (
            {"resolution": boss.resolution, "timeout_s": boss.timeout_s} if boss else {"timeout_s": network_timeout_s}
        )
        source = open_precomputed(name, **asked, labels=labels, fill_missing=fill_missing, note=note)
    elif "://" in name:
        source = _open_sample(name, shape_hint, seed)
    else:
        opener = _opener(name, {"labels": labels, "fill_missing": fill_missing, "note": note})
        with reading(name):
            source = opener()
    return _checked(replace(source, uri=name))


def _open_sample(name: str, shape_hint: tuple[int, int, int] | None, seed: int) -> VolumeSource:
    if not name.startswith("sample://"):
        raise UserError(f"{name}: unknown scheme {name.split('://')[0]}://; known are {', '.join(SCHEMES)}")
    sample = name.removeprefix("sample://").strip("/")
    if sample not in SAMPLES:
        raise UserError(f"{name}: no such sample; there is {', '.join(f'sample://{s}' for s in SAMPLES)}")
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    try:
        phantom = make_phantom(PhantomSettings(seed=seed, **({} if shape_hint is None else {"shape": shape_hint})))
    except ValueError as error:
        told = str(error)
        if shape_hint is not None:  # in the order of the flag
            told = told.replace(str(tuple(shape_hint)), " ".join(map(str, reversed(shape_hint))) + " (x y z)")
        raise UserError(f"{name}: {told.replace('(Z, Y, X) ', '')}; choose another --cutout X Y Z") from error
    em = phantom.em
    return VolumeSource(
        name, em.shape, em.dtype, lambda box: em[box].copy(), phantom.settings.voxel_size_nm, phantom, {"seed": seed}
    )


def _opener(name: str, chunked: dict[str, Any]) -> Callable[[], VolumeSource]:
    """The reader for a path, by suffix or by what a folder holds; the reader's library is imported only then.

    ``chunked`` is what the readers of chunked formats are told besides.
    """
    path = Path(name).expanduser()
    suffix, hdf5 = path.suffix.lower(), HDF5.fullmatch(str(path))
    file = Path(hdf5["file"]) if hdf5 else path
    if not file.exists():
        raise UserError(f"no such file or folder: {file}{_nearest(file)}")
    if not (file.is_file() or file.is_dir()):  # a pipe would be waited for, for ever
        raise UserError(f"{file} is neither a file nor a folder; save what it holds as a file")
    if hdf5 and file.is_file():
        from emlib.volumes.hdf5 import open_hdf5

        return lambda: open_hdf5(file, hdf5["dataset"])
    if path.is_dir():
        return _folder_opener(path, chunked)
    if suffix == ".npy":
        from emlib.volumes.npy import open_npy

        return lambda: open_npy(path)
    if suffix in (".tif", ".tiff"):
        from emlib.volumes.tiff import open_tiff

        return lambda: open_tiff(path)
    if suffix in MRC_SUFFIXES:
        from emlib.volumes.mrc import open_mrc

        return lambda: open_mrc(path)
    raise UserError(f"{path}: unsupported format {suffix or '(no suffix)'}; supported: {FORMATS}")


def _folder_opener(path: Path, chunked: dict[str, Any]) -> Callable[[], VolumeSource]:
    from emlib.volumes.ome_zarr import is_zarr, open_zarr

    if is_zarr(path):
        return lambda: open_zarr(path, **chunked)
    from emlib.volumes.sections import open_sections

    return lambda: open_sections(path)


def _nearest(path: Path) -> str:
    """A hint at a similar name in the same folder."""
    try:
        close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    except OSError:
        return ""
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def _checked(source: VolumeSource) -> VolumeSource:
    """Refuse what is no grey stack, and make ``read`` safe: native bytes, the right shape, errors of one line."""
    if source.dtype.kind not in "buif":
        raise UserError(f"{source.uri} holds {source.dtype}; convert it to 8-bit, 16-bit or float grey values")
    dtype = source.dtype.newbyteorder("=")

    def read(box: Box) -> np.ndarray:
        with reading(source.uri):
            part = np.ascontiguousarray(source.read(box), dtype=dtype)
        expected = tuple(side.stop - side.start for side in box)
        if part.shape != expected:
            raise UserError(f"{source.uri}: read {part.shape} voxels where {expected} were due; the file is damaged")
        return part

    return replace(source, shape=tuple(int(n) for n in source.shape), dtype=dtype, read=read)
