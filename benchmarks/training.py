"""Patches per second of a training, against a plain loop as the prototype trains.

    python benchmarks/training.py
    python benchmarks/training.py --data ../shared/data --steps 5 --rounds 3 --threads 2

The train sections of drosophila-vnc, or where they are absent those of a phantom made for the purpose; patches of
256 px, 8 in a step. Each row is a process of its own, so that its peak memory is its own; in several rounds rows take
turns, so that a noisy machine disturbs all. Medians over steps, each with the cutting of its batch; the first step of a
round is not counted. Minutes on two cores, most of them for the prototype.

- prototype: the paper's network in float32, contiguous, Adam at 1e-4, the paper's loss; for every patch the PNG of the
  section and those of its masks are decoded
- paper, laptop: the loop of train.py with these presets, precision and memory format as it chooses them
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PROTOTYPE = "prototype"
HEAD = "{:<36} {:>9} {:>7} {:>10} {:>8} {:>9}  {}"
NAMES = {PROTOTYPE: "prototype: PNG decoded per patch", "paper": "train.py --preset paper"}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", "--data_root", type=Path, default=shared, help="folder of the real data")
    parser.add_argument("--presets", nargs="+", default=["paper", "laptop"], help="(default: paper laptop)")
    parser.add_argument("--steps", type=int, default=3, help="counted in each round")
    parser.add_argument("--rounds", type=int, default=1, help="in which each row has its turn")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: all cores)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "32", "bf16"), help="of train.py")
    parser.add_argument("--domain", default="drosophila-vnc", help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)  # measure this one, in this process,
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # and write what was found here
    return parser.parse_args(argv)


class Watched:
    """Batches of one epoch, and when each was asked for and ready."""

    def __init__(self, batches, steps: int, synchronize):
        self.batches, self.steps_per_epoch, self.synchronize = batches, steps, synchronize
        self.asked, self.ready = [], []

    def loader(self, *_):
        self.asked.append(time.perf_counter())
        for batch in self.batches:
            self.ready.append(time.perf_counter())
            yield batch
            self.synchronize()
            self.asked.append(time.perf_counter())
            if len(self.ready) == self.steps_per_epoch:
                return


def decoded_patches(split, settings, device):
    """Yield batches of the overlapping grid in random order; every patch opens its section and its masks."""
    import torch
    from PIL import Image

    size, (width, height) = settings.size, Image.open(split.sections[0].raw).size
    rows, columns = (range(0, length - size + 1, settings.stride) for length in (height, width))
    grid = [(section, y, x) for section in split.sections for y in rows for x in columns]
    order = np.random.default_rng(0).permutation(len(grid))
    while True:
        for first in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
            images, masks = [], []
            for section, y, x in (grid[i] for i in order[first : first + settings.batch_size]):
                box = np.s_[y : y + size, x : x + size]
                images.append(np.asarray(Image.open(section.raw).convert("L"))[box][None])
                read = [np.asarray(Image.open(section.masks[name]).convert("L"))[box] for name in split.organelles]
                masks.append(np.stack(read) >= 128)
            images, masks = np.stack(images).astype(np.float32) / 255, np.stack(masks).astype(np.float32)
            yield torch.from_numpy(images).to(device), torch.from_numpy(masks).to(device)


def plain_loop(split, steps: int, device: str, synchronize) -> Watched:
    """Train the paper's network in the simplest way."""
    import torch

    from emlib.learn.losses import parse_loss
    from emlib.learn.models.build import build_model
    from emlib.learn.presets import PRESETS

    recipe = PRESETS["paper"]
    model = build_model({**recipe.architecture, "organelles": split.organelles}).to(device).train()
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-4), parse_loss("paper")
    watched = Watched(decoded_patches(split, recipe.patches, device), steps, synchronize)
    for images, masks in watched.loader():
        optimizer.zero_grad()
        value = loss(model(images), masks)
        value.backward()
        optimizer.step()
        value.item()  # a running loss is shown
    return watched


def own_loop(split, preset: str, steps: int, device: str, precision: str, synchronize) -> Watched:
    """Train with a preset, by the loop of train.py, without validation and files."""
    from emlib.learn.datasets.patches import PatchBatches
    from emlib.learn.datasets.sections import grey_statistics, open_sections
    from emlib.learn.losses import parse_loss
    from emlib.learn.models.build import build_model
    from emlib.learn.normalisation import Normalisation
    from emlib.learn.presets import PRESETS
    from emlib.learn.training.loop import train
    from emlib.learn.training.settings import TrainPaths
    from emlib.learn.transforms import PRESETS as AUGMENTS

    recipe, sections = PRESETS[preset], open_sections(split)
    batches = PatchBatches(
        sections,
        recipe.patches,
        normalisation=grey_statistics(sections) if recipe.normalise else Normalisation(),
        augment=AUGMENTS.get(recipe.augment),
    )
    every = (batch for epoch in range(steps) for batch in batches.loader(epoch, device=device))
    watched = Watched(every, steps, synchronize)
    with tempfile.TemporaryDirectory() as folder:
        train(
            build_model({**recipe.architecture, "organelles": split.organelles}),
            watched,
            lambda model: {"iou": 0.0},
            parse_loss(recipe.loss),
            replace(recipe.training, epochs=1, device=device, precision=precision),
            paths=TrainPaths(Path(folder) / "model.pth"),
            save=lambda *_: None,
            note=lambda line: None,
            progress=False,
        )
    return watched


def measure(args) -> dict:
    """Seconds of each step, and those of its batch; GPU memory in MiB."""
    import torch

    from emlib.learn.datasets.domain import find_split
    from emlib.threads import get_threads, set_threads

    set_threads(args.threads)
    torch.set_num_threads(get_threads())
    torch.manual_seed(0)
    split, steps = find_split(args.data, args.domain, "train"), args.steps + 1
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    if args.row == PROTOTYPE:
        watched = plain_loop(split, steps, args.device, synchronize)
    else:
        watched = own_loop(split, args.row, steps, args.device, args.precision, synchronize)
    asked, ready = np.array(watched.asked), np.array(watched.ready)
    gpu = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else None
    return {"step": np.diff(asked)[1:].tolist(), "data": (ready - asked[:-1])[1:].tolist(), "gpu": gpu}


def bf16_told(device: str) -> str:
    from emlib.learn.training.device import resolve_precision

    return "bf16 instructions: " + ("yes" if resolve_precision("auto", device) == "bf16" else "no, float32 throughout")


def main() -> None:
    args = parse_args()
    if args.row:
        args.result.write_text(json.dumps(measure(args)))
        return
    from emlib.learn.presets import PRESETS

    batch, found = PRESETS["paper"].patches.batch_size, {name: [] for name in (PROTOTYPE, *args.presets)}
    with tempfile.TemporaryDirectory() as folder:
        data, result = args.data, Path(folder) / "result.json"
        if not (data / args.domain / "train" / "raw").is_dir():
            from emlib.volumes.phantom_files import domain_settings, write_domain

            data, args.domain = Path(folder), "phantom"
            write_domain(domain_settings(None, None, 0), data / args.domain)
        same = ["--data", data, "--domain", args.domain, "--steps", args.steps, "--device", args.device]
        same += ["--precision", args.precision, *(["--threads", args.threads] if args.threads else [])]
        for name in list(found) * args.rounds:
            _, peak = run_script("benchmarks/training.py", *same, "--row", name, "--result", result)
            found[name].append({"peak": peak, **json.loads(result.read_text())})
    print(HEAD.format("", "patches/s", "faster", "s per step", "of data", "peak MiB", ""))
    yardstick = None
    for name, rounds in found.items():
        step, of_data = (median(s for one in rounds for s in one[kind]) for kind in ("step", "data"))
        yardstick = yardstick or step
        peak = max(one["gpu"] or one["peak"] for one in rounds)
        title = NAMES.get(name, f"train.py --preset {name}")
        row = (f"{batch / step:.2f}", f"{yardstick / step:.2f} ×", f"{step:.3f}", f"{of_data:.3f}", f"{peak:.0f}", "")
        print(HEAD.format(title, *row).rstrip(), flush=True)
    where = f"{args.threads or os.cpu_count()} threads" if args.device == "cpu" else "CUDA, its memory"
    print(f"{args.domain} train, {where}, medians of {args.rounds * args.steps} steps; {bf16_told(args.device)}")


if __name__ == "__main__":
    main()
