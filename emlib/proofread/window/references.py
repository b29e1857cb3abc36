"""A fault of PySide6 6.12 with Python 3.11, met before it can end a session."""

from __future__ import annotations

import ctypes
import sys

ENOUGH = 2**40  # calls


def keep_none() -> None:
    """Give None so many references that Qt cannot use them up.

    Notes
    -----
    Each call of Qt that returns nothing takes a reference to None away without having had one: 22 for an update of the
    dock widget, 40 for a step to another section. Python has some 90 000, and ends with "deallocating None" when they
    are gone. From Python 3.12 on None lives forever (PEP 683), as it does here afterwards.
    """
    if sys.implementation.name == "cpython" and sys.version_info < (3, 12) and sys.getrefcount(None) < ENOUGH:
        ctypes.c_ssize_t.from_address(id(None)).value += ENOUGH
