"""What proofreading leaves for the other commands: corrected labels, corrected sections, synapses, names, the edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emlib.proofread.edits import find_voxels
from emlib.proofread.journal import Journal
from emlib.proofread.operations import Scene
from emlib.proofread.records import NEURITE
from emlib.proofread.undo import History
from emlib.runs.artefacts import Outputs

if TYPE_CHECKING:
    from emlib.proofread.session import Session

NAMES = {"neurite_id": "int64", "name": "str", "note": "str", "z": "int64", "y": "int64", "x": "int64"}
EDITS = ("id", "time", "user", "operation", "target", "ids", "box", "voxels", "arguments", "in_force")


def corrected_name(labels: np.ndarray) -> str:
    """Return what the corrected labels are called, without folder and suffix."""
    return f"neurite_labels_corrected_{'i32' if labels.dtype == np.int32 else 'i64'}_zyx"


def write_results(session: Session, outdir: str | Path) -> list[Path]:
    """Write what a session has come to; equal journals give equal bytes.

    Parameters
    ----------
    session : Session
    outdir : path

    Returns
    -------
    list of Path
        ``data/neurite_labels_corrected_i32_zyx.npy`` (i64 where ids need it), ``tables/proofread_slices.json``,
        ``tables/synapse_edits.csv``, ``tables/neurite_names.csv``.

    Raises
    ------
    UserError
        If a file cannot be written; those of an earlier save are then whole still, and the journal has all edits.
    """
    outputs = Outputs(outdir)
    mark = {"synthetic": session.files.synthetic} if session.files.synthetic else {}
    if mark:
        outputs.mark_synthetic(mark["synthetic"])
    labels, identity = session.labels, session.journal.identity
    outputs.array(
        corrected_name(labels),
        labels,
        "Neurite labels as proofread",
        voxel_size_nm=session.voxel_size_nm,
        source={"labels": session.files.labels.uri, "sha256": identity.sha256, "edits": session.edits_in_force},
        **mark,
    )
    outputs.json("proofread_slices", {"slices": session.accepted_sections}, "Sections accepted as corrected")
    outputs.table("synapse_edits", session.synapse_decisions(), "Synapses confirmed, rejected, moved, flipped")
    outputs.table("neurite_names", session.neurite_names(), "Names and notes of neurites")
    return [outputs.path(str(path)) for artefact in outputs.written for path in artefact.files]


def name_table(scene: Scene) -> pd.DataFrame:
    """Return the names and notes of the neurites that are still there.

    Returns
    -------
    DataFrame
        ``neurite_id, name, note``, and ``z, y, x`` of a voxel inside, by which other labels find the neurite.
    """
    rows = []
    for key in scene.records.keys(NEURITE):
        neurite = int(key)
        if neurite in scene.boxes:
            places = find_voxels(scene.labels, neurite, scene.boxes[neurite])
            place = np.unravel_index(places[len(places) // 2], scene.labels.shape)
            known = scene.records.get(NEURITE, neurite)
            rows.append((neurite, known["name"], known["note"], *map(int, place)))
    return pd.DataFrame(rows, columns=list(NAMES)).astype(NAMES)


def edit_table(journal: Journal) -> pd.DataFrame:
    """Return the entries of a journal, without their voxels.

    Returns
    -------
    DataFrame
        ``id``; ``time`` (UTC); ``user``; ``operation``; ``target``: the edit that an undo or redo is about; ``ids``;
        ``box`` (z0 z1 y0 y1 x0 x1) and ``voxels`` that changed; ``arguments`` as JSON; ``in_force``: whether an edit
        stands at the end, empty for undo and redo.
    """
    rows, history = [], History()
    for entry in journal.entries():
        history.follow(entry.operation, entry.target or entry.id)
        row = (entry.id, entry.time, entry.user, entry.operation, entry.target)
        where = " ".join(map(str, entry.box or ()))
        rows.append((*row, " ".join(map(str, entry.ids)), where, entry.voxels, entry.arguments))
    table = pd.DataFrame(rows, columns=list(EDITS[:-1])).astype({"target": "Int64"})
    stands = set(history)
    table["in_force"] = [
        str(n in stands) if pd.isna(t) else "" for n, t in zip(table["id"], table["target"], strict=True)
    ]
    return table


def export_csv(journal: Journal) -> str:
    """Return the entries of a journal as CSV; columns as `edit_table`."""
    return edit_table(journal).to_csv(index=False, lineterminator="\n")
