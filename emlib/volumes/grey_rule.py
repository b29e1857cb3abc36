"""How grey values become uint8, found from a volume that is counted piece by piece and never held whole.

`emlib.volumes.grey.to_uint8` says the rule; here black and white come from counts of digits, which add up over pieces
in any order, and are those of the whole to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.grey import PERCENTILES, to_uint8

DIGIT = 16  # bits that are counted at once

# Takes a shift and the leading digits that matter; returns (len(leading), 65536) counts of the digit at the shift over
# all voxels, see `count_digits`, and how many voxels are no finite numbers.
CountPass = Callable[[int, Sequence[int]], tuple[np.ndarray, int]]


def grey_rule(
    dtype: np.dtype, count: int, count_pass: CountPass, where: str, advice: str
) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """Find how grey values of a type become uint8.

    Parameters
    ----------
    dtype : numpy dtype of the voxels
    count : int
        Of the voxels.
    count_pass : CountPass
        Called once for every 16 bits of a wide type, for 8 bits never.
    where, advice : str
        What to call the volume in an error, and what to do about it.

    Returns
    -------
    record : dict of JSON values
        As from `emlib.volumes.grey.to_uint8`.
    ends : (black, white), or None where values are not rescaled

    Raises
    ------
    UserError
        If the type holds no grey, there are NaN or infinite values, or all values are equal.

    Examples
    --------
    >>> values = np.arange(2001, dtype=np.uint16)
    >>> record, ends = grey_rule(values.dtype, values.size, lambda *at: count_digits(values[None], *at), "em", "")
    >>> ends, int(rescale(values[None], ends)[0, 1000])
    ((1.0, 1999.0), 128)
    """
    if dtype in (np.uint8, np.int8, bool):
        return to_uint8(np.zeros((1, 1, 1), dtype), where)[1], None
    if dtype.kind not in "iuf":
        raise UserError(f"{where} holds {dtype}, which are no grey values; convert it to 8-bit or 16-bit")
    places = [share / 100 * (count - 1) for share in PERCENTILES]
    ranks = [min(int(place) + more, count - 1) for place in places for more in (0, 1)]
    values = _ranked(dtype, count_pass, [*ranks, 0, count - 1], where)
    wide = np.float32 if dtype == np.float16 else dtype  # as to_uint8 takes percentiles
    black, white = (
        float(np.quantile(values[2 * k : 2 * k + 2].astype(wide), np.array([place - int(place)]))[0])
        for k, place in enumerate(places)
    )
    rule = f"linear, percentiles {PERCENTILES[0]} and {PERCENTILES[1]} to 0 and 255"
    if not white > black:
        black, white, rule = float(values[4]), float(values[5]), "linear, minimum and maximum to 0 and 255"
    if not white > black:
        raise UserError(f"{where} holds a single grey value {black:g}{advice}")
    return {"rule": rule, "black": black, "white": white}, (black, white)


def rescale(voxels: np.ndarray, ends: Sequence[float] | None, where: str = "the volume") -> np.ndarray:
    """Return grey values as uint8 by a rule that was found.

    Parameters
    ----------
    voxels : (Z, Y, X) array
    ends : (black, white), or None where values are not rescaled
    where : str
    """
    if ends is None:
        return to_uint8(voxels, where)[0]
    black, white = ends
    wide = np.clip(voxels.astype(np.float64), black, white)
    return np.rint((wide - black) * (255 / (white - black))).astype(np.uint8)


def count_digits(voxels: np.ndarray, shift: int, leading: Sequence[int]) -> tuple[np.ndarray, int]:
    """Count the digit of 16 bits at a shift among the voxels that begin with each of the leading digits.

    Parameters
    ----------
    voxels : (Z, Y, X) array of a type wider than 8 bits
    shift : int
        In bits, a multiple of 16.
    leading : sequence of int
        What stands before the digit; of the first digit nothing, ``[0]``.

    Returns
    -------
    counts : (len(leading), 65536) int64 array
    bad : int
        Voxels that are NaN or infinite.
    """
    kind = _key_type(voxels.dtype)
    top = 8 * kind.itemsize - DIGIT == shift
    counts, bad = np.zeros((len(leading), 1 << DIGIT), np.int64), 0
    for section in voxels:
        if section.dtype.kind == "f":
            bad += int((~np.isfinite(section)).sum())
        keys = _keys(section, kind).ravel()
        for row, prefix in enumerate(leading):
            own = keys if top else keys[keys >> kind.type(shift + DIGIT) == kind.type(prefix)]
            digits = (own >> kind.type(shift)) & kind.type((1 << DIGIT) - 1)
            counts[row] += np.bincount(digits.astype(np.int64), minlength=1 << DIGIT)
    return counts, bad


def _ranked(dtype: np.dtype, count_pass: CountPass, ranks: Sequence[int], where: str) -> np.ndarray:
    """The values of these ranks (0 is the lowest) among all voxels."""
    kind = _key_type(dtype)
    known = [(0, rank) for rank in ranks]  # leading digits so far, and the rank among those that share them
    for shift in range(8 * kind.itemsize - DIGIT, -1, -DIGIT):
        leading = sorted({prefix for prefix, _ in known})
        counts, bad = count_pass(shift, leading)
        if bad:
            raise UserError(f"{where} holds {bad} NaN or infinite voxels; replace or crop them")
        total = np.cumsum(counts, axis=1)
        further = []
        for prefix, rank in known:
            row = total[leading.index(prefix)]
            digit = int(np.searchsorted(row, rank, side="right"))
            further.append((prefix << DIGIT | digit, rank - (int(row[digit - 1]) if digit else 0)))
        known = further
    return _values(np.array([key for key, _ in known], kind), kind, dtype)


def _key_type(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{max(dtype.itemsize, 2)}")


def _keys(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Unsigned numbers in the order of the values."""
    sign = kind.type(1 << (8 * kind.itemsize - 1))
    if values.dtype.kind == "f":
        raw = np.ascontiguousarray(values).view(kind)
        return np.where(raw & sign, ~raw, raw | sign)
    if values.dtype.kind == "i":
        return values.astype(f"i{kind.itemsize}").view(kind) ^ sign
    return values.astype(kind)


def _values(keys: np.ndarray, kind: np.dtype, dtype: np.dtype) -> np.ndarray:
    """The values of such numbers."""
    sign = kind.type(1 << (8 * kind.itemsize - 1))
    if dtype.kind == "f":
        return np.where(keys & sign, keys & ~sign, ~keys).view(dtype)
    if dtype.kind == "i":
        return (keys ^ sign).view(f"i{kind.itemsize}")
    return keys
