"""Synapses as connected pieces of what a network takes for one.

1. Voxels of at least a probability.
2. Near isotropic, pieces are connected in 3D. Else pieces of a section are joined to those of the next that they lie on
   once they are widened by the thickness of a section: a synapse that stands oblique moves on by as much.
3. Each piece has an area, the largest that it shows in one section (near isotropic: cut along any axis), and a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage as ndi
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emlib.threads import map_threads
from emlib.volumes.volume import ZYX, near_isotropic

# Area at which half of the pieces are synapses, and how fast their share rises: logistic regression on the logarithm of
# the area of the 194 pieces of drosophila-vnc-experts in the train and val sections of drosophila-vnc, a synapse mask
# within 200 nm or none. Mean and greatest probability of a piece add nothing to its area there.
HALF_NM2, STEEPNESS = 3000.0, 1.94


@dataclass(frozen=True)
class ExpertSynapseSettings:
    """Which voxels and pieces of a network's synapses count."""

    min_probability: float = 0.5  # of a voxel
    min_area_nm2: float = 3000.0  # of a piece: best F1 on train and val sections of drosophila-vnc
    overlap: float = 0.25  # of the smaller of two pieces in neighbouring sections that makes them one
    slant_nm: float = (
        40.0  # after the one is widened this much; a synapse at 45° moves on by the thickness of a section
    )


@dataclass(frozen=True)
class Pieces:
    """Connected pieces, from the largest down.

    Attributes
    ----------
    area_nm2 : (N,) float array
    score : (N,) float array in [0, 1]
    voxels : list of (V, 3) int arrays
        z, y, x of the voxels of each piece.
    place : (N, 3) int array
        Of each piece, the voxel nearest its centre of mass, weighted by probability.
    """

    area_nm2: np.ndarray
    score: np.ndarray
    voxels: list[np.ndarray]
    place: np.ndarray


def find_pieces(
    probability: np.ndarray, voxel_size_nm: ZYX, settings: ExpertSynapseSettings = ExpertSynapseSettings()
) -> Pieces:
    """Find the connected pieces of a map of synapses.

    Parameters
    ----------
    probability : (Z, Y, X) float array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    settings : ExpertSynapseSettings

    Returns
    -------
    Pieces
    """
    mask = np.array([section.astype(np.float32) >= settings.min_probability for section in probability], bool)
    if near_isotropic(voxel_size_nm):
        ids = ndi.label(mask, np.ones((3, 3, 3), bool))[0]
    else:
        ids = _joined(mask, voxel_size_nm, settings)
    at = np.argwhere(ids)
    names = ids[tuple(at.T)]
    area, count = _areas(at, names, voxel_size_nm), np.bincount(names, minlength=1)
    order, ends = np.argsort(names, kind="stable"), np.cumsum(count)
    first = ends - count
    kept = np.flatnonzero((area >= settings.min_area_nm2) & (count > 0))
    kept = kept[np.argsort(-area[kept], kind="stable")]
    voxels = [at[order[first[name] : ends[name]]] for name in kept]
    place = [piece_place(piece, probability[tuple(piece.T)], voxel_size_nm) for piece in voxels]
    return Pieces(area[kept], piece_score(area[kept]), voxels, np.array(place, np.int64).reshape(-1, 3))


def piece_score(area_nm2: np.ndarray) -> np.ndarray:
    """Return the share of pieces of an area that are synapses, as calibrated on drosophila-vnc.

    Examples
    --------
    >>> piece_score(np.array([1000.0, 3000.0, 12000.0])).round(2).tolist()
    [0.11, 0.5, 0.94]
    """
    with np.errstate(divide="ignore"):
        return 1 / (1 + (HALF_NM2 / np.asarray(area_nm2, float)) ** STEEPNESS)


def _joined(mask: np.ndarray, voxel_size_nm: ZYX, settings: ExpertSynapseSettings) -> np.ndarray:
    """Number the pieces of sections, those that lie on each other alike."""
    plane = np.ones((3, 3), bool)
    found = map_threads(lambda section: ndi.label(section, plane), mask)
    ids, above = np.zeros(mask.shape, np.int32), 0
    for z, (labels, count) in enumerate(found):
        np.add(labels, above, out=ids[z], where=labels > 0)
        above += count
    size = np.bincount(ids.ravel(), minlength=above + 1)
    pairs = [overlaps(lower, upper, size, voxel_size_nm, settings) for lower, upper in pairwise(ids)]
    linked = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    links = coo_array((np.ones(linked.shape[1], bool), tuple(linked)), shape=(above + 1, above + 1))
    new = connected_components(links, directed=False)[1].astype(np.int32) + 1
    new[0] = 0
    return new[ids]


def overlaps(
    lower: np.ndarray, upper: np.ndarray, size: np.ndarray, voxel_size_nm: ZYX, settings: ExpertSynapseSettings
) -> np.ndarray:
    """Find which pieces of a section lie on which of the next.

    Parameters
    ----------
    lower, upper : (Y, X) int arrays
        Numbers of pieces; 0 is none.
    size : int array
        Pixels of each number.
    voxel_size_nm : (z, y, x) in nm
    settings : ExpertSynapseSettings

    Returns
    -------
    (2, P) int array
        Numbers in the lower and in the upper section.
    """
    if not (lower.any() and upper.any()):
        return np.zeros((2, 0), int)
    lower = _widened(lower, voxel_size_nm[1:], settings.slant_nm)
    both = (lower > 0) & (upper > 0)
    pair, shared = np.unique(np.stack([lower[both], upper[both]]), axis=1, return_counts=True)
    return pair[:, shared >= settings.overlap * np.minimum(size[pair[0]], size[pair[1]])]


def touching(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Find which pieces of a section touch which of the next, corners among it; as `overlaps` gives them.

    Examples
    --------
    >>> touching(np.array([[1, 0, 0, 2]]), np.array([[0, 3, 0, 0]])).ravel().tolist()
    [1, 3]
    """
    at = np.argwhere(upper)
    names, wide = upper[tuple(at.T)], np.pad(lower, 1)
    found = [np.stack([wide[at[:, 0] + dy, at[:, 1] + dx], names]) for dy in range(3) for dx in range(3)]
    pairs = np.concatenate(found, axis=1)
    return np.unique(pairs[:, pairs[0] > 0], axis=1)


def _widened(labels: np.ndarray, pixel_nm: tuple[float, ...], reach_nm: float) -> np.ndarray:
    """Let the pieces of a section grow this far."""
    far, nearest = ndi.distance_transform_edt(labels == 0, sampling=pixel_nm, return_indices=True)
    return np.where(far <= reach_nm, labels[tuple(nearest)], 0)


def _areas(at: np.ndarray, names: np.ndarray, voxel_size_nm: ZYX) -> np.ndarray:
    """The largest area of each id in one section, nm²; near isotropic in one section along any axis."""
    area = np.zeros(int(names.max(initial=0)) + 1)
    for axis in range(3 if near_isotropic(voxel_size_nm) else 1):
        depth = int(at[:, axis].max(initial=0)) + 1
        cuts, voxels = np.unique(names.astype(np.int64) * depth + at[:, axis], return_counts=True)
        side = float(np.prod(np.delete(voxel_size_nm, axis)))
        np.maximum.at(area, cuts // depth, voxels * side)
    return area


def piece_area(piece: np.ndarray, voxel_size_nm: ZYX) -> float:
    """The largest area of a piece (V, 3) in one section, nm²; near isotropic in one section along any axis."""
    return float(_areas(piece, np.ones(len(piece), np.int64), voxel_size_nm)[1])


def piece_place(piece: np.ndarray, weight: np.ndarray, voxel_size_nm: ZYX) -> np.ndarray:
    """The voxel of a piece (V, 3) that is nearest its centre of mass; ``weight`` is the probability of its voxels."""
    weight = weight.astype(np.float64)
    # not a product of matrices, whose last digit depends on where they lie in memory
    centre = (weight[:, None] * piece).sum(axis=0) / weight.sum() if weight.sum() else piece.mean(axis=0)
    far = np.linalg.norm((piece - centre) * voxel_size_nm, axis=1)
    return piece[np.argmin(far)]
