"""What a channel analysis leaves behind: tables, figures, a record, the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from emlib.interpret.analysis import QUICK, Analysis, AnalysisSettings, analyse, bars_shown, load
from emlib.interpret.halves import Halves
from emlib.interpret.sampling import Sample
from emlib.interpret.summary import summary_text
from emlib.interpret.wording import counted, listed
from emlib.learn.datasets.split import Split
from emlib.learn.models.checkpoint import Checkpoint
from emlib.publish.figure_interpret import ablation_figure, deletion_figure, importance_figure
from emlib.publish.figure_overlap import overlap_figure
from emlib.publish.page import put_figure
from emlib.runs.artefacts import Outputs
from emlib.runs.runlog import versions
from emlib.volumes.synthetic import SYNTHETIC_MARK


def channel_analysis(
    *,
    model_path: str,
    data_root: str | Path,
    domain: str,
    split: str = "test",
    sections: Sequence[str] | None = None,
    organelles: Sequence[str] | None = None,
    device: str = "auto",
    outdir: str | Path = "outputs",
    quick: bool = False,
    quiet: bool = False,
    note: Callable[[str], None] = print,
    **settings: Any,
) -> list[str]:
    """Analyse the channels of a trained network and write everything.

    Parameters
    ----------
    model_path : str
        A checkpoint, or the name of a bundled one.
    data_root, domain, split, sections
        The annotated sections that patches are drawn from.
    organelles : names, optional
        Of the experts of imported MExConn weights, in their order; other files hold them. The organelles that model and
        data set have in common are analysed.
    device : {"auto", "cpu", "cuda", "mps"}
    outdir : path
    quick : bool
        Fewer patches and points; whatever ``settings`` holds wins.
    quiet : bool
        No progress.
    note : callable
        Takes each note and warning at once, before anything is computed.
    **settings
        Fields of `emlib.interpret.analysis.AnalysisSettings`; None is the default.

    Returns
    -------
    list of str
        The summary and the files written, for the shell.

    Raises
    ------
    UserError
        For what the user can mend.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    given |= {"levels": tuple(given["levels"])} if "levels" in given else {}
    how = replace(AnalysisSettings(), **{**(QUICK if quick else {}), **given})
    outputs = Outputs(outdir)
    checkpoint, part, halves, device = load(
        model_path, data_root, domain, split, sections, how, device, note, organelles
    )
    found = analyse(checkpoint.model, halves, how, device, progress=bars_shown(quiet))
    synthetic = (part.folder.parent / SYNTHETIC_MARK).exists()
    mark = "SYNTHETIC PHANTOM, NOT REAL DATA" if synthetic else None
    text = _summary(found, checkpoint, part, halves, how, mark)
    _write(outputs, found, checkpoint, part, halves, how)
    _draw(outputs, found, how, domain, mark)
    outputs.text(f"tables/channel_ablation_{domain}.txt", text, "which claims about channels survive the controls")
    written = [f"written: {outputs.path(str(artefact.path))}" for artefact in outputs.written]
    return [*text.splitlines(), "", *written]


def _summary(
    found: Analysis, checkpoint: Checkpoint, part: Split, halves: Halves, how: AnalysisSettings, mark: str | None
) -> str:
    sampled = _both(halves)
    names = listed([section.name for section in part.sections], "section")
    shows = np.concatenate([half.shows for half in sampled]).sum(axis=0)
    holding = ", ".join(f"{name} on {count}" for name, count in zip(checkpoint.organelles, shows, strict=True))
    dice = ", ".join(f"{name} {'–' if value != value else f'{value:.3f}'}" for name, value in found.dice.items())
    levels, deepest = len(found.channels), counted(found.channels[-1], "channel")
    patches = counted(sum(len(half.images) for half in sampled), "patch", "patches")
    told = [
        f"Deepest encoder level: {levels} of {levels}, {deepest}; top sets of {found.top_k} by "
        f"{how.rank_by.replace('_x_', ' × ')}.",
        f"Sampled: {patches} of {halves.judging.images.shape[-1]} px that do not overlap, from {names} of "
        f"{part.domain}/{part.split} (seed {how.seed}); {holding} of them. Every figure below is of these patches, not "
        "of whole sections.",
        halves.note,
        f"Pooled Dice on the patches that are judged on, before anything is taken away: {dice}.",
    ]
    title = f"{mark}. " * (mark is not None) + f"Channels of {Path(checkpoint.path).name} on {part.domain}"
    return summary_text(title, told, found.claims, how.random_sets, how.orders)


def _both(halves: Halves) -> tuple[Sample, ...]:
    """The halves, or the one that is both."""
    return (halves.ranking, halves.judging) if halves.apart else (halves.ranking,)


def _write(
    outputs: Outputs, found: Analysis, checkpoint: Checkpoint, part: Split, halves: Halves, how: AnalysisSettings
) -> None:
    sets = pd.DataFrame(
        [(one.kind, one.of, len(one.channels), " ".join(map(str, one.channels))) for one in found.sets],
        columns=["set", "of", "size", "channels"],
    )
    for name, table, what in (
        ("importance", found.importance, "importance of every channel to every expert, level by level"),
        ("correlations", found.agreement, "rank correlations between measures and between experts"),
        ("sets", sets, "top, shared and specific channels of the deepest level"),
        ("overlaps", found.overlaps, "what top sets share, against chance"),
        ("set_ablation", found.effects, "sets taken away, against random sets of the same size"),
        ("random_sets", found.random, "every random set that was taken away"),
        ("deletion_curves", found.curves, "Dice while channels are removed"),
        ("deletion_areas", found.areas, "areas under the deletion curves, against random orders"),
        ("claims", pd.DataFrame([asdict(claim) for claim in found.claims]), "claims and verdicts"),
    ):
        outputs.table(f"channel_{name}_{part.domain}", table, what)
    record = {
        "model": {"path": str(checkpoint.path), "sha256": checkpoint.sha256, "architecture": checkpoint.architecture},
        "data": {"domain": part.domain, "split": part.split, "sections": [one.name for one in part.sections]},
        "patches": {
            use: [{"section": name, "y": y, "x": x} for name, y, x in half.places]
            for use, half in (("ranking", halves.ranking), ("judging", halves.judging))
        },
        "patch_size": halves.judging.images.shape[-1],
        "patches_holding": {"ranking": halves.ranking.holding, "judging": halves.judging.holding},
        "organelles": checkpoint.organelles,
        "level_channels": found.channels,
        "top_k": found.top_k,
        "dice": found.dice,
        "settings": how,
        "versions": {**versions(), "torch": torch.__version__},
    }
    outputs.json(f"channel_ablation_{part.domain}", record, "what the channel analysis looked at")


def _draw(outputs: Outputs, found: Analysis, how: AnalysisSettings, domain: str, note: str | None) -> None:
    tops = {one.of: frozenset(one.channels) for one in found.sets if one.kind == "top"}
    for name, figure, what in (
        ("importance", importance_figure(found.importance, how.rank_by, found.top_k, note), "importance of channels"),
        ("overlap", overlap_figure(tops, found.overlaps, note), "what the experts' top channels have in common"),
        ("ablation", ablation_figure(found.effects, how.random_sets, note), "sets of channels against random sets"),
        ("deletion", deletion_figure(found.curves, found.areas, note), "deletion curves"),
    ):
        put_figure(outputs, figure, f"channel_{name}_{domain}", what)
