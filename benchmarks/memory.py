"""Planned memory of a run beside what it took, for cutouts of several sizes.

    python benchmarks/memory.py
    python benchmarks/memory.py --data ../shared/data --largest 512 --limit

Each run is a command of its own; its peak is that of the whole process as the system counts it. Larger volumes than the
data hold are mirrored. "Away" is a BossDB that is out of reach, so that the run ends on the phantom; to the sizes that
are held out no constant of the plan was fitted. `--limit` also runs the preset for small machines in ever smaller
address spaces.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from child import run_script
from pipeline import vnc_stack

from emlib.pipeline import PipelineSettings
from emlib.pipeline.memory import planned_bytes
from emlib.runs.settings import override

ROOT = Path(__file__).resolve().parent.parent
SAFE = ("--dataset", "sample://phantom", "--preset", "safe8gb", "--save_minimal", "--aligned_dtype", "float16")


def mirrored(volume: np.ndarray, depth: int, side: int) -> np.ndarray:
    """The first sections of a volume, continued in the plane by its mirror image."""
    part = volume[:depth]
    while min(part.shape[1:]) < side:
        missing = [min(side - n, n) for n in part.shape[1:]]
        part = np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1])), mode="symmetric")
    return part[:, :side, :side]


def cases(data: Path, largest: int) -> Iterator[tuple]:
    """Yield (name, EM or None for the phantom, voxel size, (X, Y, Z), segmenter)."""
    import tifffile

    vnc = vnc_stack(data)
    fib = tifffile.imread(data / "fib25-medulla" / "em_u8_zyx.tif")
    for side in (128, 256, 512, 1024):
        if side <= largest:
            yield "drosophila-vnc", mirrored(vnc, 20, side), (50, 4.6, 4.6), (side, side, 20), "multicut"
            yield "fib25-medulla", mirrored(fib, 32, side), (10, 10, 10), (side, side, 32), "multicut"
    yield "fib25-medulla", fib[:125], (10, 10, 10), (250, 250, 125), "multicut"
    yield "fib25-medulla", fib, (10, 10, 10), (250, 250, 250), "multicut"
    yield "drosophila-vnc", mirrored(vnc, 20, 512), (50, 4.6, 4.6), (512, 512, 20), "watershed"
    yield "phantom", None, (40, 8, 8), (192, 192, 48), "multicut"
    yield "phantom", None, (40, 8, 8), (256, 256, 64), "multicut"
    yield "away", None, (40, 8, 8), (192, 192, 48), "multicut"
    yield "away", None, (40, 8, 8), (256, 256, 64), "multicut"
    yield "fib25, held out", fib[:180, :180, :180], (10, 10, 10), (180, 180, 180), "multicut"
    yield "fib25, held out", fib[:100, :220, :200], (10, 10, 10), (200, 220, 100), "multicut"
    yield "vnc, held out", vnc[:, :384, :384], (50, 4.6, 4.6), (384, 384, 20), "multicut"
    yield "phantom, h. out", None, (40, 8, 8), (320, 320, 40), "multicut"


def compare(data: Path, folder: Path, largest: int) -> None:
    """Print plan and peak of each case."""
    print(f"{'data':16}{'cutout X Y Z':>16}{'segmenter':>12}{'planned MiB':>13}{'peak MiB':>10}{'error':>8}")
    for name, em, voxel, cutout, segmenter in cases(data, largest):
        uri = "bossdb://out/of/reach" if name == "away" else "sample://phantom"
        if em is not None:
            uri = str(folder / "em.npy")
            np.save(uri, em)
        flags = ["--segmenter", segmenter, "--cutout", *cutout, "--quiet", "--outdir", folder / "out"]
        _, peak = run_script("run_pipeline.py", "--dataset", uri, "--voxel_size", *voxel, *flags)
        settings = with_segmenter(PipelineSettings(dataset=uri), segmenter)
        planned = planned_bytes(tuple(reversed(cutout)), voxel, settings) / 2**20
        size = " ".join(map(str, cutout))
        print(f"{name:16}{size:>16}{segmenter:>12}{planned:13.0f}{peak:10.0f}{planned / peak - 1:+8.0%}", flush=True)


def with_segmenter(settings: PipelineSettings, segmenter: str) -> PipelineSettings:
    """Settings with another segmenter."""
    return replace(settings, stages=override(settings.stages, [f"segment.segmenter={segmenter}"]))


def limited(folder: Path) -> None:
    """Run the command for small machines in ever smaller address spaces, until it no longer ends well."""
    print(f"\n{' '.join(SAFE)}, {os.cpu_count()} threads, by limit on the address space\n")
    for gib in (2.0, 1.5, 1.25, 1.0, 0.75):
        size = int(gib * 2**30)
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_pipeline.py"), *SAFE, "--outdir", str(folder / "safe")],
            preexec_fn=lambda size=size: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
            capture_output=True,
            text=True,
        )
        last = (done.stderr.strip() or done.stdout.strip()).splitlines() or [""]
        print(
            f"{gib:5.2f} GiB  {'done' if done.returncode == 0 else f'exit {done.returncode}: {last[-1]}'}", flush=True
        )
        if done.returncode:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--largest", type=int, default=1024, help="side of the largest section (default: 1024)")
    parser.add_argument("--limit", action="store_true", help="also the preset safe8gb in small address spaces")
    args = parser.parse_args()
    if not (args.data / "fib25-medulla").is_dir():
        sys.exit(f"no real data under {args.data}; name its folder with --data")
    os.environ |= {"INTERN_PROTOCOL": "http", "INTERN_HOST": "127.0.0.1:9", "INTERN_TOKEN": "none"}  # nothing is there
    with tempfile.TemporaryDirectory() as folder:
        compare(args.data, Path(folder), args.largest)
        if args.limit:
            limited(Path(folder))


if __name__ == "__main__":
    main()
