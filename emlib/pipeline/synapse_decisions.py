"""What people decided about synapse candidates, applied to candidates that were found anew on other labels.

1. A decision is matched to the new candidate at the place of the old one, one to one.
2. Rejected candidates leave the table. Confirmed ones count as certain: their score becomes 1.
3. Sender and receiver are the neurites at the two places in them that the decision names; ids do not last, places do.
4. A confirmed synapse without a new candidate is put back; undecided candidates beside it are taken for the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_table
from emlib.measure.synapses.assignment import near_pairs
from emlib.measure.synapses.matching import match_synapses
from emlib.proofread.synapse_edits import ADDED, ANCHORS, DECISIONS
from emlib.publish.style import plural
from emlib.volumes.volume import ZYX

CONFIRMED, REJECTED = "confirmed", "rejected"
CERTAIN = 1.0  # the score of what a person has confirmed
SHOWN = 5  # synapses that a line names
PLACE, MOVED = ["z", "y", "x"], ["new_z", "new_y", "new_x"]
OUTCOMES = {  # what became of a decision, and how a line says so
    "applied": "matched to a new candidate",
    "put back": "confirmed without a new candidate there, put back",
    "not found": "without a new candidate there, so that nothing was to be done",
    "no partners": "confirmed, but their sender or receiver is background in these labels: left out",
    "inside": "confirmed, but sender and receiver are one neurite in these labels: no connection",
}


class Applied(NamedTuple):
    """Candidates after the decisions.

    Attributes
    ----------
    candidates : DataFrame
        As from `find_candidates`, best score first; ``decision`` is "confirmed", or "undecided" where a candidate was
        only moved or flipped, and empty where nobody looked.
    outcomes : DataFrame
        A row per decision: ``synapse``, ``decision``, ``flipped``, ``outcome``, ``distance_nm`` to the new candidate,
        ``found_score`` of it, ``z, y, x, pre_id, post_id`` as it counts now; empty where there is none.
    lines : list of str
        What cannot be applied as it was decided.
    """

    candidates: pd.DataFrame
    outcomes: pd.DataFrame
    lines: list[str]


def read_decisions(path: str | Path, shape: tuple[int, int, int], own: pd.DataFrame | None) -> pd.DataFrame:
    """Read ``tables/synapse_edits.csv`` and check that it belongs to a volume.

    Parameters
    ----------
    path : path
    shape : (Z, Y, X)
        Of the labels.
    own : DataFrame or None
        The candidates that the run found itself, ``z, y, x``; None if it found none.

    Returns
    -------
    DataFrame
        Columns as `emlib.proofread.synapse_edits.DECISIONS`.

    Raises
    ------
    UserError
        If it is no such table, or was made on another volume: a place lies outside of the labels, or fewer than half
        of the candidates that it names were found by this run.
    """
    numbers = [name for name, kind in DECISIONS.items() if kind in ("int64", "float64")]
    table = read_table(path, numbers)
    if lost := [name for name in DECISIONS if name not in table]:
        raise UserError(f"{path} lacks the column {lost[0]}; write it again by saving the proofreading session")
    wrong = ~table["decision"].isin([CONFIRMED, REJECTED, "undecided"])
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        found = " ".join(str(table["decision"].iloc[row]).split())[:40]
        raise UserError(f"{path}, line {row + 2}: decision is {found}; it is confirmed, rejected or undecided")
    table["flipped"] = table["flipped"].astype(str).str.lower() == "true"
    table = table.astype(DECISIONS)
    foreign = f"{path} was made on another volume"
    advice = "give the one of this run with --synapse_edits FILE, or leave decisions out with --synapse_edits none"
    for columns, least in ((PLACE, 0), (MOVED, 0), (list(ANCHORS[:3]), -1), (list(ANCHORS[3:]), -1)):
        places = table[columns].to_numpy()
        outside = ((places < least) | (places >= shape)).any(axis=1)
        if outside.any():
            z, y, x = places[outside][0]
            raise UserError(f"{foreign}: z={z}, y={y}, x={x} lies outside of the labels {shape} (z, y, x); {advice}")
    looked_at = table[~table["synapse"].str.startswith(ADDED)]  # what a person added no run has found
    if own is not None and len(looked_at):
        known = set(own[PLACE].astype(np.int64).itertuples(index=False, name=None))
        found = sum(place in known for place in looked_at[PLACE].itertuples(index=False, name=None))
        if 2 * found < len(looked_at):
            raise UserError(
                f"{foreign}, or another run: {found} of its {plural(len(looked_at), 'candidate')} were found by this "
                f"one; {advice}"
            )
    return table


def apply_decisions(
    candidates: pd.DataFrame,
    decisions: pd.DataFrame,
    labels: np.ndarray,
    voxel_size_nm: ZYX,
    *,
    match_nm: float,
    separation_nm: float,
) -> Applied:
    """Apply decisions to candidates that were found anew.

    Parameters
    ----------
    candidates : DataFrame
        From `emlib.stages.synapses.find_candidates` on ``labels``.
    decisions : DataFrame
        From `read_decisions`.
    labels : (Z, Y, X) int array
    voxel_size_nm : (z, y, x) in nm
    match_nm : float
        Farthest that a new candidate may lie from the old one that was decided on.
    separation_nm : float
        Candidates nearer to each other are one synapse, as the stage has it.

    Returns
    -------
    Applied
    """
    table = candidates.assign(decision="")
    pairs = match_synapses(table, decisions, voxel_size_nm, match_nm).pairs
    row_of = dict(zip(pairs["truth"].tolist(), pairs["pred"].tolist(), strict=True))
    far = dict(zip(pairs["truth"].tolist(), pairs["distance_nm"].tolist(), strict=True))
    gone, put_back, outcomes = set(), [], []
    for at, decided in enumerate(decisions.itertuples(index=False)):
        row = row_of.get(at)
        found = None if row is None else {name: table.at[row, name] for name in (*PLACE, "pre_id", "post_id", "score")}
        outcome, now = _outcome(decided, found, labels)
        if row is not None and now is None:
            gone.add(row)
        elif row is not None:
            for name, value in now.items():
                table.at[row, name] = value
        elif now is not None:
            put_back.append(now)
        kept = now or {}
        said = {"synapse": decided.synapse, "decision": decided.decision, "flipped": decided.flipped}
        said |= {"outcome": outcome, "distance_nm": far.get(at), "found_score": found and found["score"]}
        outcomes.append(said | {name: kept.get(name) for name in (*PLACE, "pre_id", "post_id")})
    table = table.drop(index=sorted(gone))
    if put_back:
        table = _with_put_back(table, pd.DataFrame(put_back), voxel_size_nm, separation_nm)
    table = table.astype({name: kind for name, kind in candidates.dtypes.items() if name != "partners"})
    table = table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
    columns = ["synapse", "decision", "flipped", "outcome", "distance_nm", "found_score", *PLACE, "pre_id", "post_id"]
    result = pd.DataFrame(outcomes, columns=columns)
    result = result.astype(dict.fromkeys([*PLACE, "pre_id", "post_id"], "Int64"))
    return Applied(table, result, _lines(result, match_nm))


def _outcome(decided: NamedTuple, found: dict | None, labels: np.ndarray) -> tuple[str, dict | None]:
    """What becomes of a decision, and the values of its candidate; None where it is not, or no longer, in the table."""
    if decided.decision == REJECTED or (decided.decision != CONFIRMED and found is None):
        return ("not found" if found is None else "applied"), None
    anchors = [(decided.pre_z, decided.pre_y, decided.pre_x), (decided.post_z, decided.post_y, decided.post_x)]
    pre, post = (int(labels[place]) if min(place) >= 0 else 0 for place in anchors)
    if found is not None and not (pre and post):  # the new candidate knows its partners itself
        pre, post = int(found["pre_id"]), int(found["post_id"])
    place = dict(zip(PLACE, (decided.new_z, decided.new_y, decided.new_x), strict=True))
    if found is not None and (decided.new_z, decided.new_y, decided.new_x) == (decided.z, decided.y, decided.x):
        place = {name: int(found[name]) for name in PLACE}  # nobody moved it: where it was found now
    if not (pre and post):
        return "no partners", None
    if pre == post:
        return "inside", None
    now = {**place, "pre_id": pre, "post_id": post, "decision": decided.decision}
    if decided.decision == CONFIRMED:
        now["score"] = CERTAIN
    return ("put back" if found is None else "applied"), now


def _with_put_back(table: pd.DataFrame, back: pd.DataFrame, voxel_size_nm: ZYX, separation_nm: float) -> pd.DataFrame:
    """Add what was put back, and drop undecided candidates that are nearer to it than two synapses can be."""
    undecided = table[table["decision"] == ""]
    near = np.unique(near_pairs(undecided, back, voxel_size_nm, separation_nm)[0])
    table = table.drop(index=undecided.index[near])
    if "partners" in table:
        back["partners"] = ""
    back = back.reindex(columns=table.columns)
    return pd.concat([table, back.astype({n: k for n, k in table.dtypes.items() if k.kind == "f"})], ignore_index=True)


def _lines(outcomes: pd.DataFrame, match_nm: float) -> list[str]:
    """A line for each kind of outcome but the plain one."""
    lines = []
    for outcome, words in list(OUTCOMES.items())[1:]:
        names = outcomes.loc[outcomes["outcome"] == outcome, "synapse"].tolist()
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            shown = "; ".join(names[:SHOWN])
            lines.append(
                f"{len(names)} of {plural(len(outcomes), 'decision')} on synapses: {words}; candidates were looked for "
                f"within {match_nm:g} nm: {shown}{more}"
            )
    return lines
