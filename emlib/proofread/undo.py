"""Which edits are in force and which were undone, as numbers of journal entries: the edits themselves stay there."""

from __future__ import annotations

from array import array

from emlib.errors import UserError
from emlib.proofread.journal_format import REDO, UNDO


class History:
    """Eight bytes per edit, however large the edits are.

    Examples
    --------
    >>> history = History()
    >>> history.did(1), history.did(2), history.undid(2)
    (None, None, None)
    >>> history.to_undo, history.to_redo, len(history)
    (1, 2, 1)
    """

    def __init__(self) -> None:
        self._done, self._undone = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self):
        return iter(self._done)

    @property
    def to_undo(self) -> int | None:
        """The entry that an undo takes back; None if there is none."""
        return self._done[-1] if self._done else None

    @property
    def to_redo(self) -> int | None:
        """The entry that a redo does again; None if there is none."""
        return self._undone[-1] if self._undone else None

    def did(self, entry: int) -> None:
        """Note a new edit; what was undone before can no longer be redone."""
        self._done.append(entry)
        del self._undone[:]

    def undid(self, entry: int) -> None:
        """Note that the last edit was taken back."""
        self._undone.append(self._done.pop())

    def redid(self, entry: int) -> None:
        """Note that the edit undone last was done again."""
        self._done.append(self._undone.pop())

    def follow(self, operation: str, entry: int) -> None:
        """Note an entry of the journal; ``entry`` is the edit that an undo or redo is about.

        Raises
        ------
        UserError
            If an undo or redo is not about the edit that is next, as no session writes it.
        """
        expected = {UNDO: self.to_undo, REDO: self.to_redo}.get(operation, entry)
        if expected != entry:
            raise UserError(f"the journal is inconsistent: {operation} of edit {entry}, where {expected} is next")
        {UNDO: self.undid, REDO: self.redid}.get(operation, self.did)(entry)
