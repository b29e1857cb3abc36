"""Sets of channels taken away, against random sets of the same size.

Taking 100 of 160 channels away hurts whichever they are. A set matters if it hurts more than random sets do; it is
specific if it hurts its own expert more than the others by more than random sets do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from emlib.interpret.ablation import KINDS, Effect, Probe
from emlib.interpret.overlap import ChannelSet

INTERVAL = (2.5, 97.5)  # percentiles
QUANTITIES = ("drop", "change", "selectivity")


def random_orders(channels: int, count: int, seed: int) -> np.ndarray:
    """Draw orders of the channels; the first s of an order are a random set of size s.

    Parameters
    ----------
    channels, count, seed : int

    Returns
    -------
    (count, channels) int array
        Row r is the same whatever ``count`` is.
    """
    return np.stack([np.random.default_rng([seed, 2, r]).permutation(channels) for r in range(count)])


def compare(value: float, random: np.ndarray) -> dict[str, float]:
    """Hold a value against those of random sets.

    Parameters
    ----------
    value : float
    random : (R,) array

    Returns
    -------
    dict
        ``random_mean``, ``random_sd``, ``random_low`` and ``random_high`` (2.5 and 97.5 percentiles),
        ``z`` = (value − mean) / sd, NaN where all are equal, and ``p`` = (1 + random sets at or above the value) /
        (1 + R), which never is 0 (Phipson & Smyth 2010).

    Examples
    --------
    >>> found = compare(5.0, np.array([1.0, 2.0, 3.0]))
    >>> found["random_mean"], found["z"], found["p"]
    (2.0, 3.0, 0.25)
    """
    low, high = np.percentile(random, INTERVAL)
    sd = float(np.std(random, ddof=1)) if len(random) > 1 else 0.0
    mean = float(np.mean(random))
    level = np.ptp(random) <= 1e-12  # such as sets of all channels: what is left of sd is rounding
    return {
        "random_mean": mean,
        "random_sd": sd,
        "random_low": float(low),
        "random_high": float(high),
        "z": float("nan") if level else (value - mean) / sd,
        "p": (1 + int(np.sum(random >= value - 1e-12))) / (1 + len(random)),
    }


def ablate_sets(
    probe: Probe, sets: Sequence[ChannelSet], orders: np.ndarray, *, progress: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take each set away, and random sets of its size, at the deepest level.

    Parameters
    ----------
    probe : Probe
    sets : list of ChannelSet
        Empty ones are left out.
    orders : (R, C) int array
        From `random_orders`.
    progress : bool
        Show a bar.

    Returns
    -------
    effects : DataFrame
        One row per set, kind of ablation, expert and quantity: ``set``, ``of``, ``size``, ``ablation`` (zero, mean),
        ``expert``, ``quantity``, ``value``, and the columns of `compare`. Quantities: ``drop``, pooled Dice before −
        after; ``change``, mean |change of the logits|; ``selectivity``, the expert's drop − the mean drop of the others
        (not with one expert).
    random : DataFrame
        ``size``, ``ablation``, ``draw``, ``expert``, ``drop``, ``change``, ``selectivity`` of every random set.
    """
    organelles = probe.model.organelles
    sets = [one for one in sets if one.channels]
    sizes = sorted({len(one.channels) for one in sets})
    tasks = [(kind, one, one.channels) for kind in KINDS for one in sets]
    tasks += [(kind, (size, r), order[:size]) for kind in KINDS for size in sizes for r, order in enumerate(orders)]
    done = {}
    for kind, key, channels in tqdm(tasks, desc="sets against random sets", disable=not progress, leave=False):
        done[kind, key] = _quantities(probe.baseline, probe.without(channels, kind=kind))
    rows, draws = [], []
    for kind in KINDS:
        for size in sizes:
            for r in range(len(orders)):
                found = done[kind, (size, r)]
                draws += [
                    {"size": size, "ablation": kind, "draw": r, "expert": name, **{q: found[q][e] for q in found}}
                    for e, name in enumerate(organelles)
                ]
        for one in sets:
            size = len(one.channels)
            for e, name in enumerate(organelles):
                for quantity, values in done[kind, one].items():
                    random = np.array([done[kind, (size, r)][quantity][e] for r in range(len(orders))])
                    head = {"set": one.kind, "of": one.of, "size": size, "ablation": kind, "expert": name}
                    value = float(values[e])
                    rows.append({**head, "quantity": quantity, "value": value, **compare(value, random)})
    return pd.DataFrame(rows), pd.DataFrame(draws)


def _quantities(before: Effect, after: Effect) -> dict[str, np.ndarray]:
    drop = before.dice - after.dice
    found = {"drop": drop, "change": after.change}
    if len(drop) > 1:
        found["selectivity"] = drop - (drop.sum() - drop) / (len(drop) - 1)
    return found
