"""Seconds, processor seconds and peak memory of each stage of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

INTERVAL_S = 0.01  # between two looks at the memory; a shorter peak can be missed


def _resident_mib() -> float:
    return round(psutil.Process().memory_info().rss / 2**20, 1)


@dataclass
class Stopwatch:
    """Times stages and samples the resident memory of the process while they run.

    Attributes
    ----------
    seconds, cpu_seconds, peak_mib : dict
        By stage, in the order in which they ran. Processor seconds are those of all threads: on a machine that others
        use they tell the cost better than the seconds on the wall.
    start_mib : float
        Resident when the stopwatch was made: what interpreter and libraries take.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)
    start_mib: float = field(default_factory=_resident_mib)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside the block; kept also when it fails."""
        process, done, peak = psutil.Process(), threading.Event(), [0]

        def watch() -> None:
            while True:
                peak[0] = max(peak[0], process.memory_info().rss)
                if done.wait(INTERVAL_S):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        started, spent = time.perf_counter(), time.process_time()
        try:
            watcher.start()  # inside: an interrupt in here must not leave the thread behind
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 3)
            self.cpu_seconds[name] = round(time.process_time() - spent, 3)
            done.set()
            if watcher.ident is not None:
                watcher.join()
            self.peak_mib[name] = round(max(peak[0], process.memory_info().rss) / 2**20, 1)
