"""Time and memory of the segmentation scores, beside scikit-image's.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --data ../shared/data --side 1024

1. The FIB-25 crop (250³) against the labels that the default segmenter makes of it, predicted 0 counted as a segment
   (what scikit-image does), and the same with a tenth of the prediction set to 0 and filled again. Yardstick:
   scikit-image's variation_of_information and adapted_rand_error together. Same data, same run, medians.
2. `evaluate.py segmentation` as a user types it on --side³ voxels of 64-bit ids, tiled from the same two volumes, as
   Zarr and as .npy: seconds and the peak memory of the process. Takes 17 GB of disk for side 1024 while it runs.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
ROW = "{:<52}{:>10}{:>10}{:>12}"


def volumes(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted labels of the FIB-25 crop."""
    import tifffile

    from emlib.stages.preprocess import preprocess
    from emlib.stages.segment import segment

    truth = tifffile.imread(data / "fib25-medulla" / "neurites_u16_zyx.tif")
    return truth, segment(preprocess(tifffile.imread(data / "fib25-medulla" / "em_u8_zyx.tif")), (10, 10, 10))


def seconds(call, repeats: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def compare(truth: np.ndarray, pred: np.ndarray, repeats: int) -> None:
    """Ours against scikit-image on arrays in memory."""
    from skimage.metrics import adapted_rand_error, variation_of_information

    from emlib.measure.instances import score_instances

    def yardstick():
        split, merge = variation_of_information(truth, pred, ignore_labels=(0,))
        return split, merge, adapted_rand_error(truth, pred, ignore_labels=(0,))[0]

    holes = pred.copy()
    holes[:, ::10] = 0
    theirs = seconds(yardstick, repeats)
    print(ROW.format(f"{' × '.join(map(str, truth.shape))}, medians of {repeats}", "seconds", "ratio", "faster"))
    print(ROW.format("scikit-image, VOI + adapted Rand error", f"{theirs:.3f}", "1", ""))
    for name, labels, zero in (
        ("ours, zero = background", pred, "background"),
        ("ours, a tenth filled", holes, "fill"),
    ):
        mine = seconds(lambda labels=labels, zero=zero: score_instances(truth, labels, zero=zero), repeats)
        print(ROW.format(name, f"{mine:.3f}", f"{mine / theirs:.3f}", f"{theirs / mine:.1f} ×"))
    scores = score_instances(truth, pred, zero="background")
    differ = [abs(a - scores[b]) for a, b in zip(yardstick(), ("voi_split", "voi_merge", "arand"), strict=True)]
    print("difference to scikit-image: VOI split {:.1e}, VOI merge {:.1e}, ARAND {:.1e}\n".format(*differ))


def tiled(volume: np.ndarray, side: int, z: slice) -> np.ndarray:
    """Sections z of a volume of side³ voxels, tiled from a small one; each tile has ids of its own, beyond 2^32."""
    n = len(volume)
    index = np.arange(side)
    times = -(-side // n)
    part = np.tile(volume[index[z] % n].astype(np.uint64), (1, times, times))[:, :side, :side]
    tile = (index[z] // n)[:, None, None] * 10_000 + (index // n)[:, None] * 100 + index // n
    return (part + (tile * 10_000_000 + 2**33).astype(np.uint64)) * (part > 0)


def store(volume: np.ndarray, side: int, path: Path) -> None:
    """Write the tiled volume as Zarr or .npy, 64 sections at a time."""
    import zarr

    shape = (side, side, side)
    if path.suffix == ".zarr":
        array = zarr.create_array(str(path), shape=shape, chunks=(64, 64, 64), shards=(64, 512, 512), dtype="uint64")
    else:
        array = np.lib.format.open_memmap(path, "w+", np.uint64, shape)
    for z in range(0, side, 64):
        array[z : z + 64] = tiled(volume, side, slice(z, min(z + 64, side)))


def large(truth: np.ndarray, pred: np.ndarray, side: int) -> None:
    """The command on volumes that are read in slabs."""
    print(ROW.format(f"evaluate.py segmentation, {side}³, 64-bit ids", "seconds", "", "peak MiB"))
    for suffix in (".zarr", ".npy"):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{name}{suffix}" for name in ("pred", "truth")]
            for volume, path in zip((pred, truth), paths, strict=True):
                store(volume, side, path)
            args = ["--pred", paths[0], "--truth", paths[1], "--voxel_size", 10, 10, 10, "--outdir", folder, "--quiet"]
            took, peak = run_script("evaluate.py", "segmentation", *args)
            print(ROW.format(f"  {suffix}", f"{took:.1f}", "", f"{peak:.0f}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024, help="of the large volume; 0 leaves it out")
    args = parser.parse_args()
    if not (args.data / "fib25-medulla").is_dir():
        sys.exit(f"no real data under {args.data}; name its folder with --data")
    truth, pred = volumes(args.data)
    compare(truth, pred, args.repeats)
    if args.side:
        large(truth, pred, args.side)
    print(f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
