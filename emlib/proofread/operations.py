"""What each operation does: from an edit and the state of a session to the changes that it stands for.

Nothing is changed here. What cannot be done raises a `UserError` before anything is written.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError, nearest
from emlib.proofread import edits
from emlib.proofread.boxes import Box, Boxes
from emlib.proofread.deltas import Delta
from emlib.proofread.edits import Edit
from emlib.proofread.records import NEURITE, SECTION, Change, Records
from emlib.proofread.splitting import split
from emlib.proofread.synapse_edits import UNTOUCHED, add, decide, remove
from emlib.volumes.volume import ZYX


@dataclass(frozen=True)
class Scene:
    """What operations look at.

    Attributes
    ----------
    labels : (Z, Y, X) int32 or int64 array
    boxes : Boxes
    records : Records
    candidates : DataFrame
        From `emlib.proofread.synapse_edits.anchored`.
    boundary : function of a box
        Returns its boundary probability.
    voxel_size_nm : (z, y, x) in nm
    """

    labels: np.ndarray
    boxes: Boxes
    records: Records
    candidates: pd.DataFrame
    boundary: Callable[[Box], np.ndarray]
    voxel_size_nm: ZYX


@dataclass(frozen=True)
class Plan:
    """What an edit would change.

    Attributes
    ----------
    ids : list of int
        Neurites that it is about.
    delta : Delta or None
    records : list of Change
    """

    ids: list[int]
    delta: Delta | None = None
    records: list[Change] = field(default_factory=list)


def plan(edit: Edit, scene: Scene) -> Plan:
    """Work out what an edit would change.

    Raises
    ------
    UserError
        If there is no such operation, an argument is missing, unknown or senseless, or nothing would change.
    """
    operation = OPERATIONS.get(edit.operation)
    if operation is None:
        raise UserError(f"there is no operation {edit.operation!r}; {nearest(edit.operation, list(OPERATIONS))}")
    wanted = list(inspect.signature(operation).parameters.values())[1:]
    names = [parameter.name for parameter in wanted]
    if unknown := [name for name in edit.arguments if name not in names]:
        raise UserError(f"{edit.operation} takes no {unknown[0]!r}; {nearest(unknown[0], names)}")
    needed = [p.name for p in wanted if p.default is inspect.Parameter.empty and p.name not in edit.arguments]
    if needed:
        raise UserError(f"{edit.operation} needs {', '.join(needed)}; give {'it' if len(needed) == 1 else 'them'}")
    done = operation(scene, **edit.arguments)
    kept = [change for change in done.records if change.old != change.new]
    if done.delta is None and not kept:
        raise UserError(f"{edit.operation} would change nothing here; choose another place or neurite")
    return Plan(done.ids, done.delta, kept)


def fresh_id(scene: Scene) -> int:
    """Return an id that no neurite has or had.

    Raises
    ------
    UserError
        If the labels' type can hold no larger one.
    """
    return _fresh(scene, 1)[0]


def journal_arguments(edit: Edit) -> str:
    """Return the arguments as JSON; voxels of a brush are left out, since the delta holds them."""
    kept = {name: value for name, value in edit.arguments.items() if name != "voxels"}
    return json.dumps(kept, default=lambda value: np.asarray(value).tolist(), ensure_ascii=False)


def _merge(scene: Scene, keep: int, gone: int) -> Plan:
    keep, gone = _known(scene, keep), _known(scene, gone)
    if keep == gone:
        raise UserError(f"both clicks are on neurite {keep}; click two different ones")
    delta = edits.merge(scene.labels, keep, gone, scene.boxes[gone])
    mine, other = scene.records.get(NEURITE, keep), scene.records.get(NEURITE, gone)
    changes = []
    if other:
        name = (mine or {}).get("name") or other["name"]
        lost = other["name"] if other["name"] != name else ""
        notes = [(mine or {}).get("note", ""), lost and f"merged with {lost}", other["note"]]
        joined = {"name": name, "note": "; ".join(note for note in notes if note)}
        changes = [scene.records.change(NEURITE, keep, joined), scene.records.change(NEURITE, gone, None)]
    return Plan([keep, gone], delta, changes)


def _split(scene: Scene, neurite: int, seeds: Sequence[Any], z: int | None = None) -> Plan:
    neurite, z = _known(scene, neurite), _section(scene, z)
    new = _fresh(scene, max(1, len(seeds) - 1))
    delta = split(scene.labels, scene.boundary, seeds, neurite, new, scene.voxel_size_nm, scene.boxes[neurite], z)
    return Plan([neurite, *new], delta)


def _paint(scene: Scene, neurite: int, voxels: Any, over: int | None = None) -> Plan:
    neurite = _whole(neurite, "neurite")
    highest = np.iinfo(scene.labels.dtype).max
    if not 0 < neurite <= highest:
        raise UserError(f"neurite ids lie in 1 … {highest}, not at {neurite}; to erase, use erase")
    return Plan([neurite], edits.paint(scene.labels, voxels, neurite, over))


def _erase(scene: Scene, voxels: Any, over: int | None = None) -> Plan:
    return Plan([0 if over is None else int(over)], edits.paint(scene.labels, voxels, 0, over))


def _new_id(scene: Scene, at: Sequence[int], z: int | None = None) -> Plan:
    at = edits.inside(scene.labels.shape, [at])[0].tolist()
    z = _section(scene, z)
    if z is not None and z != at[0]:
        raise UserError(f"the piece at section {at[0]} is not in section {z}; click in the section that is meant")
    neurite = _known(scene, scene.labels[tuple(at)])
    (to,) = _fresh(scene, 1)
    delta = edits.new_id(scene.labels, at, to, scene.boxes[neurite], z)
    if delta is None or delta.voxels == scene.boxes.voxels(neurite):
        raise UserError(f"neurite {neurite} is one piece and has its own id; split it to cut it in two")
    return Plan([neurite, to], delta)


def _relabel(scene: Scene, neurite: int, to: int) -> Plan:
    neurite, to = _known(scene, neurite), _whole(to, "the new id")
    highest = np.iinfo(scene.labels.dtype).max
    if not 0 < to <= highest:
        raise UserError(f"neurite ids lie in 1 … {highest}, not at {to}; choose another")
    if to in scene.boxes:
        raise UserError(f"there is a neurite {to} already; merge {neurite} with it, or choose another id")
    known = scene.records.get(NEURITE, neurite)
    moved = [scene.records.change(NEURITE, to, known), scene.records.change(NEURITE, neurite, None)]
    delta = edits.relabel(scene.labels, neurite, to, scene.boxes[neurite])
    return Plan([neurite, to], delta, moved)


def _delete(scene: Scene, neurite: int, z: int | None = None) -> Plan:
    neurite, z = _known(scene, neurite), _section(scene, z)
    delta = edits.delete(scene.labels, neurite, scene.boxes[neurite], z)
    gone = delta is not None and delta.voxels == scene.boxes.voxels(neurite)
    return Plan([neurite], delta, [scene.records.change(NEURITE, neurite, None)] if gone else [])


def _fill(scene: Scene, neurite: int, z: int | None = None, over: int | None = None) -> Plan:
    neurite, z = _known(scene, neurite), _section(scene, z)
    return Plan([neurite], edits.fill(scene.labels, neurite, scene.boxes[neurite], z, over))


def _accept_section(scene: Scene, z: int) -> Plan:
    return Plan([], None, [scene.records.change(SECTION, _section(scene, z), True)])


def _unaccept_section(scene: Scene, z: int) -> Plan:
    return Plan([], None, [scene.records.change(SECTION, _section(scene, z), None)])


def _confirm_synapse(scene: Scene, synapse: str) -> Plan:
    return Plan([], None, [decide(scene.records, scene.candidates, synapse, decision="confirmed")])


def _reject_synapse(scene: Scene, synapse: str) -> Plan:
    return Plan([], None, [decide(scene.records, scene.candidates, synapse, decision="rejected")])


def _reset_synapse(scene: Scene, synapse: str) -> Plan:
    return Plan([], None, [decide(scene.records, scene.candidates, synapse, **UNTOUCHED)])


def _add_synapse(scene: Scene, at: Sequence[int], pre: Sequence[int], post: Sequence[int]) -> Plan:
    places = [edits.inside(scene.labels.shape, [place])[0].tolist() for place in (at, pre, post)]
    ids, change = add(scene.records, scene.labels, *places)
    return Plan(ids, None, [change])


def _remove_synapse(scene: Scene, synapse: str) -> Plan:
    return Plan([], None, [remove(scene.records, synapse)])


def _move_synapse(scene: Scene, synapse: str, to: Sequence[int]) -> Plan:
    at = edits.inside(scene.labels.shape, [to])[0].tolist()
    return Plan([], None, [decide(scene.records, scene.candidates, synapse, at=at)])


def _flip_synapse(scene: Scene, synapse: str) -> Plan:
    change = decide(scene.records, scene.candidates, synapse, flipped=True)
    if change.old == change.new:
        change = decide(scene.records, scene.candidates, synapse, flipped=False)
    return Plan([], None, [change])


def _name_neurite(scene: Scene, neurite: int, name: str) -> Plan:
    return _describe(scene, neurite, name=name)


def _note_neurite(scene: Scene, neurite: int, note: str) -> Plan:
    return _describe(scene, neurite, note=note)


def _describe(scene: Scene, neurite: int, **text: str) -> Plan:
    neurite = _known(scene, neurite)
    text = {field: " ".join(str(words).split()) for field, words in text.items()}
    after = (scene.records.get(NEURITE, neurite) or {"name": "", "note": ""}) | text
    return Plan([neurite], None, [scene.records.change(NEURITE, neurite, after if any(after.values()) else None)])


OPERATIONS: dict[str, Callable[..., Plan]] = {
    "merge": _merge,
    "split": _split,
    "paint": _paint,
    "erase": _erase,
    "new_id": _new_id,
    "relabel": _relabel,
    "delete": _delete,
    "fill": _fill,
    "accept_section": _accept_section,
    "unaccept_section": _unaccept_section,
    "confirm_synapse": _confirm_synapse,
    "reject_synapse": _reject_synapse,
    "reset_synapse": _reset_synapse,
    "add_synapse": _add_synapse,
    "remove_synapse": _remove_synapse,
    "move_synapse": _move_synapse,
    "flip_synapse": _flip_synapse,
    "name_neurite": _name_neurite,
    "note_neurite": _note_neurite,
}


def _fresh(scene: Scene, count: int) -> list[int]:
    first, highest = scene.boxes.highest + 1, np.iinfo(scene.labels.dtype).max
    if first + count - 1 > highest:
        raise UserError(f"{scene.labels.dtype} labels hold no id above {highest}; number them anew, from 1")
    return list(range(first, first + count))


def _known(scene: Scene, neurite: Any) -> int:
    neurite = _whole(neurite, "neurite")
    if neurite == 0:
        raise UserError("there is no neurite here, 0 is background; click inside of one")
    if neurite not in scene.boxes:
        raise UserError(f"there is no neurite {neurite} in these labels; the ids go up to {scene.boxes.highest}")
    return neurite


def _section(scene: Scene, z: Any) -> int | None:
    if z is None:
        return None
    z, depth = _whole(z, "the section"), len(scene.labels)
    if not 0 <= z < depth:
        raise UserError(f"there is no section {z}; they are numbered 0 … {depth - 1}")
    return z


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UserError(f"{what} is a whole number, not {str(value)[:40]!r}")
    return int(value)
