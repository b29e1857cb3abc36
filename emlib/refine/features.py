"""Features of a pixel: what a forest sees of the EM around it, at several scales in nm.

In 3D where the volume is near isotropic, section by section otherwise. A slab of sections is described with the margin
that each filter needs, so that it gets what the whole volume would give and memory is bounded by the slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from bioimage_cpp.filters import (
    gaussian_smoothing,
    hessian_of_gaussian_eigenvalues,
    structure_tensor_eigenvalues,
)
from scipy import ndimage

from emlib.stages.boundaries import near_isotropic
from emlib.volumes.volume import ZYX

SLAB = 16  # sections that are described at once, margins not counted
_SMALLEST_PX = 0.7  # a Gaussian narrower than this is no longer one when it is sampled
_REACH = 4.0  # the kernels of bioimage-cpp end before this many sigma, those of derivatives too


@dataclass(frozen=True)
class FeatureSettings:
    """Scales of the features, in nm."""

    gaussian_nm: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0)
    variance_nm: tuple[float, ...] = (20.0, 50.0)  # sigma of the window
    hessian_nm: tuple[float, ...] = (10.0, 20.0, 40.0)
    tensor_nm: tuple[float, ...] = (10.0, 20.0)  # sigma of the derivatives; they are averaged over twice as much


class _Filter(NamedTuple):
    """What makes one or a few columns of the features."""

    names: list[str]
    scales_nm: tuple[float, ...]  # widths of the Gaussians that follow each other
    apply: Callable[[np.ndarray, list[list[float]]], np.ndarray]  # (image, sigmas in voxels) -> (..., columns)


def feature_names(voxel_size_nm: ZYX, settings: FeatureSettings = FeatureSettings()) -> list[str]:
    """Return the name of each feature, in the order of the columns of `slab_features`.

    Parameters
    ----------
    voxel_size_nm : (z, y, x) in nm
        Eigenvalues are three where it is near isotropic, else two.
    settings : FeatureSettings

    Examples
    --------
    >>> feature_names((40, 8, 8), FeatureSettings((10.0,), (), (20.0,), ()))
    ['intensity', 'sobel', 'gaussian 10 nm', 'hessian 20 nm, 1', 'hessian 20 nm, 2']
    """
    axes = 3 if near_isotropic(voxel_size_nm) else 2
    return [name for one in _filters(settings, axes) for name in one.names]


def slab_features(
    em: np.ndarray, voxel_size_nm: ZYX, slab: range | None = None, settings: FeatureSettings = FeatureSettings()
) -> np.ndarray:
    """Describe the voxels of neighbouring sections.

    Parameters
    ----------
    em : (Z, Y, X) float array in [0, 1]
        The whole volume: what lies beyond the slab is seen by wide filters.
    voxel_size_nm : (z, y, x) in nm
    slab : range, optional
        Sections, step 1; all by default.
    settings : FeatureSettings

    Returns
    -------
    (len(slab), Y, X, F) float32 array
        Columns as `feature_names`: grey value; Sobel magnitude within the section; Gaussians; local variance;
        eigenvalues of the Hessian and of the structure tensor, largest first.

    Notes
    -----
    The set is close to that of ilastik's pixel classification (Berg et al. 2019).

    Examples
    --------
    >>> slab_features(np.zeros((3, 32, 32)), (40, 8, 8)).shape
    (3, 32, 32, 18)
    """
    slab = slab or range(len(em))
    solid = near_isotropic(voxel_size_nm)
    filters = _filters(settings, 3 if solid else 2)
    result = np.empty((len(slab), *em.shape[1:], sum(len(one.names) for one in filters)), np.float32)
    first = 0
    for one in filters:
        out = result[..., first : first + len(one.names)]
        first += len(one.names)
        if not solid:
            sigmas = _sigmas(one.scales_nm, voxel_size_nm[1:])
            for z, section in zip(slab, out, strict=True):
                section[...] = one.apply(np.ascontiguousarray(em[z], np.float32), sigmas)
            continue
        sigmas = _sigmas(one.scales_nm, voxel_size_nm)
        far = _far(sigmas, 0)
        low, high = max(0, slab.start - far), min(len(em), slab.stop + far)
        found = one.apply(np.ascontiguousarray(em[low:high], np.float32), sigmas)
        out[...] = found[slab.start - low : slab.stop - low]
    return result


def reach(voxel_size_nm: ZYX, settings: FeatureSettings = FeatureSettings()) -> tuple[int, int, int]:
    """Voxels (z, y, x) that the filters look at on either side, rather too many than too few.

    Examples
    --------
    >>> reach((10, 10, 10)), reach((40, 8, 8))
    ((33, 33, 33), (0, 41, 41))
    """
    solid = near_isotropic(voxel_size_nm)
    filters = _filters(settings, 3 if solid else 2)
    widths = [_sigmas(one.scales_nm, voxel_size_nm) for one in filters]
    z, y, x = (max([1, *(_far(sigmas, axis) for sigmas in widths)]) for axis in range(3))
    return (z if solid else 0), y, x


def _far(sigmas: list[list[float]], axis: int) -> int:
    """Voxels along an axis that Gaussians of these widths, one after the other, look at on either side."""
    return sum(int(np.ceil(_REACH * sigma[axis])) + 1 for sigma in sigmas)


def slabs(depth: int, sections: int = SLAB) -> list[range]:
    """Cut a depth into ranges of at most so many sections.

    Examples
    --------
    >>> slabs(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + sections, depth)) for start in range(0, depth, sections)]


def _sigmas(scales_nm: Sequence[float], size_nm: Sequence[float]) -> list[list[float]]:
    return [[max(scale / size, _SMALLEST_PX) for size in size_nm] for scale in scales_nm]


def _filters(settings: FeatureSettings, axes: int) -> list[_Filter]:
    def numbered(name: str) -> list[str]:
        return [f"{name}, {axis}" for axis in range(1, axes + 1)]

    def made() -> Iterator[_Filter]:
        yield _Filter(["intensity"], (), lambda image, _: image[..., None])
        yield _Filter(["sobel"], (), _sobel)
        for scale in settings.gaussian_nm:
            yield _Filter([f"gaussian {scale:g} nm"], (scale,), lambda im, s: gaussian_smoothing(im, s[0])[..., None])
        for scale in settings.variance_nm:
            yield _Filter([f"variance {scale:g} nm"], (scale,), _variance)
        for scale in settings.hessian_nm:
            names = numbered(f"hessian {scale:g} nm")
            yield _Filter(names, (scale,), lambda image, sigmas: hessian_of_gaussian_eigenvalues(image, *sigmas))
        for scale in settings.tensor_nm:
            names = numbered(f"structure tensor {scale:g} nm")
            yield _Filter(names, (scale, 2 * scale), lambda im, s: structure_tensor_eigenvalues(im, *s))

    return list(made())


def _sobel(image: np.ndarray, sigmas: list[list[float]]) -> np.ndarray:
    """Gradient magnitude within the section, after Sobel and Feldman 1968."""
    return np.hypot(*(_within(image, axis) for axis in (-1, -2)))[..., None]


def _within(image: np.ndarray, axis: int) -> np.ndarray:
    """Sobel's derivative along one axis of the section, smoothed along the other, not across sections."""
    other = -1 if axis == -2 else -2
    return ndimage.correlate1d(ndimage.correlate1d(image, [-1, 0, 1], axis), [1, 2, 1], other)


def _variance(image: np.ndarray, sigmas: list[list[float]]) -> np.ndarray:
    mean = gaussian_smoothing(image, sigmas[0])
    return np.maximum(gaussian_smoothing(image * image, sigmas[0]) - mean * mean, 0)[..., None]
