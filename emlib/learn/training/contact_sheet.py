"""A picture of what a training is going to see: augmented patches with their masks drawn on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emlib.learn.datasets.patches import PatchBatches
from emlib.publish.figure_augment import figure_augment
from emlib.publish.page import save_figure

NAME = "augmentation"


def write_contact_sheet(folder: Path, batches: PatchBatches, colours: Mapping[str, str], count: int) -> list[Path]:
    """Draw the first patches of the first epoch, as the network will see them, into ``augmentation.png``.

    Parameters
    ----------
    folder : Path
    batches : PatchBatches
    colours : mapping
        Of organelles or classes, as ``#RRGGBB``.
    count : int
        Patches, at most; those of the first epoch.

    Returns
    -------
    list of Path
        The files written.
    """
    images, masks = [], []
    for step in range(min(-(-count // batches.settings.batch_size), batches.steps_per_epoch)):
        image, mask = batches.batch(0, step)
        middle = image[:, image.shape[1] // 2, None].numpy()  # of a section with its neighbours
        images.append(middle * np.float32(batches.normalisation.std) + np.float32(batches.normalisation.mean))
        masks.append(mask.numpy())
    names = batches.sections.organelles
    grey = np.concatenate(images)[:count].clip(0, 1)
    figure = figure_augment(grey, np.concatenate(masks)[:count], names, [colours[name] for name in names])
    return save_figure(figure, folder, NAME)
