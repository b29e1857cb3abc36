"""What each stage costs for each segmenter and source of boundaries; see reconstruction.py --cost."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from child import run_script

CUTOUT = (256, 256, 64)  # X Y Z
SEED, TRAINED_ON = 0, 7  # of the phantom, and of the other one that the network learns from
METHODS = (  # source of boundaries, segmenter; the slice-wise baseline takes no boundaries
    *(("intensity", segmenter) for segmenter in ("multicut", "gasp", "watershed")),
    *(("experts", segmenter) for segmenter in ("multicut", "gasp")),
)
FIGURES = ("s", "CPU s", "s / Mvox", "peak MiB", "MiB / Mvox")


def costs(repeats: int, model: str | None, minutes: float, methods: tuple = METHODS) -> pd.DataFrame:
    """Run each method several times; return medians by stage.

    Parameters
    ----------
    repeats : int
    model : str or None
        A network with a membrane output; None trains one of the preset laptop on another phantom first.
    minutes : float
        Of that training.
    methods : tuple of (boundaries, segmenter)

    Returns
    -------
    DataFrame
        A row per method and stage, ``total`` last: the columns of ``FIGURES``. Memory is that of the process, per
        megavoxel without what interpreter and libraries take.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if model is None and any(source == "experts" for source, _ in methods):
            model = trained(folder, minutes)
        rows = []
        for source, segmenter in methods:
            flags = ["--boundaries", source, *(["--model_path", model] if source == "experts" else [])]
            runs = [_run(folder / "run", [*flags, "--segmenter", segmenter]) for _ in range(repeats)]
            every = pd.concat(runs).groupby(level=0, sort=False).median()
            rows.append(every.rename_axis("stage").reset_index().assign(boundaries=source, segmenter=segmenter))
    return pd.concat(rows)[["boundaries", "segmenter", "stage", *FIGURES]].reset_index(drop=True)


def trained(folder: Path, minutes: float) -> str:
    """Train a network of the preset laptop on sections of another phantom; return its file."""
    shape = ["--shape", 384, 384, 12]
    run_script("fetch_data.py", "phantom", "--domain", *shape, "--seed", TRAINED_ON, "--output", folder / "sections")
    model = folder / "laptop.pth"
    data = ["--data_root", folder, "--domain", "sections", "--voxel_size", 40, 8, 8, "--out_path", model]
    run_script("train.py", *data, "--preset", "laptop", "--time_budget", minutes, "--quiet")
    return str(model)


def _run(folder: Path, flags: list) -> pd.DataFrame:
    """Costs by stage of one run of the command."""
    phantom = ["--dataset", "sample://phantom", "--cutout", *CUTOUT, "--seed", SEED]
    run_script("run_pipeline.py", *phantom, *flags, "--quiet", "--outdir", folder)
    with sqlite3.connect(folder / "runs" / "pipeline_runs.sqlite") as db:
        query = "SELECT stage_seconds, stage_cpu_seconds, stage_peak_mib FROM runs ORDER BY rowid DESC LIMIT 1"
        seconds, spent, peaks = map(json.loads, db.execute(query).fetchone())
    return pd.DataFrame(dict(_rows(seconds, spent, peaks)), index=list(FIGURES)).T


def _rows(seconds: dict, spent: dict, peaks: dict) -> Iterator[tuple[str, list[float]]]:
    from emlib.pipeline.memory import BASE  # the repository is on the path by now

    megavoxels = CUTOUT[0] * CUTOUT[1] * CUTOUT[2] / 1e6
    # What the volume itself is cut from is the phantom's business: the first stage is left out.
    stages = [name for name in seconds if name != "cutout"]
    base = BASE / 2**20
    for name in stages:
        more = (peaks[name] - base) / megavoxels
        yield name, [seconds[name], spent[name], seconds[name] / megavoxels, peaks[name], more]
    peak = max(peaks[name] for name in stages)
    total = sum(seconds[name] for name in stages)
    cpu = sum(spent[name] for name in stages)
    yield "total", [total, cpu, total / megavoxels, peak, (peak - base) / megavoxels]
