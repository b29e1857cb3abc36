"""Does refinement pay? K sections are replaced by truth, as a proofreader would, and other sections are scored.

    python benchmarks/refinement.py
    python benchmarks/refinement.py --data ../shared/data --only fib25-medulla --sections 5

- fib25-medulla: corrected sections lie in z 0-119, on which settings were chosen; z 130-249 is scored
- phantom (40 x 8 x 8 nm): corrected sections are spread over the volume; those that no K corrects are scored
- default: the classical default, nothing learnt; watershed: the slice-wise baseline; RF: forest of pixels; RF + edges:
  with the forest of contacts too
- VOI in bits, predicted 0 filled from the nearest label of its section, truth 0 ignored, on the scored sections of one
  segmentation of the whole volume
- s: wall time of learning, classifying and segmenting; CPU s: the same without what other programs took
- last, the command end to end as a user types it: train_refine_rf.py on a run of 256 x 256 x 64 with 5 sections

Writes outputs/tables/refinement.csv.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NAMES = ("fib25-medulla", "phantom", "end-to-end")
AIM_S = 60.0


class Case(NamedTuple):
    """EM with truth, where corrections come from, and what is scored."""

    name: str
    em: np.ndarray  # preprocessed and aligned
    truth: np.ndarray
    voxel_size_nm: tuple[float, float, float]
    corrected: range
    scored: list[int]


class Result(NamedTuple):
    """A segmentation and what it took."""

    method: str
    labels: np.ndarray
    seconds: float
    cpu_seconds: float


def fib25(data: Path, sections: list[int]) -> Case:
    """The FIB-25 crop: corrections from z 0-119, scored on z 130-249."""
    import tifffile

    from emlib.stages.preprocess import preprocess

    folder = data / "fib25-medulla"
    em = preprocess(tifffile.imread(folder / "em_u8_zyx.tif"))
    truth = tifffile.imread(folder / "neurites_u16_zyx.tif").astype(np.int32)
    return Case("fib25-medulla", em, truth, (10, 10, 10), range(120), list(range(130, 250)))


def phantom(seed: int, sections: list[int]) -> Case:
    """A phantom as a run sees it: preprocessed, aligned, truth moved along."""
    from emlib.stages.align import align, apply_shifts
    from emlib.stages.preprocess import preprocess
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    made = make_phantom(PhantomSettings(shape=(64, 256, 256), seed=seed))
    em, shifts = align(preprocess(made.em))
    truth = apply_shifts(made.labels, shifts, order=0, fill=0)
    whole = range(len(em))
    touched = {z for count in sections for z in spread(count, whole)}
    return Case(f"phantom, seed {seed}", em, truth, (40, 8, 8), whole, [z for z in whole if z not in touched])


def spread(count: int, where: range) -> list[int]:
    """Sections evenly spread over a range, half a step from its ends."""
    return [where.start + int((i + 0.5) * len(where) / count) for i in range(count)]


def timed(method: str, function: Callable[[], np.ndarray]) -> Result:
    """Labels with the time that they took."""
    wall, cpu = time.perf_counter(), time.process_time()
    labels = function()
    return Result(method, labels, time.perf_counter() - wall, time.process_time() - cpu)


def unrefined(case: Case) -> Iterator[Result]:
    """What is there before anything was corrected."""
    from emlib.stages.segment import SEGMENTERS, SegmentSettings, segment

    for name in SEGMENTERS:
        settings = SegmentSettings(segmenter=name)
        shown = "default" if name == SEGMENTERS[0] else name
        yield timed(shown, lambda s=settings: segment(case.em, case.voxel_size_nm, s))


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


def forests(case: Case, sections: list[int]) -> Iterator[Result]:
    """The two forests, with one training of pixels."""
    from emlib.refine.corrections import Corrections
    from emlib.refine.refining import RefineSettings, refine
    from emlib.stages.segment import segment

    settings, meter = RefineSettings(), Meter()
    corrections = Corrections(tuple(sections), case.truth[sections])
    made = refine(case.em, case.voxel_size_nm, corrections, settings, with_edges=True, stage=meter.stage)
    print(f"  K {len(sections)}: {made.pixels.validation}, edges {made.edge_validation}", flush=True)
    edges = Result("RF + edges", made.labels, *sum(meter.steps.values()))
    pixels = meter.steps["learn"] + meter.steps["classify"]
    alone = timed("RF", lambda: segment(case.em, case.voxel_size_nm, settings.segment, made.boundaries))
    yield alone._replace(seconds=alone.seconds + pixels[0], cpu_seconds=alone.cpu_seconds + pixels[1])
    yield edges


METHODS: tuple[Callable[[Case, list[int]], Iterator[Result]], ...] = (forests,)  # each from the corrected sections


def score(case: Case, counts: list[int]) -> Iterator[dict]:
    """A row for each method and number of corrected sections."""
    from emlib.measure.instances import score_instances

    def row(count: int, result: Result) -> dict:
        told = score_instances(case.truth[case.scored], result.labels[case.scored])
        named = {"VOI split": "voi_split", "VOI merge": "voi_merge", "VOI": "voi", "ARAND": "arand"}
        scores = {name: round(told[key], 3) for name, key in named.items()}
        times = {"s": round(result.seconds, 1), "CPU s": round(result.cpu_seconds, 1)}
        found = {"data": case.name, "K": count, "method": result.method, **scores, **times}
        print(found, flush=True)
        return found

    for result in unrefined(case):
        yield row(0, result)
    for count in counts:
        for method in METHODS:
            for result in method(case, spread(count, case.corrected)):
                yield row(count, result)


def end_to_end(folder: Path) -> str:
    """Time of the command on a run of 256 x 256 x 64 with 5 corrected sections."""
    run = folder / "run"
    shape = ["--cutout", "256", "256", "64", "--seed", "0"]
    run_script("run_pipeline.py", "--dataset", "sample://phantom", *shape, "--quiet", "--outdir", run)
    truth = run / "data" / "truth_neurites_i32_zyx.npy"
    sections = map(str, spread(5, range(64)))
    command = ["--slices", *sections, "--labels", truth, "--edges", "--quiet", "--outdir", run]
    wall = time.perf_counter()
    _, peak = run_script("train_refine_rf.py", *command)
    seconds = time.perf_counter() - wall
    return f"train_refine_rf.py --edges, 256 x 256 x 64, 5 sections: {seconds:.1f} s (aim {AIM_S:.0f}), {peak:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--sections", type=int, nargs="+", default=[1, 3, 5, 10], metavar="K")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs")
    args = parser.parse_args()
    rows = []
    if "fib25-medulla" in args.only:
        if (args.data / "fib25-medulla").is_dir():
            rows += score(fib25(args.data, args.sections), args.sections)
        else:
            print(f"no real data under {args.data}: only the phantom is scored")
    if "phantom" in args.only:
        rows += score(phantom(args.seed, args.sections), args.sections)
    if rows:
        table = pd.DataFrame(rows)
        print(table.to_string(index=False))
        (args.outdir / "tables").mkdir(parents=True, exist_ok=True)
        table.to_csv(args.outdir / "tables" / "refinement.csv", index=False)
    if "end-to-end" in args.only:
        with tempfile.TemporaryDirectory() as name:
            print(end_to_end(Path(name)))
    print(f"VOI in bits; {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
