"""The slice-wise baseline in layers: each section by itself, then sections stitched by overlap, as in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import name, sides
from emlib.blockwise.sections import layers
from emlib.blockwise.site import Site
from emlib.stages.stitch import BaselineSettings, overlaps, segment_sections, stitched
from emlib.volumes.volume import Box

SLICES, STITCH = "slices", "stitch"  # the array of labels before sections are stitched; the stage that compares them

Outcome = tuple[list[dict[str, Any]], dict[str, Any]]


def baseline(engine: Engine, settings: BaselineSettings) -> int:
    """Write ``neurites`` as `emlib.stages.stitch` labels them, and return how many there are."""
    site, boxes = engine.site, layers(engine.site)
    site.create(SLICES, np.int32)
    site.create("neurites", np.int32)
    told = engine.run(SLICES, slice_layer, settings, boxes)
    firsts = np.cumsum([0, *(one["labels"] for one in told)])
    after = [*(int(first) for first in firsts[1:-1]), 0]
    own = [(int(first), follows) for first, follows in zip(firsts, after, strict=False)]
    engine.run(STITCH, compare_layer, None, boxes, own)
    tables = [site.read_table(STITCH, name(box)) for box in boxes if sides(site.seen_part(box))[0]]
    area = np.concatenate([[0], *(table["area"] for table in tables)])
    pairs, shared = (np.concatenate([table[key] for table in tables]) for key in ("pairs", "shared"))
    neurite = stitched(pairs, shared, area, settings.min_overlap)
    site.save("neurite", neurite)
    site.save("voxels", area[1:])
    engine.run("neurites", label_layer, settings.min_overlap, boxes, [(first,) for first, _ in own])
    return int(neurite.max(initial=0))


def slice_layer(site: Site, settings: BaselineSettings, box: Box) -> Outcome:
    """Segment the sections of a layer, each by itself; ids are unique in the layer."""
    part = site.seen_part(box)
    found = np.zeros(sides(part), np.int32)
    if sides(part)[0]:
        found = segment_sections(site.read_seen("em", part), site.voxel_size_nm, settings)
    return [site.write_seen(SLICES, box, found)], {"labels": int(found.max(initial=0))}


def compare_layer(site: Site, shared: tuple[None, int, int], box: Box) -> Outcome:
    """Measure the labels of a layer and their overlaps, up to the first section of the next layer.

    ``shared`` ends with how many labels there are before this layer, and before the next. The table holds ``area`` of
    each label, ``pairs`` of labels that overlap and the pixels ``shared``.
    """
    _, before, follows = shared
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {}
    own = site.read_seen(SLICES, part)
    area = np.bincount(own.ravel())[1:]
    seen = np.where(own > 0, own + np.int64(before), 0)
    if part[0].stop < site.seen[0]:
        ahead = site.read_seen(SLICES, (slice(part[0].stop, part[0].stop + 1), *part[1:]))
        seen = np.concatenate([seen, np.where(ahead > 0, ahead + np.int64(follows), 0)])
    pairs, pixels = overlaps(seen)
    return [site.write_table(STITCH, name(box), area=area, pairs=pairs, shared=pixels)], {}


def label_layer(site: Site, shared: tuple[float, int], box: Box) -> Outcome:
    """Write the neurite labels of a layer; ``shared`` ends with how many labels there are before it."""
    part = site.seen_part(box)
    own = site.read_seen(SLICES, part)
    first, neurite = shared[1], site.load("neurite")
    lookup = np.concatenate([neurite[:1], neurite[first + 1 : first + 1 + int(own.max(initial=0))]])
    return [site.write_seen("neurites", box, lookup[own])], {}
