"""Blocks that have been downloaded, one file each, with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path, remove_stale

FORM = "emlib block 1"


class BlockCache:
    """A folder with the blocks of one channel at one resolution.

    A file is a line of JSON, which says what the block is and what its SHA-256 is, and the voxels behind it. It appears
    whole or not at all, so that a run that is killed loses no more than the block in progress.

    Parameters
    ----------
    folder : path
        Of the whole cache; a folder for the channel is made in it.
    host, uri : str
        Two servers may have a channel of the same name.
    resolution : int
    note : function of a line
        Told when a block is damaged.

    Raises
    ------
    UserError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> cache = BlockCache(tempfile.mkdtemp(), "api.bossdb.io", "bossdb://a/b/c", 0)
    >>> cache.put((0, 512, 0), np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    >>> cache.get((0, 512, 0), (2, 3, 4), np.dtype("uint8"))[1, 2]
    array([20, 21, 22, 23], dtype=uint8)
    >>> cache.get((0, 0, 0), (2, 3, 4), np.dtype("uint8")) is None
    True
    """

    def __init__(
        self, folder: str | Path, host: str, uri: str, resolution: int, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.channel = {"host": host, "uri": uri, "resolution": resolution}
        legible = re.sub(r"[^\w.-]+", "_", uri.removeprefix("bossdb://"))[:80].strip(".")
        digest = hashlib.sha256(json.dumps([host, uri]).encode()).hexdigest()[:12]
        self.folder = Path(folder) / "bossdb" / f"{legible}_{digest}"
        self.note = note
        _refuse_unwritable(self.folder)
        remove_stale(self.folder)

    def get(self, offset: tuple[int, int, int], shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray | None:
        """Return a block; None if it is not there or, with a note, damaged.

        Parameters
        ----------
        offset : (z, y, x) in voxels of the server's frame
        shape : (Z, Y, X)
        dtype : numpy dtype
        """
        path = self._path(offset, shape)
        content = self._read(path, self._about(offset, shape, str(dtype)))
        return None if content is None else np.frombuffer(content, dtype).reshape(shape)

    def put(self, offset: tuple[int, int, int], block: np.ndarray) -> None:
        """Keep a block."""
        block = np.ascontiguousarray(block)
        self._write(self._path(offset, block.shape), self._about(offset, block.shape, str(block.dtype)), block)

    def get_description(self) -> dict[str, Any] | None:
        """Return the description of the channel that was kept last; None if there is none or it is damaged."""
        content = self._read(self.folder / "channel", self.channel | {"resolution": None})
        return None if content is None else json.loads(content)

    def put_description(self, description: dict[str, Any]) -> None:
        """Keep the description of the channel, so that what is here can be used without the server."""
        self._write(self.folder / "channel", self.channel | {"resolution": None}, json.dumps(description).encode())

    def _about(self, offset: tuple[int, ...], shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
        return {**self.channel, "offset": list(map(int, offset)), "shape": list(map(int, shape)), "dtype": dtype}

    def _path(self, offset: tuple[int, ...], shape: tuple[int, ...]) -> Path:
        place = "_".join(f"{axis}{a}-{a + n}" for axis, a, n in zip("zyx", offset, shape, strict=True))
        return self.folder / f"r{self.channel['resolution']}_{place}.block"

    def _write(self, path: Path, about: dict[str, Any], content: Any) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(_head(about, content) + b"\n")
            file.write(content)

    def _read(self, path: Path, about: dict[str, Any]) -> bytes | None:
        """The content behind the first line, if both are whole and the line says what is asked for."""
        try:
            line, _, content = path.read_bytes().partition(b"\n")
            if line == _head(about, content):  # not parsed: what stands there may be anything
                return content
        except FileNotFoundError:
            return None
        except OSError:  # said below
            pass
        self.note(f"{path} is damaged; it is fetched again")
        return None


def _head(about: dict[str, Any], content: Any) -> bytes:
    """The first line of a block: what it is, and the checksum of what follows."""
    return json.dumps({"form": FORM, **about, "sha256": hashlib.sha256(content).hexdigest()}).encode()


def _refuse_unwritable(folder: Path) -> None:
    """Raise before anything is downloaded."""
    probe = folder / f".{uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write the cache {folder}: {reason}; choose another --outdir") from error
    finally:
        with suppress(OSError):
            os.unlink(probe)
