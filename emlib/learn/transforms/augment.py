"""Augmentation of a batch, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from emlib.learn.transforms.geometry import draw_geometry, resample, source_size
from emlib.learn.transforms.grey import change_grey
from emlib.learn.transforms.grey_range import WHOLE
from emlib.learn.transforms.hidden import crop_and_pad, erase, lose_tissue
from emlib.learn.transforms.settings import AugmentSettings


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    settings: AugmentSettings,
    rngs: Sequence[np.random.Generator],
    size: int,
    grey: tuple[float, float] | Sequence[tuple[float, float]] = WHOLE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch of patches at random.

    Parameters
    ----------
    images : (B, C, S, S) float32 tensor in [0, 1]
        Patches with as much around them as `margin` asks for; neighbouring sections (channels) are changed alike.
    masks : (B, E, S, S) tensor of 0 and 1
    settings : AugmentSettings
    rngs : B random generators
        One per sample: what becomes of it does not depend on its batch.
    size : int
        P, the side of a patch.
    grey : (low, high), or B such pairs
        Between which grey the data lie, as from `emlib.learn.transforms.find_grey_range`: changes of grey are measured
        in units of it, and none leads out of it.

    Returns
    -------
    images : (B, C, P, P) float32 tensor from ``low`` to ``high``
    masks : (B, E, P, P) float32 tensor of 0 and 1
        Moved with the image, 0 where tissue is lost.

    Raises
    ------
    ValueError
        If S is not ``margin(settings, size)``, or there are not B generators, or not as many ranges.

    Examples
    --------
    >>> settings = AugmentSettings(flip=1.0)
    >>> image = torch.tensor([[[[0.0, 0.1], [0.2, 0.3]]]])
    >>> augment(image, image > 0.2, settings, [np.random.default_rng(0)], 2)[0].flatten().tolist()[:2]
    [0.30000001192092896, 0.20000000298023224]
    """
    if images.shape[-2:] != (margin(settings, size),) * 2 or len(rngs) != len(images):
        raise ValueError(f"{len(rngs)} generators, source {tuple(images.shape)}; expected {margin(settings, size)} px")
    out_images = images.new_empty((*images.shape[:2], size, size))
    out_masks = images.new_empty((len(images), masks.shape[1], size, size))
    ranges = [grey] * len(rngs) if np.ndim(grey) == 1 else grey
    for i, (rng, (low, high)) in enumerate(zip(rngs, ranges, strict=True)):
        image, mask = resample(images[i], masks[i], draw_geometry(settings, rng, size), size)
        whole = (low, high) == WHOLE
        image = change_grey(image if whole else (image - low) / (high - low), settings, rng)
        lose_tissue(image, mask, settings, rng)
        erase(image, settings, rng)
        image, out_masks[i] = crop_and_pad(image, mask, settings, rng)
        out_images[i] = image if whole else low + (high - low) * image
    return out_images, out_masks


def margin(settings: AugmentSettings, size: int) -> int:
    """Return the side of the source that a patch of ``size`` pixels needs; see `source_size` of the geometry."""
    return source_size(settings, size)
