"""Decisions on synapse candidates, kept so that they hold for other labels too.

A candidate is known by where it was found and between which neurites (`key`). Ids change with every edit, and wholly
in refined labels; so each candidate also carries a voxel inside its sender and one inside its receiver, taken from the
labels that it was found on. Whatever has these voxels in another label volume are its partners there.

A synapse that a person added is a record of its own: it stands behind the candidates with score 1, and its name begins
with ``added``, so that nobody takes it for one that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError, nearest
from emlib.proofread.records import SYNAPSE, Change, Records
from emlib.volumes.volume import ZYX

FOUND = ("z", "y", "x", "pre_id", "post_id")
ANCHORS = ("pre_z", "pre_y", "pre_x", "post_z", "post_y", "post_x")
DEPTH_NM = 20.0
REACH_NM = 300.0  # candidates look for their partners within 150 nm
DECISIONS = {
    "synapse": "str",
    **dict.fromkeys(FOUND, "int64"),
    "score": "float64",
    "decision": "str",
    **dict.fromkeys(("new_z", "new_y", "new_x", "new_pre_id", "new_post_id"), "int64"),
    "flipped": "bool",
    **dict.fromkeys(ANCHORS, "int64"),
}
ADDED = "added "  # what the name of a synapse begins with that a person added
UNTOUCHED = {"decision": "undecided", "at": None, "flipped": False}
CERTAIN = 1.0  # the score of what a person has seen
_CHUNK, _BLOCK = 512, 1000  # offsets and candidates that are looked at together


def key(z: int, y: int, x: int, pre_id: int, post_id: int) -> str:
    """Return the name of a candidate, which no edit changes.

    Examples
    --------
    >>> key(5, 94, 15, 16, 28)
    '5,94,15,16,28'
    """
    return ",".join(str(int(value)) for value in (z, y, x, pre_id, post_id))


def anchored(candidates: pd.DataFrame, labels: np.ndarray, voxel_size_nm: ZYX) -> pd.DataFrame:
    """Give candidates their names and their places in the neurites.

    Parameters
    ----------
    candidates : DataFrame
        ``z, y, x, pre_id, post_id, score``, as in ``tables/synapse_candidates.csv``.
    labels : (Z, Y, X) int array
        Those that the candidates were found on.
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    DataFrame
        Indexed by `key`; the columns above, and ``pre_z … post_x``: a voxel inside of each partner near the candidate,
        or -1 where the neurite is not within 300 nm.

    Raises
    ------
    UserError
        If a candidate lies outside of the labels or stands in the table twice.
    """
    table = candidates[[*FOUND, "score"]].astype(dict.fromkeys(FOUND, np.int64)).reset_index(drop=True)
    places = table[["z", "y", "x"]].to_numpy()
    outside = ((places < 0) | (places >= labels.shape)).any(1)
    if outside.any():
        z, y, x = places[outside][0]
        raise UserError(
            f"the synapse candidate at z={z}, y={y}, x={x} lies outside of the labels {labels.shape} (z, y, x); the "
            "table belongs to another run"
        )
    for side in ("pre", "post"):
        ids = table[f"{side}_id"].to_numpy()
        blocks = [slice(first, first + _BLOCK) for first in range(0, max(1, len(table)), _BLOCK)]
        found = [nearest_voxels(labels, places[block], ids[block], voxel_size_nm) for block in blocks]
        table[[f"{side}_z", f"{side}_y", f"{side}_x"]] = np.concatenate(found)
    table.index = pd.Index([key(*row) for row in table[list(FOUND)].itertuples(index=False)], name="synapse", dtype=str)
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise UserError(f"the synapse candidate {twice} (z, y, x, pre, post) is listed twice; remove one of the rows")
    return table


def nearest_voxels(labels: np.ndarray, places: np.ndarray, ids: np.ndarray, voxel_size_nm: ZYX) -> np.ndarray:
    """Find a voxel inside of a label next to a place, each for its own.

    Parameters
    ----------
    labels : (Z, Y, X) int array
    places : (N, 3) int array of z, y, x
    ids : (N,) int array
    voxel_size_nm : (z, y, x) in nm

    Returns
    -------
    (N, 3) int64 array of z, y, x
        The nearest voxel with the label 20 nm around it in y and in x, so that it lies inside of the same neurite in
        other labels too, whose borders run a little differently; where there is none, the nearest one of the label; -1
        where the label is not within 300 nm.
    """
    reach = [int(REACH_NM // size) for size in voxel_size_nm]
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    distance = np.sqrt(((offsets * np.asarray(voxel_size_nm)) ** 2).sum(1))
    offsets = offsets[np.argsort(distance, kind="stable")][: int((distance <= REACH_NM).sum())]
    y, x = (max(1, round(DEPTH_NM / size)) for size in voxel_size_nm[1:])
    around = np.array([(0, 0, 0), (0, y, 0), (0, -y, 0), (0, 0, x), (0, 0, -x)])
    found = np.full((len(places), 3), -1, np.int64)
    for needed in (around, around[:1]):
        left = np.flatnonzero((found < 0).all(1))
        for first in range(0, len(offsets), _CHUNK):
            if not len(left):
                break
            at = places[left, None] + offsets[None, first : first + _CHUNK]
            hit = np.ones(at.shape[:2], bool)
            for step in needed:
                hit &= _has(labels, at + step, ids[left, None])
            done = hit.any(1)
            found[left[done]] = at[done, hit[done].argmax(1)]
            left = left[~done]
    return found


def _has(labels: np.ndarray, places: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Whether each place lies in the volume and has the label."""
    inside = ((places >= 0) & (places < labels.shape)).all(-1)
    return inside & (labels[tuple(np.moveaxis(np.where(inside[..., None], places, 0), -1, 0))] == ids)


def decide(records: Records, candidates: pd.DataFrame, synapse: str, **changes: Any) -> Change:
    """Return the change that would put a decision on record.

    Parameters
    ----------
    records : Records
    candidates : DataFrame
        From `anchored`.
    synapse : str
        Its `key`.
    **changes
        ``decision`` ("confirmed", "rejected", "undecided"), ``at`` ([z, y, x]), ``flipped`` (bool).

    Raises
    ------
    UserError
        If there is no such candidate.
    """
    known = all_synapses(candidates, records)
    if synapse not in known.index:
        raise UserError(
            f"there is no synapse candidate {synapse!r} (z,y,x,pre,post); {nearest(synapse, list(known.index))}"
        )
    after = (records.get(SYNAPSE, synapse) or UNTOUCHED) | changes
    if after["at"] == [int(n) for n in known.loc[synapse, ["z", "y", "x"]]]:
        after["at"] = None
    return records.change(SYNAPSE, synapse, None if after == UNTOUCHED else after)


def add(
    records: Records, labels: np.ndarray, at: Sequence[int], pre: Sequence[int], post: Sequence[int]
) -> tuple[list[int], Change]:
    """Return the neurites of a synapse that nobody found, and the change that would put it on record, confirmed.

    Parameters
    ----------
    records : Records
    labels : (Z, Y, X) int array
    at, pre, post : z, y, x
        The synapse, a voxel inside of its sender and one inside of its receiver; all within the labels.

    Raises
    ------
    UserError
        If sender or receiver is background, both are one neurite, or the synapse was added before.
    """
    ids = [int(labels[tuple(place)]) for place in (pre, post)]
    for neurite, side, place in zip(ids, ("sender", "receiver"), (pre, post), strict=True):
        if not neurite:
            where = ", ".join(f"{axis}={n}" for axis, n in zip("zyx", place, strict=True))
            raise UserError(f"the {side} at {where} is background; click inside of a neurite")
    if ids[0] == ids[1]:
        raise UserError(f"sender and receiver are both neurite {ids[0]}; click two different ones")
    name = f"{ADDED}{key(*at, *ids)}"
    if records.get(SYNAPSE, name):
        raise UserError(f"a synapse from {ids[0]} to {ids[1]} was added here already; move that one")
    places = dict(zip((*FOUND, *ANCHORS), map(int, (*at, *ids, *pre, *post)), strict=True))
    return ids, records.change(SYNAPSE, name, UNTOUCHED | {"decision": "confirmed", "added": places})


def remove(records: Records, synapse: str) -> Change:
    """Return the change that would take an added synapse away.

    Raises
    ------
    UserError
        If it is a candidate that was found: that one is rejected instead.
    """
    if not (records.get(SYNAPSE, synapse) or {}).get("added"):
        raise UserError(f"nobody added the synapse {synapse!r}; what was found is rejected, not removed")
    return records.change(SYNAPSE, synapse, None)


def all_synapses(candidates: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Return the candidates and, behind them, the synapses that people added; columns as `anchored`."""
    added = {
        name: record["added"]
        for name in records.keys(SYNAPSE)
        if name.startswith(ADDED) and (record := records.get(SYNAPSE, name)).get("added")
    }
    if not added:
        return candidates
    more = pd.DataFrame.from_dict(added, orient="index").assign(score=CERTAIN)[list(candidates.columns)]
    both = pd.concat([candidates, more.astype(candidates.dtypes.to_dict())]) if len(candidates) else more
    return both.rename_axis(candidates.index.name)


def synapse_table(candidates: pd.DataFrame, records: Records, labels: np.ndarray) -> pd.DataFrame:
    """Return all candidates as they stand after the edits.

    Parameters
    ----------
    candidates : DataFrame
        From `anchored`.
    records : Records
    labels : (Z, Y, X) int array
        As edited.

    Returns
    -------
    DataFrame
        A row per candidate in their order, then those that were added. ``synapse``: its name. ``z, y, x, pre_id,
        post_id, score``: as found or added. ``decision``: confirmed, rejected or undecided. ``new_z, new_y, new_x``:
        where it lies now. ``new_pre_id, new_post_id``: the neurites that send and receive now, after merges, splits and
        a flip; 0 where there is none.
        ``flipped``: whether sender and receiver changed places. ``pre_z … post_x``: a voxel inside the sender and one
        inside the receiver, after a flip; -1 where it is unknown.
    """
    table = all_synapses(candidates, records).reset_index()
    decided = [records.get(SYNAPSE, synapse) or {} for synapse in table["synapse"]]
    table["decision"] = [known.get("decision", "undecided") for known in decided]
    table["flipped"] = [bool(known.get("flipped", False)) for known in decided]
    at = table[["z", "y", "x"]].to_numpy(copy=True)
    for row, known in enumerate(decided):
        if known.get("at"):
            at[row] = known["at"]
    table[["new_z", "new_y", "new_x"]] = at
    pre, post = table[list(ANCHORS[:3])].to_numpy(copy=True), table[list(ANCHORS[3:])].to_numpy(copy=True)
    flipped = table["flipped"].to_numpy(bool)
    pre[flipped], post[flipped] = post[flipped], pre[flipped]
    table[list(ANCHORS)] = np.concatenate([pre, post], axis=1)
    table["new_pre_id"], table["new_post_id"] = _labels_at(labels, pre), _labels_at(labels, post)
    return table[list(DECISIONS)].astype(DECISIONS)


def decision_table(candidates: pd.DataFrame, records: Records, labels: np.ndarray) -> pd.DataFrame:
    """Return what was decided: the rows of `synapse_table` that a decision, a move or a flip stands for."""
    table = synapse_table(candidates, records, labels)
    return table[table["synapse"].isin(records.keys(SYNAPSE))].reset_index(drop=True)


def _labels_at(labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    known = (places >= 0).all(1)
    return np.where(known, labels[tuple(np.where(known[:, None], places, 0).T)], 0)
