"""The channels of a network as classes: the value in an index mask, the name, the colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emlib.annotations.classes import MaskClass, default_colour, parse_colour
from emlib.errors import UserError, nearest

SOFTMAX = "softmax"


def channel_classes(names: Sequence[str], activation: str, settings: Mapping[str, Any]) -> tuple[MaskClass, ...]:
    """Return a class for each channel.

    Parameters
    ----------
    names : sequence of str
        Of the channels.
    activation : "sigmoid" or "softmax"
        With softmax channel 0 is the background.
    settings : mapping
        Of the checkpoint: ``colours`` (by name, as ``#RRGGBB`` or three numbers) and ``class_ids`` (one for each
        channel) where they are there. Without, ids count from 0 with softmax and from 1 with sigmoid, and colours are
        those of the figures.

    Examples
    --------
    >>> [one.id for one in channel_classes(["membranes", "synapses"], "sigmoid", {})]
    [1, 2]
    >>> channel_classes(["background", "er"], "softmax", {"class_ids": [0, 7], "colours": {"er": "#102030"}})[1]
    MaskClass(id=7, name='er', colour=(16, 32, 48))
    """
    first = 0 if activation == SOFTMAX else 1
    ids, colours = settings.get("class_ids"), settings.get("colours")
    if not (isinstance(ids, list) and len(ids) == len(names) and all(isinstance(i, int) for i in ids)):
        ids = range(first, first + len(names))
    if isinstance(colours, list) and len(colours) == len(names):
        colours = dict(zip(names, colours, strict=True))
    if not isinstance(colours, Mapping):
        colours = {}
    return tuple(
        MaskClass(i, name, parse_colour(colours[name], "the model") if name in colours else default_colour(i))
        for i, name in zip(ids, names, strict=True)
    )


def chosen_channels(
    classes: Sequence[MaskClass], activation: str, wanted: Sequence[str] | None, where: str
) -> tuple[int, ...]:
    """Return the numbers of the channels to write, in the model's order.

    Parameters
    ----------
    classes : sequence of MaskClass
    activation : "sigmoid" or "softmax"
    wanted : names, optional
        Default: all; the background of a softmax model is never among them.
    where : str
        What to call the model in an error.

    Raises
    ------
    UserError
        If the model has no such organelle, or the background alone is wanted.

    Examples
    --------
    >>> chosen_channels(channel_classes(["background", "er"], "softmax", {}), "softmax", None, "m.pth")
    (1,)
    """
    foreground = {one.name: k for k, one in enumerate(classes) if not (activation == SOFTMAX and k == 0)}
    for name in wanted or ():
        if name not in foreground:
            raise UserError(f"--organelles: the model {where} has no {name!r}; {nearest(name, [*foreground])}")
    return tuple(sorted(foreground[name] for name in (foreground if wanted is None else wanted)))


def index_mask(masks: Mapping[MaskClass, np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """Put masks that exclude each other into one array of class ids, 0 elsewhere.

    Parameters
    ----------
    masks : bool arrays of one shape, by class
    shape : of these
        For the case that there is no class.

    Returns
    -------
    uint8 array, uint16 where an id needs it

    Examples
    --------
    >>> index_mask({MaskClass(3, "er", (0, 0, 0)): np.array([True, False])}, (2,))
    array([3, 0], dtype=uint8)
    """
    out = np.zeros(tuple(shape), index_dtype(tuple(masks)))
    for one, mask in masks.items():
        out[mask] = one.id
    return out


def index_dtype(classes: Sequence[MaskClass]) -> np.dtype:
    """Return the dtype of an index mask of these classes.

    Examples
    --------
    >>> index_dtype([MaskClass(300, "er", (0, 0, 0))])
    dtype('uint16')
    """
    return np.dtype(np.uint8 if max((one.id for one in classes), default=0) < 256 else np.uint16)
