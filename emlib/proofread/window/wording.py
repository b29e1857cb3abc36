"""An edit in words, as the window says it."""

from __future__ import annotations

from emlib.proofread.session import Applied

PLAIN = {
    "paint": "painted {0}",
    "erase": "erased",
    "delete": "deleted {0}",
    "fill": "filled the holes of {0}",
    "relabel": "{0} is called {1} now",
    "accept_section": "accepted the section",
    "unaccept_section": "took back that the section is corrected",
    "confirm_synapse": "confirmed the synapse",
    "reject_synapse": "rejected the synapse",
    "reset_synapse": "left the synapse undecided",
    "move_synapse": "moved the synapse",
    "flip_synapse": "exchanged sender and receiver",
    "add_synapse": "added a synapse from {0} to {1}",
    "remove_synapse": "removed the added synapse",
    "name_neurite": "named {0}",
    "note_neurite": "noted on {0}",
    "merge": "merged {1} into {0}",
    "new_id": "the piece of {0} is neurite {1}",
}


def described(done: Applied) -> str:
    """Say what an edit did.

    Examples
    --------
    >>> described(Applied(4, "merge", None, [3, 8]))
    'merged 8 into 3 (edit 4)'
    >>> described(Applied(5, "split", None, [3, 9, 10]))
    'split 3: the other parts are 9, 10 (edit 5)'
    """
    if done.operation == "split":
        kept, *new = done.ids
        words = f"split {kept}: the other part{'s are' if len(new) > 1 else ' is'} {', '.join(map(str, new))}"
    else:
        words = PLAIN[done.operation].format(*done.ids)
    return f"{words} (edit {done.entry})"
