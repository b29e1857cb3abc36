"""Does refinement pay? K sections are replaced by truth, as a proofreader would, and other sections are scored.

    python benchmarks/refinement.py
    python benchmarks/refinement.py --data ../shared/data --only fib25-medulla --sections 5 --methods forest "U-Net"

- fib25-medulla: corrected sections lie in z 0-119, on which settings were chosen; z 130-249 is scored
- fib25-train: what settings were chosen on. z 0-119 alone, corrected sections in z 0-59, z 60-119 is scored
- phantom (40 x 8 x 8 nm): corrected sections are spread over the volume; those that no K corrects are scored
- default: the classical default, nothing learnt; watershed: the slice-wise baseline; forest: of pixels; edges: the
  forest of contacts on the classical boundaries; forest + edges: both; U-Net alone: self-training without
  corrections; U-Net: with them
- VOI in bits, predicted 0 filled from the nearest label of its section, truth 0 ignored, on the scored sections of one
  segmentation of the whole volume
- s: wall time of learning, classifying and segmenting; CPU s: the same without what other programs took
- last, the commands end to end as a user types them, on runs of 256 x 256 x 64 and 192 x 192 x 48 with 5 sections

Rows are kept in outputs/tables/refinement_rows.jsonl and not measured again unless --fresh says so, so that the table
can be made in pieces. Writes outputs/tables/refinement.csv.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NAMES = ("fib25-medulla", "fib25-train", "phantom", "end-to-end")
ROWS = "refinement_rows.jsonl"
AIM_S, AIM_UNET_MIN = 60.0, 10.0
AIMS = {"forest": 1.7, "forest + edges": 1.7, "U-Net": 1.4}  # bits of VOI on fib25-medulla from 5 sections
KS = (1, 3, 5, 10)
SAFE = ("--preset", "safe8gb")


@dataclass
class Case:
    """EM with truth, where corrections come from, and what is scored."""

    name: str
    em: np.ndarray  # preprocessed and aligned
    truth: np.ndarray
    voxel_size_nm: tuple[float, float, float]
    corrected: range
    scored: list[int]

    @cached_property
    def boundaries(self) -> np.ndarray:
        """Those that the pipeline makes of grey values."""
        from emlib.stages.boundaries import intensity_boundaries

        return intensity_boundaries(self.em, self.voxel_size_nm)

    @cached_property
    def labels(self) -> np.ndarray:
        """The pipeline's segmentation, before anything was corrected."""
        from emlib.stages.segment import segment

        return segment(self.em, self.voxel_size_nm, boundaries=self.boundaries)

    def corrections(self, sections: list[int]):
        """What a proofreader leaves of these sections."""
        from emlib.refine.corrections import Corrections

        return Corrections(tuple(sections), self.truth[sections].astype(np.int64))


class Result(NamedTuple):
    """A segmentation and what it took."""

    method: str
    labels: np.ndarray
    seconds: float
    cpu_seconds: float


def fib25(data: Path, part: str) -> Case:
    """The FIB-25 crop: corrections from z 0-119, scored on z 130-249; or the part that settings are chosen on."""
    import tifffile

    from emlib.stages.preprocess import preprocess

    folder = data / "fib25-medulla"
    em = preprocess(tifffile.imread(folder / "em_u8_zyx.tif"))
    truth = tifffile.imread(folder / "neurites_u16_zyx.tif").astype(np.int32)
    if part == "fib25-train":
        return Case(part, em[:120], truth[:120], (10, 10, 10), range(60), list(range(60, 120)))
    return Case(part, em, truth, (10, 10, 10), range(120), list(range(130, 250)))


def phantom(seed: int) -> Case:
    """A phantom as a run sees it: preprocessed, aligned, truth moved along."""
    from emlib.stages.align import align, apply_shifts
    from emlib.stages.preprocess import preprocess
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    made = make_phantom(PhantomSettings(shape=(64, 256, 256), seed=seed))
    em, shifts = align(preprocess(made.em))
    truth = apply_shifts(made.labels, shifts, order=0, fill=0)
    whole = range(len(em))
    touched = {z for count in KS for z in spread(count, whole)}
    return Case(f"phantom, seed {seed}", em, truth, (40, 8, 8), whole, [z for z in whole if z not in touched])


def spread(count: int, where: range) -> list[int]:
    """Sections evenly spread over a range, half a step from its ends."""
    return [where.start + int((i + 0.5) * len(where) / count) for i in range(count)]


def timed(method: str, function: Callable[[], np.ndarray]) -> Result:
    """Labels with the time that they took."""
    wall, cpu = time.perf_counter(), time.process_time()
    labels = function()
    return Result(method, labels, time.perf_counter() - wall, time.process_time() - cpu)


def unrefined(case: Case, name: str, sections: list[int], options: argparse.Namespace) -> Iterator[Result]:
    """What is there before anything was corrected."""
    from emlib.stages.segment import SegmentSettings, segment

    settings = SegmentSettings(segmenter="multicut" if name == "default" else name)
    yield timed(name, lambda: segment(case.em, case.voxel_size_nm, settings))


class Meter:
    """Wall and CPU seconds of each step of a refinement."""

    def __init__(self) -> None:
        self.steps: dict[str, np.ndarray] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a step."""
        before = np.array([time.perf_counter(), time.process_time()])
        yield
        self.steps[name] = np.array([time.perf_counter(), time.process_time()]) - before


def forests(case: Case, name: str, sections: list[int], options: argparse.Namespace) -> Iterator[Result]:
    """The two forests, with one training of pixels."""
    from emlib.refine.refining import RefineSettings, refine
    from emlib.stages.segment import segment

    settings, meter = RefineSettings(), Meter()
    corrections = case.corrections(sections)
    made = refine(case.em, case.voxel_size_nm, corrections, settings, with_edges=True, stage=meter.stage)
    print(f"  K {len(sections)}: {made.pixels.validation}, edges {made.edge_validation}", flush=True)
    edges = Result("forest + edges", made.labels, *sum(meter.steps.values()))
    pixels = meter.steps["learn"] + meter.steps["classify"]
    alone = timed("forest", lambda: segment(case.em, case.voxel_size_nm, settings.segment, made.boundaries))
    yield alone._replace(seconds=alone.seconds + pixels[0], cpu_seconds=alone.cpu_seconds + pixels[1])
    yield edges
    yield from other_biases(case, "forest", settings, made.boundaries, options.biases)


def contacts(case: Case, name: str, sections: list[int], options: argparse.Namespace) -> Iterator[Result]:
    """The forest of contacts on the boundaries of the pipeline."""
    from emlib.refine.edge_features import known_edges
    from emlib.refine.edge_forest import learn_edges
    from emlib.refine.edge_segmentation import cut_fragments, join_fragments
    from emlib.refine.refining import RefineSettings

    settings = RefineSettings()

    def segmented() -> np.ndarray:
        fragments = cut_fragments(case.em, case.boundaries, case.voxel_size_nm, settings.segment)
        known = known_edges(fragments.graph, fragments.ids, case.corrections(sections))
        edges, told, _ = learn_edges(fragments.describe(), known, settings.edges, 0)
        print(f"  K {len(sections)}: edges {told}", flush=True)
        return join_fragments(fragments, edges, settings.edges, settings.segment, known)

    yield timed(name, segmented)


def network(case: Case, name: str, sections: list[int], options: argparse.Namespace) -> Iterator[Result]:
    """The self-training, from corrected sections or from the segmentation alone."""
    from emlib.learn.training.settings import TrainPaths
    from emlib.refine.unet.selftrain import Conduct, Start, selftrain
    from emlib.refine.unet.settings import PRESETS
    from emlib.runs.settings import override

    settings = override(PRESETS[options.preset], options.set)
    corrections = case.corrections(sections) if sections else None
    start = Start(case.em, case.voxel_size_nm, case.labels, case.boundaries, corrections)
    meter = Meter()
    note = partial(print, " ", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = TrainPaths(Path(folder) / "model.pth")
        made = selftrain(start, settings, paths, Conduct(device="cpu", stage=meter.stage, note=note))
    yield Result(name, made.labels, *sum(meter.steps.values()))
    yield from other_biases(case, name, settings, made.boundaries, options.biases)


def other_biases(case: Case, name: str, settings, boundaries: np.ndarray, biases: list[float]) -> Iterator[Result]:
    """What else the same training would have given."""
    from emlib.runs.settings import override
    from emlib.stages.segment import segment

    for bias in biases:
        changed = override(settings, [f"segment.multicut.bias={bias}"]).segment
        labels = segment(case.em, case.voxel_size_nm, changed, boundaries)
        yield Result(f"{name}, bias {bias:g}", labels, float("nan"), float("nan"))


# What each row is made by; rows of one function come together.
METHODS: dict[str, Callable[..., Iterator[Result]]] = {
    "default": unrefined,
    "watershed": unrefined,
    "forest": forests,
    "forest + edges": forests,
    "edges": contacts,
    "U-Net alone": network,
    "U-Net": network,
}
FREE = ("default", "watershed", "U-Net alone")  # need no corrections


class Rows:
    """Rows that were measured, on disk; a later row replaces an earlier one of the same case, K and method."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.fresh, self.measured = path, fresh, set()
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows = {self.key(row): row for row in map(json.loads, lines)}

    @staticmethod
    def key(row: dict) -> tuple:
        """What tells rows apart."""
        return row["data"], row["K"], row["method"], row["settings"]

    def has(self, key: tuple) -> bool:
        """Whether there is no need to measure it."""
        return key in self.measured or (not self.fresh and key in self.rows)

    def add(self, row: dict) -> None:
        """Keep a row at once."""
        self.rows[self.key(row)] = row
        self.measured.add(self.key(row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def score(case: Case, options: argparse.Namespace, rows: Rows) -> None:
    """A row for each method and number of corrected sections."""
    from emlib.measure.instances import score_instances

    for count in [0, *options.sections]:
        sections = spread(count, case.corrected) if count else []
        for method in [name for name in options.methods if (name in FREE) == (count == 0)]:
            chosen = " ".join([options.preset, *options.set]) if METHODS[method] is network else ""
            if rows.has((case.name, count, method, chosen)):
                continue
            for result in METHODS[method](case, method, sections, options):
                told = score_instances(case.truth[case.scored], result.labels[case.scored])
                named = {"VOI split": "voi_split", "VOI merge": "voi_merge", "VOI": "voi", "ARAND": "arand"}
                scores = {name: round(told[key], 3) for name, key in named.items()}
                times = {"s": round(float(result.seconds), 1), "CPU s": round(float(result.cpu_seconds), 1)}
                about = {"data": case.name, "K": count, "method": result.method, "settings": chosen}
                rows.add({**about, **scores, **times})


def end_to_end(folder: Path) -> Iterator[str]:
    """Time of the commands on runs with 5 corrected sections."""
    commands = (
        ((256, 256, 64), "train_refine_rf.py", ("--edges",), AIM_S),
        ((192, 192, 48), "train_unet2d_selftrain.py", SAFE, 60 * AIM_UNET_MIN),
    )
    for shape, script, flags, aim in commands:
        run = folder / script
        cutout = ["--cutout", *map(str, shape), "--seed", "0"]
        run_script("run_pipeline.py", "--dataset", "sample://phantom", *cutout, "--quiet", "--outdir", run)
        truth = run / "data" / "truth_neurites_i32_zyx.npy"
        sections = map(str, spread(5, range(shape[2])))
        command = ["--slices", *sections, "--labels", truth, *flags, "--quiet", "--outdir", run]
        wall = time.perf_counter()
        _, peak = run_script(script, *command)
        seconds = time.perf_counter() - wall
        size = " x ".join(map(str, shape))
        yield f"{script} {' '.join(flags)}, {size}, 5 sections: {seconds:.1f} s (aim {aim:.0f}), {peak:.0f} MiB"


def shown(rows: Rows) -> pd.DataFrame:
    """The table, in the order of cases, K and methods."""
    table = pd.DataFrame(rows.rows.values())
    order = {name: number for number, name in enumerate(METHODS)}
    table["_place"] = table["method"].map(lambda name: order.get(name.split(",")[0], len(order)))
    table = table.sort_values(["data", "K", "_place", "method", "settings"], ignore_index=True, kind="stable")
    return table.drop(columns="_place")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--sections", type=int, nargs="+", default=list(KS), metavar="K")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=[name for name in NAMES if name != "fib25-train"])
    parser.add_argument("--preset", default="medium", help="of the self-training (default: medium)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the self-training")
    parser.add_argument("--biases", type=float, nargs="+", default=[], help="segment with these as well, to choose one")
    parser.add_argument("--fresh", action="store_true", help="measure again what is on record")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs")
    args = parser.parse_args()
    rows = Rows(args.outdir / "tables" / ROWS, args.fresh)
    for name in args.only:
        if name == "phantom":
            score(phantom(args.seed), args, rows)
        elif name.startswith("fib25"):
            if (args.data / "fib25-medulla").is_dir():
                score(fib25(args.data, name), args, rows)
            else:
                print(f"no real data under {args.data}: {name} is left out")
    if rows.rows:
        table = shown(rows)
        print(table.to_string(index=False))
        (args.outdir / "tables").mkdir(parents=True, exist_ok=True)
        table.to_csv(args.outdir / "tables" / "refinement.csv", index=False)
        for row in table[(table["data"] == "fib25-medulla") & (table["K"] == 5)].to_dict("records"):
            if (aim := AIMS.get(row["method"])) is not None:
                print(f"{row['method']}, 5 sections: {row['VOI']:.2f} bits, aim {aim}")
    if "end-to-end" in args.only:
        with tempfile.TemporaryDirectory() as name:
            for line in end_to_end(Path(name)):
                print(line, flush=True)
    print(f"VOI in bits; {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
