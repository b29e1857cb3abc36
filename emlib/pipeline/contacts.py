"""Which segmenter a run uses and with which model of contacts: checked before it starts, handed to the segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emlib.errors import UserError, nearest
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.stages.segment import SEGMENTERS, check_bias
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume

if TYPE_CHECKING:
    from emlib.refine.edge_model import ContactModel


def check_segmenting(settings: PipelineSettings) -> None:
    """Refuse before a run starts what its segmentation could not do.

    Raises
    ------
    UserError
        If the segmenter is unknown, the bias out of range, or the model of contacts cannot be read or would not be
        used.
    """
    segmenting = settings.stages.segment
    if segmenting.segmenter not in SEGMENTERS:
        raise UserError(f"there is no segmenter {segmenting.segmenter!r}; {nearest(segmenting.segmenter, SEGMENTERS)}")
    check_bias(segmenting.bias)
    if settings.edge_model is None:
        return
    if segmenting.segmenter == "watershed" or settings.labels_from:
        why = f"--labels {settings.labels_from}" if settings.labels_from else "--segmenter watershed"
        raise UserError(f"--edge_model is of no use with {why}, which joins no fragments; leave one of the two out")
    _read(settings.edge_model)


def contact_model(run: Run) -> ContactModel | None:
    """Read the model of contacts of a run; what makes its probabilities uncertain on this volume is warned of.

    Raises
    ------
    UserError
        If it cannot be read, or its fragments are 3D and those of the volume are not.
    """
    path = run.settings.edge_model
    if path is None:
        return None
    from emlib.refine.edge_model import check_fit

    model = _read(path)
    fragments = run.settings.stages.segment.fragments
    for line in check_fit(model, path, run.volume.voxel_size_nm, fragments, run.settings.boundaries_from):
        run.warn(line)
    if _learnt_here(model, run):
        first, end = model.trained_on["z"]
        run.warn(f"the edge model {path} was trained on this very volume, z {first} to {end - 1}: scores flatter there")
    return model


def _read(path: str) -> ContactModel:
    from emlib.refine.edge_model import read_edge_model  # only where one is asked for: it loads scikit-learn

    return read_edge_model(path)


def _learnt_here(model: ContactModel, run: Run) -> bool:
    """Whether the cutout overlaps the crop that the model learnt from."""
    first, end = model.trained_on.get("z", (0, 0))
    depth, start = run.volume.shape[0], run.volume.offset[0]
    if run.synthetic or not (start < end and first < start + depth):
        return False
    source = open_volume(run.volume.source["uri"]) if "://" not in run.settings.dataset else None
    return source is not None and volume_sha256(source) == model.trained_on.get("sha256")
