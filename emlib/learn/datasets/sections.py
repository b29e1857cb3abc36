"""The sections of a split: decoded once where they fit in memory, else the last few used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from emlib.errors import UserError
from emlib.learn.datasets.checking import Decoded, Looked, decode, look_at, refuse
from emlib.learn.datasets.domain import extra_masks
from emlib.learn.datasets.images import image_shape
from emlib.learn.datasets.mask_classes import UNKNOWN, class_planes
from emlib.learn.datasets.mask_levels import Foreground
from emlib.learn.datasets.resampling import Zoom
from emlib.learn.datasets.split import MASKS, SectionFiles, Split
from emlib.learn.normalisation import Normalisation
from emlib.threads import map_threads


class Sections:
    """Sections with their masks; made by `open_sections` and `open_splits`.

    Attributes
    ----------
    split : Split
    organelles : tuple of str
        The order of the masks: those of the split, or of several data sets together; with index masks the classes.
    activation : str
        ``softmax`` where the masks are classes that exclude each other, background first, else ``sigmoid``.
    names : tuple of str
        What the sections are called.
    resident : int
        How many sections memory holds at once, by the size of the largest.
    parts : tuple of Sections
        Of one data set each: here itself alone.
    """

    def __init__(
        self,
        split: Split,
        shapes: list[tuple[int, int]],
        rules: dict[str, Foreground],
        resident: int,
        organelles: Sequence[str] | None = None,
        zoom: Zoom | None = None,
    ):
        self.split, self.organelles = split, tuple(split.organelles if organelles is None else organelles)
        self.activation = split.activation
        self.names = tuple(section.name for section in split.sections)
        self.resident = resident
        self._shapes = shapes if zoom is None else [zoom.shape(shape) for shape in shapes]
        self._rules, self._zoom = rules, zoom
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def parts(self) -> tuple[Sections, ...]:
        """These sections alone, as they are of one data set."""
        return (self,)

    def shape(self, index: int) -> tuple[int, int]:
        """Return (Y, X) of a section, without decoding it."""
        return self._shapes[index]

    def image(self, index: int) -> np.ndarray:
        """Return the EM of a section, (Y, X) uint8 or uint16, read-only."""
        return self._load(index)[0]

    def masks(self, index: int) -> np.ndarray:
        """Return the masks of a section, (E, Y, X) uint8, read-only.

        0 and 1, and 255 where nobody annotated: pixels to ignore, and organelles that this data set has no masks of.
        """
        return self._load(index)[1]

    def fill(self, decoded: list[Decoded]) -> None:
        """Keep all sections, already decoded in their order; the list is emptied on the way."""
        for index in range(len(decoded)):
            self._cache[index] = self._finished(decoded[index])
            decoded[index] = None

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self._cache.pop(index, None)
        if pair is None:
            pair = self._finished(decode(self.split.sections[index], self.split))
        while len(self._cache) >= max(self.resident, 1):
            del self._cache[next(iter(self._cache))]  # the one unused for longest, as a dict keeps the order
        self._cache[index] = pair
        return pair

    def _finished(self, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
        image, stored = decoded
        masks = self._planes(stored, image.shape)
        if self._zoom is not None:
            image = self._zoom.grey(image)
        image.setflags(write=False)
        masks.setflags(write=False)
        return image, masks

    def _planes(self, stored: dict[str, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
        """(E, Y, X) of 0, 1 and `UNKNOWN` from masks as they are stored."""
        split, zoom = self.split, self._zoom
        if split.classes is not None:
            mask = stored[MASKS] if zoom is None else zoom.ids(stored[MASKS])
            return class_planes(mask, split.classes, split.ignore)
        masks = np.full((len(self.organelles), *shape), UNKNOWN, np.uint8)
        for plane, name in zip(masks, self.organelles, strict=True):
            if name in split.organelles:
                np.greater_equal(stored[name], self._rules[name].lowest, out=plane.view(bool))
                if split.ignore is not None:
                    plane[stored[name] == split.ignore] = UNKNOWN
        return masks if zoom is None else zoom.planes(masks)

    def __getstate__(self) -> dict:
        """What goes to a worker process; of a set larger than memory it decodes its own."""
        whole = len(self._cache) == len(self)
        return {**self.__dict__, "_cache": self._cache if whole else {}}


def open_sections(split: Split, *, memory_gb: float = 2.0) -> Sections:
    """Open the sections of one split, as `open_splits` does; warnings are dropped, masks without section passed over.

    Returns
    -------
    Sections

    Raises
    ------
    UserError
        If a file cannot be read, or a mask is missing, no mask, or of another size than its section.
    """
    return _open([split], None, memory_gb, None, None, lambda looked: looked.problems)[0][0]


def open_splits(
    splits: Sequence[Split],
    *,
    patch_size: int | None = None,
    memory_gb: float = 2.0,
    organelles: Sequence[str] | None = None,
    zooms: Sequence[Zoom | None] | None = None,
) -> tuple[list[Sections], list[str]]:
    """Check the sections of several splits and open them; each file is decoded once for both.

    Parameters
    ----------
    splits : sequence of Split
        As from `emlib.learn.datasets.domain.find_split`.
    patch_size : int, optional
        Side of the patches in pixels; sections must not be smaller.
    memory_gb : float
        Sections and masks are kept if all of them fit in this many GB (10⁹ bytes), else decoded again when they are
        asked for, and the last used are kept, of each split in proportion to its size. Each worker process keeps its
        own.
    organelles : names, optional
        The order of the masks, the same for all splits. Default: each split's own.
    zooms : one Zoom or None for each split, optional
        How sections are resampled when they are opened.

    Returns
    -------
    sections : list of Sections
        One for each split.
    warnings : list of str
        As `emlib.learn.datasets.domain.check_splits` gives them.

    Raises
    ------
    UserError
        As `emlib.learn.datasets.domain.check_splits`.

    Notes
    -----
    What is foreground is decided over all masks of an organelle (see `emlib.learn.datasets.mask_levels`), so that they
    are all read once, even where they do not fit in memory.
    """

    def problems(looked: Looked) -> list[str]:
        return [*looked.problems, *extra_masks(looked.split)]

    return _open(splits, patch_size, memory_gb, organelles, zooms, problems)


def grey_statistics(sections: Sections) -> Normalisation:
    """Return mean and standard deviation of the grey of all pixels, in [0, 1]; the latter is 1 if all are equal.

    Parameters
    ----------
    sections : Sections
        Of several data sets together each has the same weight, however large.
    """
    count, total, squares = 0.0, 0.0, 0.0
    for part in sections.parts:
        pixels, whole, square = _grey_sums(part)
        if len(sections.parts) == 1:
            count, total, squares = pixels, whole, square
        else:
            count, total, squares = count + 1, total + whole / pixels, squares + square / pixels
    mean, variance = total / count, (squares * count - total**2) / count**2
    return Normalisation(mean / 65535, max(variance, 0) ** 0.5 / 65535 or 1.0)


def _open(
    splits: Sequence[Split],
    patch_size: int | None,
    memory_gb: float,
    organelles: Sequence[str] | None,
    zooms: Sequence[Zoom | None] | None,
    problems_of: Callable[[Looked], list[str]],
) -> tuple[list[Sections], list[str]]:
    zooms = [None] * len(splits) if zooms is None else list(zooms)
    sizes = [
        _sizes(split, len(split.organelles if organelles is None else organelles), zoom)
        for split, zoom in zip(splits, zooms, strict=True)
    ]
    total = sum(map(sum, sizes))
    fits = total <= memory_gb * 1e9
    looked = [look_at(split, patch_size, keep=fits, zoom=zoom) for split, zoom in zip(splits, zooms, strict=True)]
    refuse([problem for each in looked for problem in problems_of(each)])
    opened = []
    for each, size, zoom in zip(looked, sizes, zooms, strict=True):
        room = memory_gb * 1e9 * sum(size) / max(total, 1)
        resident = len(size) if fits else max(1, int(room // max(size)))
        shapes = map_threads(lambda section: image_shape(section.raw), each.split.sections)
        sections = Sections(each.split, shapes, each.rules, resident, organelles, zoom)
        if fits:
            sections.fill(each.decoded)
        opened.append(sections)
    return opened, list(dict.fromkeys(warning for each in looked for warning in each.warnings))


def _sizes(split: Split, planes: int, zoom: Zoom | None) -> list[int]:
    """Bytes of each section with its masks in memory; 0 for a file that cannot be read, which is told later."""

    def size(section: SectionFiles) -> int:
        try:
            shape = image_shape(section.raw)
        except UserError:
            return 0
        y, x = shape if zoom is None else zoom.shape(shape)
        return y * x * (2 + planes)  # 16 bits of EM, 8 of each mask

    return map_threads(size, split.sections)


def _grey_sums(sections: Sections) -> tuple[int, int, int]:
    """Number of pixels, sum and sum of squares of their grey on the scale of 16 bits, all whole numbers."""
    count, total, squares = 0, 0, 0
    for index in range(len(sections)):
        image = sections.image(index)
        scale = 65535 // np.iinfo(image.dtype).max
        counts = np.bincount(image.ravel())
        value = [int(v) * scale for v in np.flatnonzero(counts)]
        number = [int(n) for n in counts[counts > 0]]
        count += image.size
        total += sum(n * v for n, v in zip(number, value, strict=True))
        squares += sum(n * v * v for n, v in zip(number, value, strict=True))
    return count, total, squares
