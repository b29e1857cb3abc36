"""Cutouts as they come over the wire: read no further than they can be long, and unpacked only to their due size.

The Boss offers ``application/npygz`` beside blosc, and small servers of the same interface may send nothing else; the
client reads blosc alone. Such an answer is repacked before the client sees it.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

GZIP, NPY = b"\x1f\x8b", b"\x93NUMPY"
RANGES = re.compile(r"/cutout/.*?/(\d+):(\d+)/(\d+):(\d+)/(\d+):(\d+)/")  # x, y, z
HEADER_BYTES = 4096  # of an NPY file at most
BLOSC_HEADER = 16  # bytes, of which 4 to 8 hold the unpacked size (c-blosc, README_CHUNK_FORMAT.rst)
OVERHEAD = 2**16  # what packing may add to voxels that do not get smaller
CHUNK = 2**20


def check_cutout(dtype: np.dtype) -> Callable[..., Any]:
    """Return a hook for `requests` that checks a cutout before the client unpacks it; other answers pass as they are.

    Parameters
    ----------
    dtype : numpy dtype
        What the channel holds.

    Notes
    -----
    What is longer than the cutout can be, would unpack to another size, or is an NPY file of another shape or dtype
    raises ``ValueError``; big-endian NPY files are turned. Nothing is unpickled, and no more is held in memory than the
    cutout takes: a few kB can be packed so that they unpack to GiB, by the server or by the connection.
    """

    def hook(response: Any, **options: Any) -> Any:
        ranges = RANGES.search(response.request.url)
        if response.status_code != 200 or ranges is None:
            return response
        import blosc

        x0, x1, y0, y1, z0, z1 = map(int, ranges.groups())
        shape = (z1 - z0, y1 - y0, x1 - x0)
        due = int(np.prod(shape)) * dtype.itemsize
        content = _received(response, due + due // 64 + OVERHEAD)
        if content.startswith((GZIP, NPY)):
            content = blosc.compress(_load(content, shape, dtype).tobytes(), typesize=dtype.itemsize)
        elif (size := int.from_bytes(content[4:8], "little")) != due or len(content) < BLOSC_HEADER:
            raise ValueError(f"a cutout that unpacks to {size} bytes where {due} were due")
        response._content = content
        return response

    return hook


def _received(response: Any, limit: int) -> bytes:
    """The body of an answer, once the connection's own packing is undone."""
    parts, length = [], 0
    for part in response.iter_content(CHUNK):
        parts.append(part)
        length += len(part)
        if length > limit:
            response.close()
            raise ValueError(f"an answer of more than {limit} bytes, which the cutout cannot have")
    return b"".join(parts)


def _load(content: bytes, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    limit = int(np.prod(shape)) * dtype.itemsize + HEADER_BYTES
    if content.startswith(GZIP):
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, limit)
        except zlib.error as error:
            raise ValueError(f"the gzipped cutout is damaged: {error}") from error
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (EOFError, OSError) as error:
        raise ValueError(f"the NPY cutout is damaged: {error}") from error
    while array.ndim > 3 and array.shape[0] == 1:  # the time
        array = array[0]
    if array.shape != shape or array.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"a cutout of {array.shape} {array.dtype} where {shape} {dtype} was due")
    return array.astype(dtype, copy=False)
