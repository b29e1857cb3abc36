"""What ``train_unet2d_selftrain.py`` does once its flags are parsed."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_whole
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.training.settings import TrainPaths
from emlib.measure.instances import score_instances
from emlib.proofread.run_files import RunFiles
from emlib.publish.page import put_figure
from emlib.refine.corrections import (
    CorrectedRun,
    Corrections,
    find_corrected_run,
    find_run_with_em,
    read_corrections,
    read_em,
)
from emlib.refine.recording import Recording, recorded
from emlib.refine.refining import put_back
from emlib.refine.unet.figure_history import figure_history
from emlib.refine.unet.pseudo import learnt_axes
from emlib.refine.unet.selftrain import Conduct, Selftrained, Start, selftrain
from emlib.refine.unet.settings import SelftrainSettings, check_settings
from emlib.runs.artefacts import plain
from emlib.stages.boundaries import damaged_sections, intensity_boundaries
from emlib.volumes.identity import volume_sha256

LABELS = "neurite_labels_refined_unet_i32_zyx"
BOUNDARIES = "boundaries_refined_unet_f16_zyx"
MODEL = "refine_unet_model"
RECORD = ("selftrain", "seed", "sections", "data")  # what must be the same for a training to go on
STRIPS, OWN = "held-out strips of the corrected sections", "the segmentation it began with, not with truth"
TIMES = ("patches_per_s", "seconds")  # of a history; different in equal runs


@dataclass(frozen=True, kw_only=True)
class SelftrainRequest(CorrectedRun):
    """What the command line asks for.

    Attributes
    ----------
    without_corrections : bool
        Learn from the segmentation alone.
    resume : bool
    time_budget_min : float or None
    device : str
    settings : SelftrainSettings
    """

    without_corrections: bool = False
    resume: bool = False
    time_budget_min: float | None = None
    device: str = "auto"
    settings: SelftrainSettings = field(default_factory=SelftrainSettings)


def selftrain_run(request: SelftrainRequest, command: str = "", quiet: bool = False) -> tuple[list[str], bool]:
    """Refine the labels of a run by self-training and write what comes of it into its folder.

    Parameters
    ----------
    request : SelftrainRequest
    command : str
        The command line, for the record.
    quiet : bool
        No notes and bars.

    Returns
    -------
    lines : list of str
        A summary and the paths written, or where an interrupted training stands.
    interrupted : bool

    Raises
    ------
    UserError
        If there is no run, nothing was corrected, a section cannot be learnt from, shapes differ, files are damaged or
        cannot be written, or there is another training to resume.
    """
    check_settings(request.settings)
    if request.without_corrections and (request.slices is not None or request.labels):
        raise UserError(
            "--without_corrections learns from the run's own segmentation alone; leave out --slices and --labels"
        )
    own = files = find_run_with_em(request.outdir, None, request.voxel_size_nm)
    if not request.without_corrections:
        files = find_corrected_run(request.outdir, request.labels, request.voxel_size_nm)
    with recorded(files, {**vars(request)}, command) as recording:
        return _selftrain(request, files, own, recording, quiet)


def _selftrain(
    request: SelftrainRequest, files: RunFiles, own: RunFiles, recording: Recording, quiet: bool
) -> tuple[list[str], bool]:
    note = (lambda line: None) if quiet else (lambda line: print(line, flush=True))
    with recording.watch.stage("read"):
        em = read_em(files)
        damaged = damaged_sections(em)
        if damaged.all():
            raise UserError(f"{files.em.uri} holds a single grey value in every section; there is nothing to segment")
        corrections = None if own is files else read_corrections(files, request.slices, damaged)
        labels = own.read_labels()
        start = _start(em, labels, own, corrections, ~damaged)
    if corrections is None and not quiet:
        print("note: nothing was corrected, so nothing holds the network to the truth", file=sys.stderr)
    sections = None if corrections is None else corrections.sections
    about = _about(request, start, sections, files)
    paths = TrainPaths(recording.outputs.path(f"data/{MODEL}.pth"))
    given = {name: getattr(request, name) for name in ("seed", "device", "time_budget_min")}
    conduct = Conduct(**given, stage=recording.watch.stage, note=note, progress=not quiet)
    resume = _state(paths, about, note) if request.resume else None
    made = selftrain(start, request.settings, paths, conduct, about=about, resume=resume)
    if made.training.interrupted:
        recording.status = "interrupted"
        return [f"interrupted in {made.training.place}"], True
    with recording.watch.stage("write"):
        found = put_back(made.labels, ~damaged)
        change = _change(labels, found)
        _write(made, found, put_back(made.boundaries, ~damaged), change, own, recording, about)
    judged_by = OWN if corrections is None else STRIPS
    best = made.training.best
    recording.summary = {"neurites": change["neurites"], "sections": sections, "change": change, "best": plain(best)}
    lines = [
        f"network: epoch {best['epoch']} of {made.training.epochs} kept, agreement with {judged_by}: "
        f"IoU {best['iou']:.3f}, AUC {best['auc']:.3f}",
        f"{change['neurites_before']} neurites became {change['neurites']}; from the old labels to the new "
        f"{change['voi_split']:.2f} bits are splits and {change['voi_merge']:.2f} merges",
    ]
    return [*lines, *recording.lines()], False


def _start(
    em: np.ndarray, labels: np.ndarray, own: RunFiles, corrections: Corrections | None, good: np.ndarray
) -> Start:
    """What is learnt from, without damaged sections."""
    if own.boundaries is None:
        boundaries = intensity_boundaries(em, own.voxel_size_nm)
    else:
        boundaries = read_whole(own.boundaries).astype(np.float32)
    if corrections is not None:
        corrections = replace(corrections, sections=tuple(int(good[:z].sum()) for z in corrections.sections))
    if good.all():
        return Start(em, own.voxel_size_nm, labels, boundaries, corrections)
    return Start(em[good], own.voxel_size_nm, labels[good], boundaries[good], corrections)


def _about(
    request: SelftrainRequest, start: Start, sections: tuple[int, ...] | None, files: RunFiles
) -> dict[str, Any]:
    """What a checkpoint says of its training, and of how its network wants to see a volume."""
    arrays = {"em": start.em, "labels": start.labels, "boundaries": start.boundaries}
    if start.corrections is not None:
        arrays["corrections"] = start.corrections.labels
    data = {name: hashlib.sha256(np.ascontiguousarray(array)).hexdigest() for name, array in arrays.items()}
    seen = {"sections": request.settings.sections, "axes": len(learnt_axes(start.voxel_size_nm))}
    depth = files.em.shape[0]
    trained_on = {"volume": Path(files.em.uri).name, "sha256": volume_sha256(files.em), "z": [0, depth]}
    record = {"selftrain": request.settings, "seed": request.seed, "sections": sections, "data": data}
    return plain({**record, "input": seen, "trained_on": trained_on})


def _state(paths: TrainPaths, about: dict[str, Any], note: Any) -> dict[str, Any] | None:
    """The state of the training to resume, checked against what is asked for."""
    if not paths.last.exists():
        note(f"note: nothing to resume, there is no {paths.last}; the training begins")
        return None
    kept = load_checkpoint(paths.last)
    if kept.training is None:
        raise UserError(f"{paths.last} is a model without the state of its training; leave --resume out to train anew")
    if changed := [name for name in RECORD if kept.settings.get(name) != about[name]]:
        what = {"selftrain": "settings", "seed": "--seed", "sections": "corrected sections", "data": "EM or labels"}
        raise UserError(
            f"--resume: {paths.last} was trained with other {what[changed[0]]}; give it the same, or leave --resume "
            "out to train anew"
        )
    return kept.training


def _change(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """How the new labels differ from the old ones."""
    told = score_instances(before, after)
    kept = {name: round(float(told[name]), 4) for name in ("voi_split", "voi_merge", "arand")}
    count = int(np.count_nonzero(np.unique(before)))
    return {"neurites_before": count, "neurites": int(after.max()), **kept}


def _write(
    made: Selftrained,
    labels: np.ndarray,
    boundaries: np.ndarray,
    change: dict[str, Any],
    own: RunFiles,
    recording: Recording,
    about: dict[str, Any],
) -> None:
    files, outputs, result = recording.files, recording.outputs, made.training
    corrected = None if own is files else files.labels.uri
    source = {"em": files.em.uri, "labels": own.labels.uri, "corrected": corrected, "sections": about["sections"]}
    meta = {"source": source, "settings": about["selftrain"], "seed": about["seed"]}
    recording.volumes((LABELS, BOUNDARIES), labels, boundaries, "U-Net", **meta)
    outputs.note(f"data/{MODEL}.pth", "The trained network, for predict.py")
    history = pd.DataFrame(result.history).drop(columns=list(TIMES))
    outputs.table("refine_unet_history", history, "The self-training, epoch by epoch")
    judged_by = STRIPS if corrected else OWN
    every = about["selftrain"]["renew_every"]
    renewed = [epoch for epoch in history["epoch"] if every and epoch > 1 and (epoch - 1) % every == 0]
    best = {name: value for name, value in result.best.items() if name not in TIMES}
    told = {"judged_by": judged_by, "best": best, "ended": result.ended, "change": change}
    outputs.json("refine_unet_validation", told, "Agreement, and what changed")
    figure = figure_history(history, judged_by.split(",")[0], renewed, files.synthetic)
    put_figure(outputs, figure, "refine_unet_curves", "Curves of the self-training")
