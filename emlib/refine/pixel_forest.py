"""The pixel forest: neurite or background, learnt from corrected sections, and validated on what it did not see."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from emlib.refine.corrections import Corrections
from emlib.refine.examples import Examples, ExampleSettings, background_of, draw_examples, folds_of, section_features
from emlib.refine.features import FeatureSettings, feature_names, slab_features, slabs
from emlib.refine.forest import Forest, ForestSettings, grow_forest
from emlib.refine.validation import auc, permutation_importance
from emlib.volumes.volume import ZYX

SLAB_VOXELS = 2**22  # described at once: 0.4 GB of features
_JUDGES = 5_000  # pixels that the importance of features is measured on


class PixelForest(NamedTuple):
    """What training gives.

    Attributes
    ----------
    forest : Forest
        For the probability of background.
    unseen : (K, Y, X) float32 array
        Background probability of the corrected sections, by forests that did not learn from the section (from that half
        of it, where there is only one): what the edge forest learns from, so that it does not take the pixel forest
        for better than it is elsewhere.
    validation : dict
        ``auc_held_out_pixels``; ``auc_held_out_sections``, None for a single section, with ``auc_by_section``; numbers
        of pixels.
    importance : (F,) float array
        Mean decrease of impurity.
    permutation : (F,) float array
        Fall of the AUC on held-out pixels.
    """

    forest: Forest
    unseen: np.ndarray
    validation: dict[str, Any]
    importance: np.ndarray
    permutation: np.ndarray


def learn_pixels(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    corrections: Corrections,
    features: FeatureSettings,
    examples: ExampleSettings,
    settings: ForestSettings,
    seed: int,
) -> PixelForest:
    """Learn neurite against background from corrected sections.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    corrections : Corrections
    features, examples, settings
        Of features, of the choice of pixels, of the trees.
    seed : int

    Returns
    -------
    PixelForest
    """
    names = feature_names(voxel_size_nm, features)
    described = section_features(em, voxel_size_nm, corrections.sections, features)
    drawn = draw_examples(described, corrections, examples, seed)
    learnt, held = drawn.learnt, np.flatnonzero(~drawn.learnt)
    forest, importance = grow_forest(drawn.features[learnt], drawn.background[learnt], names, settings, seed)
    unseen = _unseen(drawn, described, names, settings, seed)
    judges = np.random.default_rng(seed).permutation(held)[:_JUDGES]
    truth = drawn.background[held]
    several = len(corrections.sections) > 1
    by_section = _by_section(unseen, corrections, examples) if several else {}
    validation = {
        "sections": list(corrections.sections),
        "pixels_learnt": int(learnt.sum()),
        "pixels_held_out": len(held),
        "share_background": float(truth.mean()),
        "auc_held_out_pixels": auc(truth, forest.probability(drawn.features[held])),
        "auc_held_out_sections": float(np.nanmean(list(by_section.values()))) if several else None,
        "auc_by_section": by_section,
    }
    permutation = permutation_importance(forest, drawn.features, drawn.background, judges, seed)
    return PixelForest(forest, unseen, validation, importance, permutation)


def background_probability(em: np.ndarray, voxel_size_nm: ZYX, forest: Forest, features: FeatureSettings) -> np.ndarray:
    """Classify every voxel of a volume.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    forest : Forest
    features : FeatureSettings
        Those that the forest was trained with.

    Returns
    -------
    (Z, Y, X) float32 array in [0, 1]
        The probability of background, which is that of a boundary.
    """
    result = np.empty(em.shape, np.float32)
    for slab in slabs(len(em), sections_at_once(em.shape)):
        described = slab_features(em, voxel_size_nm, slab, features)
        found = forest.probability(described.reshape(-1, described.shape[-1]))
        result[slab.start : slab.stop] = found.reshape(described.shape[:-1])
    return result


def sections_at_once(shape: tuple[int, int, int]) -> int:
    """How many sections of a volume are described at once."""
    return int(np.clip(SLAB_VOXELS // (shape[1] * shape[2]), 8, 64))


def _unseen(
    drawn: Examples, described: list[np.ndarray], names: list[str], settings: ForestSettings, seed: int
) -> np.ndarray:
    """Classify each corrected section by a forest that learnt from the other folds."""
    folds = folds_of(len(described), described[0].shape[:2])
    result = np.empty(folds.shape, np.float32)
    for fold in np.unique(folds):
        chosen = drawn.learnt & (drawn.fold != fold)
        forest, _ = grow_forest(drawn.features[chosen], drawn.background[chosen], names, settings, seed)
        for place, features in enumerate(described):
            here = folds[place] == fold
            if here.any():
                result[place][here] = forest.probability(features[here])
    return result


def _by_section(unseen: np.ndarray, corrections: Corrections, examples: ExampleSettings) -> dict[int, float]:
    """AUC of each section by the forest that did not see it."""
    return {
        z: auc(background_of(labels, examples.band_px).ravel(), probability.ravel())
        for z, labels, probability in zip(corrections.sections, corrections.labels, unseen, strict=True)
    }
