"""Does a run in blocks give what a run in memory gives, and do faces of blocks show?

python benchmarks/blocks.py --data ../shared/data --outdir outputs/blocks_check
python benchmarks/blocks.py --side 160 --only phantom

For FIB-25 (10 nm, near isotropic) and the phantom (sections of 40 nm): the run in memory, then in one block, 2 × 2 × 2,
3 × 3 × 3 and blocks of odd sides. For each: whether EM, boundaries and candidates are byte for byte those in memory,
VOI of the labels against those in memory and those of one block, and seconds. Then, of all planes between blocks or
between cells of the flood, the one at which labels change most beyond what they do around it, drawn in memory and in
blocks.
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from child import run_script

ROOT = Path(__file__).resolve().parent.parent
ODD = (97, 83, 71)  # x y z


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--outdir", type=Path, default=ROOT / "outputs" / "blocks_check")
    parser.add_argument(
        "--side", type=int, default=250, help="voxels of the cube from FIB-25; half as deep, the phantom"
    )
    parser.add_argument("--only", choices=("fib25", "phantom"))
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for name, flags, shape in volumes(args.data, args.side):
        if args.only in (None, name):
            rows += compare(name, flags, shape, args.outdir / name, args.workers)
            table = pd.DataFrame(rows)
            table.to_csv(args.outdir / "blocks.csv", index=False)
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def volumes(data: Path, side: int):
    """Yield name, flags and size X Y Z of each volume."""
    fib = data / "fib25-medulla" / "em_u8_zyx.tif"
    cube = (side, side, side)
    yield "fib25", ["--dataset", fib, "--voxel_size", 10, 10, 10, "--offset", 0, 0, 0, "--cutout", *cube], cube
    flat = (side, side, max(16, side // 4))
    yield "phantom", ["--dataset", "sample://phantom", "--cutout", *flat], flat


def compare(name: str, flags: list, shape: tuple[int, int, int], outdir: Path, workers: int) -> list[dict]:
    """Run a volume in memory and in blocks."""
    quiet = [*flags, "--quiet", "--until", "synapses"]
    memory = outdir / "memory"
    seconds, peak = run_script("run_pipeline.py", *quiet, "--outdir", memory)
    rows = [{"volume": name, "blocks": "in memory", "seconds": round(seconds, 1), "peak_mib": round(peak)}]
    one, worst = None, None
    for blocks in (shape, half(shape, 2), half(shape, 3), tuple(min(a, b) for a, b in zip(ODD, shape, strict=True))):
        folder = outdir / "_".join(map(str, blocks))
        start = time.perf_counter()
        how = ["--blocks", *blocks, "--npy", "always", "--workers", workers]
        run_script("run_pipeline.py", *quiet, *how, "--outdir", folder)
        one = one or folder
        rows.append(
            {"volume": name, "blocks": " ".join(map(str, blocks)), "seconds": round(time.perf_counter() - start, 1)}
        )
        rows[-1] |= {"voi_memory": voi(memory, folder), "voi_one_block": voi(one, folder)}
        for artefact in (
            "data/em_aligned_float32_zyx.npy",
            "data/boundaries_f16_zyx.npy",
            "tables/synapse_candidates.csv",
        ):
            same = (memory / artefact).read_bytes() == (folder / artefact).read_bytes()
            rows[-1][Path(artefact).stem] = "same" if same else "other"
        face = worst_face(folder, tuple(reversed(blocks)))
        rows[-1] |= {"worst_face": f"{'zyx'[face[1]]}={face[2]}", "excess": round(face[0], 2)}
        if worst is None or face[0] > worst[0][0]:
            worst = face, folder
        print(rows[-1], flush=True)
    draw(memory, worst[1], worst[0], outdir / "worst_face.png")
    return rows


def half(shape: tuple[int, int, int], parts: int) -> tuple[int, int, int]:
    """Blocks of which so many make up each axis."""
    x, y, z = (-(-n // parts) for n in shape)
    return x, y, z


def labels_of(folder: Path) -> np.ndarray:
    """Neurite labels of a run."""
    return np.load(folder / "data" / "neurite_labels_i32_zyx.npy", mmap_mode="r")


def voi(first: Path, second: Path) -> float:
    """Variation of information of two runs, bits."""
    from emlib.measure.contingency import contingency
    from emlib.measure.instances import fill_zero, score_table

    table = contingency(fill_zero(np.array(labels_of(first))), fill_zero(np.array(labels_of(second))))
    return round(score_table(table)["voi"], 5)


def worst_face(folder: Path, block: tuple[int, int, int]) -> tuple[float, int, int]:
    """The plane between blocks, or cells, at which labels change most: excess in spreads of all planes, axis, place."""
    from emlib.blockwise.flood import FLAT, SOLID

    labels, found = labels_of(folder), (-np.inf, 0, 0)
    for axis in range(3):
        moved = np.moveaxis(np.asarray(labels), axis, 0)
        change = np.array([(a != b).mean() for a, b in pairwise(moved)])
        # against the planes around: neurites differ from place to place
        around = np.array([np.median(change[max(0, k - 10) : k + 11]) for k in range(len(change))])
        excess = (change - around) / max(float((change - around).std()), 1e-9)
        size = SOLID if folder.parent.name == "fib25" else FLAT
        planes = {*range(block[axis], len(moved), block[axis]), *range(size[axis], len(moved), size[axis])}
        for plane in planes:
            found = max(found, (float(excess[plane - 1]), axis, plane))
    return found


def draw(memory: Path, folder: Path, face: tuple[float, int, int], target: Path) -> None:
    """Draw labels over EM across the worst face, in memory and in blocks, with the face as a dashed line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from emlib.publish.style import overlay

    excess, axis, plane = face
    if not np.isfinite(excess):
        return
    em = np.load(memory / "data" / "em_aligned_float32_zyx.npy", mmap_mode="r")
    across = 2 if axis == 0 else 0  # a picture that the face crosses as a line
    middle = em.shape[across] // 2
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.8), layout="constrained")
    for panel, run, what in zip(panels, (memory, folder), ("in memory", f"in blocks of {folder.name}"), strict=True):
        picture, labels = (np.take(a, middle, across) for a in (em, labels_of(run)))
        tall, wide = (n * 4 if n < 100 else n * 2 for n in picture.shape)
        panel.imshow(
            overlay((255 * picture).astype(np.uint8), labels, (tall, wide), 0.35),
            extent=(0, picture.shape[1], picture.shape[0], 0),
            aspect="auto" if axis == 0 and len(em) < em.shape[1] // 2 else "equal",
        )
        rows = [k for k in range(3) if k != across]
        line = panel.axhline if rows.index(axis) == 0 else panel.axvline
        line(plane, color="yellow", linestyle="--", linewidth=0.9)
        panel.set_title(what)
        panel.set_xlabel("zyx"[rows[1]])
        panel.set_ylabel("zyx"[rows[0]])
    figure.suptitle(
        f"Worst face {'zyx'[axis]} = {plane} (dashed): labels change {excess:.1f} spreads more than around it"
    )
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
