"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake that the user can mend: one line that says what, where and what to do.

    Scripts print it on stderr and exit with code 2 (see ``emlib.runs.cli.run``).
    """
