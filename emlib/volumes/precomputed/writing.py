"""Write a precomputed volume with its coarser scales, block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.levels import Levels
from emlib.volumes.precomputed.address import REMOTE, asking, find_place, library
from emlib.volumes.volume import Box

CHUNK = 64
BLOCK = 4 * CHUNK  # voxels along each side that are read and written together
SEGMENT_BLOCK = 8  # of compressed_segmentation, which its description recommends
ENCODINGS = ("raw", "compressed_segmentation")
STORED = {"bool": "uint8", "int32": "uint32", "int64": "uint64", "float16": "float32", "float64": "float32"}


def write_precomputed(
    path: str | Path,
    levels: Levels,
    kind: str,
    *,
    voxel_offset: tuple[int, int, int] = (0, 0, 0),
    encoding: str = "raw",
    extra: dict[str, Any] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[tuple[int, int, int]]:
    """Write a volume and its coarser levels as a precomputed volume; one that stood in the folder is replaced.

    Parameters
    ----------
    path : path
        A folder, which appears whole or not at all; or an address of ``s3://`` or ``gs://``.
    levels : Levels
    kind : "image" or "segmentation"
    voxel_offset : (z, y, x) in voxels
        Where the first voxel lies in the data set. Coarser levels lie on whole coarse voxels of the data set: those
        whose factors do not divide the offset are left out.
    encoding : "raw" or "compressed_segmentation"
        The latter for ids, as uint32 or uint64.
    extra : dict, optional
        More entries of ``info``, such as ``mesh``.
    tick : function
        Called after each block.

    Returns
    -------
    list of (Z, Y, X)
        The shapes that were written, finest first.

    Raises
    ------
    UserError
        If the encoding does not fit, the folder holds something else, or cannot be written.
    """
    ts = library()
    dtype = np.dtype(STORED.get(str(levels.dtype), levels.dtype))
    if encoding not in ENCODINGS or (encoding != "raw" and (kind, dtype.kind) != ("segmentation", "u")):
        raise UserError(f"{path}: {kind} of {dtype} cannot be encoded as {encoding}; take {' or '.join(ENCODINGS)}")
    how = partial(_write, ts, levels=levels, first=voxel_offset, dtype=dtype, kind=kind, encoding=encoding, tick=tick)
    if str(path).startswith(REMOTE):
        return how(str(path), extra=extra or {}, said=path)
    path = Path(path)
    if path.exists() and not (path / "info").is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there and no precomputed volume; move it away, or name another folder")
    with atomic_path(path) as temporary:
        return how(str(temporary), extra=extra or {}, said=path)


def _write(
    ts: Any,
    target: str,
    *,
    levels: Levels,
    first: tuple[int, int, int],
    dtype: np.dtype,
    kind: str,
    encoding: str,
    extra: dict[str, Any],
    said: str | Path,
    tick: Callable[[], None],
) -> list[tuple[int, int, int]]:
    """Write all levels to ``target``, which messages call ``said``."""
    place, context, written = find_place(target), asking(), []
    try:
        for number, level in enumerate(levels.levels):
            if any(start % factor for start, factor in zip(first, level.total, strict=True)):
                continue
            start = tuple(start // factor for start, factor in zip(first, level.total, strict=True))
            spec = _spec(place, level.shape, levels.size_nm(number), start, dtype, kind, encoding)
            array = ts.open(spec, context=context, create=True, open=True).result()
            for box in _boxes(level.shape):
                block = levels.read(number, box).astype(dtype, copy=False)
                at = tuple(slice(p.start + f, p.stop + f) for p, f in zip(reversed(box), reversed(start), strict=True))
                array[(*at, 0)].write(block.T).result()
                tick()
            written.append(level.shape)
        if extra:
            store = ts.KvStore.open(place, context=context).result()
            info = json.loads(store.read("info").result().value)
            store.write("info", json.dumps(info | extra).encode()).result()
    except (ValueError, NotImplementedError) as error:  # as TensorStore raises
        told = str(error).splitlines()[0].split("[tensorstore_spec")[0][:200]
        raise UserError(f"cannot write {said}: {told}; free space there or choose another place") from error
    return written


def _spec(
    place: str,
    shape: tuple[int, ...],
    size_nm: tuple[float, ...],
    first: tuple[int, ...],
    dtype: np.dtype,
    kind: str,
    encoding: str,
) -> dict[str, Any]:
    """How a scale is made, in the words of TensorStore: x before y before z."""
    scale: dict[str, Any] = {
        "size": list(reversed(shape)),
        "resolution": list(reversed(size_nm)),
        "voxel_offset": list(reversed(first)),
        "chunk_size": [min(CHUNK, length) for length in reversed(shape)],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [SEGMENT_BLOCK] * 3
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": place,
        "multiscale_metadata": {"type": kind, "data_type": str(dtype), "num_channels": 1},
        "scale_metadata": scale,
        "store_data_equal_to_fill_value": True,  # so that a chunk that is not there is known to be lost
    }


def _boxes(shape: tuple[int, ...]) -> Iterator[Box]:
    for corner in product(*(range(0, length, BLOCK) for length in shape)):
        yield tuple(slice(a, min(a + BLOCK, n)) for a, n in zip(corner, shape, strict=True))
