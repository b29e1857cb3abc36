"""The files of a run: where they lie, written whole or not at all, each array with a sidecar that explains it.

Sidecars hold nothing that changes between two runs of the same command, so that equal runs give equal bytes; the
command line, times, versions and the git commit go to the run log.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path, remove_stale
from emlib.volumes.npy import write_npy
from emlib.volumes.synthetic import SYNTHETIC_MARK

FOLDERS = ("data", "tables", "figures", "runs")


@dataclass(frozen=True)
class Artefact:
    """A file that a run wrote.

    Attributes
    ----------
    path : Path
        Relative to the output folder.
    what : str
        One line for the report.
    detail : str
        Shape and dtype of an array, rows of a table.
    size : int
        Bytes.
    """

    path: Path
    what: str
    detail: str
    size: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and for an array its sidecar; relative to the output folder."""
        return (self.path, self.path.with_suffix(".json")) if self.path.suffix == ".npy" else (self.path,)


class Outputs:
    """The output folder of a run: ``data/``, ``tables/``, ``figures/``, ``runs/`` and ``report.html``.

    Parameters
    ----------
    outdir : path
        Made if absent.

    Raises
    ------
    UserError
        If ``outdir`` is a file or cannot be written.
    """

    def __init__(self, outdir: str | Path) -> None:
        self.root = Path(outdir)
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--outdir {self.root} is a file; name a folder")
        with atomic_path(self.root / "runs" / ".writable") as probe:
            probe.write_bytes(b"")
        (self.root / "runs" / ".writable").unlink(missing_ok=True)
        for name in FOLDERS:
            try:
                (self.root / name).mkdir(exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot make the folder {self.root / name}: {error.strerror}; choose another --outdir"
                ) from error
        self.written: list[Artefact] = []

    def path(self, name: str) -> Path:
        """Return the full path of an artefact named relative to the output folder."""
        return self.root / name

    def note(self, name: str, what: str, detail: str = "") -> Path:
        """Record a file that is already in place as written by this run."""
        path = self.path(name)
        self.written.append(Artefact(Path(name), what, detail, path.stat().st_size))
        return path

    def array(self, name: str, array: np.ndarray, what: str, **meta: Any) -> Path:
        """Write ``data/<name>.npy`` with its sidecar ``data/<name>.json``.

        Parameters
        ----------
        name : str
            Without folder and suffix.
        array : (Z, Y, X) array
        what : str
            One line: what the array holds.
        **meta
            JSON values for the sidecar: ``voxel_size_nm``, ``offset``, ``source``, ``settings``, ``seed``.
        """
        array = np.ascontiguousarray(array)
        write_npy(self.path(f"data/{name}.npy"), array)
        sidecar = {
            "what": what,
            "axes": "zyx",
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            **plain(meta),
            "sha256": hashlib.sha256(array).hexdigest(),
        }
        write_json(self.path(f"data/{name}.json"), sidecar)
        return self.note(f"data/{name}.npy", what, f"{' × '.join(map(str, array.shape))} {array.dtype}")

    def table(self, name: str, table: pd.DataFrame, what: str) -> Path:
        """Write ``tables/<name>.csv``; floats with six significant digits, so that equal runs give equal bytes."""
        with atomic_path(self.path(f"tables/{name}.csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        return self.note(f"tables/{name}.csv", what, f"{len(table)} rows")

    def json(self, name: str, content: Any, what: str) -> Path:
        """Write ``tables/<name>.json``."""
        write_json(self.path(f"tables/{name}.json"), content)
        return self.note(f"tables/{name}.json", what)

    def mark_synthetic(self, note: str, folders: tuple[str, ...] = ("data", "tables")) -> None:
        """Put a file into these folders whose name says that what lies there is not real."""
        for folder in folders:
            write_text(self.path(f"{folder}/{SYNTHETIC_MARK}"), f"{note}\n")

    def remove_stale(self) -> None:
        """Remove the temporary files that killed runs left; only while `emlib.runs.lock.run_lock` is held."""
        for folder in (".", *FOLDERS):
            remove_stale(self.root / folder)

    def left_over(self) -> list[str]:
        """Arrays and tables of an earlier run that this one has not written anew."""
        written = {artefact.path.as_posix() for artefact in self.written}
        there = [
            path
            for folder, ending in (("data", "npy"), ("tables", "csv"))
            for path in self.root.glob(f"{folder}/*.{ending}")
        ]
        names = sorted(path.relative_to(self.root).as_posix() for path in there)
        return [name for name in names if name not in written]

    def text(self, name: str, content: str, what: str) -> Path:
        """Write a text file named relative to the output folder, UTF-8."""
        write_text(self.path(name), content)
        return self.note(name, what)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; dataclasses, paths and NumPy values are turned into plain ones."""
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Turn dataclasses, paths, tuples and NumPy values into what JSON can hold; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
