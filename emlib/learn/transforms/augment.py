"""Augmentation of a batch, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from emlib.learn.transforms.geometry import draw_geometry, resample, source_size
from emlib.learn.transforms.grey import change_grey, lose_tissue
from emlib.learn.transforms.settings import AugmentSettings


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    settings: AugmentSettings,
    rngs: Sequence[np.random.Generator],
    size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch of patches at random.

    Parameters
    ----------
    images : (B, 1, S, S) float32 tensor in [0, 1]
        Patches with as much around them as `margin` asks for.
    masks : (B, E, S, S) tensor of 0 and 1
    settings : AugmentSettings
    rngs : B random generators
        One per sample: what becomes of it does not depend on its batch.
    size : int
        P, the side of a patch.

    Returns
    -------
    images : (B, 1, P, P) float32 tensor in [0, 1]
    masks : (B, E, P, P) float32 tensor of 0 and 1
        Moved with the image, 0 where tissue is lost.

    Raises
    ------
    ValueError
        If S is not ``margin(settings, size)``, or B generators are not given.

    Examples
    --------
    >>> settings = AugmentSettings(flip=1.0)
    >>> image = torch.tensor([[[[0.0, 0.1], [0.2, 0.3]]]])
    >>> augment(image, image > 0.2, settings, [np.random.default_rng(0)], 2)[0].flatten().tolist()[:2]
    [0.30000001192092896, 0.20000000298023224]
    """
    if images.shape[-2:] != (margin(settings, size),) * 2 or len(rngs) != len(images):
        raise ValueError(f"{len(rngs)} generators, source {tuple(images.shape)}; expected {margin(settings, size)} px")
    out_images = images.new_empty((len(images), 1, size, size))
    out_masks = images.new_empty((len(images), masks.shape[1], size, size))
    for i, rng in enumerate(rngs):
        image, mask = resample(images[i], masks[i], draw_geometry(settings, rng, size), size)
        image = change_grey(image, settings, rng)
        lose_tissue(image, mask, settings, rng)
        out_images[i], out_masks[i] = image, mask
    return out_images, out_masks


def margin(settings: AugmentSettings, size: int) -> int:
    """Return the side of the source that a patch of ``size`` pixels needs; see `source_size` of the geometry."""
    return source_size(settings, size)
