"""Pictures and masks as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from emlib.annotations.classes import MaskClass
from emlib.learn.prediction.settings import PredictSettings
from emlib.publish.figure_overlay import draw_colours, draw_overlay
from emlib.volumes.atomic import atomic_path


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a (Y, X) uint8 or uint16 image, or a (Y, X, 3) uint8 one, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, compress_level=1)


def write_pictures(
    root: Path, name: str, em: np.ndarray, masks: Mapping[MaskClass, np.ndarray], settings: PredictSettings
) -> list[str]:
    """Write the overlay and the colour mask of a section, those that are asked for.

    Parameters
    ----------
    root : Path
        The output folder.
    name : str
        Of the files below ``overlay`` and ``colour_masks``, without ending.
    em : (Y, X) array
    masks : (Y, X) bool arrays by class
    settings : PredictSettings

    Returns
    -------
    list of str
        The files, relative to ``root``.
    """
    coloured = {one.colour: mask for one, mask in masks.items()}
    files = []
    if settings.overlay:
        files.append(f"overlay/{name}.png")
        write_png(root / files[-1], draw_overlay(em, coloured))
    if settings.colour_masks:
        files.append(f"colour_masks/{name}.png")
        write_png(root / files[-1], draw_colours(coloured, em.shape))
    return files
