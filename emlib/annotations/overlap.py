"""Where shapes lie over each other: which of them a pixel belongs to.

Organelle folders keep both. In an index mask or a label image a pixel has one value, that of the shape painted last:

1. by ``priority`` of the label map, the first class there on top; then
2. by ``--overlap``: ``later`` (drawn later wins), ``earlier``, ``smaller`` (fewer pixels win) or ``larger``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emlib.annotations.classes import BACKGROUND, Classes
from emlib.annotations.drawing import Region
from emlib.annotations.shapes import IGNORED

RULES = ("later", "earlier", "smaller", "larger")

Named = tuple[str, Region]  # a class and its pixels


def painting_order(regions: Sequence[Named], rule: str, priority: Sequence[str] = ()) -> list[int]:
    """Return the indices of the regions in the order in which to paint them, the one on top last.

    Parameters
    ----------
    regions : sequence of (class, Region)
        In the order in which they were drawn.
    rule : str
        One of ``RULES``.
    priority : sequence of str
        Classes, the strongest first.
    """
    strength = {name: len(priority) - rank for rank, name in enumerate(priority)}
    sign = {"later": 1, "earlier": -1, "smaller": -1, "larger": 1}[rule]

    def key(index: int) -> tuple[bool, int, int, int]:
        name, region = regions[index]
        by_rule = index if rule in ("later", "earlier") else int(region.mask.sum())
        return name == IGNORED, strength.get(name, 0), sign * by_rule, index

    return sorted(range(len(regions)), key=key)


def index_mask(regions: Sequence[Named], order: Sequence[int], classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """Return the (Y, X) mask of class ids, uint8 or uint16; pixels that nobody annotated get ``classes.ignore``."""
    mask = np.zeros(size, classes.dtype)
    ids = dict(zip(classes.names, classes.ids, strict=True)) | {IGNORED: classes.ignore, BACKGROUND: 0}
    for name, region in (regions[index] for index in order):
        mask[region.window][region.mask] = ids[name]
    return mask


def organelle_masks(regions: Sequence[Named], names: Sequence[str], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return a (Y, X) uint8 mask of 0 and 255 for each name; where shapes overlap, both are kept."""
    masks = {name: np.zeros(size, np.uint8) for name in names}
    for name, region in regions:
        if name in masks:
            masks[name][region.window][region.mask] = 255
    return masks


def instance_labels(
    regions: Sequence[Named], order: Sequence[int], size: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[int, str, int]]]:
    """Return the (Y, X) labels of objects, and of each its id, class and pixels.

    Shapes of one class and one group are one object; regions of several objects that nobody told apart are left out.
    Ids count the objects from 1 in the order in which they were drawn, so that an id may have no pixel left.

    Returns
    -------
    labels : (Y, X) uint16 array, int32 beyond 65535 objects
    objects : list of (id, class, pixels)
    """
    numbers: dict[object, int] = {}
    names, of = [], {}
    for index, (name, region) in enumerate(regions):
        if name not in (IGNORED, BACKGROUND) and not region.shape.crowd:
            group = region.shape.group
            key = index if group is None else (name, group)
            if key not in numbers:
                numbers[key] = len(names) + 1
                names.append(name)
            of[index] = numbers[key]
    labels = np.zeros(size, np.uint16 if len(names) < 2**16 else np.int32)
    for index in order:
        name, region = regions[index]
        if index in of or name == BACKGROUND:
            labels[region.window][region.mask] = of.get(index, 0)
    counts = np.bincount(labels.ravel(), minlength=len(names) + 1)
    return labels, [(i, name, int(counts[i])) for i, name in enumerate(names, 1)]


def overlapping_pixels(regions: Sequence[Named], size: tuple[int, int]) -> int:
    """Return how many pixels belong to several classes, background that was drawn aside."""
    first, several = np.zeros(size, np.int32), np.zeros(size, bool)
    ids = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in regions), 1)}
    for name, region in regions:
        if name == BACKGROUND:
            continue
        under = first[region.window]
        several[region.window] |= region.mask & (under > 0) & (under != ids[name])
        under[region.mask] = ids[name]
    return int(several.sum())
