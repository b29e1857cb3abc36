"""Which statements about channels survive the controls, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

STAND_IN = 0.7  # rank correlation at which half of the variance of the ranks is shared
ALPHA = 0.05
HELD_OUT = "ablation_held_out"
LEAST_DICE = 0.1  # an expert that finds less than this has little to lose
SURVIVES, FAILS, HALF, UNKNOWN = "survives", "does not survive", "depends on the ablation", "cannot be told"


@dataclass(frozen=True)
class Claim:
    """A statement that one might be tempted to make, and what became of it.

    Attributes
    ----------
    topic : {"sharing", "measure", "top", "shared", "specific", "deletion"}
    text : str
        The statement.
    verdict : {"survives", "does not survive", "depends on the ablation", "cannot be told"}
    evidence : str
        The figures that decide.
    tests : int
        p-values that it rests on; none where it cannot be told.
    """

    topic: str
    text: str
    verdict: str
    evidence: str
    tests: int = 1

    def __post_init__(self) -> None:
        if self.verdict == UNKNOWN:
            object.__setattr__(self, "tests", 0)


def overlap_claims(overlaps: pd.DataFrame) -> list[Claim]:
    """Judge what the top sets share: more than random sets do?

    Parameters
    ----------
    overlaps : DataFrame
        From `emlib.interpret.overlap.overlap_table`.
    """
    claims = []
    for row in overlaps.itertuples():
        chance = f"random sets: {row.expected:.1f} ± {row.sd:.1f}"
        if row.kind == "specific":
            text = f"{row.experts} has important channels of its own, more than chance gives"
            found = f"{row.observed} of its {row.k} {'is' if row.observed == 1 else 'are'} in no other expert's top set"
        else:
            text = f"{row.experts} share important channels"
            found = f"{row.observed} of {row.k} in common"
        if row.sd == 0:
            verdict, why = UNKNOWN, "sets of all channels leave nothing to chance"
        elif row.p_more <= ALPHA:
            verdict, why = SURVIVES, f"p = {row.p_more:.2g}"
        elif row.p_less <= ALPHA:
            verdict, why = FAILS, f"fewer than chance, p = {row.p_less:.2g}"
        else:
            verdict, why = FAILS, f"what chance gives, p = {row.p_more:.2g}"
        claims.append(Claim("sharing", text, verdict, f"{found}; {chance}; {why}"))
    return claims


def measure_claims(agreement: pd.DataFrame, reference: str = "ablation") -> list[Claim]:
    """Judge whether estimates by gradient rank the channels of the deepest level as exact ablation does.

    Parameters
    ----------
    agreement : DataFrame
        From `emlib.interpret.agreement.agreement_table`.
    reference : str
        The measure that the others are held against. ``ablation_held_out`` is exact ablation on the patches that
        nothing was ranked on; how well ``ablation`` itself agrees with it is then the most that any measure can reach.
    """
    rows = agreement[(agreement["between"] == "measures") & (agreement["level"] == agreement["level"].max())]
    rows = rows[((rows["first"] == reference) | (rows["second"] == reference)) & ~_about_dice(rows)]
    where = " on other patches" * (reference == HELD_OUT)
    claims = []
    for row in rows.itertuples():
        measure = row.first if row.second == reference else row.second
        name = "exact ablation" if measure == "ablation" else measure.replace("_x_", " × ")
        text = f"{name} ranks the channels of {row.within} as their exact ablation{where} does"
        if row.spearman != row.spearman:
            verdict, evidence = UNKNOWN, "no ranks: all channels are equal"
        else:
            related = row.spearman > 0 and row.p <= ALPHA
            verdict = SURVIVES if related and row.spearman >= STAND_IN else FAILS
            evidence = f"Spearman's ρ = {row.spearman:.2f}, p = {row.p:.2g}"
            if related and verdict == FAILS:
                evidence += f"; related, but a stand-in asks for ρ of {STAND_IN} or more"
        claims.append(Claim("measure", text, verdict, evidence))
    return claims


def set_claims(effects: pd.DataFrame, dice: dict[str, float], organelles: Sequence[str]) -> list[Claim]:
    """Judge whether sets of channels matter more than random sets of the same size.

    Parameters
    ----------
    effects : DataFrame
        From `emlib.interpret.controls.ablate_sets`.
    dice : dict
        Pooled Dice of each expert before anything is taken away; NaN where the patches show none of its organelle.
    organelles : names of the experts
    """
    claims = []
    for one in effects.drop_duplicates(["set", "of"]).itertuples():
        rows = effects[(effects["set"] == one.set) & (effects["of"] == one.of)]
        for expert in organelles if one.set == "shared" else [one.of]:
            name = _set_matters(one.set, one.size, expert)
            own = rows[rows["expert"] == expert]
            text = f"{name} more than random ones"
            claims.append(_judged(one.set, text, own[own["quantity"] == "drop"], dice[expert], "Dice falls by"))
            selective = own[own["quantity"] == "selectivity"]
            if one.set == "specific" and len(selective):
                text = f"{name} more than to the others"
                claims.append(_judged("specific", text, selective, dice[expert], "Dice falls beyond the others' by"))
    return claims


def deletion_claims(areas: pd.DataFrame, dice: dict[str, float]) -> list[Claim]:
    """Judge whether removing channels by importance destroys an expert sooner than removing them at random.

    Parameters
    ----------
    areas : DataFrame
        From `emlib.interpret.deletion.deletion_areas`.
    dice : dict
        As for `set_claims`.
    """
    claims = []
    for row in areas.itertuples():
        text = f"Removing channels by {row.measure.replace('_x_', ' × ')} destroys {row.expert} sooner than at random"
        if not dice[row.expert] >= LEAST_DICE:
            claims.append(Claim("deletion", text, UNKNOWN, _nothing_to_lose(dice[row.expert])))
            continue
        evidence = (
            f"area {row.area:.3f}; random orders {row.random_mean:.3f} [{row.random_low:.3f}, {row.random_high:.3f}], "
            f"z = {row.z:.1f}, p = {row.p:.3f}; reversed {row.area_reversed:.3f}"
        )
        unclear = row.z != row.z  # all random orders alike
        verdict = UNKNOWN if unclear else SURVIVES if row.p <= ALPHA else FAILS
        claims.append(Claim("deletion", text, verdict, evidence))
    return claims


def _judged(topic: str, text: str, rows: pd.DataFrame, dice: float, falls: str) -> Claim:
    """One claim by its rows of zero- and mean-ablation: it must hold with both."""
    if not dice >= LEAST_DICE:
        return Claim(topic, text, UNKNOWN, _nothing_to_lose(dice))
    parts = [
        f"{row.ablation}: {falls} {row.value:.3f}, random {row.random_mean:.3f} [{row.random_low:.3f}, "
        f"{row.random_high:.3f}], z = {row.z:.1f}, p = {row.p:.3f}"
        for row in rows.itertuples()
    ]
    held = [row.p <= ALPHA for row in rows.itertuples()]
    if rows["z"].isna().all():
        verdict = UNKNOWN
        parts.append("all random sets of this size do the same")
    else:
        verdict = SURVIVES if all(held) else HALF if any(held) else FAILS
    return Claim(topic, text, verdict, "; ".join(parts), tests=len(rows))


def _set_matters(kind: str, size: int, expert: str) -> str:
    """The beginning of a claim about a set, singular or plural."""
    channels, matter = ("channel", "matters") if size == 1 else (f"{size} channels", "matter")
    return {
        "top": f"The top {channels} of {expert} {matter} to it",
        "shared": f"The {channels.replace('channel', 'shared channel')} {matter} to {expert}",
        "specific": f"The {channels} that only {expert} ranks high {matter} to it",
    }[kind]


def _nothing_to_lose(dice: float) -> str:
    if dice != dice:
        return "there is none of it on these patches"
    return f"its Dice on these patches is {dice:.3f} to begin with"


def _about_dice(rows: pd.DataFrame) -> pd.Series:
    return rows["first"].str.endswith("_dice") | rows["second"].str.endswith("_dice")
