"""Pixels that nobody annotated, on their way from sections (255) through augmentation to targets (NaN)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.transforms import AugmentSettings, augment
from emlib.learn.transforms.grey_range import WHOLE


def with_nan(masks: torch.Tensor) -> torch.Tensor:
    """Return masks of 0, 1 and 255 as float32 targets, 255 as NaN.

    Examples
    --------
    >>> with_nan(torch.tensor([0, 1, 255], dtype=torch.uint8))
    tensor([0., 1., nan])
    """
    return masks.float().masked_fill_(masks == UNKNOWN, torch.nan)


def augment_masks(
    images: torch.Tensor,
    masks: torch.Tensor,
    settings: AugmentSettings,
    rngs: Sequence[np.random.Generator],
    size: int,
    grey: tuple[float, float] | Sequence[tuple[float, float]] = WHOLE,
    *,
    exclusive: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment a batch whose masks may say that nobody annotated.

    Parameters
    ----------
    images, settings, rngs, size, grey
        As for `emlib.learn.transforms.augment`.
    masks : (B, E, S, S) uint8 tensor
        0, 1, and 255 where nobody annotated.
    exclusive : bool
        The masks are classes, of which each annotated pixel has one, the first being background.

    Returns
    -------
    images : (B, C, P, P) float32 tensor
    targets : (B, E, P, P) float32 tensor
        0, 1 and NaN. With ``exclusive`` lost tissue is background, and a pixel is NaN where classes were mixed in
        resampling so that none has half of it.

    Notes
    -----
    What is not annotated is moved like a mask: one more plane for each distinct pattern of it among the organelles.
    """
    count = masks.shape[1]
    unknown = masks == UNKNOWN if masks.max() == UNKNOWN else None  # mostly none, and then masks need no copy
    patterns, plane_of = ([], {}) if unknown is None else _patterns(unknown)
    known = masks if unknown is None else masks.masked_fill(unknown, 0)
    planes = [known, *(pattern[:, None].to(masks.dtype) for pattern in patterns)]
    if exclusive:
        planes.append(torch.ones_like(masks[:, :1]))  # what augmentation takes away from it is lost tissue
    images, moved = augment(images, torch.cat(planes, 1) if len(planes) > 1 else planes[0], settings, rngs, size, grey)
    targets = moved[:, :count].contiguous()
    if exclusive:
        lost, several = moved[:, -1] == 0, targets.sum(1)
        if bool((several > 1).any()):  # two classes with half of a pixel each
            targets = (
                torch.zeros_like(targets).scatter_(1, targets.argmax(1, keepdim=True), 1.0) * (several > 0)[:, None]
            )
        nothing = several == 0
        targets[:, 0] = torch.where(nothing & lost, 1.0, targets[:, 0])
        targets.masked_fill_((nothing & ~lost)[:, None], torch.nan)
    for organelle, plane in plane_of.items():
        targets[:, organelle].masked_fill_(moved[:, count + plane] > 0, torch.nan)
    return images, targets


def _patterns(unknown: torch.Tensor) -> tuple[list[torch.Tensor], dict[int, int]]:
    """Distinct planes (B, S, S) of (B, E, S, S) that hold anything, and which of them each organelle has."""
    patterns: list[torch.Tensor] = []
    plane_of = {}
    for organelle in range(unknown.shape[1]):
        own = unknown[:, organelle]
        if not bool(own.any()):
            continue
        same = next((i for i, pattern in enumerate(patterns) if torch.equal(pattern, own)), len(patterns))
        if same == len(patterns):
            patterns.append(own)
        plane_of[organelle] = same
    return patterns, plane_of
