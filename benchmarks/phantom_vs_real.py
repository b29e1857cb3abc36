"""Draw phantom sections beside real ones and compare what can be counted.

    python benchmarks/phantom_vs_real.py
    python benchmarks/phantom_vs_real.py --data ../shared/data --seed 3 --out outputs/figures/phantom_vs_real.png

Each real data set has a phantom of its voxel size beside it. The table lists grey levels inside and on the walls of
neurites, diameters of profiles, correlation of neighbouring sections, and the best Dice for membranes that one global
threshold reaches. Only sections on which settings may be chosen are read.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZE = 320  # pixels of a crop
BAR_NM = 500


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantoms")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "figures" / "phantom_vs_real.png")
    return parser.parse_args(argv)


def read_fib25(folder):
    """EM and labels of FIB-25, 10 nm isotropic; membranes are where labels meet."""
    import tifffile
    from skimage.segmentation import find_boundaries

    em = tifffile.imread(folder / "fib25-medulla" / "em_u8_zyx.tif")[:130:4]
    labels = tifffile.imread(folder / "fib25-medulla" / "neurites_u16_zyx.tif")[:130:4]
    return em, labels, [find_boundaries(section) for section in labels]


def read_larval(folder):
    """EM and labels of the larval nerve cord, 50 × 4 × 4 nm; membranes are labelled 0."""
    import tifffile

    em = tifffile.imread(folder / "larval-vnc-3d" / "em_u8_zyx.tif")[:7]
    labels = tifffile.imread(folder / "larval-vnc-3d" / "neurites_u8_zyx.tif")[:7]
    return em, labels, labels == 0


def read_drosophila(folder):
    """Sections and membrane masks of the third-instar nerve cord, 50 × 4.6 × 4.6 nm; no labels."""
    import imageio.v3 as iio
    import numpy as np

    train = folder / "drosophila-vnc" / "train"
    names = ["04.png", "05.png", "06.png"]
    em, masks = (np.stack([iio.imread(train / kind / n) for n in names]) for kind in ("raw", "membranes"))
    return em, None, masks > 127


def read_larval_8nm(folder):
    """The larval nerve cord with 2 × 2 pixels averaged, for the phantom's default voxel size."""
    from skimage.transform import downscale_local_mean

    em, labels, membranes = read_larval(folder)
    return downscale_local_mean(em, (1, 2, 2)), labels[:, ::2, ::2], membranes[:, ::2, ::2]


# folder, reader, voxel size in nm and what its microscope asks of the phantom
DATA_SETS = (
    ("larval-vnc-3d", read_larval_8nm, (50.0, 8.0, 8.0), {}),
    ("fib25-medulla", read_fib25, (10.0, 10.0, 10.0), {"blur_nm": 7.0, "noise": 4.5}),
    ("larval-vnc-3d", read_larval, (50.0, 4.0, 4.0), {}),
    ("drosophila-vnc", read_drosophila, (50.0, 4.6, 4.6), {}),
)


def describe(em, labels, membranes, pixel_nm, step=1):
    """One row of the table; ``step`` sections apart is a neighbour."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    em, membranes = np.asarray(em, float), np.asarray(membranes, bool)
    walls, inside = em[membranes], em[~membranes]
    smooth = [gaussian_filter(section, 8 / pixel_nm) for section in em]
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(smooth, smooth[step:], strict=False)]
    row = {
        "inside": f"{inside.mean():.0f} ± {inside.std():.0f}",
        "walls": f"{walls.mean():.0f} ± {walls.std():.0f}",
        "contrast": f"{(inside.mean() - walls.mean()) / em.std():.2f} sd",
        "neighbours": f"{np.mean(alike):.2f}",
        "threshold": f"{best_dice(np.array(smooth), membranes):.2f}",
    }
    if labels is None:
        return {**row, "diameters": "no labels"}
    return {**row, "diameters": " ".join(f"{d:.0f}" for d in profile_diameters(labels, pixel_nm))}


def best_dice(em, membranes):
    """Best Dice of dark pixels with membranes over all thresholds."""
    import numpy as np

    scores = []
    for level in np.percentile(em, range(5, 60, 2)):
        dark = em < level
        scores.append(2 * (dark & membranes).sum() / (dark.sum() + membranes.sum()))
    return max(scores)


def profile_diameters(labels, pixel_nm):
    """10th, 50th, 90th and 99th percentile of the diameters in nm of circles as large as the profiles in sections."""
    import cc3d
    import numpy as np

    areas = []
    for section in labels:
        pieces = cc3d.connected_components(np.ascontiguousarray(section), connectivity=4)
        areas.append(np.bincount(pieces.ravel())[1:])
    areas = np.concatenate(areas) * pixel_nm**2
    return np.percentile(2 * np.sqrt(areas[areas > 400] / np.pi), [10, 50, 90, 99])


def draw(pairs, path):
    """Save phantom (left) and real crop (right) in rows with scale bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(pairs), 2, figsize=(11, 5.6 * len(pairs)), squeeze=False, layout="constrained")
    for row, (name, pixel_nm, synthetic, real) in zip(axes, pairs, strict=True):
        for panel, image, title in ((row[0], synthetic, "phantom"), (row[1], real, name)):
            panel.set_axis_off()
            panel.set_title(f"{title}, {pixel_nm:g} nm per pixel")
            if image is None:
                continue
            panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            left, low, length = 0.05 * image.shape[1], 0.96 * image.shape[0], BAR_NM / pixel_nm
            panel.plot([left, left + length], [low, low], color="white", linewidth=4, solid_capstyle="butt")
            panel.text(left, low - 6, f"{BAR_NM} nm", color="white", va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv=None):
    args = parse_args(argv)
    from time import perf_counter

    from emlib.volumes.phantom import PhantomSettings, make_phantom

    start = perf_counter()
    default = make_phantom(PhantomSettings(seed=args.seed))
    print(f"phantom of 64 × 256 × 256: {perf_counter() - start:.1f} s")
    print(f"{default.labels.max()} neurites, {len(default.synapses)} synapses")
    rows = {"phantom 40 × 8 × 8": describe(default.em, default.labels, default.membranes, 8)}
    pairs = []
    for name, read, voxel, microscope in DATA_SETS:
        depth = 8 if voxel[0] > 20 else 32
        settings = PhantomSettings(args.seed, (depth, SIZE, SIZE), voxel, jitter_px=0, **microscope)
        phantom = make_phantom(settings)
        step = max(1, round(40 / voxel[0]))
        size = " × ".join(f"{v:g}" for v in voxel)
        rows[f"phantom {size}"] = describe(phantom.em, phantom.labels, phantom.membranes, voxel[1], step)
        real = None
        if (args.data / name).is_dir():
            em, labels, membranes = read(args.data)
            rows[f"{name} {voxel[1]:g} nm"] = describe(em, labels, membranes, voxel[1])
            real = em[1][-SIZE:, -SIZE:]
        else:
            print(f"{name}: not found under {args.data}, skipped")
        height, width = (SIZE, SIZE) if real is None else real.shape
        pairs.append((name, voxel[1], phantom.em[depth // 2, :height, :width], real))
    columns = list(next(iter(rows.values())))
    print(f"{'':24}" + "".join(f"{c:>14}" for c in columns[:-1]) + f"  {columns[-1]} (nm: 10, 50, 90, 99 %)")
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[c]:>14}" for c in columns[:-1]) + f"  {row[columns[-1]]}")
    draw(pairs, args.out)
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
