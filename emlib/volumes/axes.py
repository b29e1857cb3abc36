"""Which axes of a stored array are z, y and x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emlib.errors import UserError
from emlib.volumes.volume import Box


@dataclass(frozen=True)
class Axes:
    """Where z, y and x stand among the axes of a stored array; all other axes have length 1.

    Attributes
    ----------
    zyx : positions of z, y and x
    shape : (Z, Y, X)
    ndim : number of stored axes
    """

    zyx: tuple[int, int, int]
    shape: tuple[int, int, int]
    ndim: int

    def read(self, array, box: Box) -> np.ndarray:
        """Slice ``box`` (z, y, x) out of an array-like with the stored axes and return it as (z, y, x)."""
        index: list = [0] * self.ndim
        for position, part in zip(self.zyx, box, strict=True):
            index[position] = part
        part = np.asarray(array[tuple(index)])
        stored = sorted(self.zyx)
        return part.transpose([stored.index(position) for position in self.zyx])


def find_axes(shape: Sequence[int], names: Sequence[str] | None, where: str) -> Axes:
    """Find z, y and x in a stored shape.

    Parameters
    ----------
    shape : lengths of the stored axes
    names : one-letter names of the axes, or None if the file does not say
        Axes of length 1 other than z, y, x are dropped. Where there is no z, another long axis that is neither
        channel (c) nor sample (s) is taken for it: stacks are often saved as time series.
        Without names, axes of length 1 are dropped in front and behind until three are left.
    where : str
        What to call the array in an error.

    Raises
    ------
    UserError
        If the array is empty, a single image, or has channels, time points or too many axes.

    Examples
    --------
    >>> find_axes((1, 30, 1, 64, 48), "tzcyx", "a.tif").shape
    (30, 64, 48)
    """
    shape = tuple(int(length) for length in shape)
    if 0 in shape:
        raise UserError(f"{where} is empty: its shape is {shape}; export it again")
    if names is None:
        names = _guess_names(shape)
    names = [name.lower() for name in names]
    long = [i for i, name in enumerate(names) if name in "zyx" or shape[i] > 1]
    if "z" not in names and "y" in names and "x" in names:
        spare = [i for i in long if names[i] not in "yxcs"]
        if len(spare) == 1:
            names[spare[0]] = "z"
    kept = [names[i] for i in long]
    if sorted(kept) != ["x", "y", "z"]:
        raise UserError(_complaint(shape, kept, where))
    zyx = tuple(names.index(name) for name in "zyx")
    return Axes(zyx, tuple(shape[i] for i in zyx), len(shape))


def _guess_names(shape: tuple[int, ...]) -> list[str]:
    first, last = 0, len(shape)
    while last - first > 3 and shape[first] == 1:
        first += 1
    while last - first > 3 and shape[last - 1] == 1:
        last -= 1
    middle = {3: "zyx", 2: "yx"}.get(last - first, "?" * (last - first))
    return ["?"] * first + list(middle) + ["?"] * (len(shape) - last)


def _complaint(shape: tuple[int, ...], kept: list[str], where: str) -> str:
    if len(kept) < 3:
        size = " × ".join(str(length) for length in shape)
        return f"{where} is a single image ({size}); give a stack of sections, or the folder that holds them"
    return (
        f"{where} has shape {shape}: a volume has the three axes (z, y, x); export one channel and one time point of it"
    )
