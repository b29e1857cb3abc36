"""The description and the chunks of a volume in Neuroglancer's precomputed format, for a server or for files."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from emlib.volumes.levels import Levels
from emlib.volumes.volume import Box

CHUNK = 64
CHUNK_NAME = re.compile(r"(\d+)-(\d+)_(\d+)-(\d+)_(\d+)-(\d+)")


def volume_info(levels: Levels, kind: str, mesh: str | None = None) -> dict[str, Any]:
    """Return what ``info`` says of a volume whose chunks are raw.

    Parameters
    ----------
    levels : Levels
    kind : "image" or "segmentation"
    mesh : str, optional
        Folder of the meshes, relative to the volume.
    """
    scales = [
        {
            "key": str(number),
            "size": list(reversed(level.shape)),
            "resolution": [float(size) for size in reversed(levels.size_nm(number))],
            "voxel_offset": [0, 0, 0],
            "chunk_sizes": [[min(CHUNK, length) for length in reversed(level.shape)]],
            "encoding": "raw",
        }
        for number, level in enumerate(levels.levels)
    ]
    info = {"@type": "neuroglancer_multiscale_volume", "type": kind, "data_type": str(levels.dtype)}
    return info | {"num_channels": 1, "scales": scales, **({"mesh": mesh} if mesh else {})}


def chunk_box(name: str, shape: tuple[int, int, int]) -> Box | None:
    """Return the box (z, y, x) that the name of a chunk stands for; None if it is none of a level of this shape.

    Examples
    --------
    >>> chunk_box("0-64_64-100_0-8", (8, 100, 200))
    (slice(0, 8, None), slice(64, 100, None), slice(0, 64, None))
    """
    named = CHUNK_NAME.fullmatch(name)
    if named is None:
        return None
    x0, x1, y0, y1, z0, z1 = map(int, named.groups())
    box = (slice(z0, z1), slice(y0, y1), slice(x0, x1))
    fits = all(0 <= p.start < p.stop <= n and p.stop - p.start <= CHUNK for p, n in zip(box, shape, strict=True))
    return box if fits else None


def encode_chunk(block: np.ndarray) -> bytes:
    """Return a (z, y, x) block as a raw chunk: x varies fastest, little-endian."""
    return np.ascontiguousarray(block, block.dtype.newbyteorder("<")).tobytes()
