"""Boundary probability from a forest of pixels in blocks, the very bits that the whole volume gives.

Near isotropic, a block is described with a margin as wide as the filters reach, a few sections at a time. Sections of
an anisotropic volume are described one by one, whole, so that the unit is a layer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import around, lay, sides, within
from emlib.blockwise.sections import layers
from emlib.blockwise.site import Site
from emlib.refine.features import FeatureSettings, feature_names, reach, slab_features, slabs
from emlib.refine.forest import Forest
from emlib.refine.model_file import read_model, write_model
from emlib.refine.pixel_forest import sections_at_once
from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import Box

MODEL = "pixel_forest.npz"  # beside the tables: workers need not see the file that the user named
FILTERED, FILTERED_FLAT = 64, 40  # bytes of a voxel: six products of derivatives, smoothed, and three eigenvalues


def forest_boundaries(engine: Engine, forest: Forest, features: FeatureSettings) -> None:
    """Write ``boundaries`` as `emlib.refine.pixel_forest.background_probability` computes them."""
    site = engine.site
    site.create("boundaries", np.float32)
    path = Path(site.work) / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(path, {"pixels": forest}, {"features": features})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    boxes = lay(site.shape, site.block) if near_isotropic(site.voxel_size_nm) else layers(site)
    engine.run("boundaries", classify_block, (digest, features), boxes)


def classify_block(
    site: Site, shared: tuple[str, FeatureSettings], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Classify the voxels of a block; ``shared`` is the checksum of the forest and the settings of its features."""
    _, features = shared
    part = site.seen_part(box)
    found = np.zeros(sides(part), np.float32)
    if sides(part)[0]:
        forest = read_model(Path(site.work) / MODEL)[0]["pixels"]
        classify = _classify_solid if near_isotropic(site.voxel_size_nm) else _classify_sections
        classify(site, features, forest, part, found)
    return [site.write_seen("boundaries", box, found)], {}


def _classify_sections(site: Site, features: FeatureSettings, forest: Forest, part: Box, found: np.ndarray) -> None:
    em = site.read_seen("em", part)
    for z, section in enumerate(em):
        described = slab_features(section[None], site.voxel_size_nm, settings=features)
        found[z] = forest.probability(described.reshape(-1, described.shape[-1])).reshape(section.shape)


def _classify_solid(site: Site, features: FeatureSettings, forest: Forest, part: Box, found: np.ndarray) -> None:
    far = reach(site.voxel_size_nm, features)
    outer, _ = around(part, far, site.seen)
    at_end = all(o.stop == n for o, n in zip(outer, site.seen, strict=True))
    for slab in _slabs(part[0], sections_at_once(site.seen), site.seen[0], at_end):
        own = (slice(max(slab.start, part[0].start), min(slab.stop, part[0].stop)), *part[1:])
        seen = (slice(max(0, slab.start - far[0]), min(site.seen[0], slab.stop + far[0])), *outer[1:])
        em = np.ascontiguousarray(site.read_seen("em", seen), np.float32)
        inside = range(slab.start - seen[0].start, slab.stop - seen[0].start)
        described = slab_features(em, site.voxel_size_nm, inside, features)
        first = slice(own[0].start - slab.start, own[0].stop - slab.start)
        described = np.ascontiguousarray(described[(first, *within(own, seen)[1:])])
        told = forest.probability(described.reshape(-1, described.shape[-1]))
        found[within(own, part)] = told.reshape(described.shape[:-1])


def _slabs(part: slice, sections: int, depth: int, at_end: bool) -> list[range]:
    """The sections of a block, as many at once as of the whole volume.

    Eigenvalues are computed for 16 voxels at once, and the last ones, fewer than that, are rounded otherwise. Where a
    block sees the very end of the volume, its last slab therefore is that of the whole volume, of which only a part may
    belong to the block.
    """
    last = slabs(depth, sections)[-1]
    if not at_end or part.stop <= last.start:
        return [range(part.start + one.start, part.start + one.stop) for one in slabs(part.stop - part.start, sections)]
    before = slice(part.start, max(part.start, last.start))
    return [*(_slabs(before, sections, depth, False) if before.stop > before.start else []), last]


def block_bytes(site: Site, features: FeatureSettings) -> int:
    """Bytes that a block takes at the peak: what filters work on, margins included, and features that are held."""
    columns = len(feature_names(site.voxel_size_nm, features))
    z, y, x = site.shape
    if not near_isotropic(site.voxel_size_nm):
        return y * x * (FILTERED_FLAT + 4 * columns) + 8 * site.chunk[0] * y * x
    deep = min(z, sections_at_once(site.shape))
    sizes = zip((deep, *site.block[1:]), reach(site.voxel_size_nm, features), site.shape, strict=True)
    seen, tall, wide = (min(n, side + 2 * far + 32) for side, far, n in sizes)
    return tall * wide * (seen * FILTERED + 8 * columns * deep)
