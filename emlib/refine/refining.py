"""Refinement on arrays: learn from corrected sections, classify the volume, segment it anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from emlib.refine.corrections import Corrections
from emlib.refine.edge_features import known_edges
from emlib.refine.edge_forest import EdgeForest, EdgeSettings, learn_edges
from emlib.refine.edge_segmentation import cut_fragments, join_fragments
from emlib.refine.examples import ExampleSettings
from emlib.refine.features import FeatureSettings
from emlib.refine.forest import Forest, ForestSettings
from emlib.refine.pixel_forest import PixelForest, background_probability, learn_pixels
from emlib.stages.agglomerate import MulticutSettings
from emlib.stages.boundaries import damaged_sections
from emlib.stages.segment import SegmentSettings, segment
from emlib.volumes.volume import ZYX

Stage = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class RefineSettings:
    """Settings of all steps; biases were chosen on fib25-medulla z 0-119 and phantom seed 3."""

    features: FeatureSettings = field(default_factory=FeatureSettings)
    examples: ExampleSettings = field(default_factory=ExampleSettings)
    forest: ForestSettings = field(default_factory=lambda: ForestSettings("hgb", trees=200, min_leaf=20))
    edges: EdgeSettings = field(default_factory=EdgeSettings)
    segment: SegmentSettings = field(default_factory=lambda: SegmentSettings(multicut=MulticutSettings(bias=0.0)))


@dataclass(frozen=True)
class Refined:
    """What a refinement gives.

    Attributes
    ----------
    labels : (Z, Y, X) int32 array
        As `emlib.stages.segment.segment` returns them.
    boundaries : (Z, Y, X) float32 array in [0, 1]
    pixels : PixelForest or None
        None where a trained model was applied.
    edges : EdgeForest or None
    edge_validation : dict or None
        As `emlib.refine.edge_forest.learn_edges` returns it.
    edge_importance : (F,) float array or None
    """

    labels: np.ndarray
    boundaries: np.ndarray
    pixels: PixelForest | None = None
    edges: EdgeForest | None = None
    edge_validation: dict[str, Any] | None = None
    edge_importance: np.ndarray | None = None


def _unwatched(name: str) -> AbstractContextManager:
    return nullcontext()


def refine(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    corrections: Corrections,
    settings: RefineSettings | None = None,
    *,
    with_edges: bool = False,
    seed: int = 0,
    stage: Stage = _unwatched,
) -> Refined:
    """Learn from corrected sections and segment the volume anew.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
        Preprocessed and aligned. Sections that hold a single grey value are left out, and 0 in the result.
    voxel_size_nm : (z, y, x) in nm
    corrections : Corrections
        None of them on a section of a single grey value.
    settings : RefineSettings
    with_edges : bool
        Also learn which fragments belong together, and hold contacts in corrected sections to what these say.
    seed : int
    stage : function
        Called with the name of each step; the context manager that it returns is held meanwhile.

    Returns
    -------
    Refined

    Raises
    ------
    UserError
        If too few contacts are known for the edge forest.
    """
    settings = settings or RefineSettings()
    good = ~damaged_sections(em)
    seen = em if good.all() else em[good]
    here = replace(corrections, sections=tuple(int(good[:z].sum()) for z in corrections.sections))
    with stage("learn"):
        chosen = (settings.features, settings.examples, settings.forest)
        pixels = learn_pixels(seen, voxel_size_nm, here, *chosen, seed)
        # Named by their place in the whole volume, where damaged sections count.
        by_section = dict(zip(corrections.sections, pixels.validation["auc_by_section"].values(), strict=False))
        named = {"sections": list(corrections.sections), "auc_by_section": by_section}
        pixels = pixels._replace(validation={**pixels.validation, **named})
    with stage("classify"):
        probability = background_probability(seen, voxel_size_nm, pixels.forest, settings.features)
    if not with_edges:
        with stage("segment"):
            labels = segment(seen, voxel_size_nm, settings.segment, probability)
        return Refined(put_back(labels, good), put_back(probability, good), pixels)
    with stage("edges"):
        fragments = cut_fragments(seen, probability, voxel_size_nm, settings.segment)
        unseen = probability.copy()
        unseen[list(here.sections)] = pixels.unseen
        known = known_edges(fragments.graph, fragments.ids, here)
        edges, validation, importance = learn_edges(fragments.describe(unseen), known, settings.edges, seed)
    with stage("segment"):
        labels = join_fragments(fragments, edges, settings.edges, settings.segment, known)
    return Refined(put_back(labels, good), put_back(probability, good), pixels, edges, validation, importance)


def apply_forests(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    forest: Forest,
    edges: EdgeForest | None,
    settings: RefineSettings,
    stage: Stage = _unwatched,
) -> Refined:
    """Segment a volume with forests that were trained before, perhaps on another.

    Parameters
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    forest : Forest
        Of pixels.
    edges : EdgeForest, optional
    settings : RefineSettings
        Its features are those that the forest was trained with.
    stage : function
        As in `refine`.

    Returns
    -------
    Refined
    """
    good = ~damaged_sections(em)
    seen = em if good.all() else em[good]
    with stage("classify"):
        probability = background_probability(seen, voxel_size_nm, forest, settings.features)
    with stage("segment"):
        if edges is None:
            labels = segment(seen, voxel_size_nm, settings.segment, probability)
        else:
            fragments = cut_fragments(seen, probability, voxel_size_nm, settings.segment)
            labels = join_fragments(fragments, edges, settings.edges, settings.segment)
    return Refined(put_back(labels, good), put_back(probability, good), edges=edges)


def put_back(part: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Put sections back in their place among damaged ones, which are 0."""
    if good.all():
        return part
    result = np.zeros((len(good), *part.shape[1:]), part.dtype)
    result[good] = part
    return result
