"""What it costs to read patches from a file: refused where it cannot be done in parts, told where it is slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from emlib.errors import UserError
from emlib.volumes.volume import VolumeSource

GB = 10**9
SLOW = 2**26  # voxels that are decoded for one patch: a quarter of a second


def check_pieces(
    source: VolumeSource,
    flag: str,
    axes: Sequence[int],
    patch: tuple[int, int, int],
    memory_gb: float,
    note: Callable[[str], None],
) -> None:
    """Look at how a file is read in parts, before a training reads thousands of them.

    Parameters
    ----------
    source : VolumeSource
        Its ``piece`` tells.
    flag : str
        That named the file.
    axes : sequence of int
        Along which patches are cut.
    patch : three int
        Sections, rows and columns of a patch.
    memory_gb : float
    note : callable
        Takes a warning where patches are read slowly.

    Raises
    ------
    UserError
        If a piece does not fit into memory.
    """
    if source.piece is None:
        return
    sides = " × ".join(map(str, source.piece))
    better = f"copy it with 'python fetch_data.py {source.uri} --zarr FILE.zarr' and give that as {flag}"
    needed = prod(source.piece) * source.dtype.itemsize / GB
    if needed > memory_gb:
        raise UserError(
            f"{source.uri} does not fit into --memory_gb {memory_gb:g} and can only be read in pieces of {sides} "
            f"voxels ({needed:.1f} GB); {better}"
        )
    most = max(decoded_for(source.piece, axis, patch, source.shape) for axis in axes)
    if most > SLOW:
        note(
            f"warning: {source.uri} is read in pieces of {sides} voxels, {most / 1e6:.0f} million for some patches, "
            f"which takes long; {better}"
        )


def decoded_for(
    piece: tuple[int, int, int], axis: int, patch: tuple[int, int, int], shape: tuple[int, int, int]
) -> int:
    """Return how many voxels are decoded for a patch along an axis, where it crosses pieces as often as on average.

    Examples
    --------
    >>> decoded_for((1, 1, 1), 0, (5, 128, 128), (500, 500, 500)) == 5 * 128 * 128
    True
    >>> decoded_for((1, 500, 500), 2, (5, 128, 128), (500, 500, 500))
    32000000
    """
    order = (axis, *(other for other in range(3) if other != axis))
    sides = dict(zip(order, patch, strict=True))
    return int(prod(min(piece[at] + sides[at] - 1, shape[at]) for at in range(3)))
