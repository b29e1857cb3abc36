"""Cutouts that a server sends as NPY, plain or gzipped, in place of blosc.

The Boss offers ``application/npygz`` beside blosc, and small servers of the same interface may send nothing else; the
client reads blosc alone. The answer is repacked before the client sees it.
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


def repack_npy(dtype: np.dtype) -> Callable[..., Any]:
    """Return a hook for `requests` that turns an NPY cutout into a blosc one; any other answer passes as it is.

    Parameters
    ----------
    dtype : numpy dtype
        What the channel holds.

    Notes
    -----
    What is no NPY after all, or has another shape or dtype than was asked for, raises ``ValueError``. Nothing is
    unpickled, and no more is unpacked than the cutout takes.
    """

    def hook(response: Any, **options: Any) -> Any:
        ranges = RANGES.search(response.request.url)
        if response.status_code != 200 or ranges is None or not response.content.startswith((GZIP, NPY)):
            return response
        import blosc

        x0, x1, y0, y1, z0, z1 = map(int, ranges.groups())
        array = _load(response.content, (z1 - z0, y1 - y0, x1 - x0), dtype)
        response._content = blosc.compress(array.tobytes(), typesize=dtype.itemsize)
        return response

    return hook


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
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"a cutout of {array.shape} {array.dtype} where {shape} {dtype} was due")
    return array
