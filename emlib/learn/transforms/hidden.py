"""What hides tissue: regions and sections that were lost, rectangles erased on purpose, the end of the image."""

from __future__ import annotations

import numpy as np
import torch

from emlib.learn.transforms.settings import AugmentSettings


def lose_tissue(image: torch.Tensor, masks: torch.Tensor, settings: AugmentSettings, rng: np.random.Generator) -> None:
    """Blank a rectangle or the whole patch, in place: one grey on the image, nothing on the masks."""
    if rng.random() < settings.missing_section:
        box = slice(None), slice(None)
    elif rng.random() < settings.missing_region:
        box = _draw_box(image.shape[-1], settings.region_range, rng)
    else:
        return
    grey = (0.0, 1.0, float(image.mean()))[rng.integers(3)]
    image[(slice(None), *box)] = grey
    masks[(slice(None), *box)] = 0


def erase(image: torch.Tensor, settings: AugmentSettings, rng: np.random.Generator) -> None:
    """Hide rectangles of a patch in place, each behind one grey or behind noise; the masks stay as they are."""
    if rng.random() >= settings.erase:
        return
    for _ in range(rng.integers(1, settings.erase_count + 1)):
        rows, columns = _draw_box(image.shape[-1], settings.erase_range, rng)
        shape = rows.stop - rows.start, columns.stop - columns.start
        grey = rng.random(shape if rng.random() < 0.5 else (1, 1), np.float32)
        image[:, rows, columns] = torch.from_numpy(grey)


def crop_and_pad(
    image: torch.Tensor, masks: torch.Tensor, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep a rectangle of a patch, move it to another place, and pad it to the size of the patch.

    Parameters
    ----------
    image : (1, P, P) float32 tensor
    masks : (E, P, P) float32 tensor of 0 and 1
    settings : AugmentSettings
    rng : Generator

    Returns
    -------
    image, masks
        As given. Padded with the rectangle mirrored at its outermost pixels, or with 0.
    """
    if rng.random() >= settings.crop:
        return image, masks
    size = image.shape[-1]
    kept = _draw_box(size, settings.crop_range, rng)
    first = [int(rng.integers(size - (span.stop - span.start) + 1)) for span in kept]
    if settings.pad == "constant":
        there = tuple(slice(at, at + span.stop - span.start) for at, span in zip(first, kept, strict=True))
        out = torch.zeros_like(image), torch.zeros_like(masks)
        for target, source in zip(out, (image, masks), strict=True):
            target[(slice(None), *there)] = source[(slice(None), *kept)]
        return out
    rows, columns = (torch.from_numpy(_mirrored(span, at, size)) for span, at in zip(kept, first, strict=True))
    return tuple(tensor.index_select(1, rows).index_select(2, columns) for tensor in (image, masks))


def _draw_box(size: int, shares: tuple[float, float], rng: np.random.Generator) -> tuple[slice, slice]:
    """A rectangle anywhere in a patch, each side an even share of it and at least a pixel."""
    lengths = [max(round(share * size), 1) for share in rng.uniform(*shares, 2)]
    first = [int(rng.integers(size - length + 1)) for length in lengths]
    return tuple(slice(start, start + length) for start, length in zip(first, lengths, strict=True))


def _mirrored(kept: slice, first: int, size: int) -> np.ndarray:
    """For each of ``size`` pixels the one to show if ``kept`` lies at ``first`` and is mirrored around."""
    length = kept.stop - kept.start
    period = max(2 * (length - 1), 1)
    at = np.arange(-first, size - first) % period
    return kept.start + np.minimum(at, period - at)
