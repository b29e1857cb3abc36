"""The same run on several places of a volume: one cutout is not representative.

1. The places are chosen over the whole extent, with as little overlap as can be; each is the ``--offset`` of its run,
   so that its record repeats it. A sample is drawn anew instead, from the next seed.
2. Whether the volume can be reached is settled before the first run: then all are on it, or all on the phantom.
3. Each cutout has its own folder and its own run log; one that fails is named, and the others count.
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
from emlib.pipeline.finished import finished
from emlib.pipeline.marks import remove_marks
from emlib.pipeline.run import run_pipeline
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.steps import PHANTOM_URI, boss_options, phantom_instead
from emlib.pipeline.summary import summary
from emlib.runs.artefacts import Outputs
from emlib.runs.cli import MAX_SEED
from emlib.runs.history import headline
from emlib.runs.lock import run_lock
from emlib.volumes.bossdb import NetworkUnreachable
from emlib.volumes.cutout import clipped_size
from emlib.volumes.open import open_volume
from emlib.volumes.places import largest_share, spread_places
from emlib.volumes.volume import VolumeSource

COSTS = ("seconds", "peak_mib")  # these change from one run to the next, so they stay out of tables/
TOO_MUCH = 0.5  # of a cutout that another one covers: figures of the two are hardly independent


@dataclass
class Cutout:
    """What one cutout gave: its figures, or why there are none."""

    name: str
    seed: int
    offset_xyz: list[int] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    synthetic: str | None = None
    error: str | None = None
    recorded: str | None = None  # id of the run that made it before, where it was not done again


def run_cutouts(
    settings: PipelineSettings,
    count: int,
    outdir: str | Path = "outputs",
    *,
    quiet: bool = False,
    resume: bool = False,
    **options: Any,
) -> list[Cutout]:
    """Run the pipeline on ``count`` places, and write what they have in common to ``tables/cutouts.{csv,json}``.

    Parameters
    ----------
    settings : PipelineSettings
        Its seed chooses the places, and is that of the first cutout; the others have the next ones.
    count : int
    outdir : path
        Cutouts go to ``cutout_00``, ``cutout_01`` … in it, each with its own ``runs/``. Held by a lock throughout.
    quiet : bool
        Say nothing but warnings and errors.
    resume : bool
        Take from the record what is done, with the same settings, input files and code and with all files whole; the
        other cutouts go on where they broke off.
    **options
        For `run_pipeline`.

    Returns
    -------
    list of Cutout
        One that failed has an ``error``; the others were run all the same.

    Raises
    ------
    UserError
        If an offset is given, there are not so many seeds, the volume cannot be opened, so many different places do
        not fit, another run holds the output folder, or it cannot be written.
    """
    if settings.offset_xyz is not None:
        raise UserError("--cutouts takes different places and --offset fixes one; leave one of them out")
    if settings.seed + count - 1 > MAX_SEED:
        raise UserError(f"--cutouts {count} from --seed {settings.seed} passes the last seed, {MAX_SEED}; lower --seed")
    outputs, done = Outputs(outdir), []
    with run_lock(outputs.root):
        outputs.remove_stale()
        each, synthetic = _settings_of_each(settings, count, outputs.root, quiet)
        for index, chosen in enumerate(each):
            cutout = Cutout(f"cutout_{index:02d}", chosen.seed)
            folder = outputs.root / cutout.name
            if not (resume and _recall(cutout, chosen, folder, quiet)):
                _run_one(cutout, chosen, folder, {"quiet": quiet, "resume": resume, **options})
            cutout.synthetic = synthetic or cutout.synthetic
            done.append(cutout)
            if cutout.error:
                print(f"error: {cutout.name} (seed {cutout.seed}): {cutout.error}", file=sys.stderr, flush=True)
            elif not quiet:
                print(_line(cutout), flush=True)
        _write(outputs, done)
    return done


def _settings_of_each(
    settings: PipelineSettings, count: int, root: Path, quiet: bool
) -> tuple[list[PipelineSettings], str | None]:
    """The settings of each cutout, and a note if none of them is on the data that were asked for."""
    seeds, synthetic = range(settings.seed, settings.seed + count), None
    if not settings.dataset.startswith("sample://"):
        try:
            source = open_volume(settings.dataset, boss=boss_options(settings, root))
        except NetworkUnreachable as error:
            synthetic = phantom_instead(settings, error)
            line = "ALL CUTOUTS ARE OF THE SYNTHETIC PHANTOM INSTEAD; --no-fallback makes this an error"
            print(f"warning: {error}. {line}", file=sys.stderr, flush=True)
            settings = replace(settings, dataset=PHANTOM_URI, voxel_size_nm=None)
        else:
            places = _places(source, settings, count, quiet)
            chosen = zip(seeds, places, strict=True)
            return [replace(settings, seed=n, offset_xyz=place, fallback=False) for n, place in chosen], None
    return [replace(settings, seed=seed) for seed in seeds], synthetic


def _places(source: VolumeSource, settings: PipelineSettings, count: int, quiet: bool) -> list[tuple[int, int, int]]:
    """First voxel (x, y, z) of each cutout; say how much two of them share."""
    size = clipped_size(tuple(reversed(settings.cutout_xyz)), source.shape)
    places = spread_places(source.shape, size, count, settings.seed)
    share = largest_share(places, size)
    x, y, z = reversed(source.shape)
    line = f"{count} places in {x} {y} {z} (x y z): two of them share {100 * share:.2g} % of their voxels at most"
    if share > TOO_MUCH:
        advice = "mean and sd are less telling than they look; take a smaller --cutout or fewer --cutouts"
        print(f"warning: {line}; {advice}", file=sys.stderr, flush=True)
    elif not quiet and count > 1:
        print(line, flush=True)
    return [(x, y, z) for z, y, x in places]


def _recall(cutout: Cutout, settings: PipelineSettings, folder: Path, quiet: bool) -> bool:
    """Take the figures from the record of a run that need not be done again; say why if one must."""
    run, reason = finished(folder, settings)
    if run is None:
        if reason and not quiet:
            print(f"--resume: {cutout.name} is done again: {reason}", file=sys.stderr, flush=True)
        return False
    cutout.recorded, cutout.offset_xyz, cutout.synthetic = run["run_id"], run["offset_xyz"], run["synthetic"]
    costs = {"seconds": sum(run["stage_seconds"].values()), "peak_mib": run["peak_mib"]}
    cutout.figures = {**headline(run["summary"]), **costs}
    return True


def _run_one(cutout: Cutout, settings: PipelineSettings, folder: Path, options: dict[str, Any]) -> None:
    """Run one cutout and note its figures; whatever goes wrong must not cost the others."""
    try:
        run = run_pipeline(settings, folder, **options)
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
    """Results go to ``tables/``, seconds and memory to ``runs/``; nothing if no cutout came through.

    ``data/`` holds nothing of theirs, so its mark is left as it is.
    """
    figures = statistics(cutouts)
    if not figures:
        return
    synthetic = next((cutout.synthetic for cutout in cutouts if cutout.synthetic), None)
    if synthetic:
        outputs.mark_synthetic(synthetic, ("tables",))
    places = [
        {"name": c.name, "seed": c.seed, "offset_xyz": c.offset_xyz, "synthetic": c.synthetic, "error": c.error}
        for c in cutouts
    ]
    results = {name: values for name, values in figures.items() if name not in COSTS}
    outputs.table("cutouts", _frame(results, cutouts), "Figures over the cutouts: mean, sd, n, each")
    content = {"synthetic": synthetic, "cutouts": places, "figures": results}
    outputs.json("cutouts", content, "The same with the place of each cutout")
    if not synthetic:
        remove_marks(outputs.root, ("tables",))
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
    again = [f"as {cutout.recorded} found"] if cutout.recorded else []
    return f"{cutout.name} ({where}): {', '.join([*counts, *voi, cost, *again])}"


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
