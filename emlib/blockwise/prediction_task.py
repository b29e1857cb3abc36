"""One block of a volume that ``predict.py`` predicts: where its arrays lie, and what a worker does.

A block is predicted from the volume as it is in its file, with tiles on the grid of the whole section
(`emlib.learn.volumes.box_prediction`), so that nothing depends on the blocks.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.blockwise.grid import sides
from emlib.blockwise.sections import Outcome
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.learn.prediction.blocks import BlockSettings, usable_grey
from emlib.learn.prediction.channels import SOFTMAX
from emlib.learn.prediction.predictor import Predictor, load_predictor
from emlib.learn.prediction.volumes import decided_arrays, result_dtypes
from emlib.learn.volumes.box_prediction import predict_planes
from emlib.learn.volumes.prediction import Resampling
from emlib.volumes.ome_zarr import create_array, open_array
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, Box, VolumeSource

if TYPE_CHECKING:
    import zarr

# What this process has opened already: volumes by their names, chosen channels and predictors by their checksums.
given: dict[str, Any] = {}


@dataclass(frozen=True)
class PredictionSite(Site):
    """A volume that is predicted in blocks; its arrays are OME-Zarr images of their own.

    Attributes
    ----------
    images : tuple of (name, path)
        Of the arrays.
    """

    images: tuple[tuple[str, str], ...] = ()

    def place(self, array: str) -> Path:
        """Where the image of an array lies."""
        return Path(dict(self.images)[array])

    def open(self, array: str, mode: str = "r") -> zarr.Array:
        """Open an array; a chunk that is not there is an error."""
        return open_array(self.place(array), mode=mode)

    def make(self, array: str, dtype: np.dtype, voxel_size_nm: ZYX | None, place_nm: ZYX) -> None:
        """Make an image of zeros, unless there is one of the same shape, type and chunks."""
        try:
            there = self.open(array)
            if (there.shape, there.chunks, there.dtype) == (self.shape, self.chunk, np.dtype(dtype)):
                return
        except Exception:  # whatever a damaged or missing store raises
            pass
        shutil.rmtree(self.place(array), ignore_errors=True)
        create_array(
            self.place(array), self.shape, dtype, self.chunk, voxel_size_nm=voxel_size_nm, translation_nm=place_nm
        )


@dataclass(frozen=True)
class Work:
    """What all blocks of a volume share; a worker opens model and volume anew.

    Attributes
    ----------
    volume, model : str
        Every worker must see both.
    sha256 : str
        Of the model.
    organelles : tuple of str, optional
        That were asked for.
    settings : BlockSettings
    resampling : Resampling, optional
    threshold : float
    probabilities : bool
        Whether they are written too.
    """

    volume: str
    model: str
    sha256: str
    organelles: tuple[str, ...] | None
    settings: BlockSettings
    resampling: Resampling | None
    threshold: float
    probabilities: bool


def predict_part(site: PredictionSite, work: Work, box: Box) -> Outcome:
    """Predict one block and write it to all arrays."""
    if os.environ.get("EMLIB_BLOCK_WORKER"):  # workers stand for the cores
        import torch

        torch.set_num_threads(1)
    (channels, predictor), source = given.get(work.sha256) or _model(work), given.get(work.volume) or _volume(work)
    try:
        found = _predicted(predictor, source, work, box)
    except UserError as error:
        raise UserError(str(error).replace("the input", source.uri, 1)) from error
    classes, exclusive = {predictor.classes[k]: k for k in channels}, predictor.activation == SOFTMAX
    arrays, foreground = decided_arrays(found, predictor.activation, work.threshold, classes, exclusive)
    keys = result_dtypes(classes, exclusive, work.probabilities)
    wrote = [site.write(name, box, arrays[key]) for (name, _), key in zip(site.images, keys, strict=True)]
    return wrote, {"foreground": foreground}


def _predicted(predictor: Predictor, source: VolumeSource, work: Work, box: Box) -> np.ndarray:
    """Probabilities (E, z, y, x) of a block."""
    how, out = work.settings, np.zeros((len(predictor.classes), *sides(box)), np.float32)
    axes = (0, 1, 2) if how.orthogonal else (0,)
    for axis in axes:
        planes = predict_planes(
            predictor.network,
            lambda part: usable_grey(source.read(part), how.grey_range),
            source.shape,
            box,
            axis,
            predictor.normalisation,
            resampling=work.resampling,
            tiles=how.tiles,
            device=how.device,
        )
        for index, found in enumerate(planes):
            np.moveaxis(out, axis + 1, 1)[:, index] += np.clip(found, 0, 1)  # resampled it may lie a digit beyond
    return out / np.float32(len(axes)) if len(axes) > 1 else out


given: dict[str, Any] = {}  # opened by this process already: volumes by name, channels and predictors by checksum


@lru_cache(maxsize=1)
def _model(work: Work) -> tuple[tuple[int, ...], Predictor]:
    """The network of a worker."""
    names = None if work.organelles is None else list(work.organelles)
    predictor = load_predictor(work.model, work.settings.device, names, lambda line: None)
    if predictor.sha256 != work.sha256:
        raise UserError(
            f"{work.model} is another file here than where the run was started; all workers must see the same"
        )
    return predictor.choose(work.organelles)


@lru_cache(maxsize=1)
def _volume(work: Work) -> VolumeSource:
    """The volume of a worker."""
    return open_volume(work.volume)
