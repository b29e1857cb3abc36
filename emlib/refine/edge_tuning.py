"""The curve of splits against mergers over the bias, and the point on it that is chosen.

A segmentation is scored without being painted: true labels against fragments are counted once, and whatever joins
fragments adds up rows of that table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from emlib.measure.contingency import Contingency, marginal
from emlib.measure.instances import score_table
from emlib.stages.agglomerate import Evidence, partition
from emlib.stages.inclusions import absorb_enclosed
from emlib.stages.learned_edges import Cut, EdgeTuning, learned_evidence

BIASES = tuple(float(b) for b in np.arange(-3, 3.01, 0.25))
SIZE_POWERS = (0.5, 1.0)
SCORES = ("voi_split", "voi_merge", "voi", "arand")


def joined(table: Contingency, neurite: np.ndarray) -> Contingency:
    """Return the table of true labels and neurites, given that of true labels and fragments.

    Parameters
    ----------
    table : Contingency
    neurite : (N,) int array
        The neurite of each fragment id.

    Examples
    --------
    >>> from emlib.measure.contingency import contingency
    >>> table = contingency(np.array([[1, 1, 1, 2]]), np.array([[1, 2, 2, 3]]))
    >>> joined(table, np.array([0, 5, 5, 6])).voxels.tolist()
    [3, 1]
    """
    true = np.unique(table.truth, return_inverse=True)[1]  # ids can be of any size
    key = true * (int(neurite.max()) + 1) + neurite[table.pred]
    voxels, which = marginal(key, table.voxels)
    first = np.zeros(len(voxels), np.int64)
    first[which[::-1]] = np.arange(len(key))[::-1]
    return Contingency(
        table.truth[first], neurite[table.pred[first]], voxels.astype(np.int64), table.place[first], table.run[first]
    )


def split_merge_curve(
    cut: Cut,
    table: Contingency,
    segmenter: str,
    evidence: Callable[[float], Evidence],
    biases: Sequence[float] = BIASES,
    min_enclosed: float = 0.6,
) -> pd.DataFrame:
    """Score a segmenter over the bias.

    Parameters
    ----------
    cut : Cut
    table : Contingency
        Of true labels and fragments.
    segmenter : {"multicut", "gasp"}
    evidence : function
        Of the bias, log-odds added to "these two are different".
    biases : sequence of float
    min_enclosed : float
        As in `emlib.stages.inclusions.absorb_enclosed`.

    Returns
    -------
    DataFrame, a row for each bias
        ``segmenter, bias, voi_split, voi_merge, voi, arand, neurites``.
    """
    rows = []
    for bias in biases:
        neurite = partition(cut.graph, evidence(bias), segmenter)
        neurite = absorb_enclosed(neurite, cut.graph, cut.fragments, cut.voxel_size_nm, min_enclosed)
        told = score_table(joined(table, neurite))
        row = {"segmenter": segmenter, "bias": bias, **{name: told[name] for name in SCORES}}
        rows.append({**row, "neurites": len(np.unique(neurite[1:]))})
    return pd.DataFrame(rows)


def chosen(curve: pd.DataFrame) -> int:
    """Return the row of a curve with the lowest VOI, each averaged with its neighbours.

    The scores jump where one large neurite is joined or cut; a point whose neighbours are good too is likelier to be
    good on another volume.

    Examples
    --------
    >>> chosen(pd.DataFrame({"voi": [1.1, 2.0, 1.3, 1.2, 1.3, 2.0]}))
    3
    """
    voi = curve["voi"].to_numpy()
    padded = np.concatenate([voi[:1], voi, voi[-1:]])
    return int(np.argmin(padded[:-2] + 2 * padded[1:-1] + padded[2:]))


def tune(
    cut: Cut, table: Contingency, same: np.ndarray, segmenter: str, min_enclosed: float = 0.6
) -> tuple[EdgeTuning, pd.DataFrame]:
    """Choose bias and power of the contact size for a segmenter.

    Parameters
    ----------
    cut : Cut
    table : Contingency
        Of true labels and fragments.
    same : (E,) float array in [0, 1]
        Calibrated probabilities of contacts that the model has not learnt from.
    segmenter : {"multicut", "gasp"}
    min_enclosed : float

    Returns
    -------
    tuning : EdgeTuning
    curve : DataFrame
        As `split_merge_curve`, with ``size_power`` and ``chosen``.
    """
    curves, best = [], []
    for power in SIZE_POWERS:

        def evidence(bias: float, power: float = power) -> Evidence:
            return learned_evidence(same, cut.graph, cut.voxel_size_nm, EdgeTuning(bias, power))

        curve = split_merge_curve(cut, table, segmenter, evidence, min_enclosed=min_enclosed)
        row = chosen(curve)
        curves.append(curve.assign(size_power=power, chosen=np.arange(len(curve)) == row))
        best.append(curve["voi"].iloc[max(row - 1, 0) : row + 2].mean())
    winner = int(np.argmin(best))
    for number, curve in enumerate(curves):
        if number != winner:
            curve["chosen"] = False
    bias = float(curves[winner].loc[curves[winner]["chosen"], "bias"].iloc[0])
    return EdgeTuning(bias, SIZE_POWERS[winner]), pd.concat(curves, ignore_index=True)
