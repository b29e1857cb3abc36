"""Boundary probability from intensity in blocks, the very bits that the whole volume gives.

1. Ridge and smoothed grey value of each block, with a margin as wide as the filters reach; both are kept.
2. Mean and spread of the two over the volume, from sums that do not depend on how the volume is cut.
3. The probability of each block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emlib.blockwise.grid import Shape, around, sides, within
from emlib.blockwise.site import Site
from emlib.stages.boundaries import (
    BoundarySettings,
    boundary_evidence,
    boundary_probability,
    filter_reach,
    near_isotropic,
    slabs,
)
from emlib.stages.exact_sums import exact_sums, mean_and_spread
from emlib.volumes.volume import Box

EVIDENCE = ("ridge", "dark")
LANES = 16  # of the widest vectors; narrower ones divide it


def reach(settings: BoundarySettings, site: Site) -> tuple[int, int, int]:
    """Voxels (z, y, x) that the filters look at around a block."""
    return filter_reach(max(settings.ridge_sigma_nm, settings.dark_sigma_nm), site.voxel_size_nm)


def weigh_block(site: Site, settings: BoundarySettings, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compute the evidence of a block, and its sums."""
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {name: [0, 0, 0] for name in EVIDENCE}
    outer = _like_the_whole(around(part, reach(settings, site), site.seen)[0], site, settings)
    inner = within(part, outer)
    em = np.ascontiguousarray(site.read_seen("em", outer), np.float32)
    wrote, told = [], {}
    for name, values in zip(EVIDENCE, boundary_evidence(em, site.voxel_size_nm, settings), strict=True):
        own = np.ascontiguousarray(values[inner])
        wrote.append(site.write_seen(name, box, own))
        told[name] = exact_sums(own)
    return wrote, told


def _like_the_whole(outer: Box, site: Site, settings: BoundarySettings) -> Box:
    """Let the block at the very end begin so that as many voxels are left over there as on the whole volume.

    Eigenvalues are computed for `LANES` voxels at once; the last ones, fewer than that, are rounded otherwise.
    """
    shape, sigma = site.seen, settings.ridge_sigma_nm / site.voxel_size_nm[0]
    if not near_isotropic(site.voxel_size_nm) or any(o.stop < n for o, n in zip(outer, shape, strict=True)):
        return outer

    def left_over(size: Shape) -> int:
        low, _, _, high = slabs(size[0], sigma)[-1]
        return (high - low) * size[1] * size[2] % LANES

    for first in range(outer[0].start, -1, -1):
        outer = (slice(first, outer[0].stop), *outer[1:])
        if left_over(sides(outer)) == left_over(shape):
            return outer
    return outer


def moments(told: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Mean and spread of ridge and of grey value over all blocks."""
    return [mean_and_spread(one[name] for one in told) for name in EVIDENCE]


def decide_block(
    site: Site, shared: tuple[BoundarySettings, tuple[float, float], tuple[float, float]], box: Box
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn the evidence of a block into its probability; ``shared`` is settings, and mean and spread of each."""
    settings, *known = shared
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [site.write_seen("boundaries", box, np.zeros((0, *sides(box)[1:]), np.float32))], {}
    ridge, dark = (site.read_seen(name, part) for name in EVIDENCE)
    return [site.write_seen("boundaries", box, boundary_probability(ridge, dark, *known, settings))], {}
