"""Ctrl-C and SIGTERM as a request that the training honours between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Interrupts:
    """Context in which the first SIGINT or SIGTERM sets ``requested``; a second one acts as it would without.

    Outside of the main thread nothing is caught, since only that one receives signals.

    Parameters
    ----------
    quiet : bool
        Do not acknowledge the signal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.requested = False
        self._quiet = quiet
        self._before: dict[int, object] = {}
        self._owner = os.getpid()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a worker that inherited this; Ctrl-C is for the one that it works for
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.requested = True
        self._restore()
        if not self._quiet:
            os.write(2, b"\nending after this step; once more to end at once\n")  # print() may be under way here

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
