"""Does a shared encoder help? The multi-expert model beside one model for each organelle, over several seeds.

    python benchmarks/sharing.py
    python benchmarks/sharing.py --data ../shared/data --seeds 0 1 2 --epochs 8

Each seed trains train.py once and single_org_train.py once per organelle, with equal preset and steps, and tests each
with test.py. Every model is chosen on the val sections. The table shows mean ± standard deviation over the seeds of
the pooled and the patch-mean Dice on the test sections, the mean difference of each seed's pair with its 95 %
interval (Student's t), and what training cost. What is in --work already is not trained again.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ROW = "{:<14} {:<11} {:>16} {:>16} {:>24}"
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}  # of Student's t, by degrees of freedom


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the domains")
    parser.add_argument("--domain", default="drosophila-vnc")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "benchmarks" / "sharing", help="models, tables")
    return parser.parse_args(argv)


def train_and_test(args, name: str, seed: int, organelle: str | None) -> Path:
    """Train one model and test it, unless both are done; the folder with its tables."""
    out = args.work / f"{args.domain}-{args.preset}-{args.epochs}" / f"{name}-{seed}"
    table = out / "tables" / f"test_{args.domain}.csv"
    if table.exists():
        return out
    data = ["--data_root", args.data, "--domain", args.domain, "--threads", args.threads]
    script = [ROOT / "single_org_train.py", "--organelle", organelle] if organelle else [ROOT / "train.py"]
    how = ["--preset", args.preset, "--epochs", args.epochs, "--seed", seed, "--out_path", out / "model.pth"]
    run(*script, *data, *how, "--resume", "--quiet")
    run(ROOT / "test.py", *data, "--model_path", out / "model.pth", "--outdir", out, "--quiet")
    return out


def run(*command: object) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def dice(args, folder: Path) -> dict[tuple[str, str], float]:
    """Dice by protocol and organelle."""
    with (folder / "tables" / f"test_{args.domain}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["line"] == "prediction" and row["organelle"] != "average"]
    return {(row["protocol"], row["organelle"]): float(row["dice"]) for row in rows}


def cost(folder: Path) -> float:
    """Minutes of the epochs, validation included."""
    with (folder / "model" / "history.csv").open() as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file)) / 60


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def difference(pairs: np.ndarray) -> str:
    """Mean and 95 % interval of paired differences."""
    n = len(pairs)
    if n < 2 or n - 1 not in T_975:
        return f"{pairs.mean():+.3f}"
    half = T_975[n - 1] * pairs.std(ddof=1) / n**0.5
    return f"{pairs.mean():+.3f} ({pairs.mean() - half:+.3f} to {pairs.mean() + half:+.3f})"


def main() -> None:
    args = parse_args()
    masks = args.data / args.domain / "train"
    organelles = sorted(path.name for path in masks.iterdir() if path.is_dir() and path.name != "raw")
    together, apart, minutes = [], [], {"together": [], "apart": []}
    for seed in args.seeds:
        shared = train_and_test(args, "experts", seed, None)
        alone = {name: train_and_test(args, name, seed, name) for name in organelles}
        together.append(dice(args, shared))
        apart.append({key: value for name in organelles for key, value in dice(args, alone[name]).items()})
        minutes["together"].append(cost(shared))
        minutes["apart"].append(sum(map(cost, alone.values())))
    print(ROW.format("Dice, test", "protocol", "multi-expert", "single", "difference (95 %)"))
    record = {}
    for protocol in ("pooled", "patch_mean"):
        for organelle in organelles:
            a, b = ([one[protocol, organelle] for one in each] for each in (together, apart))
            print(ROW.format(organelle, protocol, spread(a), spread(b), difference(np.subtract(a, b))))
            record[f"{protocol}/{organelle}"] = {"multi": a, "single": b}
    print(
        f"training: one model {spread(minutes['together'])} min, "
        f"{len(organelles)} models {spread(minutes['apart'])} min"
    )
    print(f"{args.domain}, --preset {args.preset} --epochs {args.epochs}, seeds {args.seeds}, {args.threads} thread(s)")
    (args.work / "sharing.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
