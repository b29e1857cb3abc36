"""Objects out of probabilities: connected components, or a watershed that parts what touches.

1. The mask is where the probability reaches the threshold; its components (8 or 26 neighbours) are the objects.
2. With "watershed", each component gets the distance of its voxels from the background, in nm. Its summits are the
   seeds: those that stand out enough from the saddle to the next (h-maxima), and not too near to a higher one.
3. A component with several seeds is flooded from them; it parts at its necks.
4. What is too small is dropped, the others are numbered in the order of their first voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy import ndimage

from emlib.errors import UserError, nearest

METHODS = ("components", "watershed")


@dataclass(frozen=True)
class InstanceSettings:
    """How objects are found. The defaults keep a vesicle of 40 nm; they are not fitted to any data.

    Attributes
    ----------
    method : "components" or "watershed"
        What touches is one object, or is parted at its necks.
    threshold : float
        In (0, 1]; the mask is where the probability is at least this.
    split_depth_nm : float
        Watershed: two summits of the distance from the background are two objects if the neck between them is narrower
        than the thinner of both by more than twice this (half a width is a distance). Smaller values part more.
    seed_distance_nm : float
        Watershed: of two seeds nearer than this only the one deeper inside stays.
    min_area_nm2 : float
        Smaller objects of an image are dropped.
    min_volume_nm3 : float
        Smaller objects of a volume are dropped.

    Raises
    ------
    UserError
        If a value is out of its range.
    """

    method: str = "components"
    threshold: float = 0.5
    split_depth_nm: float = 15.0
    seed_distance_nm: float = 50.0
    min_area_nm2: float = 1_000.0
    min_volume_nm3: float = 30_000.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"there is no method {self.method!r} to find objects: {nearest(self.method, METHODS)}")
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold is a probability above 0 and at most 1, got {self.threshold}")
        for name in ("split_depth_nm", "seed_distance_nm", "min_area_nm2", "min_volume_nm3"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"{name} must be 0 or more, got {getattr(self, name)}")


def find_instances(
    probability: np.ndarray, voxel_size_nm: tuple[float, ...], settings: InstanceSettings | None = None
) -> np.ndarray:
    """Find the objects of one organelle.

    Parameters
    ----------
    probability : (Y, X) or (Z, Y, X) array in [0, 1], float or bool
        The whole image or volume in memory, with about 17 bytes more for each voxel; with "watershed" another 110 for
        each voxel in the box of the largest component (measured).
    voxel_size_nm : (z, y, x) in nm
        (y, x) serves for an image.
    settings : InstanceSettings

    Returns
    -------
    int32 array like ``probability``
        0 is background; objects are numbered 1 … N in the order of their first voxel, by z, then y, then x.

    Raises
    ------
    UserError
        If the array has another number of axes or holds values that are no probabilities, or a voxel size is not
        positive.

    Notes
    -----
    The result depends on nothing but the input. Distances are Euclidean and in nm, so that sections thicker than
    pixels are wide need no other settings. h-maxima: Soille 2003, "Morphological Image Analysis", by reconstruction;
    reconstruction, watershed and components are those of scikit-image and cc3d. Beyond the border of the array there is
    no background: an object that it cuts is as deep there as inside.

    Examples
    --------
    >>> probability = np.zeros((20, 40))
    >>> probability[4:16, 2:14] = probability[4:16, 20:38] = 0.9
    >>> probability[9:11, 14:20] = 0.9  # a bridge
    >>> [int(find_instances(probability, (8, 8), InstanceSettings(method)).max()) for method in METHODS]
    [1, 2]
    """
    import cc3d

    settings = settings or InstanceSettings()
    size = _check(probability, voxel_size_nm)
    mask = np.ascontiguousarray(probability >= settings.threshold if probability.dtype != bool else probability)
    # Never bool: for it cc3d 4.1.1 takes a path of its own that finds components where odd sizes have none.
    labels = cc3d.connected_components(mask.view(np.uint8), connectivity=8 if mask.ndim == 2 else 26)
    labels = labels.astype(np.int32)
    if settings.method == "watershed" and labels.size:
        labels = _part(labels, size, settings)
    smallest = settings.min_area_nm2 if mask.ndim == 2 else settings.min_volume_nm3
    return _renumbered(labels, smallest / float(np.prod(size)))


def _check(probability: np.ndarray, voxel_size_nm: tuple[float, ...]) -> tuple[float, ...]:
    """Check what is given; return the voxel size of the axes that there are."""
    if probability.ndim not in (2, 3):
        raise UserError(f"probabilities have shape {probability.shape}: give an image (y, x) or a volume (z, y, x)")
    if probability.dtype != bool and probability.size:
        low, high = probability.min(), probability.max()
        if not (low >= 0 and high <= 1):  # NaN is caught too
            raise UserError(f"probabilities lie between 0 and 1, these between {low} and {high}")
    size = tuple(float(value) for value in voxel_size_nm)
    if len(size) not in (probability.ndim, 3) or not all(0 < value < np.inf for value in size):
        raise UserError(f"voxel size {tuple(voxel_size_nm)}: give three positive numbers of nm, z y x")
    return size[-probability.ndim :]


def _part(labels: np.ndarray, size: tuple[float, ...], settings: InstanceSettings) -> np.ndarray:
    """Part each component at its necks; a component after the other, each in its box."""
    from skimage.segmentation import watershed

    out = np.zeros_like(labels)
    free = count(1)
    around = np.ones((3,) * labels.ndim, bool)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        # One voxel more on every side, where the array has one: background there, none beyond the border.
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        inside = labels[box] == number
        seeds = _seeds(inside, size, settings)
        if seeds is None:
            out[box][inside] = next(free)
            continue
        depth, places = seeds
        markers = np.zeros(inside.shape, np.int32)
        markers[tuple(places.T)] = [next(free) for _ in places]
        flooded = watershed(-depth, markers, connectivity=around, mask=inside)
        out[box][inside] = flooded[inside]
    return out


def _seeds(
    inside: np.ndarray, size: tuple[float, ...], settings: InstanceSettings
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the depth in nm and the places of two seeds or more; None if the component stays whole."""
    from skimage.morphology import reconstruction

    if inside.all():
        return None  # fills its box and the array ends there: no neck
    depth = ndimage.distance_transform_edt(inside, sampling=size)
    if depth.max() <= settings.split_depth_nm:
        return None
    around = np.ones((3,) * inside.ndim, bool)
    low = reconstruction(np.maximum(depth - settings.split_depth_nm, 0), depth, footprint=around)
    places = _summits(low, depth, around)
    kept = _apart(places, size, settings.seed_distance_nm)
    return (depth, kept) if len(kept) > 1 else None


def _summits(low: np.ndarray, depth: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return the deepest voxel of each regional maximum of ``low``, deepest first; among equals the first voxel."""
    import cc3d
    from skimage.morphology import local_maxima

    tops = local_maxima(low, footprint=around).astype(np.uint8)
    tops = cc3d.connected_components(tops, connectivity=8 if low.ndim == 2 else 26)
    places = np.argwhere(tops)
    at = tuple(places.T)
    order = np.argsort(-depth[at], kind="stable")
    _, first = np.unique(tops[at][order], return_index=True)
    return places[order[np.sort(first)]]


def _apart(places: np.ndarray, size: tuple[float, ...], distance_nm: float) -> np.ndarray:
    """Keep the first of places that are too near to each other."""
    points = places * np.array(size)
    kept: list[int] = []
    for index, point in enumerate(points):
        if not kept or (np.linalg.norm(points[kept] - point, axis=1) >= distance_nm).all():
            kept.append(index)
    return places[kept]


def _renumbered(labels: np.ndarray, smallest: float) -> np.ndarray:
    """Drop labels of fewer voxels, number the others by their first voxel."""
    flat = labels.ravel()
    voxels = np.bincount(flat, minlength=1)
    held = np.flatnonzero(flat)
    first = np.full(len(voxels), flat.size, np.int64)
    first[flat[held[::-1]]] = held[::-1]  # the last write wins: the first voxel
    keep = (voxels >= smallest * (1 - 1e-9)) & (voxels > 0)
    keep[0] = False
    order = np.flatnonzero(keep)[np.argsort(first[keep], kind="stable")]
    numbers = np.zeros(len(voxels), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[labels]
