"""Whole sections through a network, tile by tile (see `emlib.learn.tiles`), to probabilities and masks.

Each tile is predicted; with ``tta`` in all eight positions (four quarter turns, mirrored or not), and averaged. What
becomes of the logits is the network's ``activation``: with "sigmoid" organelles may overlap, with "softmax" classes
exclude each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from emlib.errors import UserError
from emlib.learn.datasets.sections import Sections
from emlib.learn.normalisation import Normalisation
from emlib.learn.out_of_memory import OutOfMemory, memory_ran_out
from emlib.learn.tiles import GRID as GRID
from emlib.learn.tiles import TileSettings, mirrored_places, tiles_within

SIGMOID, SOFTMAX = "sigmoid", "softmax"
DEFAULTS = TileSettings()


def predict_section(
    model: nn.Module,
    image: np.ndarray,
    normalisation: Normalisation,
    settings: TileSettings = DEFAULTS,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Predict the probability of each organelle, or class, at each pixel of a section.

    Parameters
    ----------
    model : nn.Module
        From (B, 1, Y, X) to logits (B, E, Y, X). Moved to ``device``; whether it trains is as before afterwards. Its
        ``activation`` is "sigmoid" (also where it has none) or "softmax".
    image : (Y, X) uint8, uint16 or float array
        Any size; see `Normalisation.apply`.
    normalisation : Normalisation
        That of the model's training.
    settings : TileSettings
    device : torch.device or str

    Returns
    -------
    (E, Y, X) float32 array in [0, 1]
        With softmax they sum to 1 at each pixel. On a CPU the same bytes with any batch size; a GPU may choose another
        algorithm for another batch, which can change the last digits.

    Raises
    ------
    ValueError
        If the image is not two-dimensional or is empty, or the model has another activation.
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
    return predict_stack(model, image[None], normalisation, settings, device)


def predict_stack(
    model: nn.Module,
    image: np.ndarray,
    normalisation: Normalisation,
    settings: TileSettings = DEFAULTS,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Predict a section that is shown in the middle of its neighbours, as `predict_section` does one alone.

    Parameters
    ----------
    model : nn.Module
        From (B, C, Y, X) to logits (B, E, Y, X).
    image : (C, Y, X) uint8, uint16 or float array
    normalisation, settings, device
        As for `predict_section`.

    Returns
    -------
    (E, Y, X) float32 array in [0, 1]

    Raises
    ------
    ValueError
        If the image has not three axes or is empty, or the model has another activation.
    UserError
        As `predict_section`.
    """
    if image.ndim != 3 or not image.size:
        raise ValueError(f"a section with its neighbours is an array (C, Y, X) with pixels, not of shape {image.shape}")
    everything = slice(0, image.shape[1]), slice(0, image.shape[2])

    def read(rows: slice, columns: slice) -> np.ndarray:
        return image[:, rows, columns]

    return predict_window(model, read, image.shape[1:], everything, normalisation, settings, device)


def predict_window(
    model: nn.Module,
    read: Callable[[slice, slice], np.ndarray],
    shape: tuple[int, int],
    window: tuple[slice, slice],
    normalisation: Normalisation,
    settings: TileSettings = DEFAULTS,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Predict a window of a section: the very bytes that `predict_stack` gives there for the whole.

    Parameters
    ----------
    model : nn.Module
        From (B, C, Y, X) to logits (B, E, Y, X).
    read : function of two slices
        Gives those rows and columns of the section with its neighbours, (C, y, x). Asked once, for what the tiles see
        that weigh anything in the window.
    shape : (Y, X)
        Of the whole section.
    window : (slice of rows, slice of columns)
        Not empty.
    normalisation, settings, device
        As for `predict_section`.

    Returns
    -------
    (E, y, x) float32 array in [0, 1]

    Raises
    ------
    UserError
        As `predict_section`.
    """
    (down, height, rows), (across, width, columns) = (
        tiles_within(length, part, settings) for length, part in zip(shape, window, strict=True)
    )
    grey = normalisation.apply(_mirrored(read, shape, rows, columns))
    places = [(y, x) for y in down for x in across]
    tiles = (grey[:, y - rows[0] :, x - columns[0] :][:, :height, :width] for (y, _), (x, _) in places)
    out = None
    for (y, x), found in zip(places, _predict_tiles(model, tiles, settings, torch.device(device)), strict=True):
        if out is None:
            out = np.zeros((len(found), *(part.stop - part.start for part in window)), np.float32)
        to_y, from_y = _shared(y[0], height, window[0])
        to_x, from_x = _shared(x[0], width, window[1])
        out[:, to_y, to_x] += found[:, from_y, from_x] * (y[1][from_y, None] * x[1][from_x])
    if not np.isfinite(out).all():
        raise UserError("the model gives what is no number (NaN or infinite); its training went wrong, use another one")
    return np.clip(out, 0, 1)


def _mirrored(
    read: Callable[[slice, slice], np.ndarray],
    shape: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> np.ndarray:
    """Grey values (C, y, x) between these ends, which may lie outside of the section."""
    down, across = (mirrored_places(*ends, length) for ends, length in zip((rows, columns), shape, strict=True))
    seen = read(*(slice(int(places.min()), int(places.max()) + 1) for places in (down, across)))
    return seen.take(down - down.min(), axis=1).take(across - across.min(), axis=2)


def _shared(start: int, side: int, part: slice) -> tuple[slice, slice]:
    """What a tile and a part of the section share: in the part, and in the tile."""
    first, stop = max(start, part.start), min(start + side, part.stop)
    return slice(first - part.start, stop - part.start), slice(first - start, stop - start)


def decide(probabilities: np.ndarray, activation: str, threshold: float = 0.5) -> np.ndarray:
    """Turn probabilities into masks: each organelle for itself, or the most probable class.

    Parameters
    ----------
    probabilities : (E, Y, X) or (E, Z, Y, X) float array in [0, 1]
    activation : "sigmoid" or "softmax"
        Of the network that gave them.
    threshold : float
        With sigmoid a pixel belongs to an organelle from this probability on; softmax does not use it.

    Returns
    -------
    bool array of the same shape
        With softmax exactly one class at each pixel; of equal ones the first.

    Raises
    ------
    ValueError
        If there is no such activation.

    Examples
    --------
    >>> one_pixel = np.array([0.4, 0.45, 0.15]).reshape(3, 1, 1)
    >>> decide(one_pixel, "softmax").ravel().tolist(), decide(one_pixel, "sigmoid", 0.4).ravel().tolist()
    ([False, True, False], [True, True, False])
    """
    _check_activation(activation)
    if activation == SIGMOID:
        return probabilities >= threshold
    best = probabilities.argmax(axis=0)
    return np.stack([best == k for k in range(len(probabilities))])


def predict_sections(
    model: nn.Module,
    sections: Sections,
    normalisation: Normalisation,
    settings: TileSettings = DEFAULTS,
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
    """Probabilities (E, Y, X) of each tile (C, Y, X), in batches."""
    _check_activation(getattr(model, "activation", SIGMOID))
    count = 1 if device.type == "cpu" else settings.batch_size
    tiles, trains = list(tiles), model.training
    weight = next(model.parameters(), None)
    if weight is not None and weight.device != device:  # to look through all modules takes as long as a small tile
        model.to(device)
    if trains:
        model.eval()
    try:
        for first in range(0, len(tiles), count):
            batch = torch.from_numpy(np.stack(tiles[first : first + count]))
            with _memory_told(device), torch.inference_mode(), _precision(settings, device):
                found = _probabilities(model, batch.to(device), settings.tta)
            yield from found.cpu().numpy()
    finally:
        if trains:
            model.train()


def _probabilities(model: nn.Module, batch: torch.Tensor, tta: bool) -> torch.Tensor:
    """Sigmoid or softmax of the logits in float32, or its mean over the eight positions of a square."""
    exclusive = getattr(model, "activation", SIGMOID) == SOFTMAX

    def predict(images: torch.Tensor) -> torch.Tensor:
        logits = model(images).float()
        return torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)

    if not tta:
        return predict(batch)
    total = 0
    for turns in range(4):
        for flipped in (False, True):
            moved = torch.rot90(batch, turns, (2, 3))
            found = predict(moved.flip(3)).flip(3) if flipped else predict(moved)
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


def _check_activation(name: str) -> None:
    if name not in (SIGMOID, SOFTMAX):
        raise ValueError(f"an activation is {SIGMOID} or {SOFTMAX}, not {name!r}")
