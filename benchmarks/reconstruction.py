"""The scoreboard: every data set with neurite truth × every method, as run_pipeline.py runs it.

    python benchmarks/reconstruction.py
    python benchmarks/reconstruction.py --data ../shared/data --only larval-vnc-3d phantom
    python benchmarks/reconstruction.py --methods experts --only larval-vnc-3d drosophila-vnc
    python benchmarks/reconstruction.py --methods experts --only phantom --model phantom=models/phantom/model.pth
    python benchmarks/reconstruction.py --curve --boundaries boundaries.npy --contacts_z 100 120

Each row is one run of the command as a user types it, with default settings; it is scored on the labels, shifts and
tables that the run wrote. One set of defaults everywhere, chosen on fib25-medulla z 0-119, larval-vnc-3d z 0-6,
drosophila-vnc train sections and phantom seed 3, adapted by voxel size alone; nothing was chosen from the other rows.

- multicut: the default segmenter; gasp: mean affinity; watershed: the slice-wise baseline
- experts: the default segmenter on the boundaries of a network (and its synapses, where it has such an expert). Larval
  and drosophila-vnc: the bundled drosophila-vnc-experts, which learnt from the train sections of drosophila-vnc and
  was chosen by val; the others where --model names one
- one segment, random: chance; everything merged, and segments of the default's sizes with each voxel drawn at random
- VOI in bits, predicted 0 filled from the nearest label of its section, truth 0 ignored; ERL as a share of what a
  perfect segmentation of the same box reaches, on skeletons made from the truth (3D cases, whole volume)
- drosophila-vnc: truth is the connected components (4 neighbours) of non-membrane pixels, each section scored for
  itself, means over sections
- synapse F1 and average precision, edge F1: the run's own scores, for the phantom; chance beside them
- s: stages of the run that make labels (preprocess to segment); MiB: peak memory of the whole command; both also per
  megavoxel

Writes outputs/tables/reconstruction.csv. With --curve it draws instead, for fib25-medulla, splits against mergers over
the bias of each segmenter with and without learned contacts, on z 0-119 or --contacts_z (where --boundaries come from a
network: sections that it has not learnt from), and scores the held-out half (see agglomeration.py).
With --cost it times instead, on the phantom of 256 x 256 x 64, each stage for each segmenter and source of boundaries,
medians over --repeats, into outputs/tables/reconstruction_cost.csv; the network is of the preset laptop, trained for
--minutes on another phantom, or the one of --model_path. CPU seconds are those of all threads.

    python benchmarks/reconstruction.py --cost --repeats 3
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import agglomeration
import numpy as np
import pandas as pd
import stage_costs
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
METHODS = ("multicut", "gasp", "watershed", "experts")
NAMES = ("fib25-medulla", "larval-vnc-3d", "drosophila-vnc", "phantom")
MODELS = {"larval-vnc-3d": "drosophila-vnc-experts", "drosophila-vnc": "drosophila-vnc-experts"}
VOLUMES = {  # labels, voxel size, z that settings were chosen on, z held out
    "fib25-medulla": ("neurites_u16_zyx.tif", (10, 10, 10), range(120), range(130, 250)),
    "larval-vnc-3d": ("neurites_u8_zyx.tif", (50, 4, 4), range(7), range(7, 15)),
}


@dataclass(frozen=True)
class Case:
    """What run_pipeline.py is given, the truth, and the ranges of z that are scored, by name."""

    name: str
    flags: list[str]
    truth: Callable[[Path], np.ndarray]  # from the run's folder, in the frame of the labels
    voxel_size_nm: tuple[float, float, float]
    parts: dict[str, list[int]] = field(default_factory=dict)  # none: the whole
    in_plane: bool = False  # truth ids do not continue across sections


def volume(data: Path, name: str) -> Case:
    """A labelled real volume, whole and by parts."""
    import tifffile

    labels, size, chosen, held = VOLUMES[name]
    truth = tifffile.imread(data / name / labels)
    parts = {
        "whole": list(range(len(truth))),
        f"z {chosen[0]}-{chosen[-1]} (chosen on)": list(chosen),
        f"z {held[0]}-{held[-1]} (held out)": list(held),
    }
    flags = source(data / name / "em_u8_zyx.tif", size, truth.shape)
    return Case(name, flags, lambda folder: moved(truth, folder), size, parts)


def vnc(data: Path, folder: Path) -> Case:
    """The drosophila-vnc sections as one stack; truth in each section: components of non-membrane pixels."""
    from bioimage_cpp.segmentation import label
    from PIL import Image

    em, truth, parts = {}, {}, {"train (chosen on)": [], "val (held out)": [], "test (held out)": []}
    for split in ("train", "val", "test"):
        for path in (data / "drosophila-vnc" / split / "raw").glob("*.png"):
            z = int(path.stem)
            em[z] = np.asarray(Image.open(path).convert("L"))
            membrane = np.asarray(Image.open(path.parent.parent / "membranes" / path.name).convert("L"))
            truth[z] = label((membrane <= membrane.max() / 2).astype(np.uint32))
            parts[next(name for name in parts if name.startswith(split))].append(z)
    order, size = sorted(em), (50, 4.6, 4.6)
    np.save(folder / "vnc.npy", np.stack([em[z] for z in order]))
    stack = np.stack([truth[z] for z in order]).astype(np.int32)
    flags = source(folder / "vnc.npy", size, stack.shape)
    return Case("drosophila-vnc, in plane", flags, lambda run: moved(stack, run), size, parts, in_plane=True)


def phantom(seed: int, isotropic: bool, folder: Path) -> Case:
    """A phantom with its truth: of 40 × 8 × 8 nm as the built-in sample, or of 10 nm."""
    size, shape = ((10, 10, 10), (128, 128, 128)) if isotropic else ((40, 8, 8), (64, 256, 256))
    flags = ["--dataset", "sample://phantom", "--cutout", *map(str, reversed(shape)), "--seed", str(seed)]
    if isotropic:
        made = folder / f"isotropic_{seed}"
        made_like = ["--shape", *shape, "--voxel_size", *size, "--seed", seed, "--output", made]
        run_script("fetch_data.py", "phantom", *made_like, "--quiet")
        flags = source(made / "em_u8_zyx.tif", size, shape)
        flags += ["--truth", str(made / "neurites_i32_zyx.tif"), "--truth_synapses", str(made / "synapses.csv")]
        import tifffile

        truth = tifffile.imread(made / "neurites_i32_zyx.tif")
        return Case(f"phantom isotropic, seed {seed}", flags, lambda run: moved(truth, run), size)
    name = "data/truth_neurites_i32_zyx.npy"
    return Case(f"phantom anisotropic, seed {seed}", flags, lambda run: np.load(run / name), size)


def source(path: Path, size: tuple, shape: tuple) -> list[str]:
    """Flags that name a whole volume."""
    cutout = map(str, reversed(shape))
    return ["--dataset", str(path), "--voxel_size", *map(str, size), "--cutout", *cutout, "--offset", "0", "0", "0"]


def moved(truth: np.ndarray, run: Path) -> np.ndarray:
    """Truth in the frame of the run's labels."""
    from emlib.stages.align import apply_shifts

    shifts = pd.DataFrame(json.loads((run / "tables" / "alignment_shifts.json").read_text())["sections"])
    return apply_shifts(truth.astype(np.int32), shifts, order=0, fill=0)


def flags_of(method: str, case: Case, models: dict[str, str]) -> list[str] | None:
    """What the method adds to the flags; None where it needs a network and there is none for these data."""
    if method != "experts":
        return ["--segmenter", method]
    model = next((file for name, file in models.items() if case.name.startswith(name)), None)
    return model and ["--boundaries", "experts", "--model_path", model]


def score(case: Case, folder: Path, methods: list[str], models: dict[str, str]) -> Iterator[dict]:
    """Run each method and score each part."""
    from emlib.measure.skeletonize import make_skeletons

    skeletons = None
    usable = {method: flags for method in methods if (flags := flags_of(method, case, models))}
    for number, (method, flags) in enumerate(usable.items()):
        run = folder / method
        _, peak = run_script("run_pipeline.py", *case.flags, *flags, "--quiet", "--outdir", run)
        with sqlite3.connect(run / "runs" / "pipeline_runs.sqlite") as db:
            query = "SELECT stage_seconds FROM runs ORDER BY rowid DESC LIMIT 1"
            stages = json.loads(db.execute(query).fetchone()[0])
        seconds = sum(s for name, s in stages.items() if name not in ("cutout", "synapses", "graph", "publish"))
        truth, labels = case.truth(run), np.load(next((run / "data").glob("neurite_labels_*.npy")))
        if skeletons is None and not case.in_plane:
            skeletons = make_skeletons(truth, case.voxel_size_nm)
        made = json.loads((run / "tables" / "scores.json").read_text()) if "phantom" in case.name else {}
        for part, z in (case.parts or {"whole": list(range(len(truth)))}).items():
            row = {"data": case.name, "part": part}
            rows, erl = scores_of(truth[z], labels[z], case, skeletons if part == "whole" else None)
            extra = {"ERL share": erl, **of_run(made), "s": round(seconds, 1), "MiB": round(peak)}
            extra |= {"s / Mvox": 1e6 * seconds / labels.size, "MiB / Mvox": 1e6 * peak / labels.size}
            yield {**row, "method": method, **rows["prediction"], **extra}
            if number == 0:
                chance = {"synapse F1": chance_of(made, "synapses"), "edge F1": chance_of(made, "graph")}
                yield {**row, "method": "one segment", **rows["one_segment"]}
                yield {**row, "method": "random", **rows["same_sizes_at_random"], **(chance if made else {})}


def scores_of(truth: np.ndarray, labels: np.ndarray, case: Case, skeletons) -> tuple[dict[str, dict], float]:
    """Scores of the labels and of chance, and the share of the expected run length."""
    from emlib.measure.contingency import contingency
    from emlib.measure.instances import chance_scores, fill_zero, score_table
    from emlib.measure.skeletons import NodeLabels, expected_run_length

    filled = fill_zero(labels)
    if case.in_plane:
        tables = [contingency(truth[i : i + 1], filled[i : i + 1]) for i in range(len(truth))]
    else:
        tables = [contingency(truth, filled)]
    each = [{"prediction": score_table(table), **chance_scores(table)} for table in tables]
    names = ("voi_split", "voi_merge", "voi", "arand")
    rows = {row: {name: float(np.mean([one[row][name] for one in each])) for name in names} for row in each[0]}
    if skeletons is None:
        return rows, float("nan")
    nodes = NodeLabels(skeletons, labels.shape)
    nodes.add(0, filled)
    return rows, expected_run_length(skeletons, nodes.ids, case.voxel_size_nm)["erl_ratio"]


def of_run(scores: dict) -> dict:
    """What the run itself says of its synapses and its graph."""
    synapses, graph = scores.get("synapses") or {}, scores.get("graph") or {}
    return {
        "synapse F1": synapses.get("f1", np.nan),
        "synapse AP": synapses.get("average_precision", np.nan),
        "edge F1": graph.get("f1", np.nan),
    }


def chance_of(scores: dict, what: str) -> float:
    """F1 by chance of synapses or graph."""
    return ((scores.get(what) or {}).get("chance") or {}).get("f1", float("nan"))


def named_model(text: str) -> tuple[str, str]:
    """``DATA=FILE`` as a pair."""
    name, _, file = text.partition("=")
    if name not in NAMES or not file:
        raise argparse.ArgumentTypeError(f"{text} is not DATA=FILE with DATA one of {', '.join(NAMES)}")
    return name, file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the phantom")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="data sets (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="rows (default: all)")
    model = {"nargs": "+", "default": [], "metavar": "DATA=FILE", "type": named_model}
    parser.add_argument("--model", help="networks of the rows experts, by data set", **model)
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs")
    parser.add_argument("--curve", action="store_true", help="draw splits against mergers over the bias instead")
    parser.add_argument("--boundaries", default="intensity", metavar="FILE", help="of --curve: the whole FIB-25 crop")
    z = {"type": int, "nargs": 2, "default": [0, 120], "metavar": ("FIRST", "END")}
    parser.add_argument("--contacts_z", help="of --curve: sections to learn contacts from and to draw", **z)
    parser.add_argument("--cost", action="store_true", help="seconds and memory of each stage instead")
    parser.add_argument("--repeats", type=int, default=3, help="of --cost (default: 3)")
    parser.add_argument("--model_path", metavar="FILE", help="network of --cost (default: one is trained)")
    parser.add_argument("--minutes", type=float, default=1.0, help="of that training (default: 1)")
    args = parser.parse_args()
    args.data = args.data.resolve()
    if args.cost:
        table = stage_costs.costs(args.repeats, args.model_path, args.minutes).round(2)
        print(table.to_string(index=False))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, medians of {args.repeats}")
        (args.outdir / "tables").mkdir(parents=True, exist_ok=True)
        table.to_csv(args.outdir / "tables" / "reconstruction_cost.csv", index=False)
        return
    if args.curve:
        table = agglomeration.curve(args.data, args.boundaries, args.outdir.resolve(), range(*args.contacts_z), seed=0)
        print(table.to_string(index=False))
        print(f"VOI in bits, fib25-medulla z 130-249; {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")
        table.to_csv(args.outdir / "tables" / "reconstruction_held_out.csv", index=False)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases: list[Callable[[], Case]] = []
        if (args.data / "fib25-medulla").is_dir():
            cases += [lambda v=v: volume(args.data, v) for v in VOLUMES if v in args.only]
            cases += [lambda: vnc(args.data, folder)] * ("drosophila-vnc" in args.only)
        else:
            print(f"no real data under {args.data}: only the phantom is scored")
        for seed in args.seeds if "phantom" in args.only else []:
            cases += [lambda s=seed, i=isotropic: phantom(s, i, folder) for isotropic in (False, True)]
        for number, case in enumerate(cases):
            rows += score(case(), folder / str(number), args.methods, MODELS | dict(args.model))
    table = pd.DataFrame(rows).round(3)
    print(table.to_string(index=False, na_rep="–"))
    print(f"VOI in bits; {os.cpu_count()} cores")
    (args.outdir / "tables").mkdir(parents=True, exist_ok=True)
    table.to_csv(args.outdir / "tables" / "reconstruction.csv", index=False)


if __name__ == "__main__":
    main()
