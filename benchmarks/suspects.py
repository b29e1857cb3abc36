"""Are the first suspects true errors? Used by `proofreading.py`; run as a script it learns the weights of the evidence.

    python benchmarks/suspects.py

It prints the two constants JOIN and CUT of emlib/proofread/suspects/evidence.py, learnt on fib25-medulla z 0-119 and on
phantoms whose seeds `proofreading.py` does not use.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TRAINED_ON = (3, 4)  # seeds of phantoms
KNOWN = 0.5  # share of a part that must have a true id
WHOLE = 0.75  # share of a true neurite that must lie on its side of a cut


class Case(NamedTuple):
    """A default reconstruction with its truth."""

    name: str
    labels: np.ndarray
    truth: np.ndarray
    boundary: np.ndarray
    em: np.ndarray
    voxel_size_nm: tuple[float, float, float]


def fib25(data: Path, part: range) -> Case:
    """The default reconstruction of some sections of the FIB-25 crop."""
    import tifffile

    from emlib.stages.preprocess import preprocess

    folder, z = data / "fib25-medulla", slice(part.start, part.stop)
    em = preprocess(tifffile.imread(folder / "em_u8_zyx.tif")[z])
    truth = tifffile.imread(folder / "neurites_u16_zyx.tif")[z].astype(np.int32)
    return _case(f"fib25-medulla z {part[0]}-{part[-1]}", em, truth, (10.0, 10.0, 10.0))


def phantom(seed: int) -> Case:
    """The default reconstruction of a phantom as a run sees it: preprocessed, aligned, truth moved along."""
    from emlib.stages.align import align, apply_shifts
    from emlib.stages.preprocess import preprocess
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    made = make_phantom(PhantomSettings(shape=(64, 256, 256), seed=seed))
    em, shifts = align(preprocess(made.em))
    truth = apply_shifts(made.labels, shifts, order=0, fill=0)
    return _case(f"phantom, seed {seed}", em, truth, (40.0, 8.0, 8.0))


def _case(name: str, em: np.ndarray, truth: np.ndarray, size: tuple[float, float, float]) -> Case:
    from emlib.stages.boundaries import intensity_boundaries
    from emlib.stages.segment import segment

    boundary = intensity_boundaries(em, size)
    return Case(name, segment(em, size, boundaries=boundary), truth, boundary, em, size)


class Judge:
    """What truth says of suspects: whether each is an error, and what remains once the true ones are put right."""

    def __init__(self, case: Case) -> None:
        from emlib.measure.contingency import contingency
        from emlib.proofread.suspects.contacts import find_contacts
        from emlib.proofread.suspects.cuts import find_cuts
        from emlib.proofread.suspects.joins import find_joins
        from emlib.proofread.suspects.ranking import LEAST_SHARE

        self.contacts = find_contacts(case.labels, case.boundary, case.voxel_size_nm)
        voxel = float(np.prod(case.voxel_size_nm))
        self.total = float((case.labels > 0).sum()) * voxel
        self.joins = find_joins(self.contacts, voxel)
        self.cuts = find_cuts(self.contacts, voxel, LEAST_SHARE * self.total)
        table = contingency(case.truth, self.contacts.fragments)
        truth = np.unique(table.truth, return_inverse=True)[1]
        shape = (len(self.contacts.neurite), int(truth.max()) + 1)
        self.shared = csr_array((table.voxels.astype(float), (table.pred, truth)), shape=shape)

    def true_joins(self) -> tuple[np.ndarray, np.ndarray]:
        """For each pair of neurites whether truth knows both, and whether they are one."""
        ids, owner = np.unique(self.contacts.neurite, return_inverse=True)
        groups = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(len(ids), len(owner)))
        main, known = _main(groups @ self.shared, np.bincount(owner, self.contacts.voxels))
        ends = np.searchsorted(ids, self.joins.ids)
        return known[ends].all(axis=1), main[ends[:, 0]] == main[ends[:, 1]]

    def true_cuts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For some cuts whether truth knows both sides, and whether they part two true neurites rather than one."""
        order = np.argsort(self.cuts.forest.place)
        shared, voxels = self.shared[order], np.append(0, np.cumsum(self.contacts.voxels[order]))
        known, different = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        place, size = self.cuts.forest.place, self.cuts.forest.size
        wholes: dict[int, tuple[np.ndarray, float]] = {}

        def counted(start: int, end: int) -> tuple[np.ndarray, float]:
            return np.asarray(shared[start:end].sum(axis=0)).ravel(), voxels[end] - voxels[start]

        for row, cut in enumerate(rows):
            tree = int(self.cuts.tree[cut])
            if tree not in wholes:
                wholes[tree] = counted(place[tree], place[tree] + size[tree])
            one, whole = counted(*self.cuts.span[cut]), wholes[tree]
            sides = np.stack([one[0], whole[0] - one[0]])
            main, enough = _main(sides, np.array([one[1], whole[1] - one[1]]))
            kept = sides[[0, 1], main] >= WHOLE * sides.sum(axis=0)[main]
            known[row], different[row] = enough.all(), main[0] != main[1] and kept.all()
        return known, different

    def candidates(self) -> pd.DataFrame:
        """All suspects that truth knows, best first, with ``true``, and ``size``: nm³ of the smaller part."""
        from emlib.proofread.suspects.ranking import rank_cuts, rank_joins

        joins, cuts = rank_joins(self.joins, self.total), rank_cuts(self.cuts, self.total)
        known, one = self.true_joins()
        row = joins["row"].to_numpy()
        joins = joins.assign(true=one[row], known=known[row], size=self.joins.sides.volume[row, 0])
        known, two = self.true_cuts(cuts["row"].to_numpy())
        cuts = cuts.assign(true=two, known=known, size=self.cuts.sides.volume[cuts["row"].to_numpy(), 0])
        every = pd.concat([joins, cuts], ignore_index=True)
        return every[every["known"]].sort_values("score", ascending=False, kind="stable").reset_index(drop=True)

    def voi_after(self, mended: pd.DataFrame) -> float:
        """Variation of information, in bits, once these errors are put right."""
        from emlib.proofread.pieces import connected

        label = np.unique(self.contacts.neurite, return_inverse=True)[1]
        for row in mended.loc[mended["kind"] == "weak merge", "row"]:
            inside = np.zeros(len(label), np.int64)
            inside[self.cuts.members(row)] = 1
            label = np.unique(2 * label + inside, return_inverse=True)[1]
        ends = label[self.contacts.ends[mended.loc[mended["kind"] != "weak merge", "edge"].to_numpy(int)]]
        label = connected(int(label.max()) + 1, *ends.reshape(-1, 2).T)[label]
        groups = csr_array((np.ones(len(label)), (label, np.arange(len(label)))))
        table = (groups @ self.shared).tocoo()
        pred, truth = np.asarray(table.sum(axis=1)).ravel(), np.asarray(table.sum(axis=0)).ravel()
        pairs = table.data * np.log2(pred[table.coords[0]] * truth[table.coords[1]] / table.data**2)
        return float(pairs.sum() / table.data.sum())


def _main(shared, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true id that most of each row has, and whether enough of the row has one."""
    dense = shared.toarray() if hasattr(shared, "toarray") else shared
    return dense.argmax(axis=1), dense.sum(axis=1) >= KNOWN * np.maximum(voxels, 1)


def learn(data: Path) -> None:
    """Print the weights of the evidence."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from emlib.proofread.suspects.evidence import describe
    from emlib.refine.validation import auc

    rows: dict[str, list] = {"JOIN": [], "CUT": []}
    for case in (fib25(data, range(120)), *(phantom(seed) for seed in TRAINED_ON)):
        judge = Judge(case)
        weight = 1.0 if "fib" in case.name else 1 / len(TRAINED_ON)
        known, one = judge.true_joins()
        rows["JOIN"].append((describe(judge.joins.sides)[known], one[known], weight))
        known, two = judge.true_cuts(np.arange(len(judge.cuts.ids)))
        rows["CUT"].append((describe(judge.cuts.sides)[known], two[known], weight))
        print(case.name, {name: (len(r[-1][1]), float(r[-1][1].mean())) for name, r in rows.items()}, flush=True)
    for name, cases in rows.items():
        features, truth = (np.concatenate([case[i] for case in cases]) for i in (0, 1))
        weights = np.concatenate([np.full(len(t), w / len(t)) for _, t, w in cases]) * len(truth) / 2
        scaler = StandardScaler().fit(features)
        scaler.scale_[scaler.scale_ == 0] = 1
        found = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(features), truth, weights)
        weight = found.coef_[0] / scaler.scale_
        intercept = float(found.intercept_[0] - scaler.mean_ @ weight)
        for (case, *_), label in zip(cases, ("fib25", *TRAINED_ON), strict=True):
            said = 1 / (1 + np.exp(-(case @ weight + intercept)))
            told = cases[("fib25", *TRAINED_ON).index(label)][1]
            print(f"  {name} {label}: AUC {auc(told, said):.3f}, mean {said.mean():.4f}, true {told.mean():.4f}")
        print(f"{name} = Odds({intercept:.4g}, ({', '.join(f'{w:.4g}' for w in weight)}))")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real data")
    learn(parser.parse_args().data)
