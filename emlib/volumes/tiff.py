"""TIFF: multi-page, ImageJ hyperstacks and OME-TIFF, BigTIFF, compressed and tiled files.

Uncompressed stacks are memory-mapped; of others only the strips or tiles that the box needs are decoded.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from struct import unpack
from threading import Lock
from uuid import NAMESPACE_OID, uuid5

import numpy as np

from emlib.errors import UserError
from emlib.threads import map_threads
from emlib.volumes.atomic import atomic_path
from emlib.volumes.axes import Axes, find_axes
from emlib.volumes.units import nm_per, voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
IMAGEJ_BYTES = 2**32 - 2**25
MOST_PLANES = 10**6  # tifffile makes room for all that OME-XML claims, before it looks for them
JPEG = (6, 7, 34892, 33007)  # the compressions whose tables stand outside of the strips


def open_tiff(path: Path) -> VolumeSource:
    """Open a TIFF stack.

    The voxel size is taken from OME-XML or from ImageJ's ``spacing``, resolution and unit. Plain resolution tags
    (dots per inch) say nothing about the specimen and are left alone.

    Raises
    ------
    UserError
        If the file is RGB, a single image, or holds images of different sizes.
    """
    with opened(path) as tif:
        _check_chain(tif, path)
        check_grey(tif.pages.first, path)
        _check_planes(tif, path)
        series = _stack(tif, path)
        axes = find_axes(series.shape, series.axes, str(path))
        size, dtype = _voxel_size_nm(tif), series.dtype
        palette = tif.pages.first.photometric.name == "PALETTE"
        piece = _piece(series, axes)

    def read(box: Box) -> np.ndarray:
        with opened(path) as tif:
            series = _stack(tif, path)
            if series.dataoffset is not None:
                stored = np.memmap(path, tif.byteorder + series.dtype.char, "r", series.dataoffset, series.shape)
                return upright(np.array(axes.read(stored, box)), series.keyframe)
            if _by_page(series, axes):
                lock, rows, columns = Lock(), box[1], box[2]
                pages = [series.pages[z] for z in range(box[0].start, box[0].stop)]
                return np.stack(map_threads(lambda page: read_page(page, rows, columns, lock), pages))
            return upright(axes.read(series.asarray(), box), series.keyframe)

    notes = {"palette": True} if palette else {}
    return VolumeSource(str(path), axes.shape, dtype, read, size, notes=notes, piece=piece)


def _by_page(series, axes: Axes) -> bool:
    """Whether each section is a page, whose strips or tiles are decoded one by one."""
    return len(series.pages) == axes.shape[0] and axes.zyx == tuple(sorted(axes.zyx))


def _piece(series, axes: Axes) -> tuple[int, int, int]:
    """What is decoded at least to get at a voxel."""
    if series.dataoffset is not None:
        return 1, 1, 1
    if _by_page(series, axes):
        rows, columns = series.keyframe.chunks[:2]
        return 1, min(rows, axes.shape[1]), min(columns, axes.shape[2])
    return axes.shape


def write_tiff(path: Path, array: np.ndarray, voxel_size_nm: ZYX) -> None:
    """Write a volume with its voxel size: for ImageJ where its three types (8-bit, 16-bit, float32) allow, else OME."""
    import tifffile

    z, y, x = voxel_size_nm
    with atomic_path(path) as temporary:
        if array.dtype.name in IMAGEJ_DTYPES and array.nbytes < IMAGEJ_BYTES:
            metadata = {"axes": "ZYX", "spacing": z, "unit": "nm"}
            tifffile.imwrite(temporary, array, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata)
            return
        metadata = {"axes": "ZYX"}
        for axis, size in zip("ZYX", voxel_size_nm, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
        content = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
        metadata["UUID"] = f"urn:uuid:{uuid5(NAMESPACE_OID, content)}"  # tifffile's own is drawn from clock and machine
        tifffile.imwrite(temporary, array, ome=True, photometric="minisblack", metadata=metadata)


@contextmanager
def opened(path: Path):
    """Open a TIFF; tifffile's own log lines on damaged files are silenced, as the exception says the same."""
    import logging

    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with tifffile.TiffFile(path) as tif:
        yield tif


def check_grey(page, path: Path) -> None:
    """Refuse colour images, and samples that are no numbers.

    Raises
    ------
    UserError
        If the page has several samples per pixel, or a size or type that no array has.
    """
    if page.samplesperpixel > 1:
        kind = "RGB" if page.photometric.name in ("RGB", "YCBCR") else f"an image of {page.samplesperpixel} samples"
        raise UserError(f"{path} is {kind}; convert it to grey (ImageJ: Image > Type > 8-bit)")
    if not isinstance(page.imagelength, int) or not isinstance(page.imagewidth, int):
        raise UserError(f"{path}: its size is no pair of numbers; the file is damaged, copy it again")
    if page.dtype is None:
        raise UserError(f"{path} holds {page.bitspersample}-bit samples of no known type; convert it to 8-bit grey")


def read_page(page, rows: slice, columns: slice, lock) -> np.ndarray:
    """Decode the strips or tiles of a page that rows × columns need.

    Parameters
    ----------
    page : tifffile page or frame
    rows, columns : slices with start and stop
    lock : held while the shared file is read; decoding runs outside it

    Returns
    -------
    (rows, columns) array
    """
    if page is None:
        raise UserError("a section is missing from the file; export it again")
    key = page.keyframe
    length, width = key.chunks
    across = ceil(key.imagewidth / width)
    wanted = [
        r * across + c
        for r in range(rows.start // length, ceil(rows.stop / length))
        for c in range(columns.start // width, ceil(columns.stop / width))
    ]
    with lock:
        offsets, counts = [page.dataoffsets[i] for i in wanted], [page.databytecounts[i] for i in wanted]
        segments = list(page.parent.filehandle.read_segments(offsets, counts, indices=wanted))
    jpeg = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader} if key.compression in JPEG else {}
    out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), key.dtype)
    for data, index in segments:
        decoded, (_, _, top, left, _), _ = key.decode(data, index, **jpeg)
        if decoded is None:  # a sparse file leaves empty tiles out
            continue
        _paste(out, decoded[0, :, :, 0], top - rows.start, left - columns.start)
    return upright(out, key)


def _paste(out: np.ndarray, part: np.ndarray, top: int, left: int) -> None:
    """Copy ``part`` into ``out`` with its corner at (top, left), cropping what falls outside."""
    y0, x0 = max(top, 0), max(left, 0)
    part = part[y0 - top : out.shape[0] - top, x0 - left : out.shape[1] - left]
    out[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part


def upright(image: np.ndarray, page) -> np.ndarray:
    """Return grey values as they are shown: in a MINISWHITE file 0 is white."""
    if page.photometric.name != "MINISWHITE" or image.dtype.kind not in "bu":
        return image
    return ~image


def _check_chain(tif, path: Path) -> None:
    """Refuse pages that break off or lead back to themselves: tifffile would take those in front of the gap for the
    whole stack, and follow a ring for ever."""
    form, file = tif.tiff, tif.filehandle
    offset, seen = tif.pages.first.offset, set()
    while offset:
        if offset in seen:
            raise UserError(f"{path}: after page {len(seen)} its pages lead back to an earlier one; export it again")
        file.seek(offset)
        count = file.read(form.tagnosize)
        if len(count) == form.tagnosize:
            file.seek(offset + form.tagnosize + unpack(form.tagnoformat, count)[0] * form.tagsize)
        following = file.read(form.offsetsize)
        if len(following) < form.offsetsize:
            raise UserError(f"{path} breaks off after page {len(seen)}, more are announced; copy the file again")
        seen.add(offset)
        offset = unpack(form.offsetformat, following)[0]


def _check_planes(tif, path: Path) -> None:
    """Refuse OME-XML that claims more planes than any microscope writes."""
    if not tif.is_ome:
        return
    sizes: dict[str, int] = {}
    for name, value in re.findall(r"\b(Size[ZCT]|PlaneCount)\s*=\s*[\"']\s*(\d{1,18})", tif.ome_metadata):
        sizes[name] = max(sizes.get(name, 1), int(value))
    planes = max(prod(size for name, size in sizes.items() if name != "PlaneCount"), sizes.get("PlaneCount", 1))
    if planes > MOST_PLANES:
        raise UserError(f"{path}: its OME-XML claims {planes:,} planes, the file has {len(tif.pages)}; export it again")


def _stack(tif, path: Path):
    """The one stack in the file."""
    series = tif.series
    shapes = list(dict.fromkeys(one.shape for one in series))
    if len(shapes) > 1:
        raise UserError(
            f"{path} holds images of different sizes ({shapes[0]} and {shapes[1]}); save the stack in a file of its own"
        )
    return series[0]


def _voxel_size_nm(tif) -> ZYX | None:
    if tif.is_ome:
        return _ome_voxel_size(tif)
    if tif.is_imagej:
        return _imagej_voxel_size(tif)
    return None


def _ome_voxel_size(tif) -> ZYX | None:
    import tifffile

    image = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    sizes = []
    for axis in "ZYX":
        factor = nm_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))  # µm is the schema's default
        sizes.append(pixels.get(f"PhysicalSize{axis}", 0) * (factor or 0))
    return voxel_size(sizes)


def _imagej_voxel_size(tif) -> ZYX | None:
    metadata, tags = tif.imagej_metadata or {}, tif.pages.first.tags
    factor = nm_per(metadata.get("unit"))
    if not factor or "XResolution" not in tags or "YResolution" not in tags or "spacing" not in metadata:
        return None
    (nx, dx), (ny, dy) = tags["XResolution"].value, tags["YResolution"].value  # pixels per unit, as fractions
    if not (nx and ny):
        return None
    return voxel_size((metadata["spacing"] * factor, dy / ny * factor, dx / nx * factor))
