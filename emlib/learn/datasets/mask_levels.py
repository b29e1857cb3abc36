"""From which stored value on a mask is foreground: one rule for all sections of an organelle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from emlib.errors import UserError
from emlib.evaluation.mask_inputs import to_mask


class Foreground(NamedTuple):
    """How the masks of an organelle are read.

    Attributes
    ----------
    lowest : float
        Stored values from this on are foreground; infinite where nothing is.
    binary : bool
        Whether the masks hold no more than 0 and one other value.
    """

    lowest: float
    binary: bool


def levels(mask: np.ndarray) -> np.ndarray:
    """Return the distinct values of an integer mask, rising; of floats the least and the largest (NaN if there is any).

    Examples
    --------
    >>> levels(np.array([[0, 255], [3, 0]], np.uint8)).tolist()
    [0, 3, 255]
    """
    if mask.dtype.kind == "f":
        return np.array([mask.min(), mask.max()])
    if mask.dtype.kind == "u" and mask.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(mask.ravel())).astype(mask.dtype)
    return np.unique(mask)


def foreground(found: Sequence[np.ndarray], where: str, sections: Sequence[str]) -> Foreground:
    """Apply the rule of `emlib.evaluation.mask_inputs.to_mask` to the values of all sections together.

    Parameters
    ----------
    found : arrays as from `levels`, one per section
    where : str
        Their folder, for errors.
    sections : names of the sections

    Raises
    ------
    UserError
        If the sections differ in type, or hold what is no mask: NaN, negative numbers, nothing in the upper half of
        the range.

    Examples
    --------
    >>> foreground([np.array([0, 255], np.uint8), np.array([0, 90, 200], np.uint8)], "masks", ["00", "01"])
    Foreground(lowest=200.0, binary=False)
    """
    if not found:
        return Foreground(np.inf, True)
    for name, values in zip(sections, found, strict=True):
        if values.dtype != found[0].dtype:
            raise UserError(
                f"{where}: section {sections[0]} is {found[0].dtype}, section {name} {values.dtype}; convert them alike"
            )
    longest = max(map(len, found))
    stack = np.stack([np.pad(values, (0, longest - len(values)), mode="edge") for values in found])[:, None]
    mask, note = to_mask(stack, where, sections)
    if note:
        raise UserError(f"{note}; give masks of 0 and 1 or of 0 and 255")
    binary = len(np.unique(stack[stack != 0])) <= 1
    return Foreground(float(stack[mask].min()) if mask.any() else np.inf, binary)
