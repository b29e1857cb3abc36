"""Peak memory of training from a labelled volume in Zarr, over the size of the volume.

python benchmarks/training_memory.py --mvox 64 512 --outdir outputs/training_memory
python benchmarks/training_memory.py --mvox 64 512 --isotropic --in_memory 64

A phantom of 2 Mvox and its labels are laid side by side, mirrored, into Zarr; then train.py for a few steps of the
laptop network with patches that are read from the files (--memory_gb below what the volume takes), and for the sizes of
--in_memory with the volume in memory. One section judges the epoch, so that reading it does not hide the rest. Each is
a command of its own; its peak is that of the whole process as the system counts it.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from child import run_script
from scale import TILE, lay_tiles

ROOT = Path(__file__).resolve().parent.parent
SIDE = 1024  # of all sections, so that the volumes differ in depth alone
STEPS, BATCH = 6, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mvox", type=int, nargs="+", default=[64, 512], help="sizes in 2^20 voxels")
    parser.add_argument("--in_memory", type=int, nargs="*", default=[], metavar="MVOX", help="also with all in memory")
    parser.add_argument("--isotropic", action="store_true", help="voxels of 10 nm, not sections of 40 nm")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "training_memory")
    args = parser.parse_args()
    size = (10, 10, 10) if args.isotropic else (40, 8, 8)
    print(f"{'Mvox':>6}{'voxels':>10}{'volume and targets MiB':>24}{'peak MiB':>10}{'seconds':>9}", flush=True)
    peaks = []
    for mvox in args.mvox:
        files = write_labelled(args.outdir, mvox, size)
        for how in ("files", "memory") if mvox in args.in_memory else ("files",):
            seconds, peak = measure(files, mvox, how, args)
            peaks += [peak] if how == "files" else []
            print(f"{mvox:6}{how:>10}{2 * mvox:24}{peak:10.0f}{seconds:9.1f}", flush=True)
        for file in files.values():
            shutil.rmtree(file)
    print(f"from files: the largest peak is {max(peaks) / min(peaks) - 1:+.0%} over the smallest")
    return 0


def write_labelled(folder: Path, mvox: int, size: tuple[int, int, int]) -> dict[str, Path]:
    """Write EM and labels of this many 2^20 voxels, in sections of 1024²."""
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    phantom = make_phantom(PhantomSettings(shape=TILE, voxel_size_nm=size, seed=7))
    files = {"volume": folder / f"em_{mvox}.zarr", "labels": folder / f"labels_{mvox}.zarr"}
    for path, tile in zip(files.values(), (phantom.em, phantom.labels.astype(np.uint16)), strict=True):
        lay_tiles(path, tile, (mvox, SIDE, SIDE), size)
    return files


def measure(files: dict[str, Path], mvox: int, how: str, args: argparse.Namespace) -> tuple[float, float]:
    """Train for some steps; seconds, and peak MiB."""
    flags = [each for name, path in files.items() for each in (f"--{name}", path)]
    flags += [
        "--val_z",
        mvox - 1,
        mvox,
        "--patch_size",
        128,
        "--batch_size",
        BATCH,
        "--epochs",
        1,
        "--contact_sheet",
        0,
    ]
    flags += ["--patches_per_epoch", args.steps * BATCH, "--threads", 1, "--quiet", "--device", "cpu"]
    flags += ["--memory_gb", 100 if how == "memory" else 0.05, "--out_path", args.outdir / "model.pth"]
    return run_script("train.py", *flags)


if __name__ == "__main__":
    sys.exit(main())
