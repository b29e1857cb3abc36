"""What is known beside the labels: corrected sections, decisions on synapses, names of neurites.

All of it is one dictionary, (kind, key) -> JSON value, and each edit is a list of what it replaces by what, so that
undo, redo and replay need to know nothing of what a record means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

SECTION, SYNAPSE, NEURITE = "section", "synapse", "neurite"


class Change(NamedTuple):
    """One record before and after; None stands for no record."""

    kind: str
    key: str
    old: Any
    new: Any


class Records:
    """The records in force.

    Examples
    --------
    >>> records = Records()
    >>> change = records.change(SECTION, 3, True)
    >>> records.apply([change])
    >>> records.get(SECTION, 3), records.keys(SECTION)
    (True, ['3'])
    >>> records.revert([change])
    >>> records.get(SECTION, 3) is None
    True
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Any] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def get(self, kind: str, key: str | int) -> Any:
        """Return a record, or None."""
        return self._values.get((kind, str(key)))

    def keys(self, kind: str) -> list[str]:
        """Return the keys of a kind; whole numbers in their order, then text."""
        keys = [key for known, key in self._values if known == kind]
        return sorted(keys, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))

    def change(self, kind: str, key: str | int, new: Any) -> Change:
        """Return the change that would set a record; nothing is set."""
        return Change(kind, str(key), self.get(kind, key), new)

    def apply(self, changes: Iterable[Change]) -> None:
        """Set records."""
        for change in changes:
            self._set(change.kind, change.key, change.new)

    def revert(self, changes: Iterable[Change]) -> None:
        """Take changes back."""
        for change in reversed(list(changes)):
            self._set(change.kind, change.key, change.old)

    def _set(self, kind: str, key: str, value: Any) -> None:
        if value is None:
            self._values.pop((kind, key), None)
        else:
            self._values[kind, key] = value
