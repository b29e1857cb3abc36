"""Grey values of any numeric type as uint8."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.threads import map_threads

PERCENTILES = (0.05, 99.95)


def to_uint8(
    array: np.ndarray, where: str = "the volume", offset: tuple[int, int, int] = (0, 0, 0)
) -> tuple[np.ndarray, dict[str, Any]]:
    """Bring grey values to uint8 by a stated rule.

    - uint8 passes unchanged, byte for byte;
    - int8 (mode 0 of MRC) is shifted by 128;
    - bool becomes 0 and 255;
    - wider integers and floats are rescaled linearly so that the percentiles 0.05 and 99.95 of this very array become
      0 and 255, clipped and rounded. Where the two percentiles are equal, minimum and maximum are taken instead.

    Parameters
    ----------
    array : (Z, Y, X) array
    where : str
        What to call the array in an error.
    offset : (z, y, x)
        Added to positions in an error, so that they are those of the source.

    Returns
    -------
    grey : (Z, Y, X) uint8 array
    record : dict of JSON values
        ``rule``; for a rescaling also ``black`` and ``white``, the values that became 0 and 255.

    Raises
    ------
    UserError
        If there are NaN or infinite values, or the type has no order (complex, objects).

    Examples
    --------
    >>> to_uint8(np.array([[[-128, 0, 127]]], dtype=np.int8))[0]
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    if array.dtype == np.uint8:
        return array, {"rule": "uint8, unchanged"}
    if array.dtype == np.int8:
        return array.view(np.uint8) ^ 0x80, {"rule": "int8 + 128"}
    if array.dtype == bool:
        return array * np.uint8(255), {"rule": "false 0, true 255"}
    if array.dtype.kind not in "iuf":
        raise UserError(f"{where} holds {array.dtype}, which are no grey values; convert it to 8-bit or 16-bit")
    if array.dtype.kind == "f":
        _refuse_nonfinite(array, where, offset)
    if array.dtype == np.float16:  # percentiles of float16 overflow
        array = array.astype(np.float32)
    with np.errstate(all="ignore"):  # what overflows is refused below
        black, white = (float(value) for value in np.percentile(array, PERCENTILES))
    rule = f"linear, percentiles {PERCENTILES[0]} and {PERCENTILES[1]} to 0 and 255"
    if not white > black:
        black, white, rule = float(array.min()), float(array.max()), "linear, minimum and maximum to 0 and 255"
    gain = 255 / (white - black) if white != black else 1.0
    if not 0 < gain < math.inf:
        raise UserError(f"{where} holds values from {black:g} to {white:g}, which no microscope gives; export it again")

    def rescale(section: np.ndarray) -> np.ndarray:
        return np.rint((np.clip(section.astype(np.float64), black, white) - black) * gain).astype(np.uint8)

    grey = np.stack(map_threads(rescale, array)) if len(array) else array.astype(np.uint8)
    return grey, {"rule": rule, "black": black, "white": white}


def _refuse_nonfinite(array: np.ndarray, where: str, offset: tuple[int, int, int]) -> None:
    count, first = 0, None
    for z, section in enumerate(array):
        bad = ~np.isfinite(section)
        if bad.any():
            count += int(bad.sum())
            first = first or (z, *(int(i) for i in np.argwhere(bad)[0]))
    if first is not None:
        z, y, x = (int(a + b) for a, b in zip(first, offset, strict=True))
        raise UserError(
            f"{where} holds {count} NaN or infinite voxels, the first at z={z}, y={y}, x={x}; replace or crop them"
        )
