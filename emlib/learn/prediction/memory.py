"""How much memory a prediction takes, and the largest tiles and blocks that stay below a limit.

1. A small image goes through the network once while the bytes of all tensors that are alive are counted; their peak
   over the pixels is what a pixel of a tile costs. Libraries take work space besides, for which `WORK_SPACE` allows.
2. The limit less what Python and its libraries take (`PROGRAM`) is shared out: up to `TILE_SHARE` to one tile, the rest
   to the arrays of a block: its grey values, probabilities and masks.

All of it is counted, not looked up on the running system, so that equal commands choose equal tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from weakref import finalize

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emlib.errors import UserError
from emlib.learn.tiles import GRID, MARGIN

GB = 10**9
PROGRAM = 650 * 10**6  # bytes: Python, PyTorch and what else is imported, measured on Linux
WORK_SPACE = 1.6  # convolutions reorder their input: measured peak over counted one was 1.0 to 1.5
TILE_SHARE = 0.6
LARGEST_TILE = 1024  # larger ones gain no speed
SMALLEST_TILE = 128
PROBE = 256  # side of the image that is measured


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Attributes
    ----------
    tile, overlap : int
        In pixels of what the network sees, for `emlib.learn.inference.TileSettings`.
    room : int
        Bytes that the arrays of a block may take, its margin included.
    """

    tile: int
    overlap: int
    room: int


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all results that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._seen:
            return
        self._seen.add(address)
        self.now += size

        def forget() -> None:
            self._seen.discard(address)
            self.now -= size

        finalize(storage, forget)


def measure_bytes_per_pixel(network: nn.Module, side: int = PROBE, channels: int = 1) -> float:
    """Run a network on a blank image and return the peak of bytes per pixel that its tensors take.

    Parameters
    ----------
    network : nn.Module
        From (B, C, Y, X) to logits. Parameters are not counted: they do not grow with the tile.
    side : int
        Of the image in pixels.
    channels : int
        Of the image.

    Examples
    --------
    >>> measure_bytes_per_pixel(nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1)))  # 1, 8 and 2 channels of float32
    44.0
    """
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    trains = network.training
    network.eval()
    # what takes part from the first is not made by an operation in the block, the image itself is
    with torch.no_grad(), _LiveBytes() as counted:
        image = torch.zeros(1, channels, side, side, device=device)
        network(image)
    network.train(trains)
    return counted.peak / side**2


def tile_bytes_per_pixel(bytes_per_pixel: float, channels: int, batch: int = 1, tta: bool = False) -> float:
    """Return the bytes that a pixel of a tile takes on its way through a network, work space and results included.

    Examples
    --------
    >>> tile_bytes_per_pixel(1500, 4)
    2416.0
    """
    return batch * (WORK_SPACE * bytes_per_pixel + 4 * channels * (4 if tta else 1))


def plan_memory(
    memory_gb: float,
    bytes_per_pixel: float,
    channels: int,
    *,
    batch: int = 1,
    tile: int | None = None,
    overlap: int | None = None,
    tta: bool = False,
) -> MemoryPlan:
    """Choose the tile, and what is left for a block.

    Parameters
    ----------
    memory_gb : float
        Limit of the whole program, in 10⁹ bytes.
    bytes_per_pixel : float
        Of the network, see `measure_bytes_per_pixel`.
    channels : int
        That the network gives.
    batch : int
        Tiles at once.
    tile, overlap : int, optional
        The user's, which are taken as they are.
    tta : bool

    Raises
    ------
    UserError
        If not even the smallest tile fits.

    Examples
    --------
    >>> plan_memory(4, 1500, 4)
    MemoryPlan(tile=832, overlap=192, room=1410396544)
    """
    room = memory_gb * GB - PROGRAM
    pixel = tile_bytes_per_pixel(bytes_per_pixel, channels, batch, tta)
    fits = isqrt(max(0, int(TILE_SHARE * room / pixel))) // GRID * GRID - 2 * MARGIN
    if tile is None and fits < SMALLEST_TILE:
        least = (pixel * (SMALLEST_TILE + 2 * MARGIN) ** 2 / TILE_SHARE + PROGRAM) / GB
        raise UserError(f"--memory_gb {memory_gb:g} is too little for this model, which takes {least:.2g} at the least")
    side = min(LARGEST_TILE, fits) if tile is None else tile
    edge = min(192, side // 2 // GRID * GRID) if overlap is None else overlap
    return MemoryPlan(side, edge, max(0, int(room - pixel * (side + 2 * MARGIN) ** 2)))
