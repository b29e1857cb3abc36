"""Changes of grey as the microscope makes them: focus, staining, brightness, noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import pad

from emlib.learn.transforms.geometry import log_uniform
from emlib.learn.transforms.settings import AugmentSettings


def change_grey(image: torch.Tensor, settings: AugmentSettings, rng: np.random.Generator) -> torch.Tensor:
    """Blur, then gamma, contrast and brightness, then noise.

    Parameters
    ----------
    image : (1, P, P) float32 tensor in [0, 1]
    settings : AugmentSettings
    rng : Generator

    Returns
    -------
    (1, P, P) float32 tensor in [0, 1]
    """
    if rng.random() < settings.blur:
        image = blurred(image, rng.uniform(*settings.blur_range))
    if rng.random() < settings.gamma:
        image = image.clamp(0, 1).pow(log_uniform(rng, settings.gamma_range))
    if rng.random() < settings.contrast:
        image = (image - 0.5) * log_uniform(rng, settings.contrast_range) + 0.5
    if rng.random() < settings.brightness:
        image = image + rng.uniform(-settings.brightness_range, settings.brightness_range)
    if rng.random() < settings.noise:
        noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
        image = image + noise * rng.uniform(*settings.noise_range)
    return image.clamp(0, 1)


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Filter (1, P, P) with a Gaussian of ``sigma`` pixels, cut off at 3 sigma, mirrored at the border.

    Sums of shifted images rather than a convolution, whose algorithm (and last bits) may change with the batch.
    """
    radius = min(math.ceil(3 * sigma), image.shape[-1] - 1)
    kernel = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    for axis, widths in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        wide, length = pad(image, widths, mode="reflect"), image.shape[axis]
        image = torch.zeros_like(image)
        for shift, weight in enumerate(kernel):
            image.add_(wide.narrow(axis, shift, length), alpha=weight / sum(kernel))
    return image
