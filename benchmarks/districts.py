"""How far is a partition in districts from the partition at once, and what does it leave to be done at once?

python benchmarks/districts.py --data ../shared/data --outdir outputs/districts
python benchmarks/districts.py --only phantom --side 320

FIB-25 (z 0-119 unless --sections says otherwise) and a phantom of sections are cut into fragments in blocks; then their
graphs are partitioned at once and in small districts with several margins, on one level or more. Printed: districts of
each level, share of the contacts that it leaves, bits of VOI between the two partitions, and VOI of each against the
truth.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
TRIALS = {  # districts and margins (z, y, x), levels
    "fib25": [
        *[((192,) * 3, (96,) * 3, 1), ((96,) * 3, (96,) * 3, 2), ((64,) * 3, (48,) * 3, 2), ((48,) * 3, (48,) * 3, 3)],
        *[((96,) * 3, (48,) * 3, 1), ((96,) * 3, (0,) * 3, 1)],
    ],
    "phantom": [
        *[((32, 160, 160), (16, 128, 128), 1), ((16, 160, 160), (16, 96, 96), 2), ((16, 80, 80), (16, 128, 128), 2)],
        *[((16, 80, 80), (8, 64, 64), 2), ((32, 160, 160), (0, 0, 0), 1)],
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "districts")
    parser.add_argument("--sections", type=int, default=120, help="of FIB-25, from z 0")
    parser.add_argument("--side", type=int, default=320, help="pixels of the sections of the phantom, of which 64 are")
    parser.add_argument("--only", choices=tuple(TRIALS))
    args = parser.parse_args()
    rows = []
    for name, em, truth, size in volumes(args):
        if args.only in (None, name):
            rows += compare(name, em, truth, size, args.outdir / name)
            pd.DataFrame(rows).to_csv(args.outdir / "districts.csv", index=False)
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def volumes(args: argparse.Namespace):
    """Yield name, grey values, truth and voxel size of each volume."""
    from tifffile import imread

    from emlib.volumes.phantom import PhantomSettings, make_phantom

    if args.only != "phantom":
        folder = args.data / "fib25-medulla"
        em, truth = (imread(folder / f"{name}_zyx.tif")[: args.sections] for name in ("em_u8", "neurites_u16"))
        yield "fib25", em, truth, (10.0, 10.0, 10.0)
    if args.only != "fib25":
        made = make_phantom(PhantomSettings(shape=(64, args.side, args.side), seed=3))
        yield "phantom", made.em, made.labels, (40.0, 8.0, 8.0)


def compare(name: str, em: np.ndarray, truth: np.ndarray, size: tuple, outdir: Path) -> list[dict]:
    """Partition the graph of a volume at once and in districts."""
    from emlib.blockwise import districts, flood, partition, segmenting
    from emlib.blockwise.contracted import contacts_of
    from emlib.blockwise.grid import name as block_name
    from emlib.stages.segment import SegmentSettings

    engine = prepared(em, size, outdir)
    partition.MOST_EDGES = 10**9  # at once, while the fragments are made
    segmenting.intensity_boundaries(engine, SegmentSettings().boundaries)
    segmenting.neurites(engine, SegmentSettings())
    site, blocks = engine.site, segmenting.blocks_of(engine)
    local, rank = flood.read_fragments(site, tuple(slice(0, n) for n in site.seen))
    fragments, true = rank[local], np.asarray(truth, np.int64)
    rows = []
    for segmenter in ("multicut", "gasp"):
        settings = SegmentSettings(segmenter=segmenter)
        told = segmenting.weighed(engine, settings)
        edges, enclosed = sum(one["edges"] for one in told), settings.multicut.min_enclosed
        partition.MOST_EDGES = 10**9
        partition.solve(engine, blocks, told, segmenter, enclosed)
        whole = np.array(site.load("neurite"), np.int64)[fragments]
        row = {"volume": name, "contacts": edges, "segmenter": segmenter}
        rows.append({**row, "districts": "at once", "voi_truth": voi(true, whole)})
        print(rows[-1], flush=True)
        partition.MOST_EDGES = 0
        for district, margin, levels in TRIALS[name]:
            districts.LEVELS = levels
            districts.SOLID = districts.FLAT = district
            districts.SOLID_MARGIN = districts.FLAT_MARGIN = margin
            start = time.process_time()
            partition.solve(engine, blocks, told, segmenter, enclosed)
            seconds = time.process_time() - start
            found = np.array(site.load("neurite"), np.int64)[fragments]
            done = [n for n in range(levels) if not n or len(districts.districts(site, n)) > 1]
            left = [sum(len(contacts_of(site, n + 1, block_name(box))[0]) for box in blocks) / edges for n in done]
            how = {"districts": " ".join(map(str, district)), "margin": " ".join(map(str, margin))}
            count = {"number": "+".join(str(len(districts.districts(site, n))) for n in done)}
            count["left"] = " ".join(f"{share:.3f}" for share in left)
            scores = {"voi_between": voi(whole, found), "voi_truth": voi(true, found), "seconds": round(seconds, 1)}
            rows.append({**row, **how, **count, **scores})
            print(rows[-1], flush=True)
    return rows


def prepared(em: np.ndarray, size: tuple, outdir: Path):
    """Return an engine whose preprocessed EM is written."""
    from emlib.blockwise import sections
    from emlib.blockwise.engine import Engine, Here
    from emlib.blockwise.site import Site
    from emlib.stages.preprocess import PreprocessSettings

    block = tuple(-(-n // 2) for n in em.shape)
    site = Site(str(outdir / "work"), str(outdir / "volume.zarr"), em.shape, block, size)
    site.create("raw", np.uint8)
    for box in sections.layers(site):
        site.write("raw", box, em[box])
    site.create("em", np.float32)
    engine = Engine(site, Here(), quiet=True)
    told = engine.run("preprocess", sections.preprocess_layer, (PreprocessSettings(), "em"), sections.layers(site))
    flat = {z for one in told for z in one["flat"]}
    kept = tuple(z for z in range(len(em)) if z not in flat)
    engine.site = replace(site, kept=kept if flat else None)
    return engine


def voi(first: np.ndarray, second: np.ndarray) -> float:
    """Variation of information, bits; label 0 of the first says nothing."""
    from emlib.measure.contingency import contingency
    from emlib.measure.instances import score_table

    return round(score_table(contingency(first, second))["voi"], 4)


if __name__ == "__main__":
    sys.exit(main())
