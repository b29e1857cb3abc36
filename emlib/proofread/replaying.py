"""Apply a journal to labels without a window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emlib.errors import UserError
from emlib.proofread.deltas import Delta, apply_delta
from emlib.proofread.journal import Journal
from emlib.proofread.journal_format import UNDO, Identity
from emlib.proofread.operations import OPERATIONS
from emlib.proofread.records import Records
from emlib.proofread.undo import History


def replay(journal: Journal, labels: np.ndarray) -> tuple[np.ndarray, Records]:
    """Apply a journal to the labels it belongs to.

    Parameters
    ----------
    journal : Journal
    labels : (Z, Y, X) int array
        As they were before any edit.

    Returns
    -------
    labels : (Z, Y, X) int array
        A copy with all edits that are in force.
    records : Records
        What is known beside them.

    Raises
    ------
    UserError
        If the journal is of other labels or damaged.
    """
    journal.require(Identity.of(labels, journal.identity.voxel_size_nm), "those given")
    edited, records = np.array(labels, order="C"), Records()
    replay_entries(journal, edited, records, History())
    return edited, records


def replay_entries(
    journal: Journal,
    labels: np.ndarray,
    records: Records,
    history: History,
    changed: Callable[[Delta], None] = lambda delta: None,
) -> None:
    """Apply all entries of a journal in order to labels and records, in place.

    Raises
    ------
    UserError
        If the journal is damaged, or a later emlib wrote operations that this one does not know.
    """
    for entry in journal.entries():
        target = entry
        if entry.target is not None:
            target = journal.entry(entry.target)
        elif entry.operation not in OPERATIONS:
            raise UserError(
                f"{journal.path}, edit {entry.id}: no operation is called {entry.operation!r}; update emlib"
            )
        back = entry.operation == UNDO
        delta = target.delta.inverse() if back and target.delta else target.delta
        if delta is not None:
            apply_delta(labels, delta)
            changed(delta)
        (records.revert if back else records.apply)(target.records)
        history.follow(entry.operation, target.id)
