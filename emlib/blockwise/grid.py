"""Blocks of a volume, and what a block has to see around itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from emlib.volumes.volume import Box

Shape = tuple[int, int, int]
# Filters work on so many rows and so many voxels of a row at once (z, y, x); what is left over is rounded otherwise.
STEPS = (1, 16, 32)


def lay(shape: Sequence[int], size: Sequence[int]) -> list[Box]:
    """Cut a volume into blocks, in the order of the array; the last ones of each axis may be smaller.

    Examples
    --------
    >>> [name(box) for box in lay((4, 6, 5), (4, 4, 5))]
    ['z0-4_y0-4_x0-5', 'z0-4_y4-6_x0-5']
    """
    starts = [range(0, length, side) for length, side in zip(shape, size, strict=True)]
    return [
        tuple(slice(first, min(first + side, length)) for first, side, length in zip(corner, size, shape, strict=True))
        for corner in product(*starts)
    ]


def name(box: Box) -> str:
    """Name of a block, as messages and files have it."""
    return "_".join(f"{axis}{side.start}-{side.stop}" for axis, side in zip("zyx", box, strict=True))


def sides(box: Box) -> Shape:
    """Size of a block (z, y, x)."""
    z, y, x = (side.stop - side.start for side in box)
    return z, y, x


def around(box: Box, reach: Sequence[int], shape: Sequence[int]) -> tuple[Box, Box]:
    """What a block sees so that a filter gives the very bits that it gives on the whole volume.

    Parameters
    ----------
    box : three slices
    reach : (z, y, x)
        Voxels that the filter looks at on either side.
    shape : (Z, Y, X)

    Returns
    -------
    outer : three slices
        The block with its margin. Along y and x it begins where the filters' steps through the whole volume do, and
        ends a step later than it must.
    inner : three slices
        Where the block lies in ``outer``.
    """
    outer = []
    for side, far, length, step in zip(box, reach, shape, STEPS, strict=True):
        if not far:
            outer.append(side)
            continue
        first = max(0, side.start - far) // step * step
        outer.append(slice(first, min(length, side.stop + far + step)))
    return tuple(outer), within(box, outer)


def within(box: Box, outer: Sequence[slice]) -> Box:
    """Where a block lies in a larger one."""
    z, y, x = (slice(side.start - o.start, side.stop - o.start) for side, o in zip(box, outer, strict=True))
    return z, y, x


def overlapping(box: Box, shape: Sequence[int], size: Sequence[int]) -> Iterator[Box]:
    """The blocks of a grid that share voxels with a box.

    Examples
    --------
    >>> [name(b) for b in overlapping((slice(0, 1), slice(3, 5), slice(0, 2)), (4, 6, 5), (4, 4, 5))]
    ['z0-4_y0-4_x0-5', 'z0-4_y4-6_x0-5']
    """
    first = [range(side.start // n, -(-side.stop // n)) for side, n in zip(box, size, strict=True)]
    for corner in product(*first):
        yield tuple(slice(i * n, min((i + 1) * n, length)) for i, n, length in zip(corner, size, shape, strict=True))


def part_of(length: int, most: int) -> int:
    """The largest whole part of a length that is no more than ``most``; the length itself where none is near that.

    Examples
    --------
    >>> part_of(512, 128), part_of(100, 128), part_of(192, 128), part_of(127, 64)
    (128, 100, 96, 127)
    """
    if length <= most:
        return length
    parts = [n for n in range(1, most + 1) if length % n == 0]
    return parts[-1] if parts[-1] * 4 > most else length
