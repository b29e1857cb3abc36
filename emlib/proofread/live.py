"""Predict a section or a box of a run while it is being looked at, with any checkpoint.

Needs torch, which is imported when a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from emlib.errors import UserError
from emlib.proofread.boxes import Box, slices
from emlib.volumes.volume import ZYX, VolumeSource

if TYPE_CHECKING:
    from emlib.annotations.classes import MaskClass
    from emlib.learn.prediction.predictor import Predictor

MARGIN = 96  # pixels that a box of one tile sees around itself: the bundled models look 91 px far


@dataclass(frozen=True)
class Prediction:
    """What a model says of a box.

    Attributes
    ----------
    mask : (z, y, x) uint8 or uint16 array
        The id of a class at each voxel, 0 where there is none; where organelles overlap, the last one that the model
        names.
    classes : tuple of MaskClass
        Those that can stand in the mask.
    box : (z0, z1, y0, y1, x0, x1)
    seconds : float
        That it took.
    note : str
        What the user should know, or nothing.
    """

    mask: np.ndarray
    classes: tuple[MaskClass, ...]
    box: Box
    seconds: float
    note: str


@dataclass(frozen=True)
class LiveModel:
    """A model that is loaded.

    Attributes
    ----------
    name : str
    predictor : Predictor
    device : str
    """

    name: str
    predictor: Predictor
    device: str


def bundled_models() -> list[str]:
    """Return the names of the models that come with emlib."""
    from emlib.learn.models.model_files import MODELS

    return sorted(file.stem for file in (MODELS / "pretrained").glob("*.pth"))


def load_model(path_or_name: str | Path) -> LiveModel:
    """Load a checkpoint, a bundled model by its name, or an ONNX file.

    Raises
    ------
    UserError
        If there is none, it is damaged, or torch is not installed.
    """
    if not str(path_or_name).strip():
        raise UserError("no model is named; choose a checkpoint file or a bundled model")
    try:
        import torch

        from emlib.learn.prediction.predictor import load_predictor
        from emlib.learn.training.device import resolve_device
    except ImportError as error:
        raise UserError(
            f"a prediction needs {error.name}, which is not installed; pip install -r requirements.txt"
        ) from error
    from emlib.threads import get_threads

    torch.set_num_threads(get_threads())
    device = resolve_device("auto", lambda line: None)
    predictor = load_predictor(str(path_or_name), device, None, lambda line: None)
    return LiveModel(Path(path_or_name).stem, predictor, device)


def predict_box(model: LiveModel, em: VolumeSource | None, box: Box, voxel_size_nm: ZYX) -> Prediction:
    """Predict a box, section by section.

    Parameters
    ----------
    model : LiveModel
    em : VolumeSource
        The run's EM; None where it kept none.
    box : (z0, z1, y0, y1, x0, x1)
        Each section sees a margin around it, that of `predict.py` unless it fits into one tile; then a narrower one.
    voxel_size_nm : (z, y, x) in nm

    Raises
    ------
    UserError
        If there is no EM, it has no usable grey values, or memory runs out.
    """
    from emlib.learn.inference import decide
    from emlib.learn.prediction.blocks import BlockSettings, predict_block
    from emlib.learn.prediction.channels import chosen_channels, index_mask
    from emlib.learn.prediction.run import compare_sizes
    from emlib.learn.tiles import TileSettings

    if em is None:
        raise UserError("the run has no EM (data/em_aligned_float32_zyx.npy) to predict on; run the pipeline again")
    start = perf_counter()
    predictor = model.predictor
    one_tile = max(box[3] - box[2], box[5] - box[4]) + 2 * MARGIN <= TileSettings().tile
    how = BlockSettings(TileSettings(overlap=MARGIN) if one_tile else TileSettings(), model.device)
    found = predict_block(predictor, em.read, em.shape, slices(box), how)
    decided = decide(found, predictor.activation)
    channels = chosen_channels(predictor.classes, predictor.activation, None, model.name)
    masks = {predictor.classes[channel]: decided[channel] for channel in channels}
    mask = index_mask(masks, found.shape[1:])
    note = compare_sizes(voxel_size_nm, predictor.voxel_size_nm, False)
    note = (note or "").replace("note: ", "").split("; --resample")[0]
    return Prediction(mask, tuple(masks), box, perf_counter() - start, note)
