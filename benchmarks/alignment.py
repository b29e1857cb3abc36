"""How well and how fast stacks are aligned, beside the approach of the C. elegans prototype.

    python benchmarks/alignment.py
    python benchmarks/alignment.py --data ../shared/data --threads 2 --seed 1

Each case adds a known jitter and prints the error of the estimated shifts in pixels: the length of (dy, dx) per
section, mean over all sections removed. "as given" is the error of doing nothing. The yardstick is what the prototype
does: each section against the one before with skimage's phase_cross_correlation, summed up, applied with the wrong
sign; "sign mended" is the same with the right one. Seconds are for estimating and moving, after preprocessing.

The real stack is not perfectly aligned as published, so its true shifts are unknown. What is known is the jitter that
was added: the shifts found with and without it must differ by just that. Three references are given:
  difference, same damage    both runs have the same sections blacked out and masked: what jitter alone does
  difference, whole original the run without jitter is undamaged, so what the damage hides counts as error as well
  against the added jitter   the misalignment of the published stack counts as error as well
Below, the correlation of neighbouring sections says whether the published stack itself got better (moved by whole
pixels, because interpolation blurs and blur alone makes sections more alike).
"""

import argparse
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--seed", type=int, default=0, help="seed of the jitter")
    return parser.parse_args(argv)


def ours(volume):
    """Shifts found by emlib, and the seconds of the whole stage."""
    from emlib.stages.align import align

    start = time.perf_counter()
    shifts = align(volume)[1]
    return shifts, time.perf_counter() - start


def chained(volume, sign):
    """Shifts of the prototype: each section against the one before, added up; ``sign`` -1 as published."""
    import numpy as np
    import pandas as pd
    from skimage.registration import phase_cross_correlation

    from emlib.stages.align import apply_shifts

    start = time.perf_counter()
    steps = [np.zeros(2)]
    with warnings.catch_warnings(action="ignore"):  # black sections
        for before, section in pairwise(volume):
            steps.append(phase_cross_correlation(before, section, upsample_factor=10)[0])
    path = sign * np.cumsum(steps, axis=0)
    shifts = pd.DataFrame({"z": range(len(volume)), "dy": path[:, 0], "dx": path[:, 1]})
    apply_shifts(volume, shifts)
    return shifts, time.perf_counter() - start


def read_sections(folder):
    """The 20 sections of the fly nerve cord in order, (20, 1024, 1024) uint8."""
    import imageio.v3 as iio
    import numpy as np

    return np.stack([iio.imread(next(folder.glob(f"drosophila-vnc/*/raw/{z:02d}.png"))) for z in range(20)])


def methods(volume):
    """Shifts and seconds of ours, of the prototype, and of the prototype with its sign mended."""
    right, seconds = chained(volume, 1)
    return ours(volume), (right.assign(dy=-right["dy"], dx=-right["dx"]), seconds), (right, seconds)


def row(name, added, found, target, measure="rms_px", origin=None, keep=None):
    """Errors of the three methods in one line of the table."""
    from emlib.measure.shifts import recovery_error

    cells = []
    for k, (shifts, _) in enumerate(found):
        if origin is not None:
            shifts = shifts.assign(dy=shifts["dy"] - origin[k][0]["dy"], dx=shifts["dx"] - origin[k][0]["dx"])
        chosen = slice(None) if keep is None else keep
        cells.append(recovery_error(added[chosen], shifts[chosen])[measure])
    nothing = recovery_error(added[chosen], added[chosen].assign(dy=0.0, dx=0.0))[measure]
    met = "" if target is None else f"<= {target:.2f}  {'met' if cells[0] <= target else 'NOT MET'}"
    print(
        f"{name:<48} {measure[:-3]:<6} {nothing:8.2f} {cells[0]:8.2f}  {met:<16} {found[0][1]:7.2f} "
        f"{cells[1]:12.2f} {cells[2]:12.2f} {found[1][1]:8.2f}",
        flush=True,
    )


def repeated(name, section, seed):
    """One real section 20 times; real content enters at the borders."""
    import numpy as np

    from emlib.stages.align import simulate_misalignment
    from emlib.stages.preprocess import preprocess

    moved, added = simulate_misalignment(np.repeat(section[None], 20, axis=0), 1, seed)
    row(f"{name}, one section 20×, N(0, 1 px)", added, methods(preprocess(moved[:, 12:-12, 12:-12])), 0.15, "mean_px")


def real_stack(stack, seed):
    """The real stack with jitter; section 7 black, 40 % of section 12 masked."""
    from emlib.stages.align import simulate_misalignment
    from emlib.stages.preprocess import preprocess

    moved, added = simulate_misalignment(stack, 2, seed)
    whole = methods(preprocess(stack))
    row("vnc 00–19 + N(0, 2 px), difference, no damage", added, methods(preprocess(moved)), 0.35, origin=whole)
    found, same, keep = _damaged(moved, stack, added, 7, 12)
    row("  damaged, difference, same damage", added, found, 0.35, origin=same, keep=keep)
    row("  the same, counting the black section", added, found, None, origin=same)
    row("  damaged, difference, whole original", added, found, None, origin=whole, keep=keep)
    row("  damaged, against the added jitter", added, found, None, keep=keep)
    for black, masked in ((12, 17), (13, 18), (9, 14)):
        found, same, keep = _damaged(moved, stack, added, black, masked)
        row(f"  black {black}, masked {masked}: same damage", added, found, None, origin=same, keep=keep)
        row(f"  black {black}, masked {masked}: whole original", added, found, None, origin=whole, keep=keep)
    likeness("  correlation of neighbours, vnc 00–19 as published", preprocess(stack), whole)


def _damaged(moved, stack, added, black, masked):
    """Shifts with one section black and 40 % of another masked, with and without jitter, and which sections count."""
    from emlib.stages.preprocess import preprocess

    found = []
    for volume in (moved.copy(), stack.copy()):
        volume[black] = 0
        volume[masked, :, : int(0.4 * volume.shape[2])] = 0
        found.append(methods(preprocess(volume)))
    return *found, added["z"] != black


def likeness(name, volume, found):
    """Mean correlation of neighbouring sections, borders left out: as given, ours, the prototype."""
    import numpy as np

    from emlib.stages.align import apply_shifts

    def mean(stack):
        inner = stack[:, 40:-40, 40:-40]
        return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairwise(inner)])

    values = [mean(volume), *(mean(apply_shifts(volume, shifts, order=0)) for shifts, _ in found)]
    print("{}: as given {:.3f}, ours {:.3f}, prototype {:.3f}, sign mended {:.3f}".format(name, *values), flush=True)


def phantoms(seed):
    """200 phantom sections; oblique neurites must not be straightened."""
    from emlib.stages.preprocess import preprocess
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    phantom = make_phantom(PhantomSettings(seed=seed, shape=(200, 256, 256), voxel_size_nm=(40, 8, 8)))
    found = methods(preprocess(phantom.em))
    row("phantom 200×256×256, N(0, 1 px)", phantom.shifts, found, 1.0, "drift_px")
    row("phantom 200×256×256, N(0, 1 px)", phantom.shifts, found, None)
    return phantom.em[:64]


def speed(name, volume):
    """Median seconds of five runs of both stages."""
    import numpy as np

    from emlib.stages.preprocess import preprocess

    seconds = np.empty((5, 2))
    for k in range(5):
        start = time.perf_counter()
        ready = preprocess(volume)
        seconds[k] = time.perf_counter() - start, ours(ready)[1]
    for stage, value in zip(("preprocess", "align"), np.median(seconds, axis=0), strict=True):
        print(f"{name:<24} {stage:<12} {value:6.2f} s")


def main(argv=None):
    args = parse_args(argv)
    from emlib.threads import get_threads, set_threads

    set_threads(args.threads)
    print(
        f"{'case':<48} {'error':<6} {'as given':>8} {'ours':>8}  {'target':<16} {'seconds':>7} "
        f"{'prototype':>12} {'sign mended':>12} {'seconds':>8}"
    )
    stack = None
    if (args.data / "drosophila-vnc").is_dir():
        stack = read_sections(args.data)
        repeated("drosophila-vnc", stack[1], args.seed)
    else:
        print(f"skipped: no drosophila-vnc under {args.data}")
    if (args.data / "fib25-medulla").is_dir():
        import tifffile

        repeated("fib25", tifffile.imread(args.data / "fib25-medulla" / "em_u8_zyx.tif")[0], args.seed)
    else:
        print(f"skipped: no fib25-medulla under {args.data}")
    if stack is not None:
        real_stack(stack, args.seed)
    small = phantoms(args.seed)
    print(f"\nmedians of 5, {get_threads()} threads")
    speed("phantom 64×256×256", small)
    if stack is not None:
        speed("drosophila-vnc 20×1024²", stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
