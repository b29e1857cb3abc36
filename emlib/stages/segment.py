"""Neurite labels from EM: choose a segmenter and run its steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from emlib.stages.agglomerate import MulticutSettings, edge_costs, multicut, region_graph
from emlib.stages.boundaries import BoundarySettings, damaged_sections, intensity_boundaries
from emlib.stages.inclusions import absorb_enclosed
from emlib.stages.stitch import BaselineSettings, segment_sections, stitch
from emlib.stages.watershed import FragmentSettings, watershed_fragments
from emlib.volumes.volume import ZYX

SEGMENTERS = ("multicut", "watershed")


@dataclass(frozen=True)
class SegmentSettings:
    """Which segmenter, and the settings of its steps."""

    segmenter: str = "multicut"  # or "watershed", the slice-wise baseline
    boundaries: BoundarySettings = field(default_factory=BoundarySettings)
    fragments: FragmentSettings = field(default_factory=FragmentSettings)
    multicut: MulticutSettings = field(default_factory=MulticutSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)


def segment(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    settings: SegmentSettings | None = None,
    boundaries: np.ndarray | None = None,
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

    Returns
    -------
    (Z, Y, X) int32 array
        Ids from 1 without gaps. ``multicut`` labels wall to wall: labels touch, the membrane is shared out between
        the two neurites beside it, and 0 stands only in sections that hold a single grey value. ``watershed`` leaves
        0 between neurites.

    Raises
    ------
    ValueError
        If the segmenter is unknown or the shapes differ.
    """
    settings = settings or SegmentSettings()
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
        found = _multicut_labels(boundaries if whole else boundaries[good], voxel_size_nm, settings)
    labels[good] = found
    return labels


def _multicut_labels(boundaries: np.ndarray, voxel_size_nm: ZYX, settings: SegmentSettings) -> np.ndarray:
    boundaries = np.ascontiguousarray(boundaries, dtype=np.float32)
    fragments = watershed_fragments(boundaries, voxel_size_nm, settings.fragments)
    graph = region_graph(fragments, boundaries, voxel_size_nm)
    neurite = multicut(graph, edge_costs(graph, settings.multicut))
    neurite = absorb_enclosed(neurite, graph, fragments, voxel_size_nm, settings.multicut.min_enclosed)
    ids = np.unique(neurite[1:], return_inverse=True)[1].astype(np.int32) + 1  # fragment 0 does not exist
    return np.concatenate([np.zeros(1, np.int32), ids])[fragments]
