"""A trained network on annotated sections: predictions, scores against truth and chance, figures; ``test.py``.

Scores are those of ``evaluate.py masks``, by the same functions; only the masks come from a network, not from files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size
from emlib.evaluation.masks import MEANINGS, score_lines
from emlib.evaluation.outcome import settings_of
from emlib.learn.datasets.domain import Split, check_splits, find_split
from emlib.learn.datasets.sections import Sections, open_sections
from emlib.learn.inference import TileSettings, predict_sections
from emlib.learn.models.checkpoint import Checkpoint, load_checkpoint
from emlib.learn.training.device import resolve_device, resolve_precision
from emlib.measure.masks.counts import MaskSettings
from emlib.measure.masks.scores import score_organelles, scores_table
from emlib.publish.figure_masks import figure_masks
from emlib.publish.page import save_figure
from emlib.runs.artefacts import Outputs
from emlib.runs.catalogue import DATASETS
from emlib.runs.runlog import versions
from emlib.volumes.atomic import atomic_path
from emlib.volumes.phantom_files import DOMAIN_TITLE
from emlib.volumes.volume import ZYX

SYNTHETIC = "SYNTHETIC PHANTOM, NOT REAL DATA"
Masks = dict[str, tuple[list[np.ndarray], list[np.ndarray]]]  # by organelle: truth, prediction, section by section


def test_model(
    *,
    data_root: str | Path,
    domain: str,
    model_path: str | Path | None,
    split: str = "test",
    organelles: Sequence[str] | None = None,
    voxel_size: Sequence[float] | None = None,
    batch_size: int = 4,
    device: str = "auto",
    precision: str = "32",
    tile: int = TileSettings.tile,
    overlap: int = TileSettings.overlap,
    tta: bool = False,
    save_probabilities: bool = False,
    threshold: float = 0.5,
    boundary_nm: float = 20.0,
    bootstrap: int = 1000,
    outdir: str | Path = "outputs",
    seed: int = 0,
    quiet: bool = True,
) -> list[str]:
    """Predict the sections of a split, score them against truth and chance, and write tables and figures.

    Parameters
    ----------
    data_root, domain, split
        As for `emlib.learn.datasets.domain.find_split`.
    model_path : path or name
        As for `emlib.learn.models.checkpoint.load_checkpoint`.
    organelles : names, optional
        Default: those that both the data set and the model have. For weights without names (MExConn) the names of the
        experts, in their order.
    voxel_size : (z, y, x) in nm, optional
        Default: the public data set's of this name, else that of the model's training.
    batch_size, precision, tile, overlap, tta
        As in `emlib.learn.inference.TileSettings`; the precision may be auto.
    device : "auto", "cpu", "cuda" or "mps"
    save_probabilities : bool
        Also write ``predictions/<domain>/<organelle>/<section>.npy`` (float16) and ``.png`` (mask, 255 inside), which
        ``evaluate.py masks`` reads.
    threshold : float in (0, 1]
        A pixel is foreground from this probability on.
    boundary_nm, bootstrap, seed
        As in `emlib.measure.masks.counts.MaskSettings`.
    outdir : path
        ``tables/test_<domain>.json`` (shaped as ``evaluate_masks.json``), ``test_<domain>.csv``,
        ``test_<domain>_sections.csv`` and ``figures/test_<domain>_<section>.png`` and ``.pdf`` are written; for another
        split than test its name follows that of the domain.
    quiet : bool
        Draw no progress bar.

    Returns
    -------
    list of str
        Notes, the scores as tables, the paths written.

    Raises
    ------
    UserError
        If the model, the data set, the split or an organelle does not exist, model and data set have no organelle in
        common, files are damaged, or memory runs out.
    """
    lines: list[str] = []
    where = resolve_device(device, lines.append)
    try:
        tiles = TileSettings(tile, overlap, batch_size, tta, resolve_precision(precision, where, lines.append))
    except ValueError as error:
        raise UserError(f"--{error}") from error
    found = find_split(data_root, domain, split, organelles)
    checkpoint = load_checkpoint(model_path, where, organelles=organelles)
    found = _in_common(found, checkpoint, organelles, lines.append)
    lines += [f"warning: {line}" for line in check_splits([found])]
    voxel_size_nm = _voxel_size(voxel_size, checkpoint, domain, lines.append)
    outputs = Outputs(outdir)
    run = _Run(checkpoint, found, threshold, outputs, voxel_size_nm, save_probabilities, _synthetic(found))
    sections = open_sections(found)
    masks = run.predict(sections, tiles, where, progress=not quiet)
    pixel_nm = None if voxel_size_nm is None else voxel_size_nm[1:]
    how = MaskSettings(pixel_nm, boundary_nm=boundary_nm, bootstrap=bootstrap, seed=seed)
    scores, table = score_organelles(masks, how, {name: sections.names for name in masks})
    inference = {"threshold": threshold, "device": where, **vars(tiles)}
    record = {name: value for name, value in vars(how).items() if name != "pixel_nm"}
    settings = settings_of(voxel_size_nm, **record, meanings=MEANINGS, inference=inference)
    what = f"{domain}, {split} sections, against truth and chance"
    outputs.json(run.name, {**scores, "inputs": run.inputs(), "settings": settings, "versions": versions()}, what)
    outputs.table(run.name, scores_table(scores), f"{what}: one row per organelle, protocol and chance line")
    outputs.table(f"{run.name}_sections", table, f"{what}: each section for itself, with its counts")
    lines += [run.synthetic] if run.synthetic else []
    written = [f"written: {outputs.path(str(artefact.path))}" for artefact in outputs.written]
    return [*lines, *score_lines(scores, how), *written]


@dataclass(frozen=True)
class _Run:
    """What predicting, drawing and recording share."""

    checkpoint: Checkpoint
    split: Split
    threshold: float
    outputs: Outputs
    voxel_size_nm: ZYX | None
    save: bool
    synthetic: str | None

    @property
    def name(self) -> str:
        """Of the tables and figures."""
        return "_".join(["test", self.split.domain, *([self.split.split] if self.split.split != "test" else [])])

    def predict(self, sections: Sections, tiles: TileSettings, device: str, *, progress: bool) -> Masks:
        """Predict all sections; draw, and write, each as soon as it is there."""
        checkpoint = self.checkpoint
        experts = {name: checkpoint.organelles.index(name) for name in self.split.organelles}
        masks: Masks = {name: ([], []) for name in experts}
        model = checkpoint.model.to(memory_format=torch.channels_last)  # a CPU takes two thirds of the time
        predictions = predict_sections(model, sections, checkpoint.normalisation, tiles, device, progress=progress)
        for index, probabilities in enumerate(predictions):
            truth = sections.masks(index)
            both = {
                name: (truth[i] > 0, probabilities[expert] >= self.threshold)
                for i, (name, expert) in enumerate(experts.items())
            }
            for name, pair in both.items():
                for kept, mask in zip(masks[name], pair, strict=True):
                    kept.append(mask)
                if self.save:
                    self._write(name, sections.names[index], probabilities[experts[name]], pair[1])
            self._draw(sections.image(index), both, sections.names[index])
        return masks

    def inputs(self) -> dict[str, Any]:
        """What was compared, for the record: by organelle as ``evaluate.py masks`` has it, and the model."""
        model, names = self.checkpoint, [section.name for section in self.split.sections]
        organelles = {
            name: {
                "pred": {"expert": model.organelles.index(name)},
                "truth": {"uri": str(self.split.folder / name)},
                "sections": names,
            }
            for name in self.split.organelles
        }
        about = {"architecture": model.architecture, "sha256": model.sha256, "normalisation": model.normalisation}
        paths = {"pred": str(model.path), "truth": str(self.split.folder)}
        return {**paths, "organelles": organelles, "model": {**about, "validation": model.metrics}}

    def _write(self, organelle: str, section: str, probability: np.ndarray, mask: np.ndarray) -> None:
        """Write the probability and the mask of one section."""
        name = f"predictions/{self.split.domain}/{organelle}/{section}"
        with atomic_path(self.outputs.path(f"{name}.npy")) as temporary:
            np.save(temporary, probability.astype(np.float16))
        with atomic_path(self.outputs.path(f"{name}.png")) as temporary:
            Image.fromarray(mask * np.uint8(255)).save(temporary, compress_level=1)
        for ending, what in (("npy", "probability"), ("png", "mask")):
            self.outputs.note(f"{name}.{ending}", f"{what} of {organelle}, section {section}")

    def _draw(self, em: np.ndarray, masks: Mapping[str, tuple[np.ndarray, np.ndarray]], section: str) -> None:
        """Draw one section into ``figures``."""
        domain, split = self.split.domain, self.split.split
        pixel_nm = None if self.voxel_size_nm is None else self.voxel_size_nm[1:]
        subtitle = f"Model {self.checkpoint.path.name}, foreground from a probability of {self.threshold:g} on."
        title = f"Predicted organelles: {domain}, {split}, section {section}"
        figure = figure_masks(em, masks, title, pixel_nm=pixel_nm, subtitle=subtitle, note=self.synthetic)
        for path in save_figure(figure, self.outputs.path("figures"), f"{self.name}_{section}"):
            self.outputs.note(f"figures/{path.name}", title)


def _in_common(split: Split, checkpoint: Checkpoint, asked: Sequence[str] | None, note: Callable[[str], None]) -> Split:
    """The split with the organelles that the model has an expert for."""
    both = tuple(name for name in split.organelles if name in checkpoint.organelles)
    lacking = [name for name in split.organelles if name not in both]
    has = f"the model {checkpoint.path} has {', '.join(checkpoint.organelles)}"
    if not both:
        unnamed = all(name.startswith("expert_") for name in checkpoint.organelles)
        advice = (
            "name its experts in their order with --organelles" if unnamed else "test it on data with masks of these"
        )
        raise UserError(f"{has}; the data set {split.domain} has {', '.join(split.organelles)}: {advice}")
    if lacking and asked:
        raise UserError(f"{has}, and no expert for {', '.join(lacking)}; leave it out of --organelles")
    if lacking:
        note(f"note: not scored, as {has} alone: {', '.join(lacking)}")
    if spare := [name for name in checkpoint.organelles if name not in split.organelles and not asked]:
        note(f"note: not scored, as {split.folder} has no masks of it: {', '.join(spare)}")
    return Split(split.domain, split.split, split.folder, both, split.sections)


def _voxel_size(
    given: Sequence[float] | None, checkpoint: Checkpoint, domain: str, note: Callable[[str], None]
) -> ZYX | None:
    """The size of a voxel of the sections, and a line that says where it is from."""
    data = DATASETS[domain].voxel_size_nm if domain in DATASETS else None
    if given is not None:
        size, source = known_voxel_size(given), "--voxel_size"
    elif data is not None:
        size, source = tuple(map(float, data)), f"of {domain}, as published"
    else:
        size, source = checkpoint.voxel_size_nm, "of the model's training"
    if size is None:
        return None
    note(f"voxel size {_nm(size)} nm (z y x), {source}")
    trained = checkpoint.voxel_size_nm
    if trained is not None and not np.allclose(size[1:], trained[1:], rtol=0.01):
        note(f"warning: the model was trained on voxels of {_nm(trained)} nm; organelles had other sizes in pixels")
    return size


def _nm(size: Sequence[float]) -> str:
    return " × ".join(f"{v:g}" for v in size)


def _synthetic(split: Split) -> str | None:
    """A warning for the figures where the data set is the phantom."""
    readme = split.folder.parent / "README.md"
    synthetic = readme.is_file() and readme.read_bytes().startswith(DOMAIN_TITLE.encode())
    return SYNTHETIC if synthetic else None
