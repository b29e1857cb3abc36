"""Everything that is counted of a stack of masks, section by section; all scores come from sums of these counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emlib.measure.masks.chance import CHANCE, chance_masks
from emlib.measure.masks.objects import object_counts
from emlib.measure.masks.outlines import boundary_counts
from emlib.measure.masks.pixels import patch_counts, pixel_counts
from emlib.threads import map_threads

LINES = ("prediction", *CHANCE)
Sections = np.ndarray | Sequence[np.ndarray]  # (Z, Y, X), or (Y, X) arrays that may differ in size


@dataclass(frozen=True)
class MaskSettings:
    """How masks are scored.

    Attributes
    ----------
    pixel_nm : (y, x) in nm, or None
        None: unknown, and no boundaries are scored.
    boundary_nm : float
        Tolerance of the boundary F1 in nm.
    min_object_nm2 : float
        Smaller components are no objects, in nm²; above 0 it needs ``pixel_nm``.
    patch, stride : int
        Side of a patch, and from one patch to the next, in pixels.
    bootstrap : int
        Draws of sections for the intervals.
    seed : int
        Of the draws and of the random chance line; at least 0.

    Raises
    ------
    ValueError
        If a number is too small, or ``min_object_nm2`` is above 0 without ``pixel_nm``.
    """

    pixel_nm: tuple[float, float] | None = None
    boundary_nm: float = 20.0
    min_object_nm2: float = 0.0
    patch: int = 256
    stride: int = 128
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("patch", 1), ("stride", 1), ("bootstrap", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.min_object_nm2 > 0 and self.pixel_nm is None:
            raise ValueError("min_object_nm2 needs the pixel size in nm")

    @property
    def min_pixels(self) -> float:
        """Smallest object in pixels."""
        return self.min_object_nm2 / (self.pixel_nm[0] * self.pixel_nm[1]) if self.pixel_nm else 0.0


DEFAULTS = MaskSettings()


@dataclass(frozen=True)
class MaskCounts:
    """Counts of one prediction (or chance line) against the truth.

    Attributes
    ----------
    pixels : (Z, 4) int64 array
        ``emlib.measure.masks.pixels.PIXEL_COUNTS`` of each section.
    patches : (P, 4) int64 array
        The same of each patch of all sections.
    boundary : (Z, 4) int64 array or None
        ``emlib.measure.masks.outlines.BOUNDARY_COUNTS``; None without a pixel size.
    objects : (Z, 4) int64 array or None
        ``emlib.measure.masks.objects.OBJECT_COUNTS``; None for what has no objects.
    """

    pixels: np.ndarray
    patches: np.ndarray
    boundary: np.ndarray | None
    objects: np.ndarray | None


def count_masks(
    truth: Sections,
    pred: Sections,
    settings: MaskSettings = DEFAULTS,
    *,
    objects: bool = True,
    ignored: Sections | None = None,
) -> dict[str, MaskCounts]:
    """Count a predicted stack and its chance lines against the truth.

    Parameters
    ----------
    truth, pred : (Z, Y, X) bool arrays, or sequences of (Y, X) bool arrays
        Section by section of one shape.
    settings : MaskSettings
    objects : bool
        Whether components are counted as objects.
    ignored : as truth, optional
        Pixels that nobody annotated: no pixel, patch or chance line counts them; boundaries and objects are cut there.
        A patch without any other pixel is left out.

    Returns
    -------
    dict of MaskCounts
        By the names in ``LINES``: ``prediction``, then the chance lines.

    Raises
    ------
    ValueError
        If there is no section, the numbers or shapes of sections differ, an array is not bool or is empty, or all
        pixels of a section are ignored.

    Examples
    --------
    >>> stack = np.zeros((3, 512, 512), bool)
    >>> counts = count_masks(stack, stack)["prediction"]
    >>> counts.pixels.shape, counts.patches.shape
    ((3, 4), (27, 4))
    """
    _check(truth, pred)
    if ignored is not None:
        _check(truth, ignored)

    def count(z: int) -> list[tuple]:
        if ignored is None:
            masks = (pred[z], *chance_masks(pred[z], settings.seed, z).values())
            return [_count_section(truth[z], mask, settings, objects) for mask in masks]
        known = ~ignored[z]
        if not known.any():
            raise ValueError(f"section {z}: all pixels are ignored; leave it out")
        lines = chance_masks(pred[z][known][None], settings.seed, z).values()  # drawn among the known pixels alone
        masks = [pred[z] & known, *(np.zeros(known.shape, bool) for _ in lines)]
        for mask, line in zip(masks[1:], lines, strict=True):
            mask[known] = line[0]
        return [_count_known(truth[z] & known, mask, ~known, settings, objects) for mask in masks]

    sections = map_threads(count, range(len(truth)))
    lines = {}
    for name, line in zip(LINES, zip(*sections, strict=True), strict=True):
        pixels, patches, boundary, found = zip(*line, strict=True)
        lines[name] = MaskCounts(
            np.stack(pixels),
            np.concatenate(patches),
            None if settings.pixel_nm is None else np.stack(boundary),
            np.stack(found) if objects else None,
        )
    return lines


def _count_section(truth: np.ndarray, pred: np.ndarray, settings: MaskSettings, objects: bool) -> tuple:
    """The four kinds of counts of a section, in the order of the fields of `MaskCounts`."""
    pixel = settings.pixel_nm
    return (
        pixel_counts(truth, pred),
        patch_counts(truth, pred, settings.patch, settings.stride),
        None if pixel is None else boundary_counts(truth, pred, pixel, settings.boundary_nm),
        object_counts(truth, pred, settings.min_pixels) if objects else None,
    )


def _count_known(
    truth: np.ndarray, pred: np.ndarray, ignored: np.ndarray, settings: MaskSettings, objects: bool
) -> tuple:
    """As `_count_section`, where neither truth nor prediction holds an ignored pixel: these are no true negatives."""
    pixels, patches, *others = _count_section(truth, pred, settings, objects)
    pixels[-1] -= np.count_nonzero(ignored)
    patches[:, -1] -= patch_counts(ignored, ignored, settings.patch, settings.stride)[:, 0]
    return pixels, patches[patches.any(axis=1)], *others


def _check(truth: Sections, pred: Sections) -> None:
    if len(truth) != len(pred) or not len(truth):
        raise ValueError(f"truth has {len(truth)} sections, prediction {len(pred)}: they must be equal and at least 1")
    for z, (true, found) in enumerate(zip(truth, pred, strict=True)):
        if true.shape != found.shape or true.ndim != 2 or not true.size:
            raise ValueError(f"section {z}: truth is {true.shape}, prediction {found.shape}: must be one shape (Y, X)")
        if true.dtype != bool or found.dtype != bool:
            raise ValueError(f"section {z}: truth is {true.dtype}, prediction {found.dtype}: masks must be bool")
