"""A section cut into tiles on a fixed grid, with a mirrored margin all round, and put together without seams.

1. Margin: a network pads its input with zeros and finds less where it sees them. So every section is mirrored at all
   four borders, and what the network says of the mirrored margin is thrown away.
2. The grid follows from the size of the section and the settings alone. All tiles of a section are of one size; below
   and right of the section the mirror goes on until the last of them are full.
3. Tiles are added with weights that sum to 1. Nearest to its edge, where a network sees the padding of the tile and not
   its neighbour, a tile weighs nothing; from there its weight rises as the square of a sine (Hann). So a network that
   looks no farther than 3/8 of the overlap gives what it would give on the whole section, and one that takes means over
   its input (squeeze and excitation) changes from tile to tile without a seam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = 32  # tiles begin and end at its multiples, so that pooling falls on the same pixels in all of them
MARGIN = 32  # mirrored pixels above, left, and at least so many below and right of a section; a multiple of GRID


@dataclass(frozen=True)
class TileSettings:
    """How a section is cut into tiles.

    Attributes
    ----------
    tile : int
        Largest side of a tile in pixels, a multiple of 32; a section of that size is one tile, and its margin comes on
        top. Memory grows with its square.
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
    """Lay tiles along an axis of a section and its margin.

    Parameters
    ----------
    length : int
        Of the section, in pixels.
    settings : TileSettings

    Returns
    -------
    starts : (T,) int array
        First pixel of each tile, counted from the first of the section; multiples of 32, the first is -32.
    side : int
        Of every tile: as short as the number of tiles allows. The last ends 32 pixels beyond the section or more.

    Examples
    --------
    >>> tile_grid(1024, TileSettings(tile=512, overlap=64))
    (array([-32, 320, 672]), 416)
    >>> tile_grid(100, TileSettings())
    (array([-32]), 192)
    """
    if length <= settings.tile:
        return np.array([-MARGIN]), _up(length) + 2 * MARGIN
    new = length + 2 * MARGIN - settings.overlap  # pixels that are shared out
    count = -(-new // (settings.tile - settings.overlap))
    step = _up(-(-new // count))
    return step * np.arange(count) - MARGIN, step + settings.overlap


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
        At an inner edge 0 for 3/8 of the overlap, then rising over a quarter of it; 1 elsewhere. Where there is no
        neighbour, at the outer edges of the margin, 1.

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
    first = starts - starts[0]
    total = np.zeros(first[-1] + side)
    for start, weight in zip(first, weights, strict=True):
        total[start : start + side] += weight
    return np.stack([w / total[s : s + side] for s, w in zip(first, weights, strict=True)]).astype(np.float32)


def tiles_within(
    length: int, part: slice, settings: TileSettings
) -> tuple[list[tuple[int, np.ndarray]], int, tuple[int, int]]:
    """Find the tiles along an axis that weigh anything in a part of the section.

    Parameters
    ----------
    length : int
        Of the section, in pixels.
    part : slice
        Of the section.
    settings : TileSettings

    Returns
    -------
    tiles : list of (int, float32 array)
        First pixel of each tile as from `tile_grid`, and its weights as from `tile_weights`.
    side : int
        Of every tile.
    ends : (int, int)
        First pixel of these tiles, and the one past their last.

    Examples
    --------
    >>> tiles, side, ends = tiles_within(1024, slice(700, 800), TileSettings(tile=512, overlap=64))
    >>> [start for start, _ in tiles], side, ends
    ([320, 672], 416, (320, 1088))
    """
    starts, side = tile_grid(length, settings)
    tiles = [
        (int(start), weights)
        for start, weights in zip(starts, tile_weights(starts, side, settings.overlap), strict=True)
        if weights[max(part.start - start, 0) : max(part.stop - start, 0)].any()
    ]
    return tiles, side, (tiles[0][0], tiles[-1][0] + side)


def mirrored_places(first: int, stop: int, length: int) -> np.ndarray:
    """Where the pixels from ``first`` to ``stop`` are taken from in a section that is mirrored at both ends.

    Returns
    -------
    (stop - first,) int array
        The outermost pixels occur twice, as the axis of the mirror is their outer edge: so pairs of pixels stay pairs,
        as a stem at half resolution sees them.

    Examples
    --------
    >>> mirrored_places(-3, 8, 5).tolist(), mirrored_places(-3, 3, 2).tolist()
    ([2, 1, 0, 0, 1, 2, 3, 4, 4, 3, 2], [1, 1, 0, 0, 1, 1])
    """
    at = np.arange(first, stop) % (2 * length)
    return np.minimum(at, 2 * length - 1 - at)


def _up(length: int) -> int:
    """The next multiple of ``GRID``."""
    return -(-length // GRID) * GRID
