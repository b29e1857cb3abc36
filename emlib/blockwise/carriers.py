"""Who does the work: this process, worker processes of this machine, or a Dask cluster that is already there."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import queue
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from emlib import __version__
from emlib.blockwise.engine import TRIES, Carrier, Here, poisoned
from emlib.errors import UserError

CONNECT_S = 15  # for a scheduler to answer
LOOK_S = 2  # between two looks at whether scheduler and workers are still there
REVIVE_S = 30  # with fewer workers than there should be, before others are started
ALONE_S = 180  # without any worker, which a cluster may start anew
FORGOTTEN = 10  # times that Dask may forget a task, which it does when a worker dies with the result of another


@contextmanager
def open_carrier(workers: int, scheduler: str | None, folder: Path) -> Iterator[Carrier]:
    """Open what carries out tasks.

    Parameters
    ----------
    workers : int
        Processes of this machine, with one thread each; 1 is this process itself.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:8786``; its workers do the work then.
    folder : Path
        Where the arrays are; every worker must see it.

    Raises
    ------
    UserError
        If the scheduler cannot be reached, has no workers, or a worker has no emlib, another version of it, or does not
        see the folder.
    """
    if scheduler is None and workers == 1:
        yield Here()
        return
    with _quiet_dask():
        client, cluster = _connected(workers, scheduler)
        try:
            _check_workers(client, scheduler, folder)
            count = len(client.scheduler_info(n_workers=-1)["workers"])
            yield OnDask(client, count, cluster and (lambda more: cluster.scale(len(cluster.worker_spec) + more)))
        finally:
            with suppress(Exception):  # a scheduler that is gone cannot say goodbye
                client.close(timeout=5)
            if cluster is not None:
                with suppress(Exception):
                    cluster.close(timeout=10)


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keep Dask's own talk off the shell: what matters is told in one line."""
    import dask

    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application", "distributed.nanny")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    settings = {
        "distributed.scheduler.allowed-failures": TRIES - 1,
        "distributed.worker.daemon": True,
        # Tasks run in a thread, whose own arena glibc would give back heap by heap; see emlib.runs.freed_memory.
        "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": "1",
        "distributed.logging": {"distributed": "critical", "tornado.application": "critical"},
    }
    with dask.config.set(settings):
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _connected(workers: int, scheduler: str | None) -> tuple[Any, Any]:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            return Client(scheduler, timeout=CONNECT_S, set_as_default=False), None
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(
                f"--scheduler {scheduler} cannot be reached; start one there with 'dask scheduler', or leave it out to "
                "work on this machine"
            ) from error
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "EMLIB_BLOCK_WORKER": "1"}
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,  # the budget is kept by what is handed out; a worker that is stopped halfway would begin anew
        dashboard_address=None,
        host="127.0.0.1",
        silence_logs=logging.CRITICAL,
        env={**one, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return Client(cluster, timeout=60, set_as_default=False), cluster


def _check_workers(client: Any, scheduler: str | None, folder: Path) -> None:
    """Refuse a cluster that could not do the work, before it is given any."""
    where = scheduler or "this machine"
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise UserError(f"--scheduler {where} has no workers; start some with 'dask worker {where} --nthreads 1'")
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-{uuid.uuid4().hex}"
    token.touch()
    try:
        found = client.run(_by_value(_look_around), str(token.resolve()))
    finally:
        token.unlink(missing_ok=True)
    for address, told in found.items():
        if told["emlib"] is None:
            raise UserError(
                f"the worker {address} has no emlib ({told['error']}); install the same environment there, "
                "version " + __version__
            )
        if told["emlib"] != __version__:
            raise UserError(f"the worker {address} has emlib {told['emlib']} and this is {__version__}; update it")
        if not told["sees"]:
            raise UserError(
                f"the worker {address} does not see {folder}; --outdir must lie on a file system that all share"
            )


def _look_around(token: str) -> dict[str, Any]:
    """What a worker knows; runs where there may be no emlib."""
    import os

    os.environ["EMLIB_BLOCK_WORKER"] = "1"
    try:
        import emlib

        version, error = emlib.__version__, ""
    except Exception as failed:
        version, error = None, str(failed)
    return {"emlib": version, "error": error, "sees": os.path.exists(token)}


def _by_value(function: Callable) -> Callable:
    """A function that is sent with its code and not by its name, which a worker without emlib could not import."""
    import types

    copy = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    copy.__module__ = "__main__"
    return copy


class _Forgotten(Exception):
    """Dask no longer knows a task, neither as done nor as failed."""


class _Killed(Exception):
    """Workers died that had this task to do, perhaps before they began with it."""


class OnDask:
    """Carries tasks out on the workers of a Dask client, as many at a time as there are workers.

    Dask would let further ones wait behind a task that is being done, though another worker is free.

    Parameters
    ----------
    client : distributed.Client
    workers : int
        That are there; those that join a cluster later get work as well.
    grow : function of a number, optional
        Starts so many workers more.
    """

    def __init__(self, client: Any, workers: int, grow: Callable[[int], None] | None = None) -> None:
        self.client, self.workers, self.grow = client, workers, grow
        self.looked = time.monotonic()

    def carry(self, function: Callable, arguments: Sequence[tuple], names: Sequence[str], done: Callable) -> None:
        """Call ``done(index, result)`` for each of the arguments, in the order in which they become ready.

        Raises
        ------
        UserError
            As a task raises it; if a task fails whatever is tried; or if the scheduler is lost.
        """
        waiting, ready, at = iter(range(len(arguments))), queue.SimpleQueue(), {}
        answer, forgotten = _by_value(_answer), Counter()
        suspects, alone = [], None  # Dask blames whatever a dead worker had to do: each is tried alone then

        def hand_out(indices: Iterable[int]) -> None:
            for index in indices:
                key = f"{names[index]}-{uuid.uuid4().hex}"
                packed = pickle.dumps((function, arguments[index]))  # the scheduler looks at it and may lack emlib
                future = self.client.submit(answer, packed, pure=False, retries=TRIES - 1, key=key)
                at[key] = index, future
                future.add_done_callback(ready.put)

        try:
            hand_out(islice(waiting, self.workers))
            while at:
                future = self._next(ready)
                index, _ = at.pop(future.key)
                try:
                    done(index, self._result(future, names[index]))
                    if index == alone:
                        suspects.remove(index)
                except _Forgotten:
                    forgotten[index] += 1
                    if forgotten[index] > FORGOTTEN or self.client.status != "running":
                        raise self._lost() from None
                    hand_out([index])
                except _Killed:
                    if index == alone:
                        raise _given_up(names[index]) from None
                    suspects.append(index)
                future.release()
                if not suspects:
                    hand_out(islice(waiting, self._room() - len(at)))
                elif not at:
                    alone = suspects[0]
                    hand_out([alone])
        except BaseException:
            with suppress(Exception):
                self.client.cancel([future for _, future in at.values()])
            raise

    def _room(self) -> int:
        """Tasks that can be done at a time: as many as there have been workers, looked at now and then."""
        now = time.monotonic()
        if now - self.looked > LOOK_S:
            self.looked, self.workers = now, max(self.workers, self._present())
        return self.workers

    def _present(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def _next(self, ready: queue.SimpleQueue) -> Any:
        """The next task that is done; an error when nobody is left who could do one."""
        whole = alone = time.monotonic()
        grown = 0
        while True:
            with suppress(queue.Empty):
                return ready.get(timeout=LOOK_S)
            if self.client.status != "running":
                raise self._lost()
            now, there = time.monotonic(), self._present()
            whole, alone = now if there >= self.workers else whole, now if there else alone
            if now - whole > REVIVE_S * (1 + grown) and self.grow is not None:
                self.grow(self.workers - there)  # Dask starts no other for one that dies while it starts
                whole, grown = now, grown + 1
            if now - alone > ALONE_S:
                raise UserError(
                    f"there has been no worker for {ALONE_S} s; what is done is on record, see why they ended and go "
                    "on with --resume"
                )

    def _result(self, future: Any, what: str) -> Any:
        if future.status in ("cancelled", "lost"):
            raise _Forgotten
        error = future.exception(timeout=60)
        if error is None:
            try:
                kind, value = future.result(timeout=60)
            except Exception as late:  # the worker died with the result, and so did those that did it again
                error = late
            else:
                if kind == "refused":
                    raise UserError(value)
                return value
        if type(error).__name__ == "KilledWorker":
            raise _Killed
        if type(error).__name__ in ("CancelledError", "FutureCancelledError"):
            raise _Forgotten
        if isinstance(error, MemoryError):
            raise MemoryError(f"block {what}") from error
        raise poisoned(what, error) from error

    def _lost(self) -> UserError:
        return UserError(
            "the Dask scheduler was lost; what is done is on record, start it again and go on with --resume"
        )


def _given_up(what: str) -> UserError:
    stage, block = what.split(" ", 1)
    return UserError(
        f"block {block} of {stage} was given up: {TRIES} workers died while they did it, most often for want of "
        "memory; take smaller --blocks or fewer --workers and go on with --resume"
    )


def _answer(packed: bytes) -> tuple[str, Any]:
    """Run on a worker: what the user must mend comes back as a value, since trying again would not help."""
    import pickle

    from emlib.errors import UserError

    function, values = pickle.loads(packed)
    try:
        return "done", function(*values)
    except UserError as error:
        return "refused", str(error)


def need_dask(scheduler: str | None, workers: int) -> None:
    """Refuse where Dask is asked for and absent.

    Raises
    ------
    UserError
        If ``distributed`` is not installed.
    """
    if scheduler is None and workers == 1:
        return
    try:
        importlib.import_module("distributed")
    except ImportError as error:
        raise UserError(
            "--workers and --scheduler need Dask; install it with 'pip install -r requirements.txt', or leave them out "
            "to do one block after the other"
        ) from error
