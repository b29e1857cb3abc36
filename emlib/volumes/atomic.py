"""Whole files or none: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from emlib.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; it becomes ``path`` when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        The file or folder to make; parents are made, whatever stands there is replaced. The temporary name keeps the
        suffix, since some writers (``numpy.save``) choose or change it.

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
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; free space there or choose another --outdir") from error
    finally:
        _remove(temporary)


def _replace(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``; a folder in the way is moved aside first, as no system replaces a full one."""
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
        return
    old = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.old")
    os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # tidying up must not hide the error that led here
            path.unlink(missing_ok=True)
