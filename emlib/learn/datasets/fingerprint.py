"""Whether the files of a data set are those that a training began with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from emlib.learn.datasets.split import Split
from emlib.threads import map_threads
from emlib.volumes.reading import reading


def fingerprint(split: Split) -> str:
    """Return a short hash of the names and contents of all files of a split, and of what its masks mean.

    It depends neither on where the files lie nor on when they were written.

    Parameters
    ----------
    split : Split

    Returns
    -------
    str
        32 hexadecimal digits: BLAKE2b of the BLAKE2b of each file.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    parts = [(f"{s.name}/{kind}", path) for s in split.sections for kind, path in [("raw", s.raw), *s.masks.items()]]
    digests = map_threads(lambda part: _digest(part[1]), parts)
    whole = hashlib.blake2b(digest_size=16)
    classes = None if split.classes is None else [(one.id, one.name) for one in split.classes.classes]
    whole.update(repr((split.organelles, classes, split.ignore)).encode())
    for (name, _), digest in zip(parts, digests, strict=True):
        whole.update(name.encode() + b"\0" + digest)
    return whole.hexdigest()


def _digest(path: Path) -> bytes:
    """Hash of a file's size and bytes."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
