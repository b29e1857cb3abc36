"""The patches that an analysis looks at: few enough for a CPU, with every organelle on half of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.sections import Sections
from emlib.learn.normalisation import Normalisation

GRID = 16  # sides of patches are multiples of it, so that networks need not pad


@dataclass(frozen=True)
class Sample:
    """Patches with their masks.

    Attributes
    ----------
    images : (P, 1, S, S) float32 array
        Normalised grey values.
    masks : (P, E, S, S) uint8 array
        0 and 1, and 255 where nobody annotated.
    places : tuple of (section, y, x)
        Name of the section and first pixel of each patch.
    organelles : tuple of str
    """

    images: np.ndarray
    masks: np.ndarray
    places: tuple[tuple[str, int, int], ...]
    organelles: tuple[str, ...]

    @property
    def shows(self) -> np.ndarray:
        """Which patch holds a pixel of which organelle, (P, E) bool."""
        return (self.masks == 1).any(axis=(2, 3))

    @property
    def holding(self) -> dict[str, int]:
        """How many patches hold a pixel of each organelle."""
        return dict(zip(self.organelles, self.shows.sum(axis=0).tolist(), strict=True))

    def only(self, patches: Sequence[int]) -> Sample:
        """Return some of the patches."""
        places = tuple(self.places[i] for i in patches)
        return replace(self, images=self.images[patches], masks=self.masks[patches], places=places)


def sample_patches(
    sections: Sections,
    normalisation: Normalisation,
    *,
    count: int = 12,
    size: int = 256,
    seed: int = 0,
    organelles: Sequence[str] | None = None,
) -> Sample:
    """Draw patches that do not overlap from annotated sections.

    Parameters
    ----------
    sections : Sections
    normalisation : Normalisation
    count : int
        Patches; fewer if the sections hold no more.
    size : int
        Side in pixels; reduced to the smallest section, and to a multiple of ``GRID``.
    seed : int
    organelles : names, optional
        The order of the masks (default: all of the sections).

    Returns
    -------
    Sample
        In the order of sections, rows, columns.

    Raises
    ------
    UserError
        If a section is smaller than ``GRID`` pixels.

    Notes
    -----
    The patches of a grid without overlap are shuffled, and taken one by one: each time the first of those that hold
    most of the organelles that less than half of the ``count`` patches show so far.
    """
    room = min(size, *(min(sections.shape(i)) for i in range(len(sections))))
    side = room // GRID * GRID
    if side < GRID:
        raise UserError(f"patches of {room} pixels are too small, the least is {GRID}; mind --patch_size")
    names = tuple(organelles or sections.organelles)
    planes = [tuple(sections.organelles).index(name) for name in names]
    places, holds = _grid(sections, side, planes)
    order = np.random.default_rng([seed, 1]).permutation(len(places))
    taken = sorted(order[i] for i in balanced_choice(holds[order], count))
    images, masks, where = [], [], []
    for at in taken:
        i, y, x = places[at]
        box = (slice(y, y + side), slice(x, x + side))
        images.append(normalisation.apply(sections.image(i)[box])[None])
        masks.append(sections.masks(i)[planes][:, *box])
        where.append((sections.names[i], y, x))
    return Sample(np.stack(images), np.stack(masks), tuple(where), names)


def balanced_choice(holds: np.ndarray, count: int) -> list[int]:
    """Choose rows so that each column is true in half of them, as far as the rows allow.

    Parameters
    ----------
    holds : (N, E) bool array
        Which patch holds which organelle.
    count : int
        Rows to choose; all if there are no more.

    Returns
    -------
    list of int
        In the order in which they were chosen; of rows that serve equally, the first.

    Examples
    --------
    >>> balanced_choice(np.array([[True, False], [True, False], [True, False], [False, True]]), 2)
    [0, 3]
    """
    left, taken = list(range(len(holds))), []
    for _ in range(min(count, len(holds))):
        lacking = holds[taken].sum(axis=0) * 2 < count
        best = max(left, key=lambda i: (holds[i] & lacking).sum())  # max keeps the first of equals
        taken.append(best)
        left.remove(best)
    return taken


def _grid(sections: Sections, side: int, planes: list[int]) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """All places (section, y, x) of the grid, and which organelles each holds, (N, E) bool."""
    places, holds = [], []
    for i in range(len(sections)):
        masks = sections.masks(i)[planes] == 1
        for y in range(0, masks.shape[1] - side + 1, side):
            for x in range(0, masks.shape[2] - side + 1, side):
                places.append((i, y, x))
                holds.append(masks[:, y : y + side, x : x + side].any(axis=(1, 2)))
    return places, np.array(holds)
