"""Several data sets as one: their sections in a row, and which organelles any of them has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.sections import Sections
from emlib.learn.datasets.split import Split


class JoinedSections:
    """The sections of several data sets in a row, with the interface of `Sections`.

    Parameters
    ----------
    parts : sequence of Sections
        Opened with the same organelles.

    Attributes
    ----------
    parts : tuple of Sections
    organelles, activation
        As of each part.
    names : tuple of str
        ``domain/section``.
    """

    def __init__(self, parts: Sequence[Sections]):
        self.parts = tuple(parts)
        self.organelles, self.activation = parts[0].organelles, parts[0].activation
        self.names = tuple(f"{part.split.domain}/{name}" for part in parts for name in part.names)
        self._first = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return len(self.names)

    def shape(self, index: int) -> tuple[int, int]:
        """Return (Y, X) of a section, without decoding it."""
        part, own = self._at(index)
        return part.shape(own)

    def image(self, index: int) -> np.ndarray:
        """Return the EM of a section, (Y, X) uint8 or uint16, read-only."""
        part, own = self._at(index)
        return part.image(own)

    def masks(self, index: int) -> np.ndarray:
        """Return the masks of a section, as `Sections.masks`."""
        part, own = self._at(index)
        return part.masks(own)

    def _at(self, index: int) -> tuple[Sections, int]:
        part = bisect_right(self._first, index) - 1
        return self.parts[part], int(index) - self._first[part]


def join(parts: Sequence[Sections]) -> Sections | JoinedSections:
    """Return sections of one data set as they are, those of several in a row."""
    return parts[0] if len(parts) == 1 else JoinedSections(parts)


def common_organelles(splits: Sequence[Split]) -> tuple[str, ...]:
    """Return the organelles that any of several data sets has, in the order in which they come up.

    Raises
    ------
    UserError
        If index masks are to be trained with folders of organelles, or with index masks of other classes.
    """
    kinds = {split.activation: split for split in reversed(splits)}
    if len(kinds) > 1:
        raise UserError(
            f"{kinds['softmax'].domain} has index masks, {kinds['sigmoid'].domain} a folder for each organelle; train "
            "them apart, or convert one with convert_annotations.py"
        )
    first = splits[0]
    if first.classes is not None:
        for split in splits[1:]:
            if split.organelles != first.organelles:
                raise UserError(
                    f"{first.domain} has the classes {', '.join(first.organelles)}, {split.domain} "
                    f"{', '.join(split.organelles)}; give both the same names in the same order of ids in classes.yaml"
                )
    return tuple(dict.fromkeys(name for split in splits for name in split.organelles))
