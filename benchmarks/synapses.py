"""Synapse candidates against expert truth: from a network, from dark densities, the prototype's, and chance.

    python benchmarks/synapses.py
    python benchmarks/synapses.py --data ../shared/data --labels truth --draws 50
    python benchmarks/synapses.py --sets phantom-runs --phantom_model models/phantom/model.pth
    python benchmarks/synapses.py --fit_direction 20 21 22 23 24 25 26 27

Truth: connected components of the synapse masks of drosophila-vnc (half range; specks below 1000 nm² ignored), each
section for itself, and the synapse table of the phantom. A candidate is right within 200 nm, one to one. Dark densities
and the prototype see the same preprocessed sections and labels, and their threshold is the one of best F1 on the
training part (phantom: seed 0); the other parts are only reported. AP is the plain sum over the candidates above 0.01.

- experts: emlib.stages.expert_synapses.find_expert_candidates on the map of --model, with default settings, which were
  chosen on train and val; neurites are those of the same network's boundaries. All that it lists count
- ours: emlib.stages.synapses.find_candidates
- blob_log: the prototype, scikit-image's blob_log(min_sigma=1, max_sigma=4, num_sigma=6, threshold=0.08) on the
  inverted section, blobs with two labels within 6 px, score 1 - grey value
- random: as many places as the first of --methods found above its threshold, drawn from pixels with two labels within
  6 px, in random order; means of --draws draws

phantom-runs: run_pipeline.py as a user types it on phantom seeds 0, 1 and 2: ours, which is intensity and dark
densities, and experts, which is --boundaries experts --model_path FILE; the scores that each run wrote. FILE was
trained on other seeds (docs/learned_synapses.md has the commands).

--fit_direction: the weights of emlib.stages.synapse_direction.LEARNED, from true clefts and neurites of these phantom
seeds, and how often the sender is found in each seed with weights from the others.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SETS = ("drosophila-vnc", "phantom", "phantom-runs")
PARTS = ("train", "val", "test")
METHODS = ("experts", "ours", "blob_log", "random")
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
    raw: np.ndarray | None = None


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    parser.add_argument("--labels", choices=("pipeline", "truth"), default="pipeline", help="neurite labels to use")
    parser.add_argument("--draws", type=int, default=20, help="draws of random places")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random places")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS[:2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of drosophila-vnc")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--model", default="drosophila-vnc-experts", help="network of the row experts")
    parser.add_argument("--phantom_model", metavar="FILE", help="network of phantom-runs, trained on other seeds")
    parser.add_argument(
        "--fit_direction", type=int, nargs="+", metavar="SEED", help="learn who sends, and nothing else"
    )
    box = {"type": int, "nargs": 3, "default": [256, 256, 64], "metavar": ("X", "Y", "Z")}
    parser.add_argument("--cutout", help="of phantom-runs", **box)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of phantom-runs")
    args = parser.parse_args(argv)
    if args.parts[0] != "train" and {"ours", "blob_log"} & set(args.methods):
        parser.error("the thresholds of ours and blob_log come from train: name it first in --parts")
    return args


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


def drosophila(folder, which, parts):
    from emlib.measure.synapses.matching import components_to_table
    from emlib.stages.preprocess import preprocess

    for split in parts:
        raw = read_masks(folder / split, "raw")[0]
        em = preprocess(raw)
        synapses = read_masks(folder / split, "synapses")[1]
        truth = components_to_table(synapses, ISOLATED_NM, per_section=True, min_size=SPECK_NM2)
        if which == "truth":
            labels = components(~read_masks(folder / split, "membranes")[1])
        else:
            labels = segment_sections(em, DROSOPHILA_NM)
        yield Part(split, em, labels, truth, ISOLATED_NM, raw)


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


def experts(model):
    """Return the method that finds candidates on the maps of a network, section by section."""
    import pandas as pd

    from emlib.learn.volumes.boundary_model import load_boundary_model
    from emlib.stages.expert_boundaries import expert_boundaries
    from emlib.stages.expert_synapses import find_expert_candidates
    from emlib.stages.segment import segment

    model = load_boundary_model(model)

    def run(part):
        maps = expert_boundaries(part.raw, DROSOPHILA_NM, model, maps=("boundaries", "synapses"))
        tables = []
        for z in range(len(part.em)):  # sections that are not neighbours
            one = slice(z, z + 1)
            labels = segment(part.em[one], DROSOPHILA_NM, boundaries=maps.boundaries[one].astype(np.float32))
            found = find_expert_candidates(maps.synapses[one], part.em[one], labels, DROSOPHILA_NM)
            tables.append(found.assign(z=z))
        return pd.concat(tables, ignore_index=True)

    return run


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


def report(name, parts, methods, draws, rng):
    """Print a row per part and method; the first part sets the thresholds, except that of experts."""
    thresholds = {"experts": 0.0}
    for part in parts:
        truth, true_labels = part.truth if isinstance(part.truth, tuple) else (part.truth, None)
        count = None
        for method, run in methods.items():
            started = time.perf_counter()
            if run is None:
                result = chance(part, truth, max(count or 0, 1), draws, rng)
                print_row(name, part.name, method, len(truth), result, started)
                continue
            found = run(part)
            if method not in thresholds:
                thresholds[method] = best_threshold(found, truth, part.voxel_size_nm)
                print(f"{name}: threshold of {method} on {part.name}: {thresholds[method]:.3f}")
            result = score(found, truth, part.voxel_size_nm, thresholds[method])
            count = int(result[0]) if count is None else count
            print_row(name, part.name, method, len(truth), result, started)
            if method == "ours":
                default = score(found, truth, part.voxel_size_nm, 0.10)
                print_row(name, part.name, "at 0.10", len(truth), default, started)
                if true_labels is not None:
                    print_partners(found, part, truth, true_labels)


def print_row(name, part, method, truth, result, started):
    print(ROW.format(name, part, method, truth, *result, time.perf_counter() - started), flush=True)


def print_partners(found, part, truth, true_labels):
    from emlib.measure.synapses.partners import map_ids_by_overlap, score_partners

    mapping = map_ids_by_overlap(part.labels, true_labels)
    scores = score_partners(found[found["score"] >= 0.10], truth, part.voxel_size_nm, id_map=mapping)
    print(
        f"    at 0.10 with both partners: F1 {scores.unordered.f1:.3f} either way round, {scores.ordered.f1:.3f} with "
        f"the right direction; direction right in {scores.direction_accuracy:.2f} of {scores.direction_pairs}"
    )


def fit_direction(seeds):
    """Print weights that tell sender from receiver, and their accuracy on seeds that they were not fitted on."""
    from emlib.stages.expert_synapse_components import ExpertSynapseSettings, find_pieces
    from emlib.stages.expert_synapses import look_at_pieces
    from emlib.stages.preprocess import preprocess
    from emlib.stages.synapses import SynapseSettings
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    rows, groups, names = [], [], []
    for seed in seeds:
        made = make_phantom(PhantomSettings(seed=seed, jitter_px=0))
        voxel, em = made.settings.voxel_size_nm, preprocess(made.em)
        pieces = find_pieces(made.clefts > 0, voxel, ExpertSynapseSettings(min_area_nm2=500))
        near, _, evidence = look_at_pieces(pieces, em, made.labels, voxel, SynapseSettings())
        names = list(evidence)
        for row, voxels in enumerate(pieces.voxels):
            true = made.synapses.iloc[int(np.bincount(made.clefts[tuple(voxels.T)]).argmax()) - 1]
            sender, receiver = (np.flatnonzero(near[row] == true[name]) for name in ("pre_id", "post_id"))
            if len(sender) and len(receiver):
                rows.append([float(evidence[n][row, sender[0]] - evidence[n][row, receiver[0]]) for n in names])
                groups.append(seed)
    differences, groups = np.array(rows), np.array(groups)
    for seed in seeds:
        weights = _fitted(differences[groups != seed])
        right = differences[groups == seed] @ weights > 0
        print(f"seed {seed}: sender right in {right.sum()} of {len(right)}", flush=True)
    print(f"{len(rows)} synapses:", dict(zip(names, _fitted(differences).round(2).tolist(), strict=True)))


def _fitted(differences):
    from sklearn.linear_model import LogisticRegression

    scale = differences.std(0)
    both = np.concatenate([differences, -differences]) / scale
    labels = np.repeat([1, 0], len(differences))
    return LogisticRegression(fit_intercept=False).fit(both, labels).coef_[0] / scale


def phantom_runs(seeds, cutout, model, methods):
    """Print what whole runs on the phantom score, with and without a network."""
    import json
    import tempfile

    from child import run_script

    columns = ("found", "true", "P", "R", "F1", "chance", "pair F1", "partner F1", "direction", "edge F1", "chance")
    print(("{:<6} {:<9}" + " {:>10}" * len(columns) + " {:>8} {:>8}").format("seed", "run", *columns, "VOI", "s"))
    for seed in seeds:
        for name, flags in {"ours": [], "experts": ["--boundaries", "experts", "--model_path", model]}.items():
            if name not in methods:
                continue
            with tempfile.TemporaryDirectory() as folder:
                where = ["--dataset", "sample://phantom", "--cutout", *cutout, "--seed", seed, "--outdir", folder]
                seconds, _ = run_script("run_pipeline.py", *where, *flags, "--quiet")
                scores = json.loads((Path(folder) / "tables" / "scores.json").read_text())
            s, g = scores["synapses"], scores["graph"]
            way = s["direction_accuracy"]
            right = f"{round((way['accuracy'] or 0) * way['pairs'])}/{way['pairs']}" if way["pairs"] else "0/0"
            values = (
                s["precision"],
                s["recall"],
                s["f1"],
                s["chance"]["f1"],
                s["partners_unordered"]["f1"],
                s["partners"]["f1"],
            )
            cells = [
                f"{s['predicted']}",
                f"{s['truth']}",
                *map(_short, values),
                right,
                _short(g["f1"]),
                _short(g["chance"]["f1"]),
            ]
            row = "{:<6} {:<9}" + " {:>10}" * len(cells) + " {:>8} {:>8.0f}"
            print(row.format(seed, name, *cells, _short(scores["segmentation"]["voi"]), seconds), flush=True)


def _short(value):
    return "-" if value is None or value != value else f"{value:.3f}"


def main(argv=None):
    args = parse_args(argv)
    if args.fit_direction:
        fit_direction(args.fit_direction)
        return 0
    rng = np.random.default_rng(args.seed)
    print(f"labels: {args.labels}; random: means of {args.draws} draws, seconds for all of them")
    print("{:<15} {:<6} {:<9} {:>5} {:>7} {:>9} {:>7} {:>6} {:>6} {:>8}".format(*HEAD))
    own = {"ours": ours, "blob_log": prototype, "random": None}
    methods = {name: own[name] for name in args.methods if name in own}
    if "drosophila-vnc" in args.sets:
        if (args.data / "drosophila-vnc").is_dir():
            parts = drosophila(args.data / "drosophila-vnc", args.labels, args.parts)
            network = {"experts": experts(args.model)} if "experts" in args.methods else {}
            report("drosophila-vnc", parts, network | methods, args.draws, rng)
        else:
            print(f"drosophila-vnc not found under {args.data}: skipped")
    if "phantom" in args.sets:
        report("phantom", phantom(args.labels), methods, args.draws, rng)
    if "phantom-runs" in args.sets:
        if args.phantom_model is None and "experts" in args.methods:
            sys.exit("phantom-runs needs --phantom_model FILE; docs/learned_synapses.md says how to train one")
        model = Path(args.phantom_model or "")
        phantom_runs(args.seeds, args.cutout, model.resolve() if model.exists() else model, args.methods)
    return 0


if __name__ == "__main__":
    sys.exit(main())
