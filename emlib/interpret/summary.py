"""The text that a channel analysis ends with: what was looked at, and which claims survive."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from emlib.interpret.claims import ALPHA, FAILS, HALF, SURVIVES, UNKNOWN, Claim
from emlib.interpret.wording import counted

WIDTH = 110
HEADINGS = {
    "sharing": "Do the experts share channels?",
    "measure": "Is the published importance (gradient) a fair stand-in for taking a channel away?",
    "top": "Do the most important channels matter?",
    "shared": "Do the shared channels matter?",
    "specific": "Are there specialised channels?",
    "deletion": "Does importance say what to remove first?",
}


def summary_text(title: str, sampled: Sequence[str], claims: Sequence[Claim], random_sets: int, orders: int) -> str:
    """Set the summary: a title, what was sampled, the verdicts counted, the claims by topic, how to read them.

    Parameters
    ----------
    title : str
    sampled : list of str
        Sentences on what was looked at.
    claims : list of Claim
    random_sets, orders : int
        How many random sets and random orders the claims were held against.
    """
    lines = [title, "", *(line for text in sampled for line in _wrapped(text)), "", *_wrapped(verdict_line(claims))]
    for topic, heading in HEADINGS.items():
        if about := [claim for claim in claims if claim.topic == topic]:
            lines += ["", heading]
            for claim in about:
                lines += _wrapped(f"{claim.text}: {claim.verdict.upper()}.", "  - ")
                lines += _wrapped(claim.evidence, "      ")
    tests, told = sum(claim.tests for claim in claims), sum(claim.verdict != UNKNOWN for claim in claims)
    lines += ["", "How to read this"]
    lines += _wrapped(
        f"A claim survives at p ≤ {ALPHA:g}, in the case of sets with zero- and with mean-ablation. Overlaps are "
        "tested exactly (hypergeometric), correlations by Student's t; sets and curves against "
        f"{counted(random_sets, 'random set')} of the same size and {counted(orders, 'random order')}, so that p is at "
        f"least {1 / (1 + random_sets):.3f} and {1 / (1 + orders):.3f}. The {counted(told, 'claim')} that can be told "
        f"{_agree(told, 'rests', 'rest')} on {counted(tests, 'test')}, two for a set and one for all else; about "
        f"{tests * ALPHA:.1f} of them would fall below the threshold by chance alone, so one survivor among many says "
        "little.",
        "  ",
    )
    lines += _wrapped(
        "In brackets: 2.5 and 97.5 percentiles of the random sets. z: distance from their mean in their standard "
        "deviations. Dice is pooled over the patches that are judged on. Importance is a property of this one network "
        "and these patches; another training run may distribute the same features over other channels.",
        "  ",
    )
    return "\n".join(lines) + "\n"


def verdict_line(claims: Sequence[Claim]) -> str:
    """Count the verdicts in one sentence.

    Examples
    --------
    >>> verdict_line([Claim("top", "a", "survives", ""), Claim("top", "b", "does not survive", "")])
    'Of 2 claims 1 survives the controls and 1 does not.'
    """
    number = {v: sum(claim.verdict == v for claim in claims) for v in (SURVIVES, FAILS, HALF, UNKNOWN)}
    text = f"Of {counted(len(claims), 'claim')} {number[SURVIVES]} {_agree(number[SURVIVES], 'survives', 'survive')}"
    text += f" the controls and {number[FAILS]} {_agree(number[FAILS], 'does', 'do')} not"
    if number[HALF]:
        text += f"; {number[HALF]} {_agree(number[HALF], 'depends', 'depend')} on what takes the place of a channel"
    if number[UNKNOWN]:
        text += f"; {number[UNKNOWN]} cannot be told"
    return text + "."


def _agree(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent))
