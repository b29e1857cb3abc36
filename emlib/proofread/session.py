"""A session of proofreading: labels, what is known beside them, and the journal through which alone they change.

    with Session.open("outputs") as session:
        session.apply(Edit("merge", {"keep": 3, "gone": 8}))
        session.undo()
        session.save()

An edit is worked out, written to the journal, and only then applied to the labels. Opening replays the journal on the
labels of the run, which stay as they are; `save` writes the corrected ones under a name of their own.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from emlib import __version__
from emlib.errors import UserError
from emlib.proofread.boxes import Box, Boxes, slices, whole
from emlib.proofread.deltas import Delta, apply_delta
from emlib.proofread.edits import Edit
from emlib.proofread.journal import FILE, Journal, create_journal
from emlib.proofread.journal_format import REDO, UNDO, Entry, Identity
from emlib.proofread.operations import Scene, fresh_id, journal_arguments, plan
from emlib.proofread.pieces import label_runs
from emlib.proofread.records import SECTION, Change, Records
from emlib.proofread.replaying import replay_entries
from emlib.proofread.representative import choose_slices
from emlib.proofread.results import name_table, write_results
from emlib.proofread.run_files import RunFiles, find_run
from emlib.proofread.suspects import find_suspects
from emlib.proofread.synapse_edits import anchored, decision_table, synapse_table
from emlib.proofread.undo import History
from emlib.runs.lock import run_lock
from emlib.stages.boundaries import intensity_boundaries


class Applied(NamedTuple):
    """What has just changed, so that a window draws that part anew.

    Attributes
    ----------
    entry : int
        Of the journal.
    operation : str
        As the user knows it; for an undo or redo that of the edit concerned.
    box : (z0, z1, y0, y1, x0, x1) or None
        Where labels changed.
    ids : list of int
        Neurites concerned.
    """

    entry: int
    operation: str
    box: Box | None
    ids: list[int]


class Session:
    """An open session; see `Session.open`."""

    def __init__(self, files: RunFiles, labels: np.ndarray, journal: Journal, user: str) -> None:
        """Replay a journal on the labels it belongs to, which are changed in place."""
        self.files, self.journal, self.user = files, journal, user
        self.voxel_size_nm = files.voxel_size_nm
        self._labels = labels
        self._history = History()
        self._suspects: pd.DataFrame | None = None
        self._resources = ExitStack()
        candidates = anchored(files.read_candidates(), labels, files.voxel_size_nm)
        self.scene = Scene(labels, Boxes(labels), Records(), candidates, self.boundary, files.voxel_size_nm)
        replay_entries(journal, labels, self.scene.records, self._history, self.scene.boxes.update)

    @classmethod
    def open(
        cls,
        outdir: str | Path,
        *,
        journal: str | Path | None = None,
        labels: str | Path | None = None,
        voxel_size_nm: Iterable[float] | None = None,
        user: str | None = None,
        create: bool = True,
    ) -> Session:
        """Open a run and replay its journal.

        Parameters
        ----------
        outdir : path
            The run; locked until the session is closed, so that no second window and no run writes to it.
        journal : path, optional
            Instead of ``<outdir>/runs/proofreading.sqlite``.
        labels : path, optional
            Instead of those of the run; the journal belongs to them.
        voxel_size_nm : (z, y, x) in nm, optional
            Wins over that of the files.
        user : str, optional
            Who edits; by default the name of the login.
        create : bool
            Whether a journal that is not there is made; otherwise it is an error.

        Raises
        ------
        UserError
            If the run has no labels, shapes differ, the journal belongs to other labels or is damaged, or another
            window or run has the folder.
        """
        files = find_run(outdir, labels, voxel_size_nm)
        path = Path(journal) if journal is not None else files.root / FILE
        with ExitStack() as resources:
            resources.enter_context(run_lock(outdir))
            array = files.read_labels()
            identity = Identity.of(array, files.voxel_size_nm)
            if create and not path.exists():
                create_journal(path, identity, {"emlib": __version__})
            opened = Journal(path)
            resources.callback(opened.close)
            opened.require(identity, files.labels.uri)
            session = cls(files, array, opened, user or _login())
            session._resources = resources.pop_all()
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal and let others have the folder; nothing is lost, nothing is saved."""
        self._resources.close()

    @property
    def labels(self) -> np.ndarray:
        """The labels as edited, (Z, Y, X); read-only, since what bypasses the journal would be lost."""
        view = self._labels.view()
        view.flags.writeable = False
        return view

    @property
    def boxes(self) -> Boxes:
        """Bounding box and number of voxels of each neurite."""
        return self.scene.boxes

    def boundary(self, box: Box) -> np.ndarray:
        """Return the boundary probability of a box, float: the run's, else from its EM, else 0 everywhere."""
        if self.files.boundaries is not None:
            return self.files.boundaries.read(slices(box))
        if self.files.em is not None:
            em = self.files.em.read(slices(box)).astype(np.float32)
            return intensity_boundaries(em / max(1.0, float(em.max())), self.voxel_size_nm)
        return np.zeros([end - start for start, end in zip(box[::2], box[1::2], strict=True)], np.float32)

    def apply(self, edit: Edit) -> Applied:
        """Do an edit: journal first, labels after that.

        Raises
        ------
        UserError
            If it cannot be done or not be written to the journal; nothing has changed then.
        """
        planned = plan(edit, self.scene)
        number = self.journal.append(
            edit.operation,
            user=self.user,
            ids=planned.ids,
            arguments=journal_arguments(edit),
            delta=planned.delta,
            records=planned.records,
        )
        self._history.did(number)
        self._enact(planned.delta, planned.records)
        if edit.operation == "split" and (kept := planned.ids[0]) in self.boxes:  # often by far the smaller part now
            runs = label_runs(self._labels, kept, self.boxes[kept])
            self.boxes.tighten(kept, runs.box(self._labels.shape))
        return Applied(number, edit.operation, planned.delta and planned.delta.box, planned.ids)

    def undo(self) -> Applied:
        """Take back the last edit that is in force; sessions before this one count.

        Raises
        ------
        UserError
            If there is none, or the journal cannot be written.
        """
        if (target := self._history.to_undo) is None:
            raise UserError("there is nothing to undo: no edit is in force")
        entry = self.journal.entry(target)
        number = self._append_reference(UNDO, entry)
        self._history.undid(target)
        self._enact(entry.delta and entry.delta.inverse(), [Change(c.kind, c.key, c.new, c.old) for c in entry.records])
        return Applied(number, entry.operation, entry.delta and entry.delta.box, entry.ids)

    def redo(self) -> Applied:
        """Do again what was undone last; errors as for `undo`."""
        if (target := self._history.to_redo) is None:
            raise UserError("there is nothing to redo: no edit was undone since the last one")
        entry = self.journal.entry(target)
        number = self._append_reference(REDO, entry)
        self._history.redid(target)
        self._enact(entry.delta, entry.records)
        return Applied(number, entry.operation, entry.delta and entry.delta.box, entry.ids)

    @property
    def can_undo(self) -> bool:
        """Whether `undo` has something to take back."""
        return self._history.to_undo is not None

    @property
    def can_redo(self) -> bool:
        """Whether `redo` has something to do again."""
        return self._history.to_redo is not None

    @property
    def accepted_sections(self) -> list[int]:
        """Sections that were accepted as corrected, ascending."""
        return [int(z) for z in self.scene.records.keys(SECTION)]

    def accept_section(self, z: int) -> Applied:
        """Accept a section as corrected: an edit like any other."""
        return self.apply(Edit("accept_section", {"z": z}))

    def fresh_id(self) -> int:
        """Return an id that no neurite has or had, to paint with."""
        return fresh_id(self.scene)

    def synapses(self) -> pd.DataFrame:
        """Return all synapse candidates as they stand; columns as `emlib.proofread.synapse_edits.synapse_table`."""
        return synapse_table(self.scene.candidates, self.scene.records, self._labels)

    def synapse_decisions(self) -> pd.DataFrame:
        """Return the candidates that were confirmed, rejected, moved or flipped; columns as `synapses`."""
        return decision_table(self.scene.candidates, self.scene.records, self._labels)

    def neurite_names(self) -> pd.DataFrame:
        """Return names and notes; columns as `emlib.proofread.results.name_table`."""
        return name_table(self.scene)

    def suspects(self, refresh: bool = False) -> pd.DataFrame:
        """Return what to look at next; columns as `emlib.proofread.suspects.find_suspects`.

        Parameters
        ----------
        refresh : bool
            Search the labels as they are now: seconds. Otherwise the table of the first search is kept, without the
            rows whose neurites were merged, deleted or cut at the place since.

        Raises
        ------
        UserError
            If the run kept neither a boundary probability nor EM.
        """
        if self._suspects is None or refresh:
            self._require_boundary("what to look at next")
            found = find_suspects(self.labels, self.boundary, self.boxes, self.voxel_size_nm)
            self._suspects = found
        table = self._suspects
        there = self._labels[tuple(table[axis].to_numpy(int) for axis in "zyx")] == table["id_a"]
        return table[there & table["id_b"].isin(self.boxes.ids())].reset_index(drop=True)

    def slices_to_correct(self, count: int = 5) -> pd.DataFrame:
        """Return sections worth correcting beside the accepted ones; columns as `choose_slices`.

        Raises
        ------
        UserError
            If the run kept no EM, or as `emlib.proofread.representative.choose_slices`.
        """
        if self.files.em is None:
            raise UserError(f"the run in {self.files.root} kept no EM; run run_pipeline.py without --save_minimal")
        box = whole(self._labels.shape)
        em = self.files.em.read(slices(box))
        return choose_slices(em, self.boundary(box), count, self.voxel_size_nm, self.accepted_sections)

    def save(self, outdir: str | Path | None = None) -> list[Path]:
        """Write the corrected labels and the tables, by default into the run's folder; return the paths."""
        return write_results(self, outdir or self.files.root)

    @property
    def edits_in_force(self) -> int:
        """How many edits are neither undone nor lost to a new one after an undo."""
        return len(self._history)

    def _require_boundary(self, what: str) -> None:
        if self.files.boundaries is None and self.files.em is None:
            raise UserError(
                f"the run in {self.files.root} kept neither a boundary probability nor EM, from which {what} is found; "
                "run run_pipeline.py without --save_minimal"
            )

    def _append_reference(self, operation: str, entry: Entry) -> int:
        return self.journal.append(operation, user=self.user, ids=entry.ids, delta=entry.delta, target=entry.id)

    def _enact(self, delta: Delta | None, records: list[Change]) -> None:
        if delta is not None:
            apply_delta(self._labels, delta)
            self.boxes.update(delta)
        self.scene.records.apply(records)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return "unknown"
