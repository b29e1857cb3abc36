"""Proofreading: time of edits and predictions, whether the first suspects are true errors, whether the chosen sections
stand for all.

    python benchmarks/proofreading.py
    python benchmarks/proofreading.py --only edits --shapes 64 256 256 --repeats 9

**Edits**: one merge and one split, the journal on disk included, on volumes of random cells: columns that wander
through the sections, with a boundary probability between them.

- median: neurites of median size, cut between two clicks far apart
- scattered: merged from up to 31 cells all over the volume; the clicks lie in its first and its last section
- connected: merged from up to 31 cells that touch, from one corner to the other; "far": clicks at its two ends, "near":
  on either side of a border, as one clicks where a merge is seen

Wall time is what a person waits; CPU time is what it takes where nothing else runs.

**Live**: a prediction of the section in view, or of a box in the middle of a larger volume, by each bundled model or
those of --models; the first one of a model is left out.

**Suspects**: of the first 50 on a default reconstruction, how many are true errors (truth says that the two are one,
or that the two parts are two), against the same candidates in random order (mean and 95 % of 1000 orders) and by size.
VOI: bits before and after those of the 50 that are true are put right. Weights were learnt on fib25-medulla z 0-119 and
other phantoms (benchmarks/suspects.py).

**Slices**: mean distance of a section to the nearest chosen one, against evenly spaced and random ones (mean and 95 %
of 1000 draws), in the description that the choice is made by and in one that it does not know: mean absolute difference
of sorted grey values.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.spatial import cKDTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NAMES = ("edits", "live", "suspects", "slices")
VOXEL = (40.0, 8.0, 8.0)
AREA = 1500  # pixels of a neurite in a section
CELLS = 31  # of a merged neurite
AIMS = {(64, 256, 256): 0.15, (100, 1024, 1024): 1.0}
AIM_LIVE = 2.0
FIRST, ORDERS = 50, 1000


def make_run(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write labels and boundary probability of a volume of cells."""
    from emlib.runs.artefacts import Outputs

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


def middle(labels: np.ndarray, neurite: int, z: int) -> list:
    """A click in a neurite, in section z."""
    at = np.argwhere(labels[z] == neurite)
    return [[z, *map(int, at[((at - at.mean(0)) ** 2).sum(1).argmin()])]]


def chain(labels: np.ndarray) -> list[int]:
    """Cells that touch, from one corner to the other, and others beside them; the first two and the last are ends."""
    pairs = np.concatenate([np.stack([s[:, 1:].ravel(), s[:, :-1].ravel()], 1) for s in labels[::8]])
    first, second = np.unique(np.sort(pairs, axis=1), axis=0).T
    keep = first != second
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(keep.sum()), (first[keep], second[keep])), shape=(size, size)).tocsr()
    z = len(labels) // 2
    start, end = int(labels[z, 0, 0]), int(labels[z, -1, -1])
    _, above = breadth_first_order(graph, start, directed=False)
    path = [end]
    while path[-1] != start:
        path.append(int(above[path[-1]]))
    beside = [int(n) for cell in path for n in (graph + graph.T)[[cell]].indices]
    return list(dict.fromkeys(path + beside))[: max(CELLS, len(path))], len(path)


def timed(session, edit) -> tuple[float, float]:
    """Seconds of wall and of CPU time for an edit; it is undone afterwards."""
    wall, cpu = time.perf_counter(), time.process_time()
    session.apply(edit)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    session.undo()
    return taken


def row(session, name: str, edits: list, neurite: int, aim: float | None) -> None:
    """Time some edits and print their medians."""
    wall, cpu = (statistics.median(column) for column in zip(*(timed(session, e) for e in edits), strict=True))
    z0, z1, y0, y1, x0, x1 = session.boxes[neurite]
    size = f"{x1 - x0} × {y1 - y0} × {z1 - z0}"
    line = f"{edits[0].operation:7}{name:18}{session.boxes.voxels(neurite):>12,}{size:>20}{wall:9.3f} s{cpu:9.3f} s"
    print(line + (f"{aim:9.2f} s" if aim else ""), flush=True)


def measure_edits(session, repeats: int, aim: float | None) -> None:
    """Print a row per operation and neurite."""
    from emlib.proofread import Edit

    def ends(neurite: int) -> list:
        z0, z1, *_ = session.boxes[neurite]
        return [middle(session.labels, neurite, z) for z in (z0, z1 - 1)]

    cells, steps = chain(session.labels)
    depth = len(session.labels)
    far = [middle(session.labels, cells[i], z) for i, z in ((0, 0), (steps - 1, depth - 1))]
    near = [middle(session.labels, cells[i], depth // 2) for i in (steps // 2, steps // 2 + 1)]
    ids = sorted(session.boxes.ids(), key=session.boxes.voxels)
    usual = [i for i in ids[len(ids) // 4 :] if i not in cells][: repeats + 1]
    keep = usual.pop()
    row(session, "median", [Edit("merge", {"keep": keep, "gone": i}) for i in usual], usual[0], aim)
    row(session, "median", [Edit("split", {"neurite": i, "seeds": ends(i)}) for i in usual], usual[0], aim)

    others = [i for i in ids if i not in {*cells, *usual, keep}]
    chosen = np.random.default_rng(1).choice(others, min(CELLS, len(others) // 2), replace=False).tolist()
    for name, group in (("scattered", chosen), ("connected", cells)):
        for gone in group[1:]:
            session.apply(Edit("merge", {"keep": group[0], "gone": gone}))
        row(session, name, [Edit("merge", {"keep": keep, "gone": group[0]})] * repeats, group[0], aim)
    clicks = {"scattered": ends(chosen[0]), "connected, far": far, "connected, near": near}
    for name, seeds in clicks.items():
        neurite = chosen[0] if name == "scattered" else cells[0]
        row(session, name, [Edit("split", {"neurite": neurite, "seeds": seeds})] * repeats, neurite, aim)


def edits(shapes: list[int], repeats: int) -> None:
    """Time merges and splits."""
    from emlib.proofread import Session

    for shape in zip(*[iter(shapes)] * 3, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            make_run(Path(folder), shape)
            start = time.perf_counter()
            with Session.open(folder) as session:
                opened, count = time.perf_counter() - start, len(session.boxes)
                print(f"\n{' × '.join(map(str, shape[::-1]))} voxels, {count} neurites, opened in {opened:.1f} s")
                print(f"{'edit':7}{'neurite':18}{'voxels':>12}{'box x y z':>20}{'wall':>11}{'CPU':>11}{'aim':>11}")
                measure_edits(session, repeats, AIMS.get(shape))
    print(f"\nmedians of {repeats}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def live(models: list[str], repeats: int) -> None:
    """Time predictions of a section and of a box."""
    from emlib.proofread.live import bundled_models, load_model, predict_box
    from emlib.volumes.volume import VolumeSource

    em = np.random.default_rng(0).integers(0, 256, (8, 1024, 1024), np.uint8)
    source = VolumeSource("noise", em.shape, em.dtype, em.__getitem__)
    boxes = {"section 256 × 256": (0, 1, 384, 640, 384, 640), "section 1024 × 1024": (0, 1, 0, 1024, 0, 1024)}
    boxes["box 256 × 256 × 8"] = (0, 8, 384, 640, 384, 640)
    print(f"\n{'model':28}{'in view':22}{'wall':>11}{'CPU':>11}{'aim':>11}")
    for name in models or bundled_models():
        model = load_model(name)
        for title, box in boxes.items():
            taken = []
            for _ in range(repeats + 1):
                wall, cpu = time.perf_counter(), time.process_time()
                predict_box(model, source, box, VOXEL)
                taken.append((time.perf_counter() - wall, time.process_time() - cpu))
            wall, cpu = (statistics.median(column) for column in zip(*taken[1:], strict=True))
            print(f"{model.name:28}{title:22}{wall:9.3f} s{cpu:9.3f} s{AIM_LIVE:9.2f} s", flush=True)


def suspects(cases: list) -> None:
    """Score the queue of suspects on each case."""
    from suspects import Judge

    from emlib.proofread.boxes import Boxes
    from emlib.proofread.suspects import find_suspects

    rng, rows = np.random.default_rng(0), []
    for case in cases:
        boxes, start, cpu = Boxes(case.labels), time.perf_counter(), time.process_time()
        find_suspects(case.labels, case.boundary, boxes, case.voxel_size_nm)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        judge = Judge(case)
        pool = judge.candidates()
        draws = [rng.permutation(len(pool))[:FIRST] for _ in range(ORDERS)]
        share = [pool["true"].to_numpy()[draw].mean() for draw in draws]
        low, high = np.quantile(share, (0.025, 0.975))

        def after(first: pd.DataFrame, judge=judge) -> float:
            return judge.voi_after(first[first["true"]])

        by_size = pool.sort_values("size", ascending=False, kind="stable").head(FIRST)
        ours = pool.head(FIRST)
        rows.append({"data": case.name, "candidates": len(pool), "true of all": round(float(pool["true"].mean()), 3)})
        rows[-1] |= {"ranked": ours["true"].mean(), "random": f"{np.mean(share):.2f} ({low:.2f}-{high:.2f})"}
        rows[-1] |= {"by size": by_size["true"].mean(), "VOI": round(after(pool.head(0)), 3)}
        rows[-1] |= {"VOI, ranked": round(after(ours), 3), "VOI, by size": round(after(by_size), 3)}
        rows[-1] |= {"VOI, random": round(float(np.mean([after(pool.iloc[draw]) for draw in draws[:20]])), 3)}
        rows[-1] |= {"s": round(seconds, 1), "CPU s": round(cpu, 1)}
        print(pd.DataFrame(rows[-1:]).to_string(index=False), flush=True)
        kinds = ours.groupby("kind")["true"].agg(["size", "sum"])
        print(case.name, "kinds of the first:", {k: f"{int(r['sum'])}/{int(r['size'])}" for k, r in kinds.iterrows()})
    print(pd.DataFrame(rows).to_string(index=False), flush=True)


def chosen_sections(cases: list, counts: tuple[int, ...] = (3, 5, 10)) -> None:
    """Score the choice of sections on each case."""
    from emlib.proofread.representative import REPRESENTS, choose_slices, describe_sections

    rng, rows = np.random.default_rng(0), []
    for case in cases:
        described = describe_sections(case.em, case.boundary, case.voxel_size_nm)
        sorted_grey = np.sort(case.em.reshape(len(case.em), -1)[:, ::37], axis=1)
        apart = {
            "description": np.linalg.norm(described[:, None] - described[None], axis=2),
            "grey values": np.stack([np.abs(sorted_grey - one).mean(axis=1) for one in sorted_grey]),
        }
        for count in counts:
            table = choose_slices(case.em, case.boundary, count, case.voxel_size_nm)
            picks = {"chosen": table["z"].to_numpy(), "even": (np.arange(count) + 0.5) * len(case.em) // count}
            for name, distance in apart.items():
                draws = [rng.choice(len(case.em), count, replace=False) for _ in range(ORDERS)]
                drawn = np.array([distance[:, pick].min(axis=1).mean() for pick in draws])
                low, high = np.quantile(drawn, (0.025, 0.975)) / drawn.mean()
                score = {k: distance[:, v.astype(int)].min(axis=1).mean() / drawn.mean() for k, v in picks.items()}
                told = {
                    "data": case.name,
                    "count": count,
                    "distance in": name,
                    **{k: round(v, 2) for k, v in score.items()},
                }
                rows.append({**told, "random": f"1 ({low:.2f}-{high:.2f})"})
            represent = int((table["reason"] == REPRESENTS).sum())
            print(f"{case.name}: {represent} of {count} stand for others, {sorted(table['z'])}")
    print(pd.DataFrame(rows).to_string(index=False), "\nmean distances, random = 1", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--shapes", type=int, nargs="+", default=[64, 256, 256, 100, 1024, 1024], help="Z Y X …")
    parser.add_argument("--repeats", type=int, default=5, help="per row (default: 5)")
    parser.add_argument("--models", nargs="+", default=[], metavar="PATH", help="of live predictions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the phantom")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    if "edits" in args.only:
        edits(args.shapes, args.repeats)
    if "live" in args.only:
        live(args.models, args.repeats)
    if {"suspects", "slices"} & set(args.only):
        from suspects import fib25, phantom

        cases = [phantom(seed) for seed in args.seeds]
        if (args.data / "fib25-medulla").is_dir():
            cases.append(fib25(args.data, range(130, 250)))
        for name, score in (("suspects", suspects), ("slices", chosen_sections)):
            if name in args.only:
                score(cases)


if __name__ == "__main__":
    main()
