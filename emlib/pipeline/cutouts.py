"""The same run on several places of a volume: one cutout is not representative.

Each cutout has its own folder and its own run log; seeds count up from the one that was asked for: a seed is a place.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.pipeline.run import run_pipeline
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.summary import summary
from emlib.runs.artefacts import Outputs
from emlib.runs.history import headline

COSTS = ("seconds", "peak_mib")  # these change from one run to the next, so they stay out of tables/


@dataclass
class Cutout:
    """What one cutout gave: its figures, or why there are none."""

    name: str
    seed: int
    offset_xyz: list[int] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    synthetic: str | None = None
    error: str | None = None


def run_cutouts(
    settings: PipelineSettings, count: int, outdir: str | Path = "outputs", *, quiet: bool = False, **options: Any
) -> list[Cutout]:
    """Run the pipeline on ``count`` places, and write what they have in common to ``tables/cutouts.{csv,json}``.

    Parameters
    ----------
    settings : PipelineSettings
        Its seed is that of the first cutout; the others have the next ones.
    count : int
    outdir : path
        Cutouts go to ``cutout_00``, ``cutout_01`` … in it, each with its own ``runs/``.
    quiet : bool
        Say nothing but errors.
    **options
        For `run_pipeline`.

    Returns
    -------
    list of Cutout
        One that failed has an ``error``; the others were run all the same.

    Raises
    ------
    UserError
        If an offset is given, or the output folder cannot be written.
    """
    if settings.offset_xyz is not None:
        raise UserError("--cutouts takes different places and --offset fixes one; leave one of them out")
    outputs, done = Outputs(outdir), []
    for index in range(count):
        cutout = Cutout(f"cutout_{index:02d}", settings.seed + index)
        _run_one(cutout, replace(settings, seed=cutout.seed), outputs.root / cutout.name, quiet, options)
        done.append(cutout)
        if cutout.error:
            print(f"error: {cutout.name} (seed {cutout.seed}): {cutout.error}", file=sys.stderr, flush=True)
        elif not quiet:
            print(_line(cutout), flush=True)
    _write(outputs, done)
    return done


def _run_one(cutout: Cutout, settings: PipelineSettings, folder: Path, quiet: bool, options: dict[str, Any]) -> None:
    """Run one cutout and note its figures; whatever goes wrong must not cost the others."""
    try:
        run = run_pipeline(settings, folder, quiet=quiet, **options)
    except UserError as error:
        cutout.error = str(error)
    except MemoryError as error:
        cutout.error = f"out of memory ({error}); use a smaller --cutout or --preset safe8gb"
    except Exception as error:  # a bug: shown in full, and the other cutouts still count
        traceback.print_exc()
        cutout.error = f"{type(error).__name__}: {error}"
    else:
        cutout.offset_xyz = [int(n) for n in reversed(run.volume.offset)]
        cutout.synthetic = run.synthetic
        cutout.figures = {**headline(summary(run)), **_costs(run)}


def _costs(run: Run) -> dict[str, float]:
    return {"seconds": sum(run.watch.seconds.values()), "peak_mib": max(run.watch.peak_mib.values())}


def statistics(cutouts: list[Cutout]) -> dict[str, dict[str, Any]]:
    """Mean, sample standard deviation, number and single values of each figure over the cutouts that have it.

    Returns
    -------
    dict of dict
        By figure: ``mean``, ``sd`` (NaN for a single value), ``n``, ``each`` (None where a cutout lacks it).

    Examples
    --------
    >>> found = statistics([Cutout("a", 0, figures={"edges": 4}), Cutout("b", 1, figures={"edges": 6}), Cutout("c", 2)])
    >>> found["edges"]["mean"], round(found["edges"]["sd"], 3), found["edges"]["each"]
    (5.0, 1.414, [4, 6, None])
    """
    found = {}
    for name in dict.fromkeys(name for cutout in cutouts for name in cutout.figures):
        each = [cutout.figures.get(name) for cutout in cutouts]
        values = np.array([value for value in each if value is not None], dtype=float)
        spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        found[name] = {"mean": float(values.mean()), "sd": spread, "n": len(values), "each": each}
    return found


def _write(outputs: Outputs, cutouts: list[Cutout]) -> None:
    """Results go to ``tables/``, seconds and memory to ``runs/``; nothing if no cutout came through."""
    figures = statistics(cutouts)
    if not figures:
        return
    synthetic = next((cutout.synthetic for cutout in cutouts if cutout.synthetic), None)
    outputs.mark_synthetic(synthetic)
    places = [
        {"name": c.name, "seed": c.seed, "offset_xyz": c.offset_xyz, "synthetic": c.synthetic, "error": c.error}
        for c in cutouts
    ]
    results = {name: values for name, values in figures.items() if name not in COSTS}
    outputs.table("cutouts", _frame(results, cutouts), "Figures over the cutouts: mean, sd, n, each")
    content = {"synthetic": synthetic, "cutouts": places, "figures": results}
    outputs.json("cutouts", content, "The same with the place of each cutout")
    costs = _frame({name: figures[name] for name in COSTS}, cutouts)
    outputs.text("runs/cutouts_cost.csv", costs.to_csv(index=False, lineterminator="\n"), "Seconds and peak memory")


def _frame(figures: dict[str, dict[str, Any]], cutouts: list[Cutout]) -> pd.DataFrame:
    rows = [
        {"figure": name, "mean": values["mean"], "sd": values["sd"], "n": values["n"]}
        | {cutout.name: value for cutout, value in zip(cutouts, values["each"], strict=True)}
        for name, values in figures.items()
    ]
    return pd.DataFrame(rows, columns=["figure", "mean", "sd", "n", *(cutout.name for cutout in cutouts)])


def _line(cutout: Cutout) -> str:
    """One cutout in a line, as it is done."""
    figures = cutout.figures
    counts = [f"{figures[name]} {name}" for name in ("neurites", "candidates", "edges") if name in figures]
    voi = [f"VOI {figures['voi']:.2f}"] if "voi" in figures else []
    where = f"seed {cutout.seed}, offset {' '.join(map(str, cutout.offset_xyz))}"
    cost = f"{figures['seconds']:.1f} s, {figures['peak_mib']:.0f} MiB"
    return f"{cutout.name} ({where}): {', '.join([*counts, *voi, cost])}"


def cutout_lines(cutouts: list[Cutout], outdir: str | Path) -> list[str]:
    """Mean ± sd of each figure for the shell, and which cutouts failed."""
    figures = statistics(cutouts)
    failed = [cutout.name for cutout in cutouts if cutout.error]
    rows = [
        (name, f"{_short(values['mean'])} ± {_short(values['sd'])}", f"{values['n']}")
        for name, values in figures.items()
    ]
    rows = [("figure", "mean ± sd", "n"), *rows] if rows else []
    widths = [max(len(row[at]) for row in rows) for at in range(3)] if rows else []
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    if failed:
        lines.append(f"{len(failed)} of {len(cutouts)} cutouts failed: {', '.join(failed)}")
    synthetic = next((cutout.synthetic for cutout in cutouts if cutout.synthetic), None)
    lines += [synthetic] if synthetic else []
    return [*lines, *([f"written: {Path(outdir) / 'tables' / 'cutouts.csv'}"] if rows else [])]


def _short(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
