"""Synapse candidates against expert truth, the prototype's blob detector and chance.

    python benchmarks/synapses.py
    python benchmarks/synapses.py --data ../shared/data --labels truth --draws 50

Truth: connected components of the synapse masks of drosophila-vnc (half range; specks below 1000 nm² ignored), each
section for itself, and the synapse table of the phantom. A candidate is right within 200 nm, one to one. Every method
sees the same preprocessed sections and labels; its threshold is the one of best F1 on the training part (phantom:
seed 0), and the other parts are only reported. AP is the plain sum over the candidates above 0.01.

- ours: emlib.stages.synapses.find_candidates
- blob_log: the prototype, scikit-image's blob_log(min_sigma=1, max_sigma=4, num_sigma=6, threshold=0.08) on the
  inverted section, blobs with two labels within 6 px, score 1 - grey value
- random: as many places as ours found above its threshold, drawn from pixels with two labels within 6 px, in random
  order; means of --draws draws
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SETS = ["drosophila-vnc", "phantom"]
DROSOPHILA_NM = (50.0, 4.6, 4.6)
ISOLATED_NM = (1e4, 4.6, 4.6)  # sections that are not neighbours: nothing reaches from one to the next
SPECK_NM2 = 1000.0
REACH_PX = 6  # the prototype's: two labels this near make a contact
HEAD = ("data set", "part", "method", "truth", "found", "precision", "recall", "F1", "AP", "seconds")
ROW = "{:<15} {:<6} {:<9} {:>5} {:>7.5g} {:>9.3f} {:>7.3f} {:>6.3f} {:>6.3f} {:>8.2f}"


@dataclass
class Part:
    """One part of a data set: preprocessed EM, labels, truth and the voxel size in which places are compared."""

    name: str
    em: np.ndarray
    labels: np.ndarray
    truth: object
    voxel_size_nm: tuple[float, float, float]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--labels", choices=("pipeline", "truth"), default="pipeline", help="neurite labels to use")
    parser.add_argument("--draws", type=int, default=20, help="draws of random places")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random places")
    parser.add_argument(
        "--sets", nargs="+", choices=("drosophila-vnc", "phantom"), default=["drosophila-vnc", "phantom"]
    )
    return parser.parse_args(argv)


def read_masks(folder, kind):
    """All sections of one kind as (Z, Y, X), and whether each pixel is at or above half range."""
    from skimage.io import imread

    stack = np.stack([imread(path) for path in sorted((folder / kind).glob("*.png"))])
    return stack, stack >= 128


def segment_sections(em, voxel_size_nm):
    """The pipeline's labels of sections that are not neighbours: each is segmented for itself."""
    from emlib.stages.segment import segment

    return np.concatenate([segment(section[None], voxel_size_nm) for section in em])


def components(free):
    """4-connected pieces of what is not membrane, each section for itself; pieces below 5000 nm² are background."""
    from scipy import ndimage as ndi

    plane = ndi.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    labels, count = ndi.label(free, plane)
    size = np.bincount(labels.ravel(), minlength=count + 1) * DROSOPHILA_NM[1] * DROSOPHILA_NM[2]
    return np.where(size[labels] >= 5000, labels, 0).astype(np.int32)


def drosophila(folder, which):
    from emlib.measure.synapses.matching import components_to_table
    from emlib.stages.preprocess import preprocess

    for split in ("train", "val", "test"):
        em = preprocess(read_masks(folder / split, "raw")[0])
        synapses = read_masks(folder / split, "synapses")[1]
        truth = components_to_table(synapses, ISOLATED_NM, per_section=True, min_size=SPECK_NM2)
        if which == "truth":
            labels = components(~read_masks(folder / split, "membranes")[1])
        else:
            labels = segment_sections(em, DROSOPHILA_NM)
        yield Part(split, em, labels, truth, ISOLATED_NM)


def phantom(which):
    from emlib.stages.preprocess import preprocess
    from emlib.stages.segment import segment
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    for seed in range(3):
        made = make_phantom(PhantomSettings(seed=seed, jitter_px=0))
        em = preprocess(made.em)
        voxel = made.settings.voxel_size_nm
        labels = made.labels if which == "truth" else segment(em, voxel)
        yield Part(f"seed {seed}", em, labels, (made.synapses, made.labels), voxel)


def contacts(labels):
    """Pixels with two labels within reach, in their own section."""
    from scipy import ndimage as ndi

    size = (1, 2 * REACH_PX + 1, 2 * REACH_PX + 1)
    lowest = ndi.minimum_filter(np.where(labels > 0, labels, np.iinfo(labels.dtype).max), size)
    return ndi.maximum_filter(labels, size) > lowest


def ours(part):
    from emlib.stages.synapses import find_candidates

    return find_candidates(part.em, part.labels, part.voxel_size_nm)


def prototype(part):
    import pandas as pd
    from skimage.feature import blob_log

    at_contact = contacts(part.labels)
    rows = []
    for z, section in enumerate(part.em):
        for y, x, _ in blob_log(1 - section, min_sigma=1, max_sigma=4, num_sigma=6, threshold=0.08).astype(int):
            if at_contact[z, y, x]:
                rows.append((z, y, x, 1 - float(section[y, x])))
    return pd.DataFrame(rows, columns=["z", "y", "x", "score"])


def score(candidates, truth, voxel_size_nm, threshold):
    """Number found, precision, recall, F1 at the threshold, and AP."""
    from emlib.measure.synapses.matching import average_precision, match_synapses, pr_curve

    match = match_synapses(candidates[candidates["score"] >= threshold], truth, voxel_size_nm)
    ap = average_precision(pr_curve(candidates, truth, voxel_size_nm))
    return match.n_pred, match.precision, match.recall, match.f1, ap


def best_threshold(candidates, truth, voxel_size_nm):
    from emlib.measure.synapses.matching import pr_curve

    curve = pr_curve(candidates, truth, voxel_size_nm)
    return float(curve["threshold"][curve["f1"].argmax()]) if len(curve) else 1.0


def chance(part, truth, count, draws, rng):
    """Means of the scores of random contacts in random order."""
    import pandas as pd

    places = np.argwhere(contacts(part.labels))
    results = []
    for _ in range(draws):
        picked = places[rng.choice(len(places), min(count, len(places)), replace=False)]
        table = pd.DataFrame(picked, columns=["z", "y", "x"]).assign(score=rng.random(len(picked)))
        results.append(score(table, truth, part.voxel_size_nm, -1.0))
    return np.nanmean(results, axis=0)


def report(name, parts, draws, rng):
    """Print a row per part and method; the first part sets the thresholds."""
    thresholds = {}
    for part in parts:
        truth, true_labels = part.truth if isinstance(part.truth, tuple) else (part.truth, None)
        count = 0
        for method, run in (("ours", ours), ("blob_log", prototype)):
            started = time.perf_counter()
            found = run(part)
            seconds = time.perf_counter() - started
            if method not in thresholds:
                thresholds[method] = best_threshold(found, truth, part.voxel_size_nm)
                print(f"{name}: threshold of {method} on {part.name}: {thresholds[method]:.3f}")
            result = score(found, truth, part.voxel_size_nm, thresholds[method])
            print(ROW.format(name, part.name, method, len(truth), *result, seconds), flush=True)
            if method == "ours":
                count = int(result[0])
                default = score(found, truth, part.voxel_size_nm, 0.10)
                print(ROW.format(name, part.name, "at 0.10", len(truth), *default, seconds), flush=True)
                if true_labels is not None:
                    print_partners(found, part, truth, true_labels)
        started = time.perf_counter()
        result = chance(part, truth, max(count, 1), draws, rng)
        print(ROW.format(name, part.name, "random", len(truth), *result, time.perf_counter() - started), flush=True)


def print_partners(found, part, truth, true_labels):
    from emlib.measure.synapses.partners import map_ids_by_overlap, score_partners

    mapping = map_ids_by_overlap(part.labels, true_labels)
    scores = score_partners(found[found["score"] >= 0.10], truth, part.voxel_size_nm, id_map=mapping)
    print(
        f"    at 0.10 with both partners: F1 {scores.unordered.f1:.3f} either way round, {scores.ordered.f1:.3f} with "
        f"the right direction; direction right in {scores.direction_accuracy:.2f} of {scores.direction_pairs}"
    )


def main(argv=None):
    args = parse_args(argv)
    rng = np.random.default_rng(args.seed)
    print(f"labels: {args.labels}; random: means of {args.draws} draws, seconds for all of them")
    print("{:<15} {:<6} {:<9} {:>5} {:>7} {:>9} {:>7} {:>6} {:>6} {:>8}".format(*HEAD))
    if "drosophila-vnc" in args.sets:
        if (args.data / "drosophila-vnc").is_dir():
            report("drosophila-vnc", drosophila(args.data / "drosophila-vnc", args.labels), args.draws, rng)
        else:
            print(f"drosophila-vnc not found under {args.data}: skipped")
    if "phantom" in args.sets:
        report("phantom", phantom(args.labels), args.draws, rng)
    return 0


if __name__ == "__main__":
    sys.exit(main())
