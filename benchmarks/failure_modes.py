"""Draw how the classical pipeline fails, on the phantom, for docs/model_card.md.

    python benchmarks/failure_modes.py
    python benchmarks/failure_modes.py --out outputs/failures --seed 1

Runs the documented commands in a temporary folder and draws three pictures: the worst merge and split, what a damaged
section does to the neurites that cross it, and the best-scored candidates that are no synapses beside those that are.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DAMAGED = 24  # section
REACH_NM = 200  # of a match between a candidate and a true synapse
SIDE = 64  # pixels of a candidate's picture
COLOURS = 128  # of the palette: keeps each file below 300 KB
WIDTH = 720  # pixels of the figure of a merge and a split
MARK = "SYNTHETIC PHANTOM, NOT REAL DATA"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures (default: docs)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    return parser.parse_args(argv)


def call(script, *arguments):
    command = [sys.executable, str(ROOT / script), *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True, cwd=ROOT)


def save(picture, path):
    """Write a PIL image with a small palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    flat = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def draw(figure, path):
    """Write a matplotlib figure in the same way."""
    import numpy as np
    from PIL import Image

    figure.canvas.draw()
    save(Image.fromarray(np.array(figure.canvas.buffer_rgba())), path)


def merge_and_split(folder, out, seed):
    """The figure of ``evaluate.py segmentation``, smaller."""
    from PIL import Image

    run = folder / "run"
    call("run_pipeline.py", "--dataset", "sample://phantom", "--seed", seed, "--outdir", run)
    data = run / "data"
    pair = ["--pred", data / "neurite_labels_i32_zyx.npy", "--truth", data / "truth_neurites_i32_zyx.npy"]
    em = ["--em", data / "em_aligned_float32_zyx.npy", "--voxel_size", 40, 8, 8]
    call("evaluate.py", "segmentation", *pair, *em, "--outdir", folder / "eval")
    with Image.open(folder / "eval" / "figures" / "evaluate_segmentation_worst.png") as figure:
        save(figure.resize((WIDTH, round(WIDTH * figure.height / figure.width)), Image.Resampling.LANCZOS), out)


def damaged_section(folder, out, seed):
    """x–z cuts through the damaged section: EM, true and predicted neurites."""
    import numpy as np
    import tifffile
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from emlib.publish.style import overlay

    phantom, run = folder / "phantom", folder / "damaged"
    call("fetch_data.py", "phantom", "--damaged_section", DAMAGED, "--seed", seed, "--output", phantom)
    call("run_pipeline.py", "--dataset", phantom / "em_u8_zyx.tif", "--no_align", "--outdir", run)
    em, truth = tifffile.imread(phantom / "em_u8_zyx.tif"), tifffile.imread(phantom / "neurites_i32_zyx.tif")
    pred = np.load(run / "data" / "neurite_labels_i32_zyx.npy")
    y, rows = em.shape[1] // 2, slice(DAMAGED - 10, DAMAGED + 11)
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    section, *cuts = figure.subplot_mosaic("AB;AC;AD", width_ratios=[1, 1.3]).values()
    section.imshow(em[DAMAGED], cmap="gray", vmin=0, vmax=255)
    section.axhline(y, color="white", linewidth=0.8, linestyle=":")
    section.set_title(f"section {DAMAGED}, damaged", fontsize=9)
    grey, size = em[rows, y], (21 * 5 * 2, em.shape[2] * 2)
    for axes, labels, title in zip(
        cuts, (0 * truth, truth, pred), ("EM, cut along the dotted line", "true neurites", "ours"), strict=True
    ):
        axes.imshow(overlay(grey, labels[rows, y], size), aspect="auto")
        for edge in (100, 110):
            axes.axhline(edge, color="white", linewidth=0.6)
        axes.set_title(title, fontsize=9)
    for axes in (section, *cuts):
        axes.set_axis_off()
    figure.suptitle(MARK, fontsize=10)
    draw(figure, out)


def candidates(folder, out):
    """The best-scored candidates with and without a true synapse within reach."""
    import numpy as np
    import pandas as pd
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = folder / "run"
    em = np.load(run / "data" / "em_aligned_float32_zyx.npy")
    found = pd.read_csv(run / "tables" / "synapse_candidates.csv").sort_values("score", ascending=False)
    truth = pd.read_csv(run / "tables" / "truth_synapses.csv")
    size = np.array([40, 8, 8])
    places = found[["z", "y", "x"]].to_numpy()
    apart = np.linalg.norm((places[:, None] - truth[["z", "y", "x"]].to_numpy()[None]) * size, axis=2).min(axis=1)
    half, inside = SIDE // 2, []
    for axis in (1, 2):
        inside.append((places[:, axis] >= half) & (places[:, axis] < em.shape[axis] - half))
    shown = np.logical_and(*inside)
    figure = Figure(figsize=(8, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 4)
    for row, right in zip(grid, (True, False), strict=True):
        best = np.flatnonzero(shown & ((apart <= REACH_NM) == right))[: len(row)]
        for axes, i in zip(row, best, strict=False):
            z, y, x = places[i].round().astype(int)
            axes.imshow(em[z, y - half : y + half, x - half : x + half], cmap="gray", vmin=0, vmax=1)
            axes.plot(half, half, "+", color="orange" if right else "deepskyblue", markersize=12)
            axes.set_title(f"{'synapse' if right else 'no synapse'}, score {found['score'].iloc[i]:.2f}", fontsize=9)
        for axes in row:
            axes.set_axis_off()
    figure.suptitle(MARK, fontsize=10)
    draw(figure, out)


def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge_and_split(folder, args.out / "failure_merge_split.png", args.seed)
        damaged_section(folder, args.out / "failure_damaged_section.png", args.seed)
        candidates(folder, args.out / "failure_candidates.png")


if __name__ == "__main__":
    sys.exit(main())
