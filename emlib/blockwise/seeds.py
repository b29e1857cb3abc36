"""Seeds of fragments: the local minima of the relief, found in blocks, numbered the same however these lie.

1. Each block finds the minima among its own voxels and just around it; those that touch are one seed.
2. A plateau that crosses faces is one seed: what the blocks found of it is joined.
3. A seed is known by its first voxel, counted through the volume: a 64-bit number that no other seed has. In the order
   of these numbers, seeds stand as the whole volume numbers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bioimage_cpp.segmentation import label
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.blockwise.grid import around, name, overlapping, sides, within
from emlib.blockwise.site import Site
from emlib.stages.boundaries import filter_reach, near_isotropic, smooth
from emlib.stages.watershed import FragmentSettings, seed_window
from emlib.volumes.volume import Box

STAGE = "seeds"


def smooth_reach(site: Site, settings: FragmentSettings) -> tuple[int, int, int]:
    """Voxels (z, y, x) that the smoothing of the relief looks at on either side."""
    return filter_reach(settings.smooth_nm, site.voxel_size_nm)


def relief_of(site: Site, settings: FragmentSettings, outer: Box) -> np.ndarray:
    """The smoothed boundary probability of a box; right up to `smooth_reach` from where the box was cut."""
    boundaries = np.ascontiguousarray(site.read_seen("boundaries", outer), np.float32)
    return smooth(boundaries, settings.smooth_nm, site.voxel_size_nm)


def seed_block(site: Site, settings: FragmentSettings, box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Find the seeds of a block; its table holds voxels, the seed of each, and links to voxels of other blocks."""
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {"links": 0, "low": [], "high": []}
    window, solid = seed_window(site.voxel_size_nm, settings), near_isotropic(site.voxel_size_nm)
    ring = (1, 1, 1) if solid else (0, 1, 1)
    far = [s + (w // 2 + 1) * r for s, w, r in zip(smooth_reach(site, settings), window, ring, strict=True)]
    outer, _ = around(part, far, site.seen)
    relief = relief_of(site, settings, outer)
    size = window if solid else [1, *window[1:]]
    lowest = ndimage.minimum_filter(relief, size=size) == relief
    shell = tuple(
        slice(max(0, side.start - r), min(n, side.stop + r)) for side, r, n in zip(part, ring, site.seen, strict=True)
    )
    lowest = np.ascontiguousarray(lowest[within(shell, outer)])
    inner = within(part, shell)
    voxels, seed = _components(lowest[inner], part, site, solid)
    links = _links(lowest, shell, inner, voxels, seed, site, solid)
    own = relief[within(part, outer)].reshape(sides(part)[0], -1)
    wrote = site.write_table(STAGE, name(box), voxels=voxels, seed=seed, links=links)
    return [wrote], {"links": len(links), "low": own.min(axis=1).tolist(), "high": own.max(axis=1).tolist()}


def heights(site: Site, blocks: Sequence[Box], told: Sequence[dict[str, Any]]) -> np.ndarray:
    """Lowest and highest relief, (Z, 2), of what is flooded at once: of each section, or of the whole volume."""
    found = np.tile([np.inf, -np.inf], (site.seen[0], 1))
    for box, one in zip(blocks, told, strict=True):
        part = site.seen_part(box)[0]
        found[part, 0] = np.minimum(found[part, 0], one["low"])
        found[part, 1] = np.maximum(found[part, 1], one["high"])
    if near_isotropic(site.voxel_size_nm):
        found[:] = found[:, 0].min(), found[:, 1].max()
    return found


def _components(mask: np.ndarray, box: Box, site: Site, solid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a mask by their place in the volume, ascending, and the first voxel of the component of each."""
    found = np.nonzero(mask)
    voxels = np.ravel_multi_index([at + side.start for at, side in zip(found, box, strict=True)], site.seen)
    component = _label(mask, solid)[found]
    first = np.unique(component, return_index=True)[1]
    return voxels.astype(np.int64), voxels[first][np.unique(component, return_inverse=True)[1]].astype(np.int64)


def _label(mask: np.ndarray, solid: bool) -> np.ndarray:
    """Components of a mask, touching at corners as well; section by section unless ``solid``."""
    if solid:
        return label(mask).astype(np.int64)
    sections = [label(section).astype(np.int64) for section in mask]
    return np.stack([part + k * mask[0].size for k, part in enumerate(sections)]) * mask


def _links(
    lowest: np.ndarray, shell: Box, inner: Box, voxels: np.ndarray, seed: np.ndarray, site: Site, solid: bool
) -> np.ndarray:
    """Pairs (voxel outside, seed of this block) that touch, and pairs of seeds that touch by way of the outside."""
    outside = lowest.copy()
    outside[inner] = False
    if not outside.any():
        return np.zeros((0, 2), np.int64)
    found = np.nonzero(lowest)
    place = np.ravel_multi_index([at + side.start for at, side in zip(found, shell, strict=True)], site.seen)
    component, beyond = _label(lowest, solid)[found], outside[found]
    touched = np.intersect1d(component[beyond], component[~beyond])
    pairs = []
    for one in touched:
        own = np.unique(seed[np.searchsorted(voxels, place[(component == one) & ~beyond])])
        pairs += [(int(voxel), int(own[0])) for voxel in place[(component == one) & beyond]]
        pairs += [(int(other), int(own[0])) for other in own[1:]]
    return np.array(pairs, np.int64).reshape(-1, 2)


def join_seeds(site: Site, blocks: Sequence[Box], told: Sequence[dict[str, Any]]) -> np.ndarray:
    """Join the seeds that several blocks have a part of.

    Returns
    -------
    (K, 2) int64 array
        Seeds as a block knows them and as the volume does, for those that differ; ascending.
    """
    tables: dict[str, dict[str, np.ndarray]] = {}

    def table(which: str) -> dict[str, np.ndarray]:
        if which not in tables:
            if len(tables) > 8:
                tables.clear()
            tables[which] = site.read_table(STAGE, which)
        return tables[which]

    pairs = []
    for box, one in zip(blocks, told, strict=True):
        if one["links"]:
            for voxel, own in table(name(box))["links"].tolist():
                there = table(name(_block_of(voxel, site)))
                pairs.append((int(there["seed"][np.searchsorted(there["voxels"], voxel)]), own))
    if not pairs:
        return np.zeros((0, 2), np.int64)
    ids, index = np.unique(np.array(pairs, np.int64), return_inverse=True)
    ends = index.reshape(-1, 2)
    links = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(ids),) * 2)
    group = connected_components(links, directed=False)[1]
    first = ids[np.unique(group, return_index=True)[1]][group]
    return np.stack([ids, first], axis=1)[ids != first]


def _block_of(voxel: int, site: Site) -> Box:
    """The block that a voxel lies in."""
    z, y, x = (int(at) for at in np.unravel_index(voxel, site.seen))
    z = z if site.kept is None else site.kept[z]
    return next(overlapping(tuple(slice(at, at + 1) for at in (z, y, x)), site.shape, site.block))


def seeds_within(site: Site, box: Box, renamed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of seeds inside a box, as indices into the box (K,), and the seed (K,) of each."""
    whole = box if site.kept is None else (slice(site.kept[box[0].start], site.kept[box[0].stop - 1] + 1), *box[1:])
    places, seeds = [], []
    for block in overlapping(whole, site.shape, site.block):
        if not sides(site.seen_part(block))[0]:
            continue
        stored = site.read_table(STAGE, name(block))
        at = np.stack(np.unravel_index(stored["voxels"], site.seen), axis=1) - [side.start for side in box]
        inside = ((at >= 0) & (at < sides(box))).all(axis=1)
        places.append(np.ravel_multi_index(at[inside].T, sides(box)))
        seeds.append(stored["seed"][inside])
    place, seed = np.concatenate(places), np.concatenate(seeds)
    if len(renamed):
        at = np.minimum(np.searchsorted(renamed[:, 0], seed), len(renamed) - 1)
        seed = np.where(renamed[at, 0] == seed, renamed[at, 1], seed)
    return place, seed
