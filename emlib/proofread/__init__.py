"""Proofreading: edits of neurites and synapses that are written to a journal before the picture changes.

`Session.open` opens a run, `Session.apply` does an `Edit`, `replay` applies a journal without a window. Needs no Qt.
"""

from emlib.proofread.edits import Edit
from emlib.proofread.journal import Journal
from emlib.proofread.replaying import replay
from emlib.proofread.session import Applied, Session

__all__ = ["Applied", "Edit", "Journal", "Session", "replay"]
