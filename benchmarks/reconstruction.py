"""Segmentation quality of the default segmenter and the slice-wise baseline, on every data set with neurite truth.

    python benchmarks/reconstruction.py
    python benchmarks/reconstruction.py --data ../shared/data --seeds 0 1 2

The stages run as in run_pipeline.py: preprocess, align (unless near isotropic; the truth moves with the sections),
segment. One set of defaults everywhere, adapted by voxel size alone, chosen on fib25-medulla z 0-119, larval-vnc-3d
z 0-6, drosophila-vnc train sections and phantom seed 3; no setting was chosen from the other rows. Predicted 0
is filled from the nearest label of the same section. Writes outputs/tables/reconstruction.csv.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Case:
    """A volume with truth; ``parts`` are the ranges of z that are scored, by name."""

    name: str
    em: np.ndarray
    truth: np.ndarray
    voxel_size_nm: tuple[float, float, float]
    parts: dict[str, list[int]]
    in_plane: bool = False  # truth ids do not continue across sections: score each section, report the mean


def volumes(data: Path) -> Iterator[Case]:
    """The two labelled real volumes, whole and by the part that settings were chosen on."""
    import tifffile

    for name, labels, size, chosen, held in (
        ("fib25-medulla", "neurites_u16_zyx.tif", (10, 10, 10), range(120), range(130, 250)),
        ("larval-vnc-3d", "neurites_u8_zyx.tif", (50, 4, 4), range(7), range(7, 15)),
    ):
        em, truth = tifffile.imread(data / name / "em_u8_zyx.tif"), tifffile.imread(data / name / labels)
        parts = {
            "whole": list(range(len(em))),
            f"z {chosen[0]}-{chosen[-1]} (chosen on)": list(chosen),
            f"z {held[0]}-{held[-1]} (held out)": list(held),
        }
        yield Case(name, em, truth, size, parts)


def vnc(data: Path) -> Case:
    """The drosophila-vnc stack; truth in each section: connected components of non-membrane pixels."""
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
    order = sorted(em)
    stacks = [np.stack([source[z] for z in order]) for source in (em, truth)]
    return Case("drosophila-vnc, in plane", *stacks, (50, 4.6, 4.6), parts, in_plane=True)


def phantom(seed: int, voxel_size_nm, shape) -> Case:
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    made = make_phantom(PhantomSettings(seed=seed, shape=shape, voxel_size_nm=voxel_size_nm))
    kind = "isotropic" if voxel_size_nm[0] == voxel_size_nm[1] else "anisotropic"
    chosen = " (chosen on)" if seed == 3 else ""
    return Case(f"phantom {kind}", made.em, made.labels, voxel_size_nm, {f"seed {seed}{chosen}": list(range(shape[0]))})


def score(case: Case) -> Iterator[dict]:
    """Segment with each method and score each part."""
    from emlib.measure.instances import score_instances
    from emlib.stages.align import align, apply_shifts
    from emlib.stages.boundaries import near_isotropic
    from emlib.stages.preprocess import preprocess
    from emlib.stages.segment import SEGMENTERS, SegmentSettings, segment

    em, truth = preprocess(case.em), case.truth
    if not near_isotropic(case.voxel_size_nm):  # as the command does; truth moves with the sections
        em, shifts = align(em)
        truth = apply_shifts(truth.astype(np.int32), shifts, order=0, fill=0)
    for segmenter in SEGMENTERS:
        start = time.perf_counter()
        labels = segment(em, case.voxel_size_nm, SegmentSettings(segmenter=segmenter))
        seconds = time.perf_counter() - start
        for part, z in case.parts.items():
            if case.in_plane:
                each = pd.DataFrame([score_instances(truth[i], labels[i]) for i in z])
                scores = each.mean().to_dict()
            else:
                scores = score_instances(truth[z], labels[z])
            names = ("voi_split", "voi_merge", "voi", "arand")
            yield {
                "data": case.name,
                "part": part,
                "segmenter": segmenter,
                **{name: round(scores[name], 3) for name in names},
                "seconds": round(seconds, 2),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="of the phantom")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs")
    args = parser.parse_args()
    rows = []
    if (args.data / "fib25-medulla").is_dir():
        for case in [*volumes(args.data), vnc(args.data)]:
            rows += score(case)
    else:
        print(f"no real data under {args.data}: only the phantom is scored")
    for seed in args.seeds:
        rows += score(phantom(seed, (40.0, 8.0, 8.0), (64, 256, 256)))
        rows += score(phantom(seed, (10.0, 10.0, 10.0), (128, 128, 128)))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    print(f"VOI in bits; {os.cpu_count()} cores")
    (args.outdir / "tables").mkdir(parents=True, exist_ok=True)
    table.to_csv(args.outdir / "tables" / "reconstruction.csv", index=False)


if __name__ == "__main__":
    main()
