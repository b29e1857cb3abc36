"""Where the pixels of a patch come from: flips, turns, rotation, scale and displacement in one resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import grid_sample

from emlib.learn.transforms.settings import AugmentSettings


@dataclass(frozen=True)
class Geometry:
    """A map from the pixels of a patch to those of its source, both measured from their centres.

    Flips come first, then quarter turns and rotation (from the y axis towards the x axis), then magnification, then
    displacement.

    Attributes
    ----------
    flip_y, flip_x : bool
    turns : int
        Of 90 degrees.
    angle : float
        Radians, beside the turns.
    scale : float
        Magnification of the content.
    displacement : (2, P, P) float32 tensor, optional
        Added to the position in the source, (dy, dx) in pixels.
    """

    flip_y: bool = False
    flip_x: bool = False
    turns: int = 0
    angle: float = 0.0
    scale: float = 1.0
    displacement: torch.Tensor | None = None

    @property
    def exact(self) -> bool:
        """Whether pixels fall on pixels."""
        return self.angle == 0 and self.scale == 1 and self.displacement is None


def draw_geometry(settings: AugmentSettings, rng: np.random.Generator, size: int) -> Geometry:
    """Draw a geometry for a patch of ``size`` pixels."""
    flip_y, flip_x = (bool(value) for value in rng.random(2) < settings.flip)
    turns = int(rng.integers(4)) if settings.quarter_turns else 0
    angle, scale, displacement = 0.0, 1.0, None
    if rng.random() < settings.rotate:
        angle = math.radians(rng.uniform(-settings.rotate_degrees, settings.rotate_degrees))
    if rng.random() < settings.scale:
        scale = log_uniform(rng, settings.scale_range)
    if rng.random() < settings.elastic:
        basis = spline_basis(size, settings.elastic_spacing_px)
        # torch multiplies: NumPy's BLAS brings threads of its own, which cost more than such small products
        points = rng.uniform(-settings.elastic_px, settings.elastic_px, (2, basis.shape[1], basis.shape[1]))
        displacement = basis @ torch.from_numpy(points.astype(np.float32)) @ basis.T
    return Geometry(flip_y, flip_x, turns, angle, scale, displacement)


def source_size(settings: AugmentSettings, size: int) -> int:
    """Side of the square around a patch that no geometry leaves; odd where ``size`` is, so that both share a centre.

    Examples
    --------
    >>> source_size(AugmentSettings(flip=0.5, quarter_turns=True), 256)
    256
    >>> source_size(AugmentSettings(rotate=0.5), 256)  # 256 √2 and a pixel around
    366
    """
    angle = math.radians(min(settings.rotate_degrees, 45)) if settings.rotate else 0.0
    zoom = max(1.0, 1 / settings.scale_range[0]) if settings.scale else 1.0
    reach = settings.elastic_px if settings.elastic else 0.0
    if not (angle or zoom > 1 or reach):
        return size
    wide = math.ceil(size * (math.cos(angle) + math.sin(angle)) * zoom + 2 * reach) + 2
    return wide + (wide - size) % 2


def resample(image: torch.Tensor, masks: torch.Tensor, geometry: Geometry, size: int) -> tuple[torch.Tensor, ...]:
    """Cut a patch from its source.

    Parameters
    ----------
    image : (C, S, S) float32 tensor
    masks : (E, S, S) tensor of 0 and 1
    geometry : Geometry
    size : int
        P, of the patch.

    Returns
    -------
    image : (C, P, P) float32 tensor
        Bilinear; what falls outside of the source is mirrored.
    masks : (E, P, P) float32 tensor of 0 and 1
        Interpolated likewise and cut at a half, so that outlines stay smooth.
    """
    border = (image.shape[-1] - size) // 2
    if geometry.exact:
        inner = slice(border, border + size)
        return _turned(image[:, inner, inner], geometry), _turned(masks[:, inner, inner], geometry).float()
    grid = _source_positions(geometry, size)
    reach = math.ceil(float(grid.abs().max())) + 1  # of the source only what the patch shows is converted
    cut = max(image.shape[-1] // 2 - reach, 0)
    inner = slice(cut, image.shape[-1] - cut)
    image, masks = image[:, inner, inner], masks[:, inner, inner]
    grid = grid * (2 / image.shape[-1])
    both = torch.cat([image, masks.float()])[None]
    moved = grid_sample(both, grid[None], mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    return moved[: len(image)], (moved[len(image) :] >= 0.5).float()


def _turned(image: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Flips and quarter turns, without interpolation."""
    image = torch.rot90(image, -geometry.turns, (-2, -1))
    axes = [axis for axis, flipped in ((-2, geometry.flip_y), (-1, geometry.flip_x)) if flipped]
    return torch.flip(image, axes) if axes else image.clone()


def _source_positions(geometry: Geometry, size: int) -> torch.Tensor:
    """Positions in the source, (P, P, 2) float32 as x, y in pixels from its centre."""
    angle = geometry.angle + geometry.turns * math.pi / 2
    along = np.arange(size, dtype=np.float64) - (size - 1) / 2
    y, x = ((-along if flipped else along) / geometry.scale for flipped in (geometry.flip_y, geometry.flip_x))
    sine, cosine = math.sin(angle), math.cos(angle)
    grid = np.empty((size, size, 2), np.float32)
    grid[..., 0] = (sine * y)[:, None] + (cosine * x)[None]
    grid[..., 1] = (cosine * y)[:, None] - (sine * x)[None]
    positions = torch.from_numpy(grid)
    if geometry.displacement is not None:
        positions += geometry.displacement.flip(0).permute(1, 2, 0)
    return positions


@lru_cache(maxsize=8)
def spline_basis(size: int, spacing: float) -> torch.Tensor:
    """Return uniform cubic B-splines at the pixels of an axis, (size, control points) float32.

    Rows add up to 1 and hold nothing negative, so that a curve stays among its control points.
    """
    at = np.arange(size) / spacing
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((size, first[-1] + 4), np.float32)
    np.put_along_axis(basis, first[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return torch.from_numpy(basis)


def log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Draw a factor evenly in the logarithm."""
    return math.exp(rng.uniform(*map(math.log, bounds)))
