"""One stage over all of its blocks: what is done already is left alone, the rest is carried out, a mark for each.

1. Marks of an earlier run are compared with the data; blocks that are whole are not done again.
2. The others are handed to the carrier, a few at a time, in the order of the volume.
3. A block that fails is tried again a few times, elsewhere if there is an elsewhere; then the error names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from emlib.blockwise.grid import name
from emlib.blockwise.marks import mark_path, read_mark, write_mark
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.runs.artefacts import plain
from emlib.runs.freed_memory import keep_freed_memory
from emlib.runs.stopwatch import Stopwatch
from emlib.volumes.volume import Box

TRIES = 3  # of a block

# A task takes the site, what all blocks of its stage share, and its block; it returns what it wrote and what it tells.
Task = Callable[[Site, Any, Box], tuple[list[dict[str, Any]], dict[str, Any]]]


class Carrier(Protocol):
    """What carries tasks out: this process, or Dask."""

    workers: int

    def carry(self, function: Callable, arguments: Sequence[tuple], names: Sequence[str], done: Callable) -> None:
        """Call ``done(index, result)`` with ``function(*arguments[index])`` for each index, in any order."""
        ...


@dataclass
class Engine:
    """Carries stages out on one volume.

    Attributes
    ----------
    site : Site
    carrier : Carrier
    key : str
        What all stages depend on besides what they are given: input, code.
    resume : bool
        Whether marks of an earlier run count.
    quiet : bool
        No progress.
    peak_mib, seconds, cpu_seconds, wall_seconds : dict
        By stage: the most that a worker took while it did a block; seconds of work over all blocks, and of processor;
        seconds that the stage took.
    skipped : dict
        By stage: blocks that were done before.
    """

    site: Site
    carrier: Carrier
    key: str = ""
    resume: bool = False
    quiet: bool = False
    peak_mib: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    wall_seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def run(
        self,
        stage: str,
        task: Task,
        shared: Any,
        blocks: Sequence[Box],
        own: Sequence[tuple] | None = None,
    ) -> list[dict[str, Any]]:
        """Carry out one stage.

        Parameters
        ----------
        stage : str
            Names the folder of its marks and tables.
        task : function
            At the top level of a module, so that workers find it.
        shared : anything
            Second argument of each task.
        blocks : sequence of three slices
        own : sequence of tuples, optional
            What each block is given besides; its task gets ``(shared, *own[index])``.

        Returns
        -------
        list of dict
            What each block told, in the order of ``blocks``.

        Raises
        ------
        UserError
            If a block cannot be done; names the stage and the block.
        """
        started, key = time.perf_counter(), self._chain(stage, plain(shared))
        names = [name(box) for box in blocks]
        told: dict[int, dict[str, Any]] = {}
        bar = tqdm(total=len(blocks), desc=stage, unit="block", leave=False, disable=True if self.quiet else None)
        with bar:

            def keep(index: int, mark: dict[str, Any]) -> None:
                told[index] = mark["told"]
                self.peak_mib[stage] = max(self.peak_mib.get(stage, 0), mark["peak_mib"])
                for sums, which in ((self.seconds, "seconds"), (self.cpu_seconds, "cpu_seconds")):
                    sums[stage] = round(sums.get(stage, 0) + mark[which], 3)
                bar.update()

            left = list(range(len(blocks)))
            if self.resume:
                there = [i for i in left if mark_path(self.site, stage, names[i]).exists()]
                arguments = [(self.site, stage, names[i], key) for i in there]

                def look(at: int, mark: dict[str, Any] | None) -> None:
                    if mark is not None:
                        keep(there[at], mark)

                self.carrier.carry(read_mark, arguments, [f"{stage} {names[i]}" for i in there], look)
                left = [i for i in left if i not in told]
                self.skipped[stage] = len(told)
            given = [shared if own is None else (shared, *own[i]) for i in left]
            arguments = [(self.site, stage, key, task, g, blocks[i]) for i, g in zip(left, given, strict=True)]
            self.carrier.carry(
                attempt, arguments, [f"{stage} {names[i]}" for i in left], lambda at, mark: keep(left[at], mark)
            )
        self.wall_seconds[stage] = round(time.perf_counter() - started, 3)
        return [told[index] for index in range(len(blocks))]

    def _chain(self, stage: str, depends: Any) -> str:
        """The key of a stage, on which that of the next one rests: built on other data it would be another."""
        site = plain(self.site)
        about = [self.key, stage, site["shape"], site["block"], site["voxel_size_nm"], site["kept"], depends]
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        return self.key


def attempt(site: Site, stage: str, key: str, task: Task, shared: Any, box: Box) -> dict[str, Any]:
    """Do one block and put it on record; on a worker."""
    from emlib.threads import set_threads

    if os.environ.get("EMLIB_BLOCK_WORKER"):  # workers stand for the cores
        set_threads(1)
    keep_freed_memory()  # Dask has a worker give back all that it can, and half of the time went into asking anew
    watch = Stopwatch()
    with watch.stage(stage):
        wrote, told = task(site, shared, box)
    outcome = {
        "wrote": wrote,
        "told": told,
        "seconds": watch.seconds[stage],
        "cpu_seconds": watch.cpu_seconds[stage],
        "peak_mib": watch.peak_mib[stage],
    }
    return write_mark(site, stage, name(box), key, plain(outcome))


class Here:
    """Carries tasks out in this process, one after the other."""

    workers = 1

    def carry(self, function: Callable, arguments: Sequence[tuple], names: Sequence[str], done: Callable) -> None:
        """Call ``done(index, result)`` for each of the arguments."""
        for index, values in enumerate(arguments):
            done(index, self._try(function, values, names[index]))

    def _try(self, function: Callable, values: tuple, what: str) -> Any:
        for left in reversed(range(TRIES)):
            try:
                return function(*values)
            except (UserError, MemoryError):
                raise
            except Exception as error:
                if not left:
                    raise poisoned(what, error) from error
        raise AssertionError


def poisoned(what: str, error: BaseException) -> UserError:
    """The error of a block that fails whatever is tried; ``what`` is the stage and the name of the block."""
    stage, block = what.split(" ", 1)
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(
        f"block {block} of {stage} failed {TRIES} times: {type(error).__name__}: {told}; the other blocks are kept, "
        "mend the cause and go on with --resume"
    )
