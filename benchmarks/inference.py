"""Time of one section through three experts, and of its scores, against the way of the prototype.

    python benchmarks/inference.py
    python benchmarks/inference.py --data ../shared/data --repeats 3 --threads 2

Section 00 of drosophila-vnc test (1024 × 1024), or noise of that size where it is absent; networks with random weights,
since time does not depend on them. Same process, medians.

- prototype: the paper's network, float32, contiguous; patches of 256 px at stride 128 in batches of 8, as MExConn tests
- paper, laptop: as test.py predicts, the whole section in blended tiles, channels last; --precision bf16 where it pays
- scores of test.py: all patches of three sections and organelles, against scikit-learn called for each patch; this part
  is that of benchmarks/masks.py, which measures more
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import masks as mask_benchmark
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ORGANELLES = ("membranes", "mitochondria", "synapses")
PATCH, STRIDE, BATCH = 256, 128, 8
ROW = "{:<44} {:>9} {:>9}  {}"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median counts")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: its own choice)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="32", choices=("32", "bf16"), help="of the tiled rows")
    return parser.parse_args(argv)


def read_section(data: Path) -> tuple[np.ndarray, str]:
    """A section of EM and what it is."""
    path = data / "drosophila-vnc" / "test" / "raw" / "00.png"
    if not path.is_file():
        return np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8), "noise"
    from PIL import Image

    return np.asarray(Image.open(path)), "drosophila-vnc test 00"


def by_patches(model, section: np.ndarray, device: str) -> list[np.ndarray]:
    """Every overlapping patch for itself, in batches, as the prototype predicts a test set."""
    import torch

    height, width = section.shape
    corners = [(y, x) for y in range(0, height - PATCH + 1, STRIDE) for x in range(0, width - PATCH + 1, STRIDE)]
    found = []
    with torch.no_grad():
        for first in range(0, len(corners), BATCH):
            patches = [section[y : y + PATCH, x : x + PATCH] for y, x in corners[first : first + BATCH]]
            batch = torch.from_numpy(np.stack(patches)[:, None].astype(np.float32) / 255)
            found.append(torch.sigmoid(model(batch.to(device))).cpu().numpy())
    return found


def seconds(call, repeats: int) -> float:
    """Median time of a call, after one that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def time_networks(args, section: np.ndarray) -> None:
    import torch

    from emlib.learn.inference import TileSettings, predict_section
    from emlib.learn.models.build import build_model
    from emlib.learn.normalisation import Normalisation
    from emlib.learn.presets import PRESETS
    from emlib.runs.freed_memory import keep_freed_memory

    torch.manual_seed(0)

    def build(name):
        return build_model({**PRESETS[name].architecture, "organelles": ORGANELLES}).to(args.device).eval()

    prototype, tiles = build("paper"), TileSettings(precision=args.precision)
    models = {name: build(name).to(memory_format=torch.channels_last) for name in ("paper", "laptop")}
    rows = [("prototype: 256 px patches, stride 128", lambda: by_patches(prototype, section, args.device))]
    for name, model in models.items():
        call = lambda model=model: predict_section(model, section, Normalisation(), tiles, args.device)  # noqa: E731
        rows.append((f"{name}: whole section in tiles", call))
    print(ROW.format("one section, three experts", "seconds", "faster", ""))
    yardstick = None
    for name, call in rows:
        if call is not rows[0][1]:
            keep_freed_memory()  # as test.py does; the prototype does not
        took = seconds(call, args.repeats)
        yardstick = yardstick or took
        note = "" if took == yardstick else f"{tiles.tile} px tiles, overlap {tiles.overlap}, {tiles.precision}"
        print(ROW.format(name, f"{took:.3f}", f"{yardstick / took:.1f} ×", note).rstrip(), flush=True)


def time_scores(args) -> None:
    folder = args.data / "drosophila-vnc" / "test"
    if not folder.is_dir():
        print(f"scores: no real data under {args.data}; name their folder with --data")
        return
    masks = mask_benchmark.read_masks(folder)
    own = seconds(lambda: mask_benchmark.ours(masks), args.repeats)
    print()
    print(ROW.format("scores, 441 patches", "seconds", "faster", ""))
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print(ROW.format("test.py", f"{own:.4f}", "–", "scikit-learn is not installed"))
        return
    start = time.perf_counter()
    mask_benchmark.patch_by_patch(mask_benchmark.by_sklearn, masks)
    theirs = time.perf_counter() - start
    print(ROW.format("scikit-learn, per patch", f"{theirs:.4f}", "1 ×", ""))
    print(ROW.format("test.py", f"{own:.4f}", f"{theirs / own:.0f} ×", ""))


def main() -> None:
    args = parse_args()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    section, what = read_section(args.data)
    time_networks(args, section)
    time_scores(args)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{what}, {where}, medians of {args.repeats}")


if __name__ == "__main__":
    main()
