"""Neurite labels from EM: choose a segmenter and run its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from emlib.errors import UserError
from emlib.stages.agglomerate import MulticutSettings, edge_evidence, partition, region_graph
from emlib.stages.boundaries import BoundarySettings, damaged_sections, intensity_boundaries
from emlib.stages.fragment_planes import FragmentPlanes, middle_planes
from emlib.stages.inclusions import absorb_enclosed
from emlib.stages.learned_edges import Cut, EdgeModel, learned_evidence
from emlib.stages.stitch import BaselineSettings, segment_sections, stitch
from emlib.stages.watershed import FragmentSettings, watershed_fragments
from emlib.volumes.volume import ZYX

SEGMENTERS = ("multicut", "watershed", "gasp")
LARGEST_BIAS = 10.0  # log-odds of 1 to 22 000: beyond, everything is one segment, or nothing is joined


@dataclass(frozen=True)
class GaspSettings:
    """How readily mean affinity joins; the other settings of the evidence are those of ``MulticutSettings``."""

    bias: float = 0.5  # log-odds added to "these two are different", in the place of the multicut's; fib25 z 0-119


@dataclass(frozen=True)
class SegmentSettings:
    """Which segmenter, and the settings of its steps."""

    segmenter: str = "multicut"  # or "gasp", mean affinity, or "watershed", the slice-wise baseline
    bias: float = 0.0  # log-odds on top of what was chosen for segmenter and edge model; above 0 splits more
    boundaries: BoundarySettings = field(default_factory=BoundarySettings)
    fragments: FragmentSettings = field(default_factory=FragmentSettings)
    multicut: MulticutSettings = field(default_factory=MulticutSettings)
    gasp: GaspSettings = field(default_factory=GaspSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)


def segment(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    settings: SegmentSettings | None = None,
    boundaries: np.ndarray | None = None,
    edges: EdgeModel | None = None,
    look: Callable[[FragmentPlanes], None] | None = None,
) -> np.ndarray:
    """Segment neurites.

    Parameters
    ----------
    em : (Z, Y, X) float array in [0, 1]
        Preprocessed and aligned, membranes dark.
    voxel_size_nm : (z, y, x) in nm
    settings : SegmentSettings
    boundaries : (Z, Y, X) float array in [0, 1], optional
        Boundary probability from elsewhere; computed from ``em`` when absent. The baseline does not use it.
    edges : EdgeModel, optional
        A learned model of contacts, in the place of the boundary evidence. The baseline does not use it.
    look : function, optional
        Given the fragments of the middle planes before they are joined; the baseline has none.

    Returns
    -------
    (Z, Y, X) int32 array
        Ids from 1 without gaps. ``multicut`` and ``gasp`` label wall to wall: labels touch, the membrane is shared out
        between the two neurites beside it, and 0 stands only in sections that hold a single grey value. ``watershed``
        leaves 0 between neurites.

    Raises
    ------
    ValueError
        If the segmenter is unknown or the shapes differ.
    UserError
        As `check_bias`.
    """
    settings = settings or SegmentSettings()
    check_bias(settings.bias)
    if settings.segmenter not in SEGMENTERS:
        raise ValueError(f"segmenter must be one of {', '.join(SEGMENTERS)}, got {settings.segmenter!r}")
    em = np.asarray(em, dtype=np.float32)
    if boundaries is not None and boundaries.shape != em.shape:
        raise ValueError(f"boundaries have shape {boundaries.shape}, the EM {em.shape}")
    good = ~damaged_sections(em)
    labels = np.zeros(em.shape, np.int32)
    if not good.any():
        return labels
    # Damaged sections are taken out, so that neurites are followed from the section before to the one after.
    whole = bool(good.all())
    if settings.segmenter == "watershed":
        part = segment_sections(em if whole else em[good], voxel_size_nm, settings.baseline)
        found = stitch(part, settings.baseline.min_overlap)
    else:
        if boundaries is None:
            boundaries = intensity_boundaries(em, voxel_size_nm, settings.boundaries)
        boundaries = np.asarray(boundaries, np.float32)
        seen = (em, np.ascontiguousarray(boundaries)) if whole else (em[good], boundaries[good])
        fragments = watershed_fragments(seen[1], voxel_size_nm, settings.fragments)
        if look is not None:
            look(middle_planes(fragments, good))
        found = _agglomerated(*seen, fragments, voxel_size_nm, settings, edges)
    labels[good] = found
    return labels


def check_bias(bias: float) -> None:
    """Refuse a bias with which nothing is told apart.

    Raises
    ------
    UserError
        If it lies outside of -10 to 10.
    """
    if not abs(bias) <= LARGEST_BIAS:
        raise UserError(
            f"--set segment.bias={bias:g}: must lie between -{LARGEST_BIAS:g} and {LARGEST_BIAS:g}; it is added to "
            "log-odds, above 0 splits more, below 0 joins more"
        )


def _agglomerated(
    em: np.ndarray,
    boundaries: np.ndarray,
    fragments: np.ndarray,
    voxel_size_nm: ZYX,
    settings: SegmentSettings,
    edges: EdgeModel | None,
) -> np.ndarray:
    graph = region_graph(fragments, boundaries, voxel_size_nm, evident=edges is None)
    if edges is None:
        own = settings.gasp.bias if settings.segmenter == "gasp" else settings.multicut.bias
        evidence = edge_evidence(graph, replace(settings.multicut, bias=own + settings.bias))
    else:
        same = edges.predict(Cut(fragments, graph, boundaries, em, voxel_size_nm))
        tuning = edges.tuning(settings.segmenter)
        tuning = tuning._replace(bias=tuning.bias + settings.bias)
        evidence = learned_evidence(same, graph, voxel_size_nm, tuning)
    neurite = partition(graph, evidence, settings.segmenter)
    neurite = absorb_enclosed(neurite, graph, fragments, voxel_size_nm, settings.multicut.min_enclosed)
    return neurite_labels(neurite, fragments)


def neurite_labels(neurite: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """Return the labels, (Z, Y, X) int32 from 1 without gaps, of fragments whose segments are known by id."""
    ids = np.unique(neurite[1:], return_inverse=True)[1].astype(np.int32) + 1  # fragment 0 does not exist
    return np.concatenate([np.zeros(1, np.int32), ids])[fragments]
