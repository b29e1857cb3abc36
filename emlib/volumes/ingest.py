"""Copy a volume of any format or server into OME-Zarr, block by block, so that it may be larger than memory.

1. The store grows beside its place, as ``.OUT.zarr.partial``. Its record says what is copied.
2. Each block is read, written, and put on the list of those that are done. A copy that was cut short goes on there.
3. The coarser levels are made, and the store is given its name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from tqdm import tqdm

from emlib.errors import UserError
from emlib.volumes.ome_zarr import build_pyramid, create_array, open_array
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, Box, VolumeSource

BLOCK = (64, 512, 512)  # (z, y, x): 16 MiB of uint8, and whole blocks of BossDB
XYZ = tuple[int, int, int]


@dataclass(frozen=True)
class CopySettings:
    """What to copy of a volume, and into what.

    Attributes
    ----------
    cutout_xyz, offset_xyz : (X, Y, Z) in voxels, optional
        The box; by default all of it from the first voxel on.
    voxel_size_nm : (z, y, x) in nm, optional
        Wins over that of the volume.
    labels : bool
        Whether it holds ids.
    version : "0.5" or "0.4"
        Of OME-Zarr.
    """

    cutout_xyz: XYZ | None = None
    offset_xyz: XYZ | None = None
    voxel_size_nm: ZYX | None = None
    labels: bool = False
    version: str = "0.5"


@dataclass(frozen=True)
class Copied:
    """What a copy came to.

    Attributes
    ----------
    blocks : int
    kept : int
        Blocks that an earlier, interrupted copy had done.
    levels : list of (Z, Y, X)
    """

    blocks: int
    kept: int
    levels: list[tuple[int, int, int]]


def copy_to_zarr(
    source: VolumeSource, target: str | Path, settings: CopySettings = CopySettings(), *, quiet: bool = True
) -> Copied:
    """Copy a volume, or a box of it, into an OME-Zarr image with its coarser levels.

    Parameters
    ----------
    source : VolumeSource
    target : path
        Ends in ``.zarr``. A store that is there already is not replaced.
    settings : CopySettings
    quiet : bool
        False shows a progress bar on a terminal.

    Raises
    ------
    UserError
        If the target is there, the box lies outside, a block cannot be read or written, or what an earlier copy left
        is of another volume. What is done stays done: the same command goes on.
    """
    target = Path(target)
    if target.suffix != ".zarr":
        raise UserError(f"--zarr {target} does not end in .zarr; name it so that other programs know what it is")
    if target.exists():
        raise UserError(f"{target} is there already; move it away, or name another place")
    first, shape = _box(source, settings)
    partial = target.with_name(f".{target.name}.partial")
    store, done = partial / "volume.zarr", partial / "done"
    try:
        finished = _begin(source, partial, store, first, shape, settings)
        blocks = list(_blocks(shape))
        hidden = quiet or not sys.stderr.isatty()
        with done.open("a", encoding="utf-8") as marks:
            for block in tqdm(
                [b for b in blocks if _name(b) not in finished], disable=hidden, leave=False, unit="block"
            ):
                part = source.read(tuple(slice(s.start + f, s.stop + f) for s, f in zip(block, first, strict=True)))
                open_array(store, mode="r+")[block] = part
                marks.write(f"{_name(block)}\n")
                marks.flush()
        levels = build_pyramid(store, "mode" if settings.labels else "mean")
        _name_image(store, target.stem)
        os.replace(store, target)
        shutil.rmtree(partial)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; free space there and run the same command again"
        ) from error
    return Copied(len(blocks), len(finished), levels)


def _box(source: VolumeSource, settings: CopySettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First voxel and shape of what is copied, (z, y, x)."""
    first = tuple(reversed(settings.offset_xyz or (0, 0, 0)))
    shape = tuple(reversed(settings.cutout_xyz or ())) or tuple(n - f for n, f in zip(source.shape, first, strict=True))
    inside = all(f >= 0 and n > 0 and f + n <= m for f, n, m in zip(first, shape, source.shape, strict=True))
    if not inside:
        told = " ".join(map(str, reversed(source.shape)))
        raise UserError(f"{source.uri}: the box lies outside of the volume of {told} voxels (x y z); change --cutout")
    return first, shape


def _begin(
    source: VolumeSource, partial: Path, store: Path, first: tuple, shape: tuple, settings: CopySettings
) -> set[str]:
    """Make the store, or find that of an interrupted copy; return the names of the blocks that it has."""
    about = {"source": source.uri, "shape": list(shape), "dtype": str(source.dtype), "first": list(first)}
    about = json.loads(json.dumps(about | asdict(settings) | {"resolution": source.notes.get("resolution")}))
    record = partial / "copy.json"
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != about:
            raise UserError(f"{partial} was left by the copy of something else; delete it, or finish that copy first")
        done = partial / "done"
        lines = done.read_text(encoding="utf-8").split("\n")[:-1] if done.is_file() else []
        return set(lines)  # the last line counts once it has its end
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    size = voxel_size(settings.voxel_size_nm or source.voxel_size_nm)
    origin = source.notes.get("frame_origin") or source.notes.get("voxel_offset") or (0, 0, 0)
    place = [(o + f) * s for o, f, s in zip(origin, first, size or (0, 0, 0), strict=True)]
    create_array(store, shape, source.dtype, voxel_size_nm=size, translation_nm=place, version=settings.version)
    record.write_text(json.dumps(about, indent=1), encoding="utf-8")
    return set()


def _blocks(shape: tuple[int, ...]) -> Iterator[Box]:
    for corner in product(*(range(0, length, step) for length, step in zip(shape, BLOCK, strict=True))):
        yield tuple(slice(a, min(a + step, n)) for a, step, n in zip(corner, BLOCK, shape, strict=True))


def _name(block: Box) -> str:
    return "_".join(f"{part.start}-{part.stop}" for part in block)


def _name_image(store: Path, name: str) -> None:
    """Call the image as its file is called."""
    import zarr

    from emlib.volumes.ome_zarr.metadata import read_ome, write_ome

    group = zarr.open_group(str(store), mode="r+")
    write_ome(group, {"multiscales": [image | {"name": name} for image in read_ome(group.attrs)["multiscales"]]})
