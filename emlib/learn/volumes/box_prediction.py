"""A box of a volume through a network of sections: the very bytes that it has in a prediction of the whole volume.

1. Tiles lie on the grid of the whole section (`emlib.learn.tiles`), whichever box is asked for; those that weigh
   anything in the box are computed.
2. Only what these tiles see is read; beyond the ends of the volume, and nowhere else, it is mirrored.
3. Where voxels are not those of the model's training, the part that is needed is resampled as in the whole
   (`emlib.learn.volumes.resizing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from emlib.learn.inference import predict_window
from emlib.learn.normalisation import Normalisation, unit_grey
from emlib.learn.tiles import TileSettings, mirrored_places, tiles_within
from emlib.learn.volumes.labelled import along, neighbours
from emlib.learn.volumes.resizing import Window, resized, seen_by
from emlib.volumes.volume import Box

if TYPE_CHECKING:
    from emlib.learn.volumes.prediction import Resampling

Reader = Callable[[Box], np.ndarray]
Shape = tuple[int, int, int]


def predict_box(
    model: nn.Module,
    read: Reader,
    shape: Shape,
    box: Box,
    normalisation: Normalisation,
    *,
    sections: int = 1,
    axes: Sequence[int] = (0,),
    resampling: Resampling | None = None,
    tiles: TileSettings | None = None,
    device: torch.device | str = "cpu",
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Predict a box of a volume as `emlib.learn.volumes.prediction.predict_along` predicts it in the whole.

    Parameters
    ----------
    model : nn.Module
        From (B, sections, Y, X) to logits (B, E, Y, X).
    read : function of three slices
        Gives the grey values (z, y, x) of a box within the volume; asked once for each axis.
    shape : (Z, Y, X)
        Of the whole volume.
    box : three slices
        Not empty.
    normalisation, sections, axes, resampling, tiles, device
        As for `predict_along`.
    tick : function
        Called after each section.

    Returns
    -------
    (E, z, y, x) float32 array in [0, 1]
        The mean over the axes; as float16 the very bytes of `predict_along`.

    Raises
    ------
    UserError
        As `predict_along`.

    Examples
    --------
    >>> model, em = nn.Conv2d(1, 2, 3, padding=1), np.zeros((4, 20, 30), np.uint8)
    >>> box = slice(1, 3), slice(0, 20), slice(25, 30)
    >>> predict_box(model, lambda part: em[part], em.shape, box, Normalisation(), axes=(0, 1, 2)).shape
    (2, 2, 20, 5)
    """
    how = {"sections": sections, "resampling": resampling, "tiles": tiles, "device": device}
    sides = tuple(side.stop - side.start for side in box)

    def planes(axis: int) -> Iterator[np.ndarray]:
        return predict_planes(model, read, shape, box, axis, normalisation, **how)

    return average(planes, axes, sides, tick)


def average(
    planes: Callable[[int], Iterator[np.ndarray]],
    axes: Sequence[int],
    shape: Shape,
    tick: Callable[[], None],
    single: type = np.float32,
) -> np.ndarray:
    """Put sections together to a volume, and average what several axes say of it.

    Parameters
    ----------
    planes : function of an axis
        Gives the sections along it, (E, y', x') each.
    axes : sequence of int
    shape : (z, y, x)
    tick : function
        Called after each section.
    single : NumPy type
        Of the outcome where there is one axis, which is final as it comes; several are summed as float32.

    Returns
    -------
    (E, z, y, x) array
    """
    total = None
    for axis in axes:
        for index, found in enumerate(planes(axis)):
            if total is None:
                total = np.zeros((len(found), *shape), single if len(axes) == 1 else np.float32)
            for channel, plane in zip(total, found, strict=True):
                along(channel, axis)[index] += plane if len(axes) == 1 else plane / len(axes)
            tick()
    return total


def predict_planes(
    model: nn.Module,
    read: Reader,
    shape: Shape,
    box: Box,
    axis: int,
    normalisation: Normalisation,
    *,
    sections: int = 1,
    resampling: Resampling | None = None,
    tiles: TileSettings | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[np.ndarray]:
    """Predict a box of a volume, section after section along one axis; see `predict_box`.

    Yields
    ------
    (E, y', x') float32 array in [0, 1]
        What lies in the box of each section: rows and columns are the two other axes, in their order.
    """
    tiles, depth = tiles or TileSettings(), shape[axis]
    plane, window = _without(shape, axis), _without(box, axis)
    zoomed, asked = plane, window  # size of the section that the network sees, and the window of it
    if resampling is not None:
        zoomed = tuple(max(1, round(n * f)) for n, f in zip(plane, resampling.pixels(axis), strict=True))
        asked = tuple(seen_by(part, new, n) for part, new, n in zip(window, zoomed, plane, strict=True))
    seen = tuple(_seen(*lane, tiles) for lane in zip(asked, plane, zoomed, strict=True))
    step = None if resampling is None else resampling.step(axis)
    places = [_places(index, sections, depth, step) for index in range(box[axis].start, box[axis].stop)]
    first = min(below for one in places for below, _ in one)
    last = max(below + (part > 0) for one in places for below, part in one)
    grey = along(read((*seen[:axis], slice(first, last + 1), *seen[axis:])), axis)

    for one in places:
        shown = _shown(grey, one, first, step is not None)

        def section(rows: slice, columns: slice, shown: np.ndarray = shown) -> np.ndarray:
            return _part(shown, seen, plane, (rows, columns), zoomed)

        found = predict_window(model, section, zoomed, asked, normalisation, tiles, device)
        yield found if zoomed == plane else resized(found, asked, zoomed, window, plane)


def _without(values: tuple, axis: int) -> tuple:
    return (*values[:axis], *values[axis + 1 :])


def _seen(asked: slice, length: int, zoomed: int, tiles: TileSettings) -> slice:
    """Along an axis of sections: what tiles see that weigh anything where the network is asked."""
    ends = tiles_within(zoomed, asked, tiles)[2]
    places = mirrored_places(*ends, zoomed)
    return seen_by(slice(int(places.min()), int(places.max()) + 1), length, zoomed)


def _places(index: int, count: int, depth: int, step: float | None) -> list[tuple[int, float]]:
    """Where a section and its neighbours lie: the section below each, and how far it lies on the way to the next."""
    if step is None:
        return [(int(at), 0.0) for at in neighbours(index, count, depth)]
    last, found = depth - 1, []
    for at in index + step * (np.arange(count) - count // 2):
        at = abs(at) if last else 0.0
        at = min(max(2 * last - at if at > last else at, 0.0), last)  # mirrored once, then the outermost section
        found.append((int(at), float(at) - int(at)))
    return found


def _shown(grey: np.ndarray, places: Sequence[tuple[int, float]], first: int, resampled: bool) -> np.ndarray:
    """A section between its neighbours, (C, y, x); those between two sections are interpolated."""
    if not resampled:
        return np.stack([grey[below - first] for below, _ in places])
    found = []
    for below, part in places:
        lower = unit_grey(grey[below - first])
        share = np.float32(part)
        found.append(lower if part == 0 else (1 - share) * lower + share * unit_grey(grey[below + 1 - first]))
    return np.stack(found)


def _part(shown: np.ndarray, seen: Window, shape: Sequence[int], window: Window, to: Sequence[int]) -> np.ndarray:
    """A window of what the network sees of a section, of which ``shown`` is the part ``seen``."""
    if tuple(shape) != tuple(to):
        return resized(shown, seen, shape, window, to)
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(window, seen, strict=True))
    return shown[:, rows, columns]
