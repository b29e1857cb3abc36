"""Patches in two halves: channels are ranked on one, and what that ranking is worth is judged on the other.

On the patches that chose it a set looks better than it is, since whatever is peculiar to them helped to choose it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlib.interpret.sampling import Sample
from emlib.interpret.wording import counted, listed

LEAST_SHARE = 3  # of the patches, as a divisor: a half by whole sections holds at least a third of them


@dataclass(frozen=True)
class Halves:
    """Patches to rank on and patches to judge on.

    Attributes
    ----------
    ranking, judging : Sample
        The same where there is one patch alone.
    note : str
        In a sentence how they differ.
    apart : bool
        Whether they have no patch in common.
    """

    ranking: Sample
    judging: Sample
    note: str
    apart: bool = True


def split_patches(sample: Sample) -> Halves:
    """Share patches out into two halves that show the same organelles.

    Parameters
    ----------
    sample : Sample

    Returns
    -------
    Halves
        Of different sections, if each half then has a third of the patches or more and shows every organelle that two
        patches show; else of different patches of the same sections. One patch alone is both halves.

    Notes
    -----
    Sections go in their order to the half that has fewer patches so far. Patches go, those with the rarest organelle
    first, to the half that lacks more of what they show, of equal ones to that with fewer patches.
    """
    if len(sample.images) < 2:
        return Halves(sample, sample, "There is one patch alone: channels are ranked and judged on it, which flatters "
                      "what was ranked high.", apart=False)  # fmt: skip
    ranking = _by_sections(sample)
    if _fair(sample, ranking):
        how = "of other sections"
    else:
        ranking, how = _by_patches(sample), "of the same sections, as whole ones cannot be shared out evenly"
    first, second = sample.only(np.flatnonzero(ranking)), sample.only(np.flatnonzero(~ranking))
    told = [f"{counted(len(half.images), 'patch', 'patches')} ({_where(half)})" for half in (first, second)]
    return Halves(first, second, f"Channels are ranked on {told[0]}; everything is judged on {told[1]}, {how}.")


def _by_sections(sample: Sample) -> np.ndarray:
    """(P,) bool: the first half, in whole sections."""
    names = np.array([name for name, *_ in sample.places])
    first = np.zeros(len(names), bool)
    held = [0, 0]
    for name in dict.fromkeys(names.tolist()):
        to = int(held[1] < held[0])
        held[to] += int((names == name).sum())
        if to == 0:
            first |= names == name
    return first


def _fair(sample: Sample, first: np.ndarray) -> bool:
    """Whether both halves are large enough and show what two patches or more show."""
    shows = sample.shows
    enough = min(first.sum(), (~first).sum()) * LEAST_SHARE >= len(first)
    common = shows.sum(axis=0) >= 2
    return bool(enough and all((shows[half].any(axis=0) | ~common).all() for half in (first, ~first)))


def _by_patches(sample: Sample) -> np.ndarray:
    """(P,) bool: the first half, patch by patch."""
    shows = sample.shows
    rare = np.argsort(shows.sum(axis=0), kind="stable")
    order = sorted(range(len(shows)), key=lambda p: next((i for i, e in enumerate(rare) if shows[p, e]), len(rare)))
    halves: tuple[list[int], list[int]] = ([], [])
    for p in order:
        room = [half for half in halves if 2 * len(half) < len(shows)]
        lacking = [int((shows[p] & ~shows[half].any(axis=0)).sum()) for half in room]
        best = min(range(len(room)), key=lambda k: (-lacking[k], len(room[k])))
        room[best].append(p)
    return np.isin(np.arange(len(shows)), halves[0])


def _where(sample: Sample) -> str:
    return listed(list(dict.fromkeys(name for name, *_ in sample.places)), "section")
