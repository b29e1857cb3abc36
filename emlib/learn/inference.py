"""Whole sections through a network: tiles on a fixed grid, blended where they overlap.

1. The grid follows from the size of the section and the settings alone. All tiles of a section are of one size.
2. The section is mirrored at its lower and right border until the last tiles are full.
3. Each tile is predicted; with ``tta`` in all eight positions (four quarter turns, mirrored or not), and averaged.
4. Tiles are added with weights that sum to 1. Nearest to its edge, where a network sees the padding of the tile and not
   its neighbour, a tile weighs nothing; from there its weight rises as the square of a sine (Hann). So a network that
   looks no farther than 3/8 of the overlap gives what it would give on the whole section, and one that takes means over
   its input (squeeze and excitation) changes from tile to tile without a seam.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from emlib.errors import UserError
from emlib.learn.datasets.sections import Sections
from emlib.learn.normalisation import Normalisation
from emlib.learn.out_of_memory import OutOfMemory, memory_ran_out

GRID = 32  # tiles begin and end at its multiples, so that pooling falls on the same pixels in all of them


@dataclass(frozen=True)
class TileSettings:
    """How a section is cut into tiles.

    Attributes
    ----------
    tile : int
        Largest side of a tile in pixels, a multiple of 32. Memory grows with its square.
    overlap : int
        Of neighbouring tiles in pixels, a multiple of 32, at most half of ``tile``.
    batch_size : int
        Tiles at once on a GPU. A CPU gains nothing from more than one and takes one. The result is the same.
    tta : bool
        Average over eight rotations and reflections, at eight times the cost.
    precision : "32" or "bf16"
        bf16 pays where the processor computes in it; probabilities then carry two to three digits.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    tile: int = 1024
    overlap: int = 192
    batch_size: int = 4
    tta: bool = False
    precision: str = "32"

    def __post_init__(self) -> None:
        for name in ("tile", "overlap"):
            side = getattr(self, name)
            if side < GRID or side % GRID:
                raise ValueError(f"{name} must be a multiple of {GRID} pixels, got {side}")
        if 2 * self.overlap > self.tile:
            raise ValueError(f"overlap must be at most half of the tile of {self.tile} pixels, got {self.overlap}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.precision not in ("32", "bf16"):
            raise ValueError(f"precision is 32 or bf16, not {self.precision!r}")


def tile_grid(length: int, settings: TileSettings) -> tuple[np.ndarray, int]:
    """Lay tiles along an axis.

    Parameters
    ----------
    length : int
        Of the section, in pixels.
    settings : TileSettings

    Returns
    -------
    starts : (T,) int array
        First pixel of each tile; multiples of 32.
    side : int
        Of every tile: as short as the number of tiles allows. The last may end beyond the section.

    Examples
    --------
    >>> tile_grid(1024, TileSettings(tile=512, overlap=64))
    (array([  0, 320, 640]), 384)
    >>> tile_grid(100, TileSettings())
    (array([0]), 128)
    """
    if length <= settings.tile:
        return np.array([0]), _up(length)
    new = length - settings.overlap  # pixels that are shared out
    count = -(-new // (settings.tile - settings.overlap))
    step = _up(-(-new // count))
    return step * np.arange(count), step + settings.overlap


def tile_weights(starts: np.ndarray, side: int, overlap: int) -> np.ndarray:
    """Weigh the pixels of each tile along an axis, so that the weights at each pixel of the section sum to 1.

    Parameters
    ----------
    starts, side
        As from `tile_grid`.
    overlap : int
        In pixels.

    Returns
    -------
    (T, side) float32 array
        At an inner edge 0 for 3/8 of the overlap, then rising over a quarter of it; 1 elsewhere. At the border of the
        section, where there is no neighbour, 1.

    Examples
    --------
    >>> np.round(100 * tile_weights(np.array([0, 8]), 16, 8)).astype(int)
    array([[100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100,  85,  15,
              0,   0,   0],
           [  0,   0,   0,  15,  85, 100, 100, 100, 100, 100, 100, 100, 100,
            100, 100, 100]])
    """
    if len(starts) == 1:
        return np.ones((1, side), np.float32)
    flat = 3 * overlap // 8
    ramp = np.sin(np.pi / 2 * (np.arange(overlap - 2 * flat) + 0.5) / (overlap - 2 * flat)) ** 2
    rise = np.concatenate([np.zeros(flat), ramp])
    weights = np.ones((len(starts), side))
    weights[1:, : len(rise)] = rise
    weights[:-1, side - len(rise) :] = rise[::-1]
    total = np.zeros(starts[-1] + side)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + side] += weight
    return np.stack([w / total[s : s + side] for s, w in zip(starts, weights, strict=True)]).astype(np.float32)


def predict_section(
    model: nn.Module,
    image: np.ndarray,
    normalisation: Normalisation,
    settings: TileSettings = TileSettings(),
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Predict the probability of each organelle at each pixel of a section.

    Parameters
    ----------
    model : nn.Module
        From (B, 1, Y, X) to logits (B, E, Y, X). Moved to ``device``; whether it trains is as before afterwards.
    image : (Y, X) uint8, uint16 or float array
        Any size; see `Normalisation.apply`.
    normalisation : Normalisation
        That of the model's training.
    settings : TileSettings
    device : torch.device or str

    Returns
    -------
    (E, Y, X) float32 array in [0, 1]
        On a CPU the same bytes with any batch size; a GPU may choose another algorithm for another batch, which can
        change the last digits.

    Raises
    ------
    ValueError
        If the image is not two-dimensional or is empty.
    UserError
        If the model gives what is no number; an `OutOfMemory` if memory runs out.

    Examples
    --------
    >>> model = nn.Conv2d(1, 3, 3, padding=1)
    >>> predict_section(model, np.zeros((100, 75), np.uint8), Normalisation()).shape
    (3, 100, 75)
    """
    if image.ndim != 2 or not image.size:
        raise ValueError(f"a section is an array (Y, X) with pixels, not of shape {image.shape}")
    (rows, height), (columns, width) = (tile_grid(length, settings) for length in image.shape)
    end = rows[-1] + height, columns[-1] + width
    grey = np.pad(normalisation.apply(image), [(0, e - n) for e, n in zip(end, image.shape, strict=True)], "reflect")
    down, across = (tile_weights(*grid, settings.overlap) for grid in ((rows, height), (columns, width)))
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    tiles = (grey[rows[i] : rows[i] + height, columns[j] : columns[j] + width] for i, j in places)
    out = None
    for (i, j), found in zip(places, _predict_tiles(model, tiles, settings, torch.device(device)), strict=True):
        if out is None:
            out = np.zeros((len(found), *end), np.float32)
        box = np.s_[:, rows[i] : rows[i] + height, columns[j] : columns[j] + width]
        out[box] += found * (down[i][:, None] * across[j])
    out = out[:, : image.shape[0], : image.shape[1]]
    if not np.isfinite(out).all():
        raise UserError("the model gives what is no number (NaN or infinite); its training went wrong, use another one")
    return np.clip(out, 0, 1)  # also a contiguous copy without the mirrored rim


def predict_sections(
    model: nn.Module,
    sections: Sections,
    normalisation: Normalisation,
    settings: TileSettings = TileSettings(),
    device: torch.device | str = "cpu",
    *,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Yield `predict_section` of each section, in their order; with ``progress`` a bar if stderr is a terminal."""
    with tqdm(range(len(sections)), desc="predict", unit="section", disable=None if progress else True) as bar:
        for index in bar:
            yield predict_section(model, sections.image(index), normalisation, settings, device)


def _predict_tiles(
    model: nn.Module, tiles: Iterable[np.ndarray], settings: TileSettings, device: torch.device
) -> Iterator[np.ndarray]:
    """Probabilities (E, Y, X) of each tile (Y, X), in batches."""
    count = 1 if device.type == "cpu" else settings.batch_size
    tiles, trains = list(tiles), model.training
    model.to(device).eval()
    try:
        for first in range(0, len(tiles), count):
            batch = torch.from_numpy(np.stack(tiles[first : first + count])[:, None])
            with _memory_told(device), torch.inference_mode(), _precision(settings, device):
                found = _probabilities(model, batch.to(device), settings.tta)
            yield from found.cpu().numpy()
    finally:
        model.train(trains)


def _probabilities(model: nn.Module, batch: torch.Tensor, tta: bool) -> torch.Tensor:
    """Sigmoid of the logits in float32, or its mean over the eight positions of a square."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(model(images).float())

    if not tta:
        return predict(batch)
    total = 0
    for turns in range(4):
        for mirrored in (False, True):
            moved = torch.rot90(batch, turns, (2, 3))
            found = predict(moved.flip(3)).flip(3) if mirrored else predict(moved)
            total = total + torch.rot90(found, -turns, (2, 3))
    return total / 8


def _precision(settings: TileSettings, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")


@contextmanager
def _memory_told(device: torch.device) -> Iterator[None]:
    """Turn running out of memory into one line that names the flags that help."""
    smaller = "--tile" if device.type == "cpu" else "--batch_size, then a smaller --tile"
    advice = f"out of memory while predicting on {device.type}; use a smaller {smaller}"
    try:
        yield
    except Exception as error:
        if memory_ran_out(error):
            raise OutOfMemory(advice) from error
        raise


def _up(length: int) -> int:
    """The next multiple of ``GRID``."""
    return -(-length // GRID) * GRID
