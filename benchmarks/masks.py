"""Time of the mask scores against yardsticks that score patch by patch.

    python benchmarks/masks.py
    python benchmarks/masks.py --data ../shared/data --repeats 5

The three test sections of drosophila-vnc (1024 × 1024) and three organelles; the prediction is the truth, smoothed,
moved by two pixels and made uneven by noise. Patches of 256 px, stride 128: 441 in all. Each method has to find the
same figures, or the benchmark stops.

- ours: emlib.measure, the counts of all patches and their mean scores
- numpy: each patch cut out and counted with boolean sums
- scikit-learn: each patch cut out; f1_score, jaccard_score, precision_score, recall_score, accuracy_score,
  mutual_info_score; left out where it is not installed
- ours, everything: both protocols, boundaries, objects, three chance lines and intervals, as evaluate.py masks
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ORGANELLES = ("membranes", "mitochondria", "synapses")
PATCH, STRIDE = 256, 128
ROW = "{:<23} {:>9} {:>9}  {}"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts")
    return parser.parse_args(argv)


def read_masks(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Truth and a prediction that resembles it, by organelle."""
    from PIL import Image
    from scipy import ndimage as ndi

    rng, masks = np.random.default_rng(0), {}
    for organelle in ORGANELLES:
        truth = np.stack([np.asarray(Image.open(path)) >= 128 for path in sorted((folder / organelle).glob("*.png"))])
        smooth = ndi.gaussian_filter(truth.astype(np.float32), (0, 2, 2))
        noise = ndi.gaussian_filter(rng.standard_normal(truth.shape), (0, 6, 6))
        masks[organelle] = truth, np.roll(smooth + 2 * noise > 0.5, 2, axis=1)
    return masks


def patches(truth, pred):
    """Every patch of every section, cut out."""
    for true, found in zip(truth, pred, strict=True):
        for y in range(0, true.shape[0] - PATCH + 1, STRIDE):
            for x in range(0, true.shape[1] - PATCH + 1, STRIDE):
                box = slice(y, y + PATCH), slice(x, x + PATCH)
                yield true[box], found[box]


def ours(masks) -> dict[str, dict[str, float]]:
    from emlib.measure.masks.pixels import patch_counts, pixel_scores

    found = {}
    for organelle, (truth, pred) in masks.items():
        counts = np.concatenate([patch_counts(*pair, PATCH, STRIDE) for pair in zip(truth, pred, strict=True)])
        found[organelle] = {name: float(values.mean()) for name, values in pixel_scores(counts).items()}
    return found


def everything(masks) -> None:
    from emlib.measure.masks.counts import MaskSettings
    from emlib.measure.masks.scores import score_organelles

    score_organelles(masks, MaskSettings(pixel_nm=(4.6, 4.6), patch=PATCH, stride=STRIDE))


def entropy(shares) -> float:
    shares = np.asarray([share for share in shares if share > 0])
    return float(-(shares * np.log2(shares)).sum())


def by_numpy(truth, pred) -> dict[str, float]:
    tp, fp, fn = (truth & pred).sum(), (~truth & pred).sum(), (truth & ~pred).sum()
    tn, size = (~truth & ~pred).sum(), truth.size
    empty = float(tp + fp + fn == 0)
    joint = entropy([tp / size, fp / size, fn / size, tn / size])
    single = [entropy([n / size, 1 - n / size]) for n in (tp + fn, tp + fp)]
    return {
        "f1": 2 * tp / (2 * tp + fp + fn) if not empty else 1.0,
        "iou": tp / (tp + fp + fn) if not empty else 1.0,
        "precision": tp / (tp + fp) if tp + fp else empty,
        "recall": tp / (tp + fn) if tp + fn else empty,
        "accuracy": (tp + tn) / size,
        "vi": 2 * joint - sum(single),
    }


def by_sklearn(truth, pred) -> dict[str, float]:
    from sklearn import metrics

    truth, pred = truth.ravel(), pred.ravel()
    empty = float(not (truth.any() or pred.any()))
    single = [entropy([mask.mean(), 1 - mask.mean()]) for mask in (truth, pred)]
    return {
        "f1": metrics.f1_score(truth, pred, zero_division=empty),
        "iou": metrics.jaccard_score(truth, pred, zero_division=empty),
        "precision": metrics.precision_score(truth, pred, zero_division=empty),
        "recall": metrics.recall_score(truth, pred, zero_division=empty),
        "accuracy": metrics.accuracy_score(truth, pred),
        "vi": sum(single) - 2 * metrics.mutual_info_score(truth, pred) / np.log(2),
    }


def patch_by_patch(score, masks) -> dict[str, dict[str, float]]:
    found = {}
    for organelle, pair in masks.items():
        each = [score(*boxes) for boxes in patches(*pair)]
        found[organelle] = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
    return found


def median_seconds(function, repeats: int) -> tuple[float, object]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def main() -> None:
    args = parse_args()
    folder = args.data / "drosophila-vnc" / "test"
    if not folder.is_dir():
        sys.exit(f"no real data under {args.data}; name their folder with --data")
    masks = read_masks(folder)
    everything(masks)  # once, so that no import is timed
    own, expected = median_seconds(lambda: ours(masks), args.repeats)
    rows = [("ours, patch-mean", own, "")]
    for name, score, module in (("numpy", by_numpy, "numpy"), ("scikit-learn", by_sklearn, "sklearn")):
        try:
            __import__(module)
        except ImportError:
            rows.append((name, None, "not installed: pip install scikit-learn"))
            continue
        seconds, found = median_seconds(lambda score=score: patch_by_patch(score, masks), args.repeats)
        for organelle, scores in found.items():
            for metric, value in scores.items():
                if abs(value - expected[organelle][metric]) > 1e-9:
                    sys.exit(f"{name} finds {metric} {value} of {organelle}, ours {expected[organelle][metric]}")
        rows.append((f"{name}, per patch", seconds, "same figures to 1e-9"))
    rows.append(("ours, everything", median_seconds(lambda: everything(masks), args.repeats)[0], "not the same work"))
    print(ROW.format("method", "seconds", "ratio", ""))
    for name, seconds, note in rows:
        figures = ("–", "–") if seconds is None else (f"{seconds:.4f}", f"{seconds / own:.1f}")
        print(ROW.format(name, *figures, note).rstrip())
    count = sum(1 for pair in masks.values() for _ in patches(*pair))
    print(f"drosophila-vnc test, {count} patches, {os.cpu_count()} cores, medians of {args.repeats}")


if __name__ == "__main__":
    main()
