"""Estimate shifts in layers of sections: pairs are compared where their second section lies, one solution for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import name
from emlib.blockwise.sections import layers
from emlib.blockwise.site import Site
from emlib.stages.align import (
    AlignSettings,
    add_tiles,
    apply_shifts,
    match_pairs,
    match_tiles,
    measured_by_tiles,
    pair_index,
    plan_tiles,
    rate_pairs,
    solve_shifts,
)
from emlib.stages.phase_correlation import Band, Match
from emlib.stages.translation_check import TranslationCheck, judge_shifts, tile_shifts
from emlib.volumes.volume import Box

COARSE, FINE, CHECK = "pairs", "tiles", "translation"
Outcome = tuple[list[dict[str, Any]], dict[str, Any]]


def estimate(engine: Engine, settings: AlignSettings) -> pd.DataFrame:
    """Estimate the shift of each section as `emlib.stages.align.estimate_shifts` does."""
    site, boxes = engine.site, layers(engine.site)
    depth = site.shape[0]
    engine.run(COARSE, pair_layer, settings, boxes)
    index, matches = pair_index(depth, settings), {}
    for box in boxes:
        stored = site.read_table(COARSE, name(box))
        for pair, values in zip(stored["pairs"].tolist(), stored["matches"].tolist(), strict=True):
            matches[tuple(pair)] = Match(*values)
    pairs = rate_pairs(index, [matches[pair] for pair in index], settings)
    if measured_by_tiles(site.shape[1:], settings):
        pairs, coarse = plan_tiles(pairs, depth, settings)
        rows = np.flatnonzero(pairs["used"])
        wanted = pairs.loc[rows, ["z0", "z1"]].to_numpy()
        second, moves = wanted[:, 1], coarse[["dy", "dx"]].to_numpy().tolist()
        own = [(wanted[(second >= b[0].start) & (second < b[0].stop)].tolist(), moves) for b in boxes]
        engine.run(FINE, tile_layer, settings, boxes, own)
        residual = {}
        for box in boxes:
            stored = site.read_table(FINE, name(box))
            residual |= dict(zip(map(tuple, stored["pairs"].tolist()), stored["residual"].tolist(), strict=True))
        found = np.array([residual[tuple(pair)] for pair in wanted.tolist()]).reshape(-1, 2)
        pairs = add_tiles(pairs, rows, found, coarse)
    return solve_shifts(pairs, depth, settings)


def pair_layer(site: Site, settings: AlignSettings, box: Box) -> Outcome:
    """Compare the pairs whose second section lies in a layer."""
    pairs = [pair for pair in pair_index(site.shape[0], settings) if box[0].start <= pair[1] < box[0].stop]
    first = max(0, box[0].start - settings.reach)
    sections = site.read("preprocessed", (slice(first, box[0].stop), *box[1:]))
    found = match_pairs(sections, [(a - first, b - first) for a, b in pairs], settings)
    values = np.array([(m.dy, m.dx, m.peak, m.chance) for m in found], float).reshape(-1, 4)
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    return [site.write_table(COARSE, name(box), pairs=ends, matches=values)], {}


def tile_layer(site: Site, shared: tuple[AlignSettings, list[list[int]], list[list[float]]], box: Box) -> Outcome:
    """Measure these pairs by tiles; ``shared`` is settings, pairs and the coarse moves of all sections."""
    settings, pairs, moves = shared
    ends, found = np.array(pairs, np.int64).reshape(-1, 2), np.zeros((0, 2))
    if len(ends):
        first, last = int(ends.min()), int(ends.max()) + 1
        sections = site.read("preprocessed", (slice(first, last), *box[1:]))
        moved = apply_shifts(sections, pd.DataFrame(moves[first:last], columns=["dy", "dx"]))
        found = match_tiles(moved, ends - first, settings)
    return [site.write_table(FINE, name(box), pairs=ends, residual=found)], {}


def check(engine: Engine, settings: AlignSettings) -> TranslationCheck:
    """Tell whether translation explains how neighbouring sections disagree."""
    boxes = layers(engine.site)
    engine.run(CHECK, check_layer, settings.band, boxes)
    found = [part for box in boxes for part in engine.site.read_table(CHECK, name(box))["shifts"]]
    return judge_shifts(found, engine.site.shape[1:], settings.min_reliability)


def check_layer(site: Site, band: Band, box: Box) -> Outcome:
    """Compare the tiles of the sections of a layer with those before."""
    sections = site.read("em", (slice(max(0, box[0].start - 1), box[0].stop), *box[1:]))
    shifts = np.array(tile_shifts(np.asarray(sections, np.float32), band))
    return [site.write_table(CHECK, name(box), shifts=shifts)], {}
