"""The channel analysis from a checkpoint and a data set to tables, figures and a text: ``channel_ablation.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from emlib.errors import UserError
from emlib.interpret.ablation import Probe, single_channels
from emlib.interpret.agreement import agreement_table
from emlib.interpret.claims import HELD_OUT, Claim, deletion_claims, measure_claims, overlap_claims, set_claims
from emlib.interpret.controls import ablate_sets, random_orders
from emlib.interpret.deletion import deletion_areas, deletion_curves, deletion_steps
from emlib.interpret.experts import ChosenExperts
from emlib.interpret.halves import Halves, split_patches
from emlib.interpret.importance import gradient_importance
from emlib.interpret.overlap import ChannelSet, channel_sets, overlap_table, top_channels
from emlib.interpret.sampling import Sample, sample_patches
from emlib.learn.datasets.domain import check_splits, find_split
from emlib.learn.datasets.sections import open_sections
from emlib.learn.datasets.split import Split
from emlib.learn.in_common import in_common, with_organelles
from emlib.learn.models.checkpoint import Checkpoint, load_checkpoint
from emlib.learn.training.device import resolve_device
from emlib.learn.training.failures import memory_told
from emlib.learn.volumes.boundary_model import refuse_neighbours
from emlib.threads import get_threads

PUBLISHED_TOP = 100
LEAST_RANDOM = 20  # below, no p-value can reach 5 %
DELETED_BY = ("gradient", "gradient_x_activation", "ablation")
QUICK = {"patches": 12, "random_sets": 20, "orders": 20, "points": 4}


@dataclass(frozen=True)
class AnalysisSettings:
    """How channels are analysed; the flags of ``channel_ablation.py``.

    Attributes
    ----------
    top_k : int, optional
        Channels in a top set (default: 100, at most half of the deepest level's).
    rank_by : {"gradient", "gradient_x_activation", "ablation"}
        The measure that chooses the top sets; the first is the published one.
    levels : ints, optional
        Encoder levels, from 1, the shallowest, whose importance is measured (default: all); the deepest always is.
    exact_all_levels : bool
        Exact ablation of single channels at all of them, not at the deepest alone.
    patches, patch_size, batch_size : int
        How many patches, half of them to rank on and half to judge on, their side in pixels, how many at once.
    random_sets : int
        Per size of a set and kind of ablation; at least 20.
    orders : int
        Random orders behind the deletion curves.
    points : int
        Of a deletion curve, both ends included.
    seed : int
    """

    top_k: int | None = None
    rank_by: str = "gradient"
    levels: tuple[int, ...] | None = None
    exact_all_levels: bool = False
    patches: int = 24
    patch_size: int = 256
    batch_size: int = 8
    random_sets: int = 30
    orders: int = 20
    points: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Analysis:
    """All tables of an analysis and what they say; the columns are told where each is made.

    ``importance`` is of the patches that are ranked on, but for ``ablation_held_out``; all else that takes channels
    away, and ``dice``, is of those that are judged on.
    """

    importance: pd.DataFrame
    agreement: pd.DataFrame
    sets: tuple[ChannelSet, ...]
    overlaps: pd.DataFrame
    effects: pd.DataFrame
    random: pd.DataFrame
    curves: pd.DataFrame
    areas: pd.DataFrame
    claims: tuple[Claim, ...]
    dice: dict[str, float]
    top_k: int
    channels: tuple[int, ...]


def load(
    model_path: str,
    data_root: str | Path,
    domain: str,
    split: str,
    sections: Sequence[str] | None,
    settings: AnalysisSettings,
    device: str,
    note: Callable[[str], None],
    organelles: Sequence[str] | None = None,
) -> tuple[Checkpoint, Split, Halves, str]:
    """Load the network and draw the patches; what is wrong with the request is told before anything is computed.

    Parameters
    ----------
    model_path, data_root, domain, split, sections, settings, device, organelles
        As for `emlib.interpret.report.channel_analysis`.
    note : callable
        Takes warnings, and what is left out because model or data set lacks it.

    Returns
    -------
    checkpoint : Checkpoint
        Its model has the experts of the organelles in common alone, in the model's order.
    part : Split
        With the sections asked for.
    halves : Halves
    device : str

    Raises
    ------
    UserError
        For a setting that the network cannot meet, if model and data set have no organelle in common, and as
        `load_checkpoint`, `find_split` and `check_splits` do.
    """
    if settings.random_sets < LEAST_RANDOM:
        raise UserError(f"--random_sets {settings.random_sets} cannot reach p ≤ 0.05; give {LEAST_RANDOM} or more")
    torch.set_num_threads(get_threads())
    device = resolve_device(device, note)
    checkpoint = load_checkpoint(model_path, device, organelles=organelles)
    refuse_neighbours(checkpoint)
    if organelles and list(organelles) != list(checkpoint.organelles):
        has = ", ".join(checkpoint.organelles)
        raise UserError(f"{checkpoint.path} names its experts itself: {has}; leave --organelles out")
    checked_top_k(settings, checkpoint.model.level_channels[-1])
    _wanted_levels(settings, len(checkpoint.model.level_channels))
    if (nm := checkpoint.settings.get("resample_nm")) is not None:
        note(f"warning: the model was trained on sections resampled to {nm:g} nm; here they are taken as they are")
    whole = find_split(data_root, domain, split)
    shared = set(in_common(whole, checkpoint, None, note))
    names = tuple(name for name in checkpoint.organelles if name in shared)
    model = ChosenExperts(checkpoint.model, names)
    whole = with_organelles(whole, names)
    part = whole if not sections else replace(whole, sections=_chosen(whole, sections))
    for warning in check_splits([whole]):
        note(f"warning: {warning}")
    grid = {"count": settings.patches, "size": settings.patch_size, "seed": settings.seed}
    halves = split_patches(sample_patches(open_sections(part), checkpoint.normalisation, organelles=names, **grid))
    if not halves.apart:
        note(f"warning: {halves.note}")
    return replace(checkpoint, model=model, organelles=names), part, halves, device


def checked_top_k(settings: AnalysisSettings, channels: int) -> int:
    """Return the size of the top sets.

    Raises
    ------
    UserError
        If there are fewer channels.

    Examples
    --------
    >>> checked_top_k(AnalysisSettings(), 160), checked_top_k(AnalysisSettings(top_k=100), 160)
    (80, 100)
    """
    if settings.top_k is None:
        return max(1, min(PUBLISHED_TOP, channels // 2))
    top_channels(np.zeros((1, channels)), settings.top_k)
    return settings.top_k


def analyse(
    model: torch.nn.Module, halves: Halves, settings: AnalysisSettings, device: str = "cpu", *, progress: bool = False
) -> Analysis:
    """Measure importance on one half of the patches; on the other compare it with ablation, and sets with chance.

    Parameters
    ----------
    model : nn.Module
        With ``organelles``, ``level_channels``, ``encode(x, edit)`` and ``decode(features, experts)``; in eval mode.
    halves : Halves
    settings : AnalysisSettings
    device : torch device
    progress : bool
        Show bars.

    Returns
    -------
    Analysis
        Sets, their ablation and deletion curves are those of the deepest level.

    Raises
    ------
    UserError
        If memory runs out, ``top_k`` is too large, or there is no such level.
    """
    organelles, judged = model.organelles, halves.judging
    with memory_told("analysing channels"):
        probe = Probe(model, judged, batch_size=settings.batch_size, device=device)
        deepest = len(probe.channels) - 1
        top_k, levels = checked_top_k(settings, probe.channels[deepest]), _wanted_levels(settings, deepest + 1)
        measured = _measured(model, halves.ranking, levels, settings, device, progress)
        top = top_channels(measured[deepest][settings.rank_by], top_k)
        sets = channel_sets(top, organelles)
        overlaps = overlap_table(top, probe.channels[deepest], organelles)
        drawn = random_orders(probe.channels[deepest], max(settings.random_sets, settings.orders), settings.seed)
        effects, random = ablate_sets(probe, sets, drawn[: settings.random_sets], progress=progress)
        by = {name: measured[deepest][name] for name in DELETED_BY}
        steps = deletion_steps(probe.channels[deepest], settings.points)
        curves = deletion_curves(probe, by, drawn[: settings.orders], steps, progress=progress)
        if halves.apart:
            measured[deepest][HELD_OUT] = single_channels(probe, progress=progress)["ablation"]
    areas = deletion_areas(curves)
    agreement = pd.concat([agreement_table(values, level + 1, organelles) for level, values in measured.items()])
    found = zip(organelles, probe.baseline.dice.tolist(), judged.shows.any(axis=0), strict=True)
    dice = {name: value if there else float("nan") for name, value, there in found}
    claims = [
        *overlap_claims(overlaps),
        *measure_claims(agreement, HELD_OUT if halves.apart else "ablation"),
        *set_claims(effects, dice, organelles),
        *deletion_claims(areas, dice),
    ]
    importance = importance_table(measured, organelles, top)
    channels = tuple(probe.channels)
    tables = (importance, agreement, tuple(sets), overlaps, effects, random, curves, areas)
    return Analysis(*tables, tuple(claims), dice, top_k, channels)


def importance_table(
    measured: dict[int, dict[str, np.ndarray]], organelles: Sequence[str], top: np.ndarray
) -> pd.DataFrame:
    """Set the importance of every channel as a table.

    Returns
    -------
    DataFrame
        ``level`` and ``channel`` (from 1 and from 0), ``expert``, ``gradient``, ``gradient_x_activation``,
        ``ablation``, ``ablation_dice`` and ``ablation_held_out`` (NaN where not computed), ``top`` (in the expert's top
        set; the deepest level has one).
    """
    frames = []
    for level, values in measured.items():
        channels = next(iter(values.values())).shape[1]
        for e, name in enumerate(organelles):
            frame = pd.DataFrame({"level": level + 1, "channel": np.arange(channels), "expert": name})
            for measure in (*DELETED_BY, "ablation_dice", HELD_OUT):
                frame[measure] = values[measure][e] if measure in values else np.nan
            frames.append(frame.assign(top=np.isin(frame["channel"], top[e]) & (level == max(measured))))
    return pd.concat(frames, ignore_index=True)


def _measured(
    model: torch.nn.Module,
    sample: Sample,
    levels: list[int],
    settings: AnalysisSettings,
    device: str,
    progress: bool,
) -> dict[int, dict[str, np.ndarray]]:
    """Importance by level and measure, (E, C) each."""
    probe = Probe(model, sample, batch_size=settings.batch_size, device=device)
    gradients = gradient_importance(model, sample.images, batch_size=settings.batch_size, device=device)
    measured: dict[int, dict[str, Any]] = {}
    for level in levels:
        measured[level] = {name: values[level] for name, values in gradients.items()}
        if settings.exact_all_levels or level == len(probe.channels) - 1:
            measured[level] |= single_channels(probe, level, progress=progress)
    return measured


def _wanted_levels(settings: AnalysisSettings, count: int) -> list[int]:
    """Levels from 0, the deepest among them."""
    wanted = settings.levels or range(1, count + 1)
    if wrong := [level for level in wanted if not 1 <= level <= count]:
        raise UserError(f"--levels {wrong[0]}: the encoder has the levels 1 (shallowest) to {count}")
    return sorted({level - 1 for level in wanted} | {count - 1})


def _chosen(split: Split, names: Sequence[str]) -> tuple:
    known = [section.name for section in split.sections]
    if missing := [name for name in names if name not in known]:
        listed = ", ".join(known[:12]) + " …" * (len(known) > 12)
        raise UserError(f"--sections {missing[0]}: {split.folder} has no such section; it has {listed}")
    return tuple(section for section in split.sections if section.name in set(names))


def bars_shown(quiet: bool) -> bool:
    """Whether to show progress: on a terminal, unless told to be quiet."""
    return not quiet and sys.stderr.isatty()
