"""Put a public data set in place, file by file, each checked before it gets its name.

1. Files that are already there with the right checksum stay; what a killed fetch left half written goes.
2. The others are copied from a folder (``--from``) or downloaded, from the first address that has them.
3. The folder is checked against the catalogue, and source, licence and citation are written beside the data.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from emlib.errors import UserError
from emlib.runs.catalogue.dataset import DataSet, Piece
from emlib.runs.catalogue.layout import SOURCE_NOTE, check_alone, check_layout, find_fault
from emlib.runs.downloading import SCRATCH, Download
from emlib.volumes.atomic import atomic_path, remove_stale


@dataclass
class Fetched:
    """What `fetch` did.

    Attributes
    ----------
    kept, placed, replaced : list of str
        Files that were right already, that were missing, and that stood there with other content.
    note : Path
        Source, licence and citation.
    """

    kept: list[str] = field(default_factory=list)
    placed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    note: Path = Path()


def fetch(
    dataset: DataSet,
    folder: str | Path,
    *,
    local: str | Path | None = None,
    mirrors: Sequence[str] = (),
    timeout_s: float = 30,
    quiet: bool = True,
    warn: Callable[[str], None] | None = None,
) -> Fetched:
    """Put a data set into a folder.

    Parameters
    ----------
    dataset : DataSet
    folder : path
        Made if absent. A file of the data set whose checksum is wrong is replaced.
    local : path, optional
        A folder that holds the data set, or holds a folder of its name; nothing is downloaded then.
    mirrors : sequence of str
        Web addresses of folders laid out like the data set here, tried before its own.
    timeout_s : float
        Per request: to connect, and between two parts of an answer.
    quiet : bool
        False shows a progress bar on a terminal.
    warn : function, optional
        Takes a line when an address failed and another one served in its place.

    Returns
    -------
    Fetched

    Raises
    ------
    UserError
        If a file cannot be had or written, is not the published one, or a foreign file lies in ``folder``.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    check_alone(dataset, folder)
    for place in sorted({folder, *((folder / piece.path).parent for piece in dataset.pieces)}):
        remove_stale(place)
    done, missing = Fetched(note=folder / SOURCE_NOTE), []
    for piece in dataset.pieces:
        fault = find_fault(folder / piece.path, piece)
        if fault is None:
            done.kept.append(piece.path)
        else:
            missing.append(piece)
            (done.placed if fault == "is missing" else done.replaced).append(piece.path)
    if missing:
        supply = LocalCopy(dataset, local) if local else Download(dataset, folder, mirrors, timeout_s, warn)
        hidden = quiet or not sys.stderr.isatty()
        for piece in tqdm(missing, desc=dataset.name, disable=hidden, leave=False, unit="file"):
            supply(piece, folder / piece.path)
    check_layout(dataset, folder)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    with atomic_path(done.note) as temporary:
        temporary.write_text(source_note(dataset, folder), encoding="utf-8")
    return done


class LocalCopy:
    """Copies files of a data set from a folder.

    Raises
    ------
    UserError
        If the folder does not hold the data set.
    """

    def __init__(self, dataset: DataSet, given: str | Path) -> None:
        given, first = Path(given), dataset.pieces[0].path
        if not given.is_dir():
            raise UserError(f"--from {given} is not a folder; name the one that holds {dataset.name}/")
        inner = given / dataset.name
        if not inner.is_dir() and not any((given / piece.path).is_file() for piece in dataset.pieces):
            raise UserError(
                f"--from {given} holds neither {dataset.name}/ nor its files ({first} …); name another folder"
            )
        self.root = inner if inner.is_dir() else given
        self.name = dataset.name

    def __call__(self, piece: Piece, target: Path) -> None:
        """Copy one file, checked."""
        source = self.root / piece.path
        if fault := find_fault(source, piece):
            raise UserError(f"--from: {source} {fault}; this is not {self.name} as published, name another copy")
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def source_note(dataset: DataSet, folder: Path) -> str:
    """Return the text of ``SOURCE.md``: where the data come from and what may be done with them."""
    first = dataset.pieces[0]
    em = folder / (first.path if first.path.endswith(".tif") else "train/raw")
    size = " ".join(f"{v:g}" for v in dataset.voxel_size_nm)
    of = "decoded arrays" if first.decoded else "files"
    lines = [
        f"# {dataset.name}: public data, not part of emlib\n",
        f"{dataset.what}.\n",
        f"- Source: {dataset.source}",
        f"- Licence: {dataset.licence}",
        f"- Cite: {dataset.citation}",
        f"- Voxel size: {size} nm (z, y, x)",
        f"- Splits: {dataset.splits}",
        f"- Checked: {len(dataset.pieces)} files, SHA-256 of the {of}, sizes and types",
        *([f"- Note: {dataset.note}"] if dataset.note else []),
        f"\n    python run_pipeline.py --dataset {em.as_posix()} --voxel_size {size}",
    ]
    return "\n".join(lines) + "\n"


def count_present(dataset: DataSet, folder: Path) -> int:
    """Return how many files of a data set lie in a folder, by name alone."""
    return sum((folder / piece.path).is_file() for piece in dataset.pieces)
