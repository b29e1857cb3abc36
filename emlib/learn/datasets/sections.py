"""The sections of a split: decoded once where they fit in memory, else the last few used."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.domain import SectionFiles, Split, size_problem
from emlib.learn.datasets.images import image_shape, read_grey, read_mask
from emlib.learn.datasets.mask_levels import Foreground, foreground, levels
from emlib.learn.normalisation import Normalisation
from emlib.threads import map_threads

Decoded = tuple[np.ndarray, dict[str, np.ndarray]]


class Sections:
    """Sections with their masks; made by `open_sections`.

    Attributes
    ----------
    split : Split
    organelles : tuple of str
        The order of the masks.
    names : tuple of str
        What the sections are called.
    resident : int
        How many sections memory holds at once, by the size of the largest.
    """

    def __init__(self, split: Split, shapes: list[tuple[int, int]], rules: Mapping[str, Foreground], resident: int):
        self.split, self.organelles = split, split.organelles
        self.names = tuple(section.name for section in split.sections)
        self.resident = resident
        self._shapes, self._rules = shapes, dict(rules)
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def shape(self, index: int) -> tuple[int, int]:
        """Return (Y, X) of a section, without decoding it."""
        return self._shapes[index]

    def image(self, index: int) -> np.ndarray:
        """Return the EM of a section, (Y, X) uint8 or uint16, read-only."""
        return self._load(index)[0]

    def masks(self, index: int) -> np.ndarray:
        """Return the masks of a section, (E, Y, X) uint8 of 0 and 1, read-only."""
        return self._load(index)[1]

    def fill(self, decoded: list[Decoded]) -> None:
        """Keep all sections, already decoded in their order; the list is emptied on the way."""
        for index in range(len(decoded)):
            self._cache[index] = self._finished(decoded[index])
            decoded[index] = None

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self._cache.pop(index, None)
        if pair is None:
            pair = self._finished(_decode(self.split.sections[index], self.organelles))
        while len(self._cache) >= max(self.resident, 1):
            del self._cache[next(iter(self._cache))]  # the one unused for longest, as a dict keeps the order
        self._cache[index] = pair
        return pair

    def _finished(self, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
        image, stored = decoded
        masks = np.zeros((len(self.organelles), *image.shape), np.uint8)
        for out, name in zip(masks, self.organelles, strict=True):
            np.greater_equal(stored[name], self._rules[name].lowest, out=out.view(bool))
        image.setflags(write=False)
        masks.setflags(write=False)
        return image, masks

    def __getstate__(self) -> dict:
        """What goes to a worker process; of a set larger than memory it decodes its own."""
        whole = len(self._cache) == len(self)
        return {**self.__dict__, "_cache": self._cache if whole else {}}


def open_sections(split: Split, *, memory_gb: float = 2.0) -> Sections:
    """Open the sections of a split.

    Parameters
    ----------
    split : Split
        As from `emlib.learn.datasets.domain.find_split`, best checked by `check_splits` before.
    memory_gb : float
        Sections and masks are decoded at once if they fit in this many GB (10⁹ bytes), else when they are asked for,
        and the last used are kept. Each worker process keeps its own.

    Returns
    -------
    Sections

    Raises
    ------
    UserError
        If a file cannot be read, or a mask is missing, no mask, or of another size than its section.

    Notes
    -----
    What is foreground is decided over all masks of an organelle (see `emlib.learn.datasets.mask_levels`), so that they
    are all read once, even where they do not fit in memory.
    """
    shapes = map_threads(lambda section: image_shape(section.raw), split.sections)
    sizes = [y * x * (2 + len(split.organelles)) for y, x in shapes]  # 16 bits of EM, 8 of each mask
    fits = sum(sizes) <= memory_gb * 1e9
    resident = len(sizes) if fits else max(1, int(memory_gb * 1e9 // max(sizes)))

    def look(section: SectionFiles) -> tuple[Decoded | None, dict[str, np.ndarray]]:
        decoded = _decode(section, split.organelles)
        return decoded if fits else None, {name: levels(mask) for name, mask in decoded[1].items()}

    looked = map_threads(look, split.sections)
    names = [section.name for section in split.sections]
    rules = {
        organelle: foreground([values[organelle] for _, values in looked], str(split.folder / organelle), names)
        for organelle in split.organelles
    }
    sections = Sections(split, shapes, rules, resident)
    if fits:
        sections.fill([decoded for decoded, _ in looked])
    return sections


def grey_statistics(sections: Sections) -> Normalisation:
    """Return mean and standard deviation of the grey of all pixels, in [0, 1]; the latter is 1 if all are equal."""
    count, total, squares = 0, 0, 0
    for index in range(len(sections)):
        image = sections.image(index)
        scale = 65535 // np.iinfo(image.dtype).max  # 8 bits on the scale of 16, so that the sums are whole numbers
        counts = np.bincount(image.ravel())
        value = [int(v) * scale for v in np.flatnonzero(counts)]
        number = [int(n) for n in counts[counts > 0]]
        count += image.size
        total += sum(n * v for n, v in zip(number, value, strict=True))
        squares += sum(n * v * v for n, v in zip(number, value, strict=True))
    mean, variance = total / count, (squares * count - total**2) / count**2
    return Normalisation(mean / 65535, variance**0.5 / 65535 or 1.0)


def _decode(section: SectionFiles, organelles: tuple[str, ...]) -> Decoded:
    """The EM and the stored masks of one section, equal in size."""
    image, masks = read_grey(section.raw), {}
    for name in organelles:
        if name not in section.masks:
            raise UserError(f"{section.raw} has no mask of {name}; add it, or remove the section")
        mask = masks[name] = read_mask(section.masks[name])
        if mask.shape != image.shape:
            raise UserError(size_problem(section.masks[name], mask.shape, section.raw, image.shape))
    return image, masks
