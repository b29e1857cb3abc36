"""Whole files or none: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from emlib.errors import UserError

_TEMPORARY = re.compile(r"\..*\.tmp(?P<pid>\d+)-[0-9a-f]{8}(\.[^.]*)?")
_FULL_BYTES = 2**20  # with less free than this, a write that fails without a reason failed for want of space


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; it becomes ``path`` when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        The file or folder to make; parents are made, whatever stands there is replaced. The temporary name keeps the
        suffix, since some writers (``numpy.save``) choose or change it, and holds the id of the process, so that what
        a killed one leaves can be told (see `remove_stale`).

    Raises
    ------
    UserError
        If the system refuses to write (disk full, no permission, a folder where a file should go).

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("42")
    >>> target.read_text()
    '42'
    """
    path = Path(path)
    temporary = _temporary_name(path, path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {_reason(error, path.parent)}; free space there or choose another --outdir"
        ) from error
    finally:
        _remove(temporary)


def remove_stale(folder: str | Path) -> list[Path]:
    """Remove what `atomic_path` left in a folder when its process was killed; subfolders are not searched.

    Parameters
    ----------
    folder : str or Path
        Nothing happens if it does not exist. Temporary files of other processes that still run are left alone; those
        that carry this process's own id are taken for an earlier one's, since ids come round again.

    Returns
    -------
    list of Path
        What was removed.

    Examples
    --------
    >>> import tempfile
    >>> left = Path(tempfile.mkdtemp()) / f".em.tmp{os.getpid()}-0123abcd.npy"
    >>> left.touch()
    >>> [path == left for path in remove_stale(left.parent)], left.exists()
    ([True], False)
    """
    folder, removed = Path(folder), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = _TEMPORARY.fullmatch(path.name)
        if named and not _runs_elsewhere(int(named["pid"])):
            _remove(path)
            removed.append(path)
    return removed


def left_by_system(name: str) -> bool:
    """Whether a file is hidden, or one that Windows leaves in any folder: it is no data, and does no harm.

    Examples
    --------
    >>> [name for name in (".DS_Store", "Thumbs.db", "desktop.ini", "00.png") if not left_by_system(name)]
    ['00.png']
    """
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _runs_elsewhere(pid: int) -> bool:
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)


def _temporary_name(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.stem}.tmp{os.getpid()}-{uuid4().hex[:8]}{suffix}")


def _reason(error: OSError, folder: Path) -> str:
    """Why a write failed; NumPy says only how many items are missing when the disk is full."""
    if error.strerror:
        return error.strerror
    with suppress(OSError):
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            return "No space left on device"
    return str(error)


def _replace(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; a folder in the way is moved aside first, as no system replaces a full one."""
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
        return
    old = _temporary_name(path, ".old")
    os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # tidying up must not hide the error that led here
            path.unlink(missing_ok=True)
