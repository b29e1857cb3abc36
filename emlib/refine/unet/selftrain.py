"""Self-training on arrays: learn from corrected sections and pseudo-labels, classify the volume, segment it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.normalisation import Normalisation, own_normalisation
from emlib.learn.tiles import TileSettings
from emlib.learn.training.device import resolve_precision, start_fabric
from emlib.learn.training.loop import Save, train
from emlib.learn.training.settings import TrainPaths, TrainResult, TrainSettings
from emlib.learn.volumes.labelled import NAME, stack
from emlib.learn.volumes.prediction import predict_along, section_count
from emlib.refine.corrections import Corrections
from emlib.refine.unet.agreement import Agreement
from emlib.refine.unet.loss import WeightedLoss
from emlib.refine.unet.patches import SelftrainBatches
from emlib.refine.unet.pseudo import corrected_targets, learnt_axes, pseudo_targets
from emlib.refine.unet.settings import NETWORK, SelftrainSettings
from emlib.refine.unet.teacher import Teacher
from emlib.stages.segment import segment
from emlib.volumes.volume import ZYX

JUDGED = 8  # planes by which agreement is told where nothing was corrected
Stage = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class Start:
    """What is learnt from: a volume without damaged sections, its present segmentation, corrections.

    Attributes
    ----------
    em : (Z, Y, X) float32 array in [0, 1]
    voxel_size_nm : (z, y, x) in nm
    labels : (Z, Y, X) int array
        The present segmentation.
    boundaries : (Z, Y, X) float array in [0, 1]
        The probability that goes with it.
    corrections : Corrections or None
    """

    em: np.ndarray
    voxel_size_nm: ZYX
    labels: np.ndarray
    boundaries: np.ndarray
    corrections: Corrections | None


@dataclass(frozen=True)
class Selftrained:
    """What a self-training gives.

    Attributes
    ----------
    training : TrainResult
    labels : (Z, Y, X) int32 array, or None
        None where the training was interrupted.
    boundaries : (Z, Y, X) float32 array in [0, 1], or None
    """

    training: TrainResult
    labels: np.ndarray | None = None
    boundaries: np.ndarray | None = None


@dataclass(frozen=True)
class Conduct:
    """How a self-training is carried out.

    Attributes
    ----------
    seed : int
    device : "auto", "cpu", "cuda" or "mps"
    time_budget_min : float or None
        The training ends after so many minutes; classifying and segmenting come after it.
    stage : function
        Called with the name of each step; the context manager that it returns is held meanwhile.
    note : callable
        Takes lines for the user.
    progress : bool
        Bars on stderr where that is a terminal.
    """

    seed: int = 0
    device: str = "auto"
    time_budget_min: float | None = None
    stage: Stage = lambda name: nullcontext()
    note: Callable[[str], None] = lambda line: None
    progress: bool = False


def selftrain(
    start: Start,
    settings: SelftrainSettings,
    paths: TrainPaths,
    conduct: Conduct = Conduct(),
    *,
    about: Mapping[str, Any] | None = None,
    resume: dict[str, Any] | None = None,
) -> Selftrained:
    """Train a network, and segment the volume with it.

    Parameters
    ----------
    start : Start
    settings : SelftrainSettings
    paths : TrainPaths
        The best network is kept there, and all that the training leaves.
    conduct : Conduct
    about : mapping, optional
        More settings for the checkpoint.
    resume : dict, optional
        The state in ``paths.last``.

    Returns
    -------
    Selftrained

    Raises
    ------
    UserError
        As `emlib.learn.training.loop.train`.

    Notes
    -----
    Mean teacher after Tarvainen & Valpola 2017, with hard pseudo-labels (Lee 2013) that are kept only where the
    teacher is sure and its segmentation agrees.
    """
    work = _Selftraining(start, settings, paths, conduct)
    with conduct.stage("train"):
        result = work.train(about or {}, resume)
    if result.interrupted:
        return Selftrained(result)
    with conduct.stage("classify"):
        boundaries = work.boundaries(load_checkpoint(paths.best, work.fabric.device).model)
    with conduct.stage("segment"):
        labels = segment(start.em, start.voxel_size_nm, settings.segment, boundaries)
    return Selftrained(result, labels, boundaries)


def network_of(settings: SelftrainSettings) -> dict[str, Any]:
    """Return what `emlib.learn.models.build.build_model` makes the network of."""
    widths = {"widths": list(settings.widths), "expert_widths": list(settings.expert_widths)}
    channels = {"organelles": [NAME], "activation": "sigmoid", "in_channels": settings.sections}
    return {"name": NETWORK, **channels, **widths}


class _Selftraining:
    """What the steps share, and the training itself."""

    def __init__(self, start: Start, settings: SelftrainSettings, paths: TrainPaths, conduct: Conduct) -> None:
        self.start, self.settings, self.paths, self.conduct = start, settings, paths, conduct
        self.em = np.rint(start.em * 255).astype(np.uint8)
        self.normalisation = own_normalisation(self.em)
        self.axes = learnt_axes(start.voxel_size_nm)
        self.chosen = TrainSettings(
            **{name: getattr(settings, name) for name in ("epochs", "lr", "weight_decay", "ema", "clip")},
            patience=settings.patience or None,
            time_budget_min=conduct.time_budget_min,
            device=conduct.device,
            seed=conduct.seed,
        )
        self.fabric = start_fabric(self.chosen, conduct.note)
        self.tiles = TileSettings(precision=resolve_precision("auto", self.fabric.device.type, lambda line: None))

    def train(self, about: Mapping[str, Any], resume: dict[str, Any] | None) -> TrainResult:
        """Train from pseudo-labels and corrections; the pseudo-labels stay on disk while it is interrupted."""
        start, settings, note = self.start, self.settings, self.conduct.note
        batches, agreement = self._data()
        kept = self.paths.folder / "pseudo_labels.npz"
        if resume is None:
            kept.unlink(missing_ok=True)  # of an earlier training
        architecture = network_of(settings)
        torch.manual_seed(self.conduct.seed)
        result = train(
            build_model(architecture),
            batches,
            agreement,
            WeightedLoss(settings.corrected_weight),
            self.chosen,
            paths=self.paths,
            save=_saver(architecture, self.normalisation, start.voxel_size_nm, about),
            fabric=self.fabric,
            resume=resume,
            before_epoch=Teacher(batches, self.boundaries, start.em, start.voxel_size_nm, settings, kept, note),
            note=note,
            progress=self.conduct.progress,
        )
        if not result.interrupted:
            kept.unlink(missing_ok=True)
        return result

    def boundaries(self, network: nn.Module) -> np.ndarray:
        """Return the boundary probability of the volume, (Z, Y, X) float32, averaged over the axes it is cut along."""
        seen = {"axes": self.axes, "sections": self.settings.sections, "tiles": self.tiles}
        how = {"em": self.em, "normalisation": self.normalisation, "device": self.fabric.device, **seen}
        count, hidden = section_count(self.em.shape, self.axes), None if self.conduct.progress else True
        with tqdm(total=count, desc="classify", unit="section", disable=hidden, leave=False) as bar:
            return predict_along(network, tick=bar.update, **how)[0].astype(np.float32)

    def _data(self) -> tuple[SelftrainBatches, Agreement]:
        """What is learnt from, and what it is judged by: held-out strips, or else the first segmentation."""
        start, settings = self.start, self.settings
        chosen = {"certain": settings.certain, "band_px": settings.band_px}
        pseudo = pseudo_targets(start.labels, start.boundaries, self.axes, **chosen)
        if start.corrections is None:
            sections = np.unique(np.linspace(0, len(self.em) - 1, JUDGED).round().astype(int))
            corrected, held = {}, pseudo[0][sections]
        else:
            sections = list(start.corrections.sections)
            learnt, held = corrected_targets(start.corrections, settings.band_px, settings.held_out)
            corrected = dict(zip(sections, learnt, strict=True))
        seed, device = self.conduct.seed, self.fabric.device
        batches = SelftrainBatches(self.em, self.axes, pseudo, corrected, self.normalisation, settings, seed)
        judged = [stack(self.em, z, settings.sections) for z in sections]
        return batches, Agreement(judged, held, self.normalisation, device)


def _saver(
    architecture: dict[str, Any], normalisation: Normalisation, voxel_size_nm: ZYX, about: Mapping[str, Any]
) -> Save:
    """What writes checkpoints."""

    def save(path: Path, network: nn.Module, scores: dict[str, float], training: dict[str, Any] | None) -> None:
        what = {"architecture": architecture, "normalisation": normalisation, "voxel_size_nm": voxel_size_nm}
        save_checkpoint(path, network, **what, settings=dict(about), metrics=scores, training=training)

    return save
