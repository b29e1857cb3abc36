"""The processes of a training on several devices: what they agree on, and how they fail together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric

from emlib.errors import UserError


class Processes:
    """All processes of a training; one alone needs no agreement.

    Parameters
    ----------
    fabric : Fabric

    Attributes
    ----------
    main : bool
        This is the first one, which validates, writes and speaks.
    count : int
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.main, self.count = fabric.global_rank == 0, fabric.world_size

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over all processes, the same list in each."""
        if self.count == 1:
            return list(map(float, values))
        own = torch.tensor(values, dtype=torch.float32, device=self._fabric.device)
        return self._fabric.all_reduce(own, reduce_op="max").tolist()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over all processes, the same in each."""
        return value if self.count == 1 else self._fabric.all_reduce(value.clone(), reduce_op="mean")

    def on_main(self, work: Callable[[], Any]) -> Any:
        """Do something in the first process; its result, and its failure, is that of all."""
        if self.count == 1:
            return work()
        outcome = None
        if self.main:
            try:
                outcome = work()
            except UserError as error:
                outcome = error
        outcome = self._fabric.broadcast(outcome)
        if isinstance(outcome, UserError):
            raise self._end(outcome)
        return outcome

    def fail(self, message: str, rank: int) -> BaseException:
        """Return what each process has to raise when the process ``rank`` has found a mistake; the first one tells."""
        return self._end(UserError(self._fabric.broadcast(message, src=rank)))

    def _end(self, error: UserError) -> BaseException:
        return error if self.main else SystemExit(0)  # any other code makes the launcher kill the first process
