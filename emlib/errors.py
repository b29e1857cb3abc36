"""The one exception that a user's mistake raises, and the hint at what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

SHOWN = 6  # names that a hint lists


class UserError(Exception):
    """A mistake that the user can mend: one line that says what, where and what to do.

    Scripts print it on stderr and exit with code 2 (see ``emlib.runs.cli.run``).
    """


def nearest(name: str, there: Sequence[str]) -> str:
    """Return a hint at the names that are most like an unknown one, or else at all.

    Examples
    --------
    >>> nearest("EM", ["em", "labels"]), nearest("x", ["em", "labels"]), nearest("x", [])
    ('did you mean em?', 'there is em, labels', 'there is none')
    """
    lower = {known.lower(): known for known in there}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    return f"there is {', '.join(there[:SHOWN]) or 'none'}{more}"
