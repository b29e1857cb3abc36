"""Time of one merge and one split, the journal on disk included, on volumes of random cells.

    python benchmarks/proofreading.py
    python benchmarks/proofreading.py --shapes 64 256 256 --repeats 9

Neurites are columns that wander through the sections: nearest of random points in the plane, which move by a pixel or
two per section, with a boundary probability between them. A split cuts between two clicks far apart in the neurite. The
neurites of median size are measured, and "largest" is one that was first merged from up to 31 all over the volume,
whose box is nearly the volume. Wall time is what a person waits; CPU time is what it takes where nothing else runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from emlib.proofread import Edit, Session
from emlib.runs.artefacts import Outputs

VOXEL = (40.0, 8.0, 8.0)
AREA = 1500  # pixels of a neurite in a section
AIMS = {(64, 256, 256): 0.15, (100, 1024, 1024): 1.0}


def make_run(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write labels and boundary probability of a volume of cells."""
    rng = np.random.default_rng(0)
    depth, height, width = shape
    points = rng.random((height * width // AREA, 2)) * (height, width)
    pixels = np.stack(np.indices((height, width)), -1).reshape(-1, 2)
    labels, boundary = np.empty(shape, np.int32), np.empty(shape, np.float16)
    for z in range(depth):
        near, which = cKDTree(points).query(pixels, k=2)
        labels[z] = which[:, 0].reshape(height, width) + 1
        ridge = np.exp(-(((near[:, 1] - near[:, 0]) / 4) ** 2)).reshape(height, width)
        boundary[z] = np.clip(ridge + rng.normal(0, 0.05, ridge.shape), 0, 1)
        points += rng.normal(0, 1.5, points.shape)
    outputs = Outputs(folder)
    outputs.array("neurite_labels_i32_zyx", labels, "labels", voxel_size_nm=VOXEL)
    outputs.array("boundaries_f16_zyx", boundary, "boundaries", voxel_size_nm=VOXEL)


def ends(session: Session, neurite: int) -> list:
    """Two clicks, in the first and in the last section of a neurite."""
    z0, z1, *_ = session.boxes[neurite]
    found = [np.argwhere(session.labels[z] == neurite) for z in (z0, z1 - 1)]
    return [[[z, *map(int, at[len(at) // 2])]] for z, at in zip((z0, z1 - 1), found, strict=True)]


def timed(session: Session, edit: Edit) -> tuple[float, float]:
    """Seconds of wall and of CPU time for an edit; it is undone afterwards."""
    wall, cpu = time.perf_counter(), time.process_time()
    session.apply(edit)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    session.undo()
    return taken


def measure(session: Session, repeats: int, aim: float | None) -> None:
    """Print a row per operation and neurite."""
    ids = sorted(session.boxes.ids(), key=session.boxes.voxels)
    usual = ids[len(ids) // 2 - repeats : len(ids) // 2 + repeats]
    rng = np.random.default_rng(1)
    big = int(ids[-1])
    for other in rng.choice(ids[:-1], min(30, len(ids) // 2), replace=False):
        if int(other) not in usual:
            session.apply(Edit("merge", {"keep": big, "gone": int(other)}))
    keep = usual[-1]
    for name, chosen in (("median", usual[:repeats]), ("largest", [big] * repeats)):
        for operation in ("merge", "split"):
            times = []
            for neurite in chosen:
                arguments = {"keep": keep, "gone": neurite}
                if operation == "split":
                    arguments = {"neurite": neurite, "seeds": ends(session, neurite)}
                times.append(timed(session, Edit(operation, arguments)))
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            z0, z1, y0, y1, x0, x1 = session.boxes[chosen[0]]
            size = f"{x1 - x0} × {y1 - y0} × {z1 - z0}"
            line = f"{operation:7}{name:9}{session.boxes.voxels(chosen[0]):>12,}{size:>20}{wall:9.3f} s{cpu:9.3f} s"
            print(line + (f"{aim:9.2f} s" if aim else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, nargs="+", default=[64, 256, 256, 100, 1024, 1024], help="Z Y X …")
    parser.add_argument("--repeats", type=int, default=5, help="per row (default: 5)")
    args = parser.parse_args()
    for shape in zip(*[iter(args.shapes)] * 3, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            make_run(Path(folder), shape)
            start = time.perf_counter()
            with Session.open(folder) as session:
                opened = time.perf_counter() - start
                count = len(session.boxes)
                print(f"\n{' × '.join(map(str, shape[::-1]))} voxels, {count} neurites, opened in {opened:.1f} s")
                print(f"{'edit':7}{'neurite':9}{'voxels':>12}{'box x y z':>20}{'wall':>11}{'CPU':>11}{'aim':>11}")
                measure(session, args.repeats, AIMS.get(shape))
    print(f"\nmedians of {args.repeats}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
