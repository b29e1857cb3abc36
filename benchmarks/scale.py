"""Seconds and memory of a run in blocks over the size of the volume.

python benchmarks/scale.py --mvox 16 32 64 --outdir outputs/scale
python benchmarks/scale.py --mvox 16 64 128 256 512 1024 --memory_gb 4 --workers 1 2

A phantom of 2 Mvox is laid side by side, mirrored, block by block into a Zarr of each size, so that neurites run on.
Then run_pipeline.py --blocks on each, with a fixed budget: seconds, the most that one process took, and a line through
the seconds. With --memory also in memory, up to this many Mvox; with --pair as two runs at once of one worker each,
which share nothing: what the second core of this machine is worth. Each row is added to scale.csv when it is measured,
with seconds and peak of every step in steps.csv; rows that are there are not measured again.
"""

import argparse
import json
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
TILE = (32, 256, 256)  # of the phantom, z y x
FLAT_WITHIN, LINEAR_WITHIN = 0.20, 0.15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mvox", type=int, nargs="+", default=[16, 32, 64], help="sizes in 2^20 voxels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--blocks", type=int, nargs=3, default=(512, 512, 64), metavar=("X", "Y", "Z"))
    parser.add_argument("--memory_gb", type=float, default=4)
    parser.add_argument("--memory", type=int, default=0, metavar="MVOX", help="also in memory, up to this size")
    parser.add_argument("--pair", type=int, default=0, metavar="MVOX", help="also two runs at once, up to this size")
    parser.add_argument("--isotropic", action="store_true", help="voxels of 10 nm, not sections of 40 nm")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "scale")
    args = parser.parse_args()
    args.outdir.mkdir(parents=True, exist_ok=True)
    size = (10, 10, 10) if args.isotropic else (40, 8, 8)
    table = args.outdir / "scale.csv"
    for mvox in args.mvox:
        volume = args.outdir / f"phantom_{mvox}.zarr"
        shape = shape_of(mvox)
        jobs = [("blocks", workers) for workers in args.workers]
        jobs += [("memory", 1)] if mvox <= args.memory else []
        jobs += [("pair", 1)] if mvox <= args.pair else []
        for how, workers in jobs:
            row = {"mvox": mvox, "how": how, "workers": workers, "isotropic": args.isotropic}
            if done(table, row):
                continue
            write_phantom(volume, shape, size)
            measured, steps = measure(volume, shape, how, workers, args)
            add(table, pd.DataFrame([row | measured]))
            add(args.outdir / "steps.csv", steps.assign(**row))
            print(row | measured, flush=True)
        shutil.rmtree(volume, ignore_errors=True)
    judge(pd.read_csv(table))
    return 0


def shape_of(mvox: int) -> tuple[int, int, int]:
    """A shape of this many 2^20 voxels: sections of up to 1024², then deeper.

    >>> shape_of(16), shape_of(1024)
    ((64, 512, 512), (1024, 1024, 1024))
    """
    side = 512 if mvox < 64 else 1024
    return mvox * 2**20 // side**2, side, side


def write_phantom(path: Path, shape: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    """Write the EM of a phantom, unless it is there."""
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    if not (path / "whole").exists():
        lay_tiles(path, make_phantom(PhantomSettings(shape=TILE, voxel_size_nm=size, seed=7)).em, shape, size)


def lay_tiles(path: Path, tile: np.ndarray, shape: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    """Lay a tile side by side, mirrored, one at a time."""
    from emlib.volumes.ome_zarr import create_array

    stored = create_array(path, shape, tile.dtype, (32, 128, 128), voxel_size_nm=size)
    for corner in np.ndindex(*(-(-n // t) for n, t in zip(shape, TILE, strict=True))):
        flip = tuple(slice(None, None, -1 if at % 2 else 1) for at in corner)
        box = tuple(slice(at * t, min((at + 1) * t, n)) for at, t, n in zip(corner, TILE, shape, strict=True))
        stored[box] = tile[flip][tuple(slice(0, side.stop - side.start) for side in box)]
    (path / "whole").touch()


def add(path: Path, rows: pd.DataFrame) -> None:
    """Add rows to a table; columns that some lack stay empty there."""
    pd.concat([*([pd.read_csv(path)] if path.exists() else []), rows]).to_csv(path, index=False)


def done(table: Path, row: dict) -> bool:
    """Whether this row was measured before."""
    if not table.exists():
        return False
    there = pd.read_csv(table)
    return bool(np.logical_and.reduce([there[key] == value for key, value in row.items()]).any())


def measure(
    volume: Path, shape: tuple[int, int, int], how: str, workers: int, args: argparse.Namespace
) -> tuple[dict, pd.DataFrame]:
    """Run once, or two at once; seconds, and the peak of one process; and of each step."""
    if how != "pair":
        return measure_one(volume, shape, how, workers, args.outdir / "run", args)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(measure_one, volume, shape, "blocks", workers, args.outdir / f"run{k}", args) for k in (1, 2)
        ]
    return max((one.result() for one in both), key=lambda found: found[0]["seconds"])


def measure_one(
    volume: Path, shape: tuple[int, int, int], how: str, workers: int, out: Path, args: argparse.Namespace
) -> tuple[dict, pd.DataFrame]:
    """The same of one run, into a folder that is removed."""
    from emlib.runs.runlog import FILE

    shutil.rmtree(out, ignore_errors=True)
    flags = ["--dataset", volume, "--cutout", *reversed(shape), "--offset", 0, 0, 0, "--until", "graph", "--quiet"]
    flags += ["--no_align", "--save_minimal", "--outdir", out]
    if how == "blocks":
        flags += ["--blocks", *args.blocks, "--workers", workers, "--memory_gb", args.memory_gb, "--npy", "never"]
    else:
        flags += ["--threads", workers, "--force"]
    seconds, peak = run_script("run_pipeline.py", *flags)
    with sqlite3.connect(out / "runs" / FILE) as log:
        told = log.execute("SELECT stage_seconds, stage_peak_mib, summary FROM runs").fetchone()
    stages, peaks, summary = map(json.loads, told)
    blocks = summary.get("blocks", {})
    row = {"seconds": round(seconds, 1), "peak_mib": round(max([peak, *blocks.get("peak_mib", {}).values()]))}
    row |= {f"s_{stage}": value for stage, value in stages.items()}
    steps = [pd.DataFrame({"seconds": stages, "peak_mib": peaks}).assign(where="run")]
    if blocks:
        columns = {"wall_seconds": "seconds", "seconds": "work_seconds", "peak_mib": "peak_mib"}
        steps += [pd.DataFrame({new: blocks[old] for old, new in columns.items()}).assign(where="blocks")]
    shutil.rmtree(out, ignore_errors=True)
    return row, pd.concat(steps).rename_axis("step").reset_index()


def judge(table: pd.DataFrame) -> None:
    """Say what of the promises holds: memory flat, time linear, two workers against one, blocks against memory."""
    print(table.to_string(index=False))
    blocks = table[table.how == "blocks"]
    for (workers, _), rows in blocks.groupby(["workers", "isotropic"]):
        large = rows[rows.mvox >= 128]
        if len(large) > 1:
            spread = large.peak_mib.max() / large.peak_mib.min() - 1
            print(f"{workers} at work: memory from 128 Mvox up within {spread:.0%} (promised {FLAT_WITHIN:.0%})")
        if len(rows) > 2:
            slope, start = np.polyfit(rows.mvox, rows.seconds, 1)
            off = (rows.seconds / (slope * rows.mvox + start) - 1).abs().max()
            print(f"{workers} at work: {slope:.2f} s a Mvox, off a line by {off:.0%} (promised {LINEAR_WITHIN:.0%})")
    wide = blocks.pivot_table(index=["mvox", "isotropic"], columns="workers", values="seconds")
    if {1, 2} <= set(wide.columns):
        print("two workers against one:", (wide[1] / wide[2]).round(2).to_dict())
    memory = table[table.how == "memory"].set_index("mvox").seconds
    alone = blocks[blocks.workers == 1].set_index("mvox").seconds
    if shared := sorted(set(memory.index) & set(alone.index)):
        print("blocks against memory:", {m: round(float(alone[m] / memory[m] - 1), 2) for m in shared})
    pairs = table[table.how == "pair"].set_index("mvox").seconds
    if shared := sorted(set(pairs.index) & set(alone.index)):
        print("two runs at once against one:", {m: round(float(2 * alone[m] / pairs[m]), 2) for m in shared})


if __name__ == "__main__":
    sys.exit(main())
