"""How far a training is, and the learning rate that belongs there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


def lr_factor(progress: float, warmup: float, schedule: str) -> float:
    """Return the learning rate as a fraction of the highest one.

    Parameters
    ----------
    progress : float in [0, 1]
        Share of the training that is done.
    warmup : float in [0, 1)
        Share in which the rate rises linearly.
    schedule : "cosine" or "constant"
        Cosine falls to 0 at the end (Loshchilov & Hutter 2017, without restarts).

    Examples
    --------
    >>> [round(lr_factor(p, 0.1, "cosine"), 3) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1.0)))


@dataclass
class Clock:
    """Time that a training has taken, over all its runs, and what its budget leaves.

    Attributes
    ----------
    budget_s : float or None
    elapsed_s : float
        As of the last `read`.
    tail_s : float
        What the end of an epoch takes (validation, saving), the longest so far: the budget holds one more.
    """

    budget_s: float | None = None
    elapsed_s: float = 0.0
    tail_s: float = 0.0
    _started: float = field(init=False)
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._started, self._before = time.monotonic(), self.elapsed_s

    def now(self) -> float:
        """Seconds of this run and those before it."""
        return self._before + time.monotonic() - self._started

    @property
    def share(self) -> float:
        """Share of the budget that is used, 1 when it is time for the last validation; 0 without a budget."""
        if self.budget_s is None:
            return 0.0
        # However long the validation, a tenth of the budget is training.
        return min(self.elapsed_s / max(self.budget_s - self.tail_s, 0.1 * self.budget_s), 1.0)

    def progress(self, step: int, steps: int) -> float:
        """Share of the training that is done, by steps or by the clock, whichever is farther."""
        return max(step / steps, self.share)
