"""One run at a time in an output folder: a lock of the operating system, which ends with the process that holds it.

A file that merely exists would outlive a killed run, and a process id in it may long belong to another process. The
id is written for the message alone.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from emlib.errors import UserError

_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_FAR = 2**30  # Windows keeps others from reading a locked byte: lock one behind the text


@contextmanager
def run_lock(outdir: str | Path) -> Iterator[None]:
    """Hold the output folder for the length of the block.

    Parameters
    ----------
    outdir : str or Path
        The lock is its file ``runs/lock``, which stays; what counts is whether a process has it locked.

    Raises
    ------
    UserError
        If another run holds the folder, in this process or another, or the file cannot be made.

    Notes
    -----
    ``flock`` on Linux and macOS, ``LockFile`` on Windows. On a file system that knows no locks (some network mounts)
    the block runs without one.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with run_lock(folder):
    ...     with run_lock(folder):
    ...         pass
    Traceback (most recent call last):
    ...
    emlib.errors.UserError: ...
    """
    path = Path(outdir) / "runs" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --outdir") from error
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _HELD:
                raise UserError(
                    f"{_holder(path)} is writing to {outdir}; wait for it, end it, or choose another --outdir"
                ) from None
        with suppress(OSError):  # a full disk must not matter here: the text is for the message alone
            since = datetime.now(UTC).isoformat(" ", "seconds")
            os.ftruncate(file, 0)
            os.write(file, json.dumps({"pid": os.getpid(), "since": since}).encode())
        yield
    finally:
        os.close(file)  # which unlocks


def _lock(file: int) -> None:
    """Lock without waiting; `OSError` where another has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    """Who holds the lock, in words."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return f"another run (process {int(told['pid'])}, since {told['since']})"
    except (OSError, ValueError, TypeError, KeyError):  # it has only just taken the lock
        return "another run"
