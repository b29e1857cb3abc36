"""Sections predicted, scored, drawn and recorded: the work of ``test.py`` once model and data are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from emlib.errors import UserError
from emlib.evaluation.masks import MEANINGS
from emlib.evaluation.outcome import settings_of
from emlib.learn.datasets.mask_classes import UNKNOWN
from emlib.learn.datasets.sections import Sections
from emlib.learn.datasets.split import MASKS, Split
from emlib.learn.in_common import background
from emlib.learn.inference import SIGMOID, SOFTMAX, decide, predict_sections
from emlib.learn.models.checkpoint import Checkpoint
from emlib.learn.tiles import TileSettings
from emlib.measure.masks.counts import MaskSettings
from emlib.measure.masks.scores import AVERAGE, PROTOCOLS, Scores, score_organelles, scores_table
from emlib.publish.figure_masks import figure_masks
from emlib.publish.page import put_figure
from emlib.runs.artefacts import Outputs
from emlib.runs.freed_memory import keep_freed_memory
from emlib.runs.runlog import versions
from emlib.volumes.atomic import atomic_path
from emlib.volumes.npy import write_npy
from emlib.volumes.phantom_files import DOMAIN_TITLE
from emlib.volumes.volume import ZYX

SYNTHETIC = "SYNTHETIC PHANTOM, NOT REAL DATA"
ROWS = 4  # organelles on a figure
# By organelle: truth, prediction, where nobody annotated; section by section.
Masks = dict[str, tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]]


@dataclass(frozen=True)
class ScoredSections:
    """Annotated sections and a network, and where what becomes of them is written.

    Attributes
    ----------
    checkpoint : Checkpoint
    sections : Sections
    names : tuple of str
        What is scored: organelles or classes that both have.
    threshold : float
        A pixel is foreground from this probability on; with softmax the most probable class is taken.
    outputs : Outputs
    voxel_size_nm : (z, y, x), or None
    save : bool
        Whether probabilities and masks are written.
    """

    checkpoint: Checkpoint
    sections: Sections
    names: tuple[str, ...]
    threshold: float
    outputs: Outputs
    voxel_size_nm: ZYX | None
    save: bool

    @property
    def split(self) -> Split:
        """Where the sections are from."""
        return self.sections.split

    @property
    def name(self) -> str:
        """Of the tables and figures."""
        return "_".join(["test", self.split.domain, *([self.split.split] if self.split.split != "test" else [])])

    @property
    def activation(self) -> str:
        """Of the network."""
        return getattr(self.checkpoint.model, "activation", SIGMOID)

    @property
    def nothing(self) -> frozenset[str]:
        """The background, which is shown and is no organelle."""
        return background(self.split, self.checkpoint)

    @property
    def synthetic(self) -> str | None:
        """A warning for the figures where the data set is the phantom."""
        readme = self.split.folder.parent / "README.md"
        synthetic = readme.is_file() and readme.read_bytes().startswith(DOMAIN_TITLE.encode())
        return SYNTHETIC if synthetic else None

    def predict(self, tiles: TileSettings, device: str, *, progress: bool, note: Callable[[str], None]) -> Masks:
        """Predict all sections; draw, and write, each as soon as it is there.

        Parameters
        ----------
        tiles : TileSettings
        device : str
        progress : bool
            Show a bar.
        note : callable
            Is told how much is not annotated, if any.

        Returns
        -------
        dict of (truth, prediction, ignored), lists of (Y, X) bool arrays
            By the names; where nobody annotated, which ``ignored`` tells, truth and prediction are False.
        """
        checkpoint, sections = self.checkpoint, self.sections
        experts = {name: checkpoint.organelles.index(name) for name in self.names}
        planes = {name: sections.organelles.index(name) for name in self.names}
        masks: Masks = {name: ([], [], []) for name in self.names}
        blank, pixels = 0, 0
        keep_freed_memory()
        model = checkpoint.model.to(memory_format=torch.channels_last)  # a CPU takes two thirds of the time
        predictions = predict_sections(model, sections, checkpoint.normalisation, tiles, device, progress=progress)
        for index, probabilities in enumerate(predictions):
            truth, found = sections.masks(index), decide(probabilities, self.activation, self.threshold)
            both = {}
            for name in self.names:
                known = truth[planes[name]] != UNKNOWN
                both[name] = truth[planes[name]] == 1, found[experts[name]] & known
                blank, pixels = blank + known.size - np.count_nonzero(known), pixels + known.size
                for kept, mask in zip(masks[name], (*both[name], ~known), strict=True):
                    kept.append(mask)
                if self.save:
                    self._write(name, sections.names[index], probabilities[experts[name]], found[experts[name]])
            self._draw(sections.image(index), both, sections.names[index])
        if blank:
            note(f"note: {blank / pixels:.1%} of the pixels are not annotated and count for nothing")
        return masks

    def score(self, masks: Masks, how: MaskSettings) -> tuple[Scores, pd.DataFrame]:
        """Score organelles and average over them; a background stands beside them, outside the average."""
        masks, called = self._annotated(masks)
        scores, table = score_organelles({n: m for n, m in masks.items() if n not in self.nothing}, how, called)
        tables = [table]
        for name in [name for name in masks if name in self.nothing]:
            apart, rows = score_organelles({name: masks[name]}, how, called)
            for part in PROTOCOLS:
                for into, own in ((scores[part], apart[part]), (scores["chance"][part], apart["chance"][part])):
                    into |= {name: own[name], AVERAGE: into.pop(AVERAGE)}
            tables.append(rows)
        return scores, pd.concat(tables, ignore_index=True)

    def _annotated(self, masks: Masks) -> tuple[Masks, dict[str, list[str]]]:
        """The masks, and the names of their sections, without sections of which nobody annotated a pixel."""
        kept, called = {}, {}
        for name, each in masks.items():
            known = [i for i, ignored in enumerate(each[2]) if not ignored.all()]
            if not known:
                raise UserError(f"{self.split.folder}: no pixel of {name} is annotated; leave it out with --organelles")
            kept[name] = tuple([part[i] for i in known] for part in each)
            if not any(ignored.any() for ignored in kept[name][2]):
                kept[name] = kept[name][:2]
            called[name] = [self.sections.names[i] for i in known]
        return kept, called

    def record(self, scores: Scores, table: pd.DataFrame, how: MaskSettings, inference: dict[str, Any]) -> None:
        """Write the scores, with all that decided them."""
        by = {"activation": self.activation}
        by |= {"threshold": self.threshold} if self.activation == SIGMOID else {}
        record = {name: value for name, value in vars(how).items() if name != "pixel_nm"}
        settings = settings_of(self.voxel_size_nm, **record, meanings=MEANINGS, inference={**by, **inference})
        content = {**scores, "inputs": self.inputs(), "settings": settings, "versions": versions()}
        what = f"{self.split.domain}, {self.split.split} sections, against truth and chance"
        self.outputs.json(self.name, content, what)
        each = f"{what}: one row per organelle, protocol and chance line"
        self.outputs.table(self.name, scores_table(scores), each)
        self.outputs.table(f"{self.name}_sections", table, f"{what}: each section for itself, with its counts")

    def inputs(self) -> dict[str, Any]:
        """What was compared, for the record: by organelle as ``evaluate.py masks`` has it, and the model."""
        model, folders = self.checkpoint, self.split.mask_folders
        organelles = {
            name: {
                "pred": {"expert": model.organelles.index(name)},
                "truth": {"uri": str(folders.get(name) or folders[MASKS])},
                "sections": list(self.sections.names),
            }
            for name in self.names
        }
        about = {"architecture": model.architecture, "sha256": model.sha256, "normalisation": model.normalisation}
        paths = {"pred": str(model.path), "truth": str(self.split.folder)}
        return {**paths, "organelles": organelles, "model": {**about, "validation": model.metrics}}

    def _write(self, organelle: str, section: str, probability: np.ndarray, mask: np.ndarray) -> None:
        """Write the probability and the mask of one section."""
        name = f"predictions/{self.split.domain}/{organelle}/{section}"
        write_npy(self.outputs.path(f"{name}.npy"), probability.astype(np.float16))
        with atomic_path(self.outputs.path(f"{name}.png")) as temporary:
            Image.fromarray(mask * np.uint8(255)).save(temporary, compress_level=1)
        for ending, what in (("npy", "probability"), ("png", "mask")):
            self.outputs.note(f"{name}.{ending}", f"{what} of {organelle}, section {section}")

    def _draw(self, em: np.ndarray, masks: Mapping[str, tuple[np.ndarray, np.ndarray]], section: str) -> None:
        """Draw one section into ``figures``: of classes those that it holds, a few on each page."""
        shown = [name for name in masks if name not in self.nothing]
        if self.activation == SOFTMAX:
            shown = [name for name in shown if any(mask.any() for mask in masks[name])] or shown[:1]
        pages = [shown[first : first + ROWS] for first in range(0, len(shown), ROWS)]
        pixel_nm = None if self.voxel_size_nm is None else self.voxel_size_nm[1:]
        by = "the most probable class" if self.activation == SOFTMAX else f"a probability of {self.threshold:g} on"
        subtitle = (
            f"Model {self.checkpoint.path.name}, foreground {'is' if self.activation == SOFTMAX else 'from'} {by}."
        )
        for number, names in enumerate(pages, start=1):
            part = f", page {number} of {len(pages)}" * (len(pages) > 1)
            title = f"Predicted organelles: {self.split.domain}, {self.split.split}, section {section}{part}"
            page = {name: masks[name] for name in names}
            figure = figure_masks(em, page, title, pixel_nm=pixel_nm, subtitle=subtitle, note=self.synthetic)
            ending = f"_{number}" * (number > 1)
            put_figure(self.outputs, figure, f"{self.name}_{section}{ending}", title)
