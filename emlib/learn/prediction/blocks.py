"""A section or volume in blocks, each predicted with a margin, so that arrays larger than memory can be done.

A block begins and ends at multiples of 32 pixels, where tiles begin, and sees a margin of one overlap of tiles around
it, cut off at the border of the volume. What a network says near a border of its own block is thrown away with it.

With ``orthogonal`` a block is cut into sections along z, y and x in turn, and the mean of the three is taken. With
``pixel_nm`` each section is brought to that size of a pixel, predicted, and its probabilities are brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from emlib.errors import UserError
from emlib.learn.inference import predict_section
from emlib.learn.normalisation import unit_grey
from emlib.learn.prediction.memory import GB
from emlib.learn.prediction.predictor import Predictor
from emlib.learn.tiles import TileSettings
from emlib.learn.volumes.resizing import resized
from emlib.volumes.volume import Box

Shape = tuple[int, int, int]
FLAT, CUBE = 512, 64  # sides of a chunk on disk, in pixels: of sections, of orthogonal predictions
LEAST = 16  # pixels: a section that is shorter after resampling has nothing to show


@dataclass(frozen=True)
class BlockSettings:
    """How blocks are predicted.

    Attributes
    ----------
    tiles : TileSettings
    device : str
    orthogonal : bool
    factors : (z, y, x)
        Pixels that the network sees for each voxel of the input; 1 leaves them as they are.
    grey_range : (low, high), optional
    """

    tiles: TileSettings
    device: str = "cpu"
    orthogonal: bool = False
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grey_range: tuple[float, float] | None = None

    @property
    def margin(self) -> Shape:
        """Voxels (z, y, x) that a block sees around itself; at least the overlap of tiles, a multiple of 32."""
        grown = [-(-self.tiles.overlap / f // 32) * 32 for f in self.factors]
        return int(grown[0]) if self.orthogonal else 0, int(grown[1]), int(grown[2])

    @property
    def chunk(self) -> Shape:
        """Voxels (z, y, x) of a chunk on disk; blocks are made of whole ones."""
        return (CUBE, CUBE, CUBE) if self.orthogonal else (1, FLAT, FLAT)


def lay_blocks(shape: Shape, most: int, settings: BlockSettings, memory_gb: float) -> list[Box]:
    """Cut a volume into blocks that fit into memory.

    Parameters
    ----------
    shape : (Z, Y, X) in voxels
    most : int
        Voxels of a block with its margin.
    settings : BlockSettings
    memory_gb : float
        For the message.

    Returns
    -------
    list of three slices
        In the order of the array; each begins at a multiple of the chunk. Without ``orthogonal`` one section each, or a
        part of one.

    Raises
    ------
    UserError
        If a block of one chunk is too large.

    Examples
    --------
    >>> how = BlockSettings(TileSettings(128, 64))
    >>> lay_blocks((2, 700, 700), 500_000, how, 1)
    [(slice(0, 1, None), slice(0, 700, None), slice(0, 700, None)), (slice(1, 2, None), slice(0, 700, None), ...)]
    >>> len(lay_blocks((2, 700, 700), 450_000, how, 1))
    4
    """
    size = [chunk if chunk == 1 else length for length, chunk in zip(shape, settings.chunk, strict=True)]
    while _with_margin(size, shape, settings.margin) > most:
        # the side that is longest in chunks is halved
        count = [-(-n // chunk) for n, chunk in zip(size, settings.chunk, strict=True)]
        axis = int(np.argmax(count))
        if count[axis] == 1:
            raise UserError(
                f"--memory_gb {memory_gb:g} is too little for a block of {' × '.join(map(str, size))} voxels and what "
                "the model takes besides; give more, or a smaller --tile"
            )
        size[axis] = -(-count[axis] // 2) * settings.chunk[axis]
    starts = [range(0, length, side) for length, side in zip(shape, size, strict=True)]
    return [
        tuple(slice(first, min(first + side, length)) for first, side, length in zip(corner, size, shape, strict=True))
        for corner in product(*starts)
    ]


def predict_block(
    predictor: Predictor, read: Callable[[Box], np.ndarray], shape: Shape, box: Box, settings: BlockSettings
) -> np.ndarray:
    """Predict one block.

    Parameters
    ----------
    predictor : Predictor
    read : function of three slices
        Gives grey values (z, y, x).
    shape : (Z, Y, X)
        Of the whole.
    box : three slices
    settings : BlockSettings

    Returns
    -------
    (E, z, y, x) float32 array in [0, 1]

    Raises
    ------
    UserError
        If grey values are not of a usable type or range, or memory runs out.
    """
    outer, inner = _grow(box, shape, settings.margin)
    grey = usable_grey(read(outer), settings.grey_range)
    out = np.zeros((len(predictor.classes), *(side.stop - side.start for side in box)), np.float32)
    axes = (0, 1, 2) if settings.orthogonal else (0,)
    for axis in axes:
        for place, section in zip(_within(inner[axis]), _sections(grey, axis, inner), strict=True):
            found = _predict_section(predictor, section, _without(settings.factors, axis), settings)
            part = (slice(None), *_without(inner, axis))
            index = [slice(None)] * 4
            index[axis + 1] = place
            out[tuple(index)] += found[part]
    return out / np.float32(len(axes)) if len(axes) > 1 else out


def usable_grey(array: np.ndarray, grey_range: tuple[float, float] | None) -> np.ndarray:
    """Return grey values as the networks take them: unsigned integers, or floats in [0, 1].

    Parameters
    ----------
    array : numeric array of any shape
    grey_range : (low, high), optional
        Values that become 0 and 1.

    Raises
    ------
    UserError
        If there is no range, and floats are no numbers or outside of [0, 1], or integers are signed and wider than 8
        bits: nobody knows what black and white are.

    Examples
    --------
    >>> usable_grey(np.array([-128, 127], np.int8), None), usable_grey(np.array([0, 50, 400]), (0, 100))
    (array([  0, 255], dtype=uint8), array([0. , 0.5, 1. ], dtype=float32))
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError("the input holds NaN or infinite grey values; replace or crop them")
    if grey_range is not None:
        low, high = grey_range
        return np.clip((array.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype == np.int8:  # mode 0 of MRC
        return array.view(np.uint8) ^ np.uint8(0x80)
    if array.dtype.kind == "f" and array.size and (array.min() < 0 or array.max() > 1):
        raise UserError(
            f"the input holds grey values from {array.min():g} to {array.max():g}; say with --grey_range LOW HIGH "
            "which are black and white"
        )
    if array.dtype.kind == "i":
        raise UserError(f"the input holds {array.dtype}; say with --grey_range LOW HIGH which are black and white")
    return array


def block_bytes(channels: int, itemsize: int, settings: BlockSettings) -> float:
    """Return the bytes that each voxel of a block takes, all arrays together.

    A block: grey values as stored and as float32; probabilities, in a section also their copy and a test of each;
    two masks. Orthogonal: one section more, which is small.
    """
    section = 4 * channels * 2 + channels + 8
    grown = max(1.0, prod(settings.factors[1:]))
    flat = section * (grown + 1 if settings.factors != (1.0, 1.0, 1.0) else 1)
    return 2 * itemsize + 4 + 4 * channels * 2 + 3 * channels + (8 if settings.orthogonal else flat)


def memory_needed(shape: Sequence[int], bytes_per_voxel: float) -> str:
    """Say how many GB an array takes.

    Examples
    --------
    >>> memory_needed((1000, 1000, 1000), 8)
    '8.0 GB'
    """
    return f"{prod(shape) * bytes_per_voxel / GB:.1f} GB"


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a (Y, X) float32 image of another size, anti-aliased by the filter that training resamples with.

    Examples
    --------
    >>> resize(np.array([[0, 0, 7, 7]], np.float32), (1, 2))
    array([[1., 6.]], dtype=float32)
    """
    whole, wanted = ((slice(0, sides[0]), slice(0, sides[1])) for sides in (image.shape, shape))
    return resized(np.ascontiguousarray(image, np.float32)[None], whole, image.shape, wanted, shape)[0]


def _predict_section(
    predictor: Predictor, section: np.ndarray, factors: tuple[float, float], settings: BlockSettings
) -> np.ndarray:
    """Probabilities (E, Y, X) of a section on its own grid."""
    if factors == (1.0, 1.0):
        return predict_section(predictor.network, section, predictor.normalisation, settings.tiles, settings.device)
    seen = resize(unit_grey(section), seen_shape(section.shape, factors))
    found = predict_section(predictor.network, seen, predictor.normalisation, settings.tiles, settings.device)
    return np.clip(np.stack([resize(one, section.shape) for one in found]), 0, 1)


def seen_shape(section: tuple[int, int], factors: tuple[float, float]) -> tuple[int, int]:
    """Return the pixels (y, x) of a section that the network sees, for factors as of `BlockSettings`.

    Raises
    ------
    UserError
        If too few are left.
    """
    height, width = (max(1, round(length * factor)) for length, factor in zip(section, factors, strict=True))
    if min(height, width) < LEAST:
        raise UserError(
            f"a section of {section[0]} × {section[1]} pixels would be {height} × {width} after resampling; check the "
            "voxel size, or leave --resample out"
        )
    return height, width


def _grow(box: Box, shape: Shape, margin: Shape) -> tuple[Box, Box]:
    """The block with its margin, and where the block lies in that."""
    outer = tuple(
        slice(max(0, side.start - m), min(n, side.stop + m)) for side, n, m in zip(box, shape, margin, strict=True)
    )
    inner = tuple(slice(side.start - o.start, side.stop - o.start) for side, o in zip(box, outer, strict=True))
    return outer, inner


def _with_margin(size: Sequence[int], shape: Shape, margin: Shape) -> int:
    return prod(min(n, side + 2 * m) for side, n, m in zip(size, shape, margin, strict=True))


def _sections(grey: np.ndarray, axis: int, inner: Box) -> Iterator[np.ndarray]:
    """The sections across an axis that lie in the block; along the two others with their margin."""
    return iter(np.moveaxis(grey, axis, 0)[inner[axis]])


def _within(side: slice) -> range:
    return range(side.stop - side.start)


def _without(values: tuple, axis: int) -> tuple:
    return (*values[:axis], *values[axis + 1 :])
