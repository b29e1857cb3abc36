"""Heads × backbones, from scratch, at equal minutes of a processor: what each reaches, weighs and takes.

    python benchmarks/heads.py
    python benchmarks/heads.py --data ../shared/data --minutes 2 --threads 1

Each pair is trained by train.py with --time_budget, validation included, in steps of four patches of 128 pixels, else
by the default recipe, and tested by test.py on the val sections: the table is for choosing, and nothing is to be chosen
on the test sections. IoU is pooled. Seconds per megapixel are the median of five predictions of a section of 1024 ×
1024. The experts of the default preset stand below as a yardstick. What is in --work already is not trained again.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HEADS = ("unet", "pspnet", "deeplabv3plus", "upernet")
BACKBONES = ("resnet18", "efficientnet_b0", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
RECIPE = ("--patch_size", 128, "--batch_size", 4)  # small steps: a few minutes hold some hundred of them
REPEATS = 5


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the domains")
    parser.add_argument("--domain", default="drosophila-vnc")
    parser.add_argument("--heads", nargs="+", default=HEADS)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training for each pair")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "benchmarks" / "heads", help="models and tables"
    )
    return parser.parse_args(argv)


def run(*command: object) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def train_and_test(args, name: str, how: list[str]) -> Path:
    """Train one network and test it, unless both are done; the folder with its model and tables."""
    out = args.work / f"{args.domain}-{args.minutes:g}min-{args.threads}" / name
    if not (out / "tables" / f"test_{args.domain}_val.csv").exists():
        data = ["--data_root", args.data, "--domain", args.domain, "--threads", args.threads, "--quiet"]
        budget = ["--time_budget", args.minutes, "--epochs", 1000, *RECIPE]
        run(ROOT / "train.py", *data, *how, *budget, "--out_path", out / "model.pth")
        run(ROOT / "test.py", *data, "--model_path", out / "model.pth", "--split", "val", "--outdir", out)
    return out


def scores(args, folder: Path) -> dict[str, float]:
    """Pooled IoU by organelle, and their mean."""
    with (folder / "tables" / f"test_{args.domain}_val.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["line"] == "prediction" and row["protocol"] == "pooled"]
    return {row["organelle"]: float(row["iou"]) for row in rows}


def size_and_speed(args, folder: Path) -> tuple[float, float]:
    """Millions of parameters, and seconds per megapixel."""
    import numpy as np
    import torch

    from emlib.learn.inference import predict_section
    from emlib.learn.models.build import count_parameters
    from emlib.learn.models.checkpoint import load_checkpoint

    torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(folder / "model.pth")
    image, seconds = np.random.default_rng(0).integers(0, 256, (1024, 1024), np.uint8), []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        predict_section(checkpoint.model, image, checkpoint.normalisation)
        seconds.append(time.perf_counter() - began)
    return count_parameters(checkpoint.model) / 1e6, median(seconds[1:]) / (image.size / 1e6)


def main() -> None:
    args = parse_args()
    pairs = [
        (head, backbone, ["--head", head, "--backbone", backbone]) for head in args.heads for backbone in args.backbones
    ]
    row = None
    for head, backbone, how in [*pairs, ("experts", "(preset laptop)", [])]:
        folder = train_and_test(args, f"{head}-{backbone}".replace(" ", "-"), how)
        iou, (parameters, seconds) = scores(args, folder), size_and_speed(args, folder)
        if row is None:
            row = "{:<14} {:<29}" + " {:>12}" * len(iou) + " {:>9} {:>9}"
            print(row.format("head", "backbone", *iou, "params M", "s/Mpx"))
        print(
            row.format(head, backbone, *(f"{v:.3f}" for v in iou.values()), f"{parameters:.2f}", f"{seconds:.2f}"),
            flush=True,
        )
    print(f"{args.domain} val, pooled IoU; {args.minutes:g} min each from scratch, {args.threads} thread(s)")


if __name__ == "__main__":
    main()
