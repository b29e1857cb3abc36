"""What may go wrong while a user's file is read, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emlib.errors import UserError


@contextmanager
def reading(where: str | Path) -> Iterator[None]:
    """Turn whatever a format library raises in the block into a `UserError` that names ``where``.

    Libraries meet a damaged file with every kind of exception (``struct.error``, ``KeyError``, ``TiffFileError``,
    ``AssertionError``, …), so that a list of them would always lack one. The original stays attached as the cause.
    """
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"no permission to read {error.filename or where}; change its permissions") from error
    except MemoryError as error:
        raise UserError(f"{where} does not fit in memory; read less of it with a smaller --cutout X Y Z") from error
    except Exception as error:
        raise UserError(
            f"cannot read {where}: {_reason(error)}; the file is damaged or not what its name says"
        ) from error


def _reason(error: Exception) -> str:
    """First line of an error's text, kept short; with its class where the text is but a word (``KeyError: 256``)."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip()[:150].rstrip(".; ") if lines else ""
    if "mmap length is greater than file size" in text:
        return "it is shorter than its header says"
    return text if " " in text else f"{type(error).__name__} {text}".strip()
