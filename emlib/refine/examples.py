"""Examples for the pixel forest: which pixels of corrected sections are background, and which are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emlib.refine.corrections import Corrections
from emlib.refine.features import FeatureSettings, slab_features
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class ExampleSettings:
    """Which pixels the forest learns from."""

    band_px: int = 2  # width of the background along the border of two labels, half of it on either side
    pixels: int = 60_000  # drawn at random, from all sections alike, half of them background
    held_out: float = 0.2  # share of pixels that no forest learns from


@dataclass(frozen=True)
class Examples:
    """Pixels with features and class, section by section.

    Attributes
    ----------
    features : (N, F) float32 array
    background : (N,) bool array
    fold : (N,) int array
        Of cross-validation: sections share one, or halves of a single section.
    learnt : (N,) bool array
        Drawn to learn from; the others are held out.
    """

    features: np.ndarray
    background: np.ndarray
    fold: np.ndarray
    learnt: np.ndarray


def background_of(labels: np.ndarray, band_px: int = 2) -> np.ndarray:
    """Return what counts as background in a corrected section.

    Parameters
    ----------
    labels : (Y, X) int array
    band_px : int
        Width of the band along the border of two labels that touch; an odd one is rounded up.

    Returns
    -------
    (Y, X) bool array
        Label 0, and the band.

    Examples
    --------
    >>> background_of(np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 0, 2]])).astype(int)
    array([[0, 0, 1, 1, 0, 0],
           [0, 0, 1, 1, 1, 0]])
    """
    border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        low = np.take(labels, range(labels.shape[axis] - 1), axis)
        high = np.take(labels, range(1, labels.shape[axis]), axis)
        differ = (low != high) & (low > 0) & (high > 0)
        before, behind = [slice(None)] * 2, [slice(None)] * 2
        before[axis], behind[axis] = slice(0, -1), slice(1, None)
        border[tuple(before)] |= differ
        border[tuple(behind)] |= differ
    more = (band_px + 1) // 2 - 1
    if more > 0:
        border = ndimage.binary_dilation(border, iterations=more)
    return border | (labels == 0)


def folds_of(count: int, shape: tuple[int, int], most: int = 3) -> np.ndarray:
    """Return the fold of every pixel of each section: whole sections, or the halves of a single one.

    Parameters
    ----------
    count : int
        Sections.
    shape : (Y, X)
    most : int
        Number of folds at most.

    Returns
    -------
    (count, Y, X) int array

    Examples
    --------
    >>> folds_of(3, (1, 2))[:, 0].tolist(), folds_of(1, (1, 4))[0].tolist()
    ([[0, 0], [1, 1], [2, 2]], [[0, 0, 1, 1]])
    """
    if count == 1:
        return np.broadcast_to(np.arange(shape[1]) * 2 // shape[1], (1, *shape))
    return np.broadcast_to((np.arange(count) % most)[:, None, None], (count, *shape))


def draw_examples(
    features: Sequence[np.ndarray], corrections: Corrections, settings: ExampleSettings, seed: int
) -> Examples:
    """Draw as many background as neurite pixels from each corrected section, and hold others out.

    Parameters
    ----------
    features : K arrays (Y, X, F) float32
        Of the corrected sections, in their order.
    corrections : Corrections
    settings : ExampleSettings
    seed : int

    Returns
    -------
    Examples
        ``learnt`` ones are balanced in each section; those held out are a random share of all pixels, as they come,
        at most as many as ``settings.pixels``.
    """
    rng = np.random.default_rng(seed)
    shape = corrections.labels.shape[1:]
    folds = folds_of(len(corrections.sections), shape)
    share = max(1, settings.pixels // len(corrections.sections))
    parts = []
    for described, labels, fold in zip(features, corrections.labels, folds, strict=True):
        background = background_of(labels, settings.band_px).ravel()
        order = rng.permutation(background.size)
        aside = order[: max(1, round(settings.held_out * background.size))]
        rest = order[len(aside) :]
        per_class = min(share // 2, *(int((background[rest] == c).sum()) for c in (False, True)))
        drawn = np.concatenate([rest[background[rest] == c][:per_class] for c in (False, True)])
        aside = aside[:share]
        at = np.sort(np.concatenate([drawn, aside]))
        learnt = np.isin(at, drawn)
        parts.append((described.reshape(-1, described.shape[-1])[at], background[at], fold.ravel()[at], learnt))
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def section_features(
    em: np.ndarray, voxel_size_nm: ZYX, sections: Sequence[int], settings: FeatureSettings
) -> list[np.ndarray]:
    """Describe single sections of a volume, each (Y, X, F) float32; see `slab_features`."""
    return [slab_features(em, voxel_size_nm, range(z, z + 1), settings)[0] for z in sections]
