"""Deletion curves: what is left of an expert while channels are set to zero one after the other.

If a measure of importance is right, the expert fails sooner in its order than in random order, and later in reverse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from emlib.interpret.ablation import Probe
from emlib.interpret.controls import compare

RANDOM, REVERSED = "random", "reversed"


def deletion_steps(channels: int, points: int) -> np.ndarray:
    """Return how many channels are gone at each point of a curve, from 0 to all, evenly.

    Examples
    --------
    >>> deletion_steps(160, 5).tolist()
    [0, 40, 80, 120, 160]
    """
    return np.unique(np.linspace(0, channels, max(2, points)).round().astype(int))


def area(removed: np.ndarray, dice: np.ndarray) -> float:
    """Return the area under a deletion curve as the mean Dice along it: trapezoids over the share of channels removed.

    Parameters
    ----------
    removed : (N,) increasing array
        Channels gone, from 0 to all.
    dice : (N,) array

    Notes
    -----
    The deletion metric of Petsiuk et al. 2018 (RISE), there for pixels.

    Examples
    --------
    >>> area(np.array([0, 50, 100]), np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float(np.trapezoid(dice, removed) / (removed[-1] - removed[0]))


def deletion_curves(
    probe: Probe,
    importance: Mapping[str, np.ndarray],
    orders: np.ndarray,
    steps: np.ndarray,
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """Set more and more channels of the deepest level to zero: in order of importance, in reverse, at random.

    Parameters
    ----------
    probe : Probe
    importance : dict of (E, C) arrays
        By measure. Each expert is followed in its own order.
    orders : (R, C) int array
        From `emlib.interpret.controls.random_orders`; the same for all experts.
    steps : (N,) int array
        From `deletion_steps`.
    progress : bool
        Show a bar.

    Returns
    -------
    DataFrame
        ``expert``, ``measure`` (or random), ``direction`` (forward, reversed, or the draw), ``removed``, ``dice``.
    """
    organelles = probe.model.organelles
    everyone = list(range(len(organelles)))
    curves = [(RANDOM, f"{r:02d}", everyone, order) for r, order in enumerate(orders)]
    for measure, values in importance.items():
        for e in everyone:
            order = np.argsort(-values[e], kind="stable")
            curves += [(measure, "forward", [e], order), (measure, REVERSED, [e], order[::-1])]
    ends = {int(steps[0]): probe.baseline.dice, int(steps[-1]): probe.without(orders[0]).dice}
    rows = []
    for measure, direction, experts, order in tqdm(curves, desc="deletion", disable=not progress, leave=False):
        for removed in map(int, steps):
            if removed in ends:
                dice = ends[removed][experts]
            else:
                dice = probe.without(order[:removed], experts=experts).dice
            rows += [(organelles[e], measure, direction, removed, d) for e, d in zip(experts, dice, strict=True)]
    return pd.DataFrame(rows, columns="expert measure direction removed dice".split())


def deletion_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the areas under deletion curves, against those of random orders.

    Parameters
    ----------
    curves : DataFrame
        From `deletion_curves`.

    Returns
    -------
    DataFrame
        One row per expert and measure: ``area`` (lower: the order finds what matters), ``area_reversed``,
        ``random_mean``, ``random_sd``, ``random_low``, ``random_high``, ``z`` (negative if lower than random) and ``p``
        = (1 + random orders at or below ``area``) / (1 + R).
    """
    areas = {
        key: area(one["removed"].to_numpy(), one["dice"].to_numpy())
        for key, one in curves.groupby(["expert", "measure", "direction"], sort=False)
    }
    rows = []
    for expert, measure in dict.fromkeys(key[:2] for key in areas if key[1] != RANDOM):
        random = np.array([value for key, value in areas.items() if key[:2] == (expert, RANDOM)])
        own = areas[expert, measure, "forward"]
        found = compare(-own, -random)  # turned round: here less is more
        turned = {
            "random_mean": -found["random_mean"],
            "random_sd": found["random_sd"],
            "random_low": -found["random_high"],
            "random_high": -found["random_low"],
            "z": -found["z"],
            "p": found["p"],
        }
        head = {"expert": expert, "measure": measure, "area": own, "area_reversed": areas[expert, measure, REVERSED]}
        rows.append({**head, **turned})
    return pd.DataFrame(rows)
