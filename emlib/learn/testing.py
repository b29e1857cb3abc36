"""A trained network on annotated sections: predictions, scores against truth and chance, figures; ``test.py``.

Scores are those of ``evaluate.py masks``, by the same functions; only the masks come from a network, not from files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size
from emlib.evaluation.masks import score_lines
from emlib.learn.datasets.domain import find_split
from emlib.learn.datasets.resampling import zoom_to
from emlib.learn.datasets.sections import open_splits
from emlib.learn.in_common import in_common, with_organelles
from emlib.learn.models.checkpoint import Checkpoint, load_checkpoint
from emlib.learn.scored_sections import ScoredSections
from emlib.learn.tiles import TileSettings
from emlib.learn.training.device import resolve_device, resolve_precision
from emlib.learn.volumes.boundary_model import refuse_neighbours
from emlib.measure.masks.counts import MaskSettings
from emlib.runs.artefacts import Outputs
from emlib.runs.catalogue import DATASETS
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class TestSettings:
    """How a model is tested; the flags of ``test.py``.

    Attributes
    ----------
    split : str
        ``test``, ``val`` or ``train``.
    organelles : names, optional
        Default: those that both the data set and the model have. For weights without names (MExConn) the names of the
        experts, in their order.
    ignore_index : int, optional
        The value of pixels of masks that nobody annotated. Default: that of ``classes.yaml``, or of the model's
        training if that was on this data set.
    voxel_size : (z, y, x) in nm, optional
        Default: the public data set's of this name, else that of the model's training.
    batch_size, precision, tile, overlap, tta
        As in `emlib.learn.tiles.TileSettings`; the precision may be auto.
    device : "auto", "cpu", "cuda" or "mps"
    save_probabilities : bool
        Also write ``predictions/<domain>/<organelle>/<section>.npy`` (float16) and ``.png`` (mask, 255 inside), which
        ``evaluate.py masks`` reads.
    threshold : float in (0, 1]
        A pixel is foreground from this probability on. Of classes that exclude each other (softmax) the most probable
        one is taken.
    boundary_nm, bootstrap, seed
        As in `emlib.measure.masks.counts.MaskSettings`.
    """

    __test__ = False  # no test of pytest's

    split: str = "test"
    organelles: Sequence[str] | None = None
    ignore_index: int | None = None
    voxel_size: Sequence[float] | None = None
    batch_size: int = 4
    device: str = "auto"
    precision: str = "32"
    tile: int = TileSettings.tile
    overlap: int = TileSettings.overlap
    tta: bool = False
    save_probabilities: bool = False
    threshold: float = 0.5
    boundary_nm: float = 20.0
    bootstrap: int = 1000
    seed: int = 0


def test_model(
    *,
    data_root: str | Path,
    domain: str,
    model_path: str | Path | None,
    outdir: str | Path = "outputs",
    quiet: bool = True,
    note: Callable[[str], None] = print,
    **settings: Any,
) -> list[str]:
    """Predict the sections of a split, score them against truth and chance, and write tables and figures.

    Parameters
    ----------
    data_root, domain
        As for `emlib.learn.datasets.domain.find_split`.
    model_path : path or name
        As for `emlib.learn.models.checkpoint.load_checkpoint`.
    outdir : path
        ``tables/test_<domain>.json`` (shaped as ``evaluate_masks.json``), ``test_<domain>.csv``,
        ``test_<domain>_sections.csv`` and ``figures/test_<domain>_<section>.png`` and ``.pdf`` are written; for another
        split than test its name follows that of the domain. Four organelles are on a figure, more on ``…_2`` and so on.
    quiet : bool
        Draw no progress bar.
    note : callable
        Takes each note and warning at once: all but what only predictions can show before anything is predicted.
    **settings
        Fields of `TestSettings`.

    Returns
    -------
    list of str
        The scores as tables, the paths written.

    Raises
    ------
    UserError
        If the model, the data set, the split or an organelle does not exist, model and data set have no organelle in
        common, files are damaged, or memory runs out.

    Notes
    -----
    A model trained on several data sets is tested on the organelles that this one has, and where it was trained on
    sections brought to one size of pixel, on sections brought to that size. Pixels that nobody annotated are neither
    right nor wrong.
    """
    how = TestSettings(**settings)
    device = resolve_device(how.device, note)
    tiles = _tiles(how, device, note)
    checkpoint = load_checkpoint(model_path, device, organelles=how.organelles)
    refuse_neighbours(checkpoint)
    ignore = _ignore_index(how.ignore_index, checkpoint, domain)
    found = find_split(data_root, domain, how.split, how.organelles, ignore_index=ignore)
    names = in_common(found, checkpoint, how.organelles, note)
    size, about_size = _voxel_size(how.voxel_size, checkpoint, domain, note)
    zoom = zoom_to(checkpoint.settings.get("resample_nm"), size)
    if zoom is not None:
        size = size[0], size[1] / zoom.y, size[2] / zoom.x
        about_size.append(f"sections and masks are resampled to {size[1]:g} nm, as for the model's training")
    (sections,), warnings = open_splits([with_organelles(found, names)], zooms=[zoom])
    for line in warnings:
        note(f"warning: {line}")
    run = ScoredSections(checkpoint, sections, names, how.threshold, Outputs(outdir), size, how.save_probabilities)
    pixel_nm = None if size is None else size[1:]
    scoring = MaskSettings(pixel_nm, boundary_nm=how.boundary_nm, bootstrap=how.bootstrap, seed=how.seed)
    scores, table = run.score(run.predict(tiles, device, progress=not quiet, note=note), scoring)
    run.record(scores, table, scoring, {"device": device, **vars(tiles)})
    written = [f"written: {run.outputs.path(str(artefact.path))}" for artefact in run.outputs.written]
    synthetic = [run.synthetic] if run.synthetic else []
    return [*about_size, *synthetic, *score_lines(scores, scoring), *written]


def _ignore_index(given: int | None, checkpoint: Checkpoint, domain: str) -> int | None:
    """The value that was asked for, else that of the training, if it was on this data set: another may mean a class."""
    trained = checkpoint.settings.get("domain")
    own = domain in (trained if isinstance(trained, list) else [trained])
    return checkpoint.settings.get("ignore_index") if given is None and own else given


def _tiles(how: TestSettings, device: str, note: Callable[[str], None]) -> TileSettings:
    precision = resolve_precision(how.precision, device, note)
    try:
        return TileSettings(how.tile, how.overlap, how.batch_size, how.tta, precision)
    except ValueError as error:
        raise UserError(f"--{error}") from error


def _voxel_size(
    given: Sequence[float] | None, checkpoint: Checkpoint, domain: str, note: Callable[[str], None]
) -> tuple[ZYX | None, list[str]]:
    """The size of a voxel of the sections, and a line that says where it is from."""
    resampled = checkpoint.settings.get("resample_nm") is not None
    data = DATASETS[domain].voxel_size_nm if domain in DATASETS else None
    if given is not None:
        size, source = known_voxel_size(given), "--voxel_size"
    elif data is not None:
        size, source = tuple(map(float, data)), f"of {domain}, as published"
    else:
        size, source = checkpoint.voxel_size_nm, "of the model's training"
    if resampled and not (given or data):
        note(
            f"warning: the voxel size of {domain} is unknown, so that its sections stay as they are; give --voxel_size"
        )
    if size is None:
        return None, []
    trained = checkpoint.voxel_size_nm
    if trained is not None and not resampled and not np.allclose(size[1:], trained[1:], rtol=0.01):
        note(f"warning: the model was trained on voxels of {_nm(trained)} nm; organelles had other sizes in pixels")
    return size, [f"voxel size {_nm(size)} nm (z y x), {source}"]


def _nm(size: Sequence[float]) -> str:
    return " × ".join(f"{v:g}" for v in size)
