"""Time and memory of run_pipeline.py as a user types it, beside scikit-image's blob detector alone.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --data ../shared/data --repeats 5 --growth

The yardstick is `blob_log(min_sigma=1, max_sigma=4, num_sigma=6, threshold=0.08)` over the same 64 sections,
preprocessed and inverted: the inner loop of the prototype. Same data, same run, medians.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
SIDES = (128, 256, 512, 1024)


def fib_volume(data: Path) -> np.ndarray:
    """The first 64 sections of the FIB-25 crop, reflected to 256 × 256."""
    import tifffile

    em = tifffile.imread(data / "fib25-medulla" / "em_u8_zyx.tif", key=range(64))
    return np.pad(em, ((0, 0), (3, 3), (3, 3)), mode="reflect")


def vnc_stack(data: Path) -> np.ndarray:
    """The 20 consecutive drosophila-vnc sections in order, 1024 × 1024."""
    from PIL import Image

    sections = sorted((data / "drosophila-vnc").glob("*/raw/*.png"), key=lambda path: int(path.stem))
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in sections])


def blob_log_seconds(em: np.ndarray) -> float:
    """Seconds of the yardstick, preprocessing not counted."""
    from skimage.feature import blob_log

    from emlib.stages.preprocess import preprocess

    inverted = 1 - preprocess(em)
    start = time.perf_counter()
    for section in inverted:
        blob_log(section, min_sigma=1, max_sigma=4, num_sigma=6, threshold=0.08)
    return time.perf_counter() - start


def run(path: Path, voxel_size, cutout, outdir: Path, offset=None) -> tuple[float, float, dict[str, float]]:
    """Run the command; return wall seconds with interpreter start, peak MiB, and seconds by stage."""
    args = ["--dataset", path, "--quiet", "--voxel_size", *voxel_size, "--cutout", *cutout, "--outdir", outdir]
    if offset is not None:
        args += ["--offset", *offset]
    seconds, peak = run_script("run_pipeline.py", *args)
    with sqlite3.connect(outdir / "runs" / "pipeline_runs.sqlite") as db:
        stages = json.loads(db.execute("SELECT stage_seconds FROM runs ORDER BY rowid DESC LIMIT 1").fetchone()[0])
    return seconds, peak, stages


def compare(data: Path, folder: Path, repeats: int) -> None:
    """Ours against the yardstick on 256 × 256 × 64, interleaved so that a noisy machine disturbs both."""
    em = fib_volume(data)
    np.save(folder / "fib64.npy", em)
    ours, yardstick = [], []
    for _ in range(repeats):
        yardstick.append(blob_log_seconds(em))
        ours.append(run(folder / "fib64.npy", (10, 10, 10), (256, 256, 64), folder / "fib"))
    a, b = median(seconds for seconds, _, _ in ours), median(yardstick)
    print(f"\n256 × 256 × 64, FIB-25 crop, {os.cpu_count()} cores, medians of {repeats}\n")
    print(f"{'':34}{'seconds':>9}{'ratio':>8}{'peak MiB':>10}")
    print(f"{'skimage blob_log, 64 sections':34}{b:9.2f}{1:8.2f}")
    print(f"{'run_pipeline.py, whole command':34}{a:9.2f}{a / b:8.2f}{max(peak for _, peak, _ in ours):10.0f}")
    for name in ours[0][2]:
        seconds = median(stages[name] for _, _, stages in ours)
        print(f"{'  ' + name:34}{seconds:9.2f}{seconds / b:8.2f}")
    rest = a - sum(median(stages[name] for _, _, stages in ours) for name in ours[0][2])
    print(f"{'  interpreter, imports, record':34}{rest:9.2f}{rest / b:8.2f}")


def growth(data: Path, folder: Path, repeats: int) -> None:
    """Time against the area of a section, on the real drosophila-vnc stack."""
    np.save(folder / "vnc.npy", vnc_stack(data))
    print(f"\ndrosophila-vnc, 20 sections, whole command, medians of {repeats}\n")
    print(f"{'section':>12}{'seconds':>9}{'stages':>9}{'µs/voxel':>10}{'peak MiB':>10}")
    for side in SIDES:
        first = (1024 - side) // 2
        times = [
            run(folder / "vnc.npy", (50, 4.6, 4.6), (side, side, 20), folder / "vnc", (first, first, 0))
            for _ in range(repeats)
        ]
        seconds, stages = median(t[0] for t in times), median(sum(t[2].values()) for t in times)
        per_voxel = 1e6 * stages / (20 * side * side)
        print(f"{f'{side} × {side}':>12}{seconds:9.2f}{stages:9.2f}{per_voxel:10.2f}{max(t[1] for t in times):10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="only the table of time against section size")
    args = parser.parse_args()
    if not (args.data / "fib25-medulla").is_dir():
        sys.exit(f"no real data under {args.data}; name its folder with --data")
    with tempfile.TemporaryDirectory() as folder:
        if not args.growth:
            compare(args.data, Path(folder), args.repeats)
        growth(args.data, Path(folder), args.repeats)


if __name__ == "__main__":
    main()
