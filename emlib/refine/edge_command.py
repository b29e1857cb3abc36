"""What ``train_refine_rf.py --edges --volume`` does: a model of contacts from a labelled crop of a volume."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.proofread.run_files import RunFiles
from emlib.publish.page import put_figure
from emlib.refine.edge_blocks import label_table
from emlib.refine.edge_boosting import ContactSettings, Learned, learn_contacts
from emlib.refine.edge_contacts import CONTACT_NAMES
from emlib.refine.edge_figures import Curve, figure_curve
from emlib.refine.edge_model import INTENSITY, TUNED, ContactModel, write_edge_model
from emlib.refine.edge_tuning import tune
from emlib.refine.figure_importance import importance_table
from emlib.refine.forest import check_forest
from emlib.refine.recording import Recording, recorded
from emlib.stages.agglomerate import region_graph
from emlib.stages.boundaries import damaged_sections, intensity_boundaries
from emlib.stages.learned_edges import Cut
from emlib.stages.preprocess import PreprocessSettings, preprocess
from emlib.stages.segment import SegmentSettings
from emlib.stages.watershed import watershed_fragments
from emlib.volumes.companions import open_labels, read_labels, read_probability
from emlib.volumes.cutout import read_cutout
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX, Volume

MODEL = "edge_model"
Stage = Callable[[str], AbstractContextManager]


@dataclass(frozen=True)
class CropSettings:
    """Settings of learning from a labelled crop; preprocessing and segmentation are those of ``run_pipeline.py``."""

    contacts: ContactSettings = field(default_factory=ContactSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)


@dataclass(frozen=True)
class CropRequest:
    """What the command line asks for.

    Attributes
    ----------
    outdir : Path
    volume, labels : str
        EM and true labels, any input format.
    boundaries : str
        ``"intensity"``, or a file with the probability that the pipeline will use too.
    z : (first, end) or None
        Sections that are learnt from; None: all.
    voxel_size_nm : (z, y, x) or None
        Wins over that of the files.
    seed : int
    settings : CropSettings
    """

    outdir: Path
    volume: str
    labels: str
    boundaries: str = INTENSITY
    z: tuple[int, int] | None = None
    voxel_size_nm: ZYX | None = None
    seed: int = 0
    settings: CropSettings = field(default_factory=CropSettings)


class Crop(NamedTuple):
    """A labelled crop, cut into fragments; sections that hold a single grey value are left out.

    Attributes
    ----------
    cut : Cut
    labels : (Z, Y, X) int array
    """

    cut: Cut
    labels: np.ndarray


def learn_from_crop(request: CropRequest, command: str = "", quiet: bool = False) -> list[str]:
    """Train a model of contacts and write it with its validation, its curve and its figure.

    Parameters
    ----------
    request : CropRequest
    command : str
        The command line, for the record.
    quiet : bool
        No progress; nothing here takes long enough to show any.

    Returns
    -------
    list of str
        A summary and the paths written.

    Raises
    ------
    UserError
        If a file cannot be read, does not belong to the volume, or the labels decide too little.
    """
    check_crop_settings(request.settings)
    source = open_volume(request.volume)
    labels = open_labels(request.labels)
    first, end = request.z or (0, source.shape[0])
    if not 0 <= first < end <= source.shape[0]:
        raise UserError(
            f"--z {first} {end}: the volume has the sections 0 to {source.shape[0] - 1}; give the first, and the one "
            f"after the last, as in --z 0 {source.shape[0]}"
        )
    size = request.voxel_size_nm or source.voxel_size_nm or labels.voxel_size_nm
    if size is None:
        raise UserError(f"the voxel size of {request.volume} is not known; give it in nm with --voxel_size Z Y X")
    height, width = source.shape[1:]
    volume = read_cutout(source, (width, height, end - first), (0, 0, first), voxel_size_nm=size)
    synthetic = source.notes.get("synthetic") or labels.notes.get("synthetic")
    files = RunFiles(request.outdir, labels, source, None, volume.voxel_size_nm, synthetic)
    with recorded(files, {**vars(request)}, command) as recording:
        watch = recording.watch
        with watch.stage("read"):
            crop = cut_crop(volume, request)
        learned, model, curves = learn_model(crop, request.settings, request.seed, request.boundaries, watch.stage)
        trained_on = {"uri": source.uri, "sha256": volume_sha256(source), "z": [first, end]}
        with watch.stage("write"):
            _write(recording, replace(model, trained_on=trained_on), learned, curves)
        points = {name: _point(curve) for name, curve in curves.items()}
        recording.summary = {"validation": learned.validation, "chosen": points}
    return [*_lines(learned, points), *recording.lines()]


def cut_crop(volume: Volume, request: CropRequest) -> Crop:
    """Preprocess a crop, take its boundary probability, and cut it into fragments as ``run_pipeline.py`` would.

    Raises
    ------
    UserError
        If labels or boundaries do not belong to the volume.
    """
    settings, size = request.settings.segment, volume.voxel_size_nm
    labels = read_labels(request.labels, volume)
    given = None if request.boundaries == INTENSITY else read_probability(request.boundaries, volume)
    em = preprocess(volume.array, request.settings.preprocess)
    good = ~damaged_sections(em)
    em, labels = em[good], labels[good]
    boundaries = intensity_boundaries(em, size, settings.boundaries) if given is None else given[good]
    boundaries = np.ascontiguousarray(boundaries, np.float32)
    fragments = watershed_fragments(boundaries, size, settings.fragments)
    return Crop(Cut(fragments, region_graph(fragments, boundaries, size), boundaries, em, size), labels)


def learn_model(
    crop: Crop, settings: CropSettings, seed: int, boundaries: str, stage: Stage
) -> tuple[Learned, ContactModel, dict[str, pd.DataFrame]]:
    """Learn from a crop and choose the bias of each segmenter on it, with probabilities of held-out blocks.

    Returns
    -------
    learned : Learned
    model : ContactModel
    curves : dict of DataFrame
        As `emlib.refine.edge_tuning.tune`, by segmenter.
    """
    with stage("learn"):
        table = label_table(crop.labels, crop.cut.fragments)
        learned = learn_contacts(crop.cut, table, settings.contacts, seed)
    tunings, curves = {}, {}
    with stage("tune"):
        for name in TUNED:
            enclosed = settings.segment.multicut.min_enclosed
            tunings[name], curves[name] = tune(crop.cut, table, learned.held_out, name, enclosed)
    parts = (learned.forest, learned.slope, learned.intercept, tunings, tuple(crop.cut.voxel_size_nm))
    return learned, ContactModel(*parts, settings.segment.fragments, boundaries), curves


def check_crop_settings(settings: CropSettings) -> None:
    """Refuse settings that nothing can be learnt with.

    Raises
    ------
    UserError
        Naming the first of them.
    """
    contacts = settings.contacts
    if contacts.forest.classifier != "hgb":
        raise UserError(f"--set contacts.forest.classifier={contacts.forest.classifier}: contacts of a crop take hgb")
    check_forest("contacts.forest", contacts.forest)
    if not 0.5 < contacts.purity <= 1:
        raise UserError(f"--set contacts.purity={contacts.purity:g}: must lie above 0.5 and be at most 1")
    if min(contacts.blocks) < 1 or np.prod(contacts.blocks) < 2:
        raise UserError(f"--set contacts.blocks={list(contacts.blocks)}: cross-validation needs at least two blocks")


def _point(curve: pd.DataFrame) -> dict[str, float]:
    """The chosen point of a curve."""
    row = curve.loc[curve["chosen"]].iloc[0]
    return {name: float(row[name]) for name in ("bias", "size_power", "voi_split", "voi_merge", "voi", "arand")}


def _write(recording: Recording, model: ContactModel, learned: Learned, curves: dict[str, pd.DataFrame]) -> None:
    outputs, synthetic = recording.outputs, recording.files.synthetic
    recording.mark_synthetic()
    write_edge_model(outputs.path(f"data/{MODEL}.npz"), model)
    outputs.note(f"data/{MODEL}.npz", "The model of contacts, for run_pipeline.py --edge_model")
    bins = learned.bins.to_dict("records")
    outputs.json(f"{MODEL}_validation", {**learned.validation, "bins": bins}, "How well it tells, on held-out blocks")
    outputs.table(f"{MODEL}_curve", pd.concat(curves.values()), "Splits against mergers over the bias, on the crop")
    names = importance_table(list(CONTACT_NAMES), float("nan"), learned.importance)[["feature", "auc_fall"]]
    outputs.table(f"{MODEL}_importance", names, "What the model relies on")
    drawn = []
    for name, curve in curves.items():
        power = model.tunings[name].size_power
        points = curve[curve["size_power"] == power].reset_index(drop=True)
        drawn.append(Curve(f"{name}, learned contacts", points, int(points["chosen"].argmax())))
    told = learned.validation
    subtitle = (
        f"Cross-validated by blocks of the crop: AUC {told['auc']:.3f}, Brier score {told['brier']:.3f} "
        f"({told['brier_of_the_mean']:.3f} without learning), {told['contacts']} contacts. "
        "Circles: the chosen points; grey lines: equal VOI."
    )
    figure = figure_curve(drawn, "Which fragments belong together", subtitle, synthetic, learned.bins)
    put_figure(outputs, figure, f"{MODEL}_curve", "Splits against mergers over the bias, and the calibration")


def _lines(learned: Learned, points: dict[str, dict[str, float]]) -> list[str]:
    told = learned.validation
    lines = [
        f"contacts: AUC {told['auc']:.3f} on held-out blocks, Brier score {told['brier']:.3f} "
        f"({told['brier_of_the_mean']:.3f} without learning), calibration off by {told['calibration_error']:.3f}, "
        f"{told['contacts']} contacts"
    ]
    for name, point in points.items():
        lines.append(
            f"{name}: bias {point['bias']:+g}, size_power {point['size_power']:g}: VOI {point['voi_split']:.3f} split "
            f"+ {point['voi_merge']:.3f} merge = {point['voi']:.3f} bits, ARAND {point['arand']:.3f}, on the crop with "
            "the probabilities of held-out blocks"
        )
    return lines
