"""What an evaluation reads: label volumes and tables, checked before anything is measured."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.volumes.companions import open_labels
from emlib.volumes.reading import reading
from emlib.volumes.units import voxel_size
from emlib.volumes.volume import ZYX, VolumeSource


def open_label_pair(pred: str | Path, truth: str | Path) -> tuple[VolumeSource, VolumeSource]:
    """Open predicted and true labels of one shape; nothing is read yet.

    Parameters
    ----------
    pred, truth : str or Path
        Any input format of `emlib.volumes.open.open_volume`.

    Returns
    -------
    pred, truth : VolumeSource

    Raises
    ------
    UserError
        If either is no label volume, or the shapes differ.
    """
    sources = open_labels(pred), open_labels(truth)
    if sources[0].shape != sources[1].shape:
        raise UserError(
            f"the prediction {pred} has shape {sources[0].shape}, the truth {truth} {sources[1].shape} (z, y, x): "
            "they must be equal; cut one to the box of the other"
        )
    return sources


def read_whole(source: VolumeSource) -> np.ndarray:
    """Read a volume into memory, (Z, Y, X)."""
    z, y, x = (slice(0, length) for length in source.shape)
    return source.read((z, y, x))


def known_voxel_size(given: Iterable[float] | None, *sources: VolumeSource) -> ZYX | None:
    """Return the user's voxel size in nm (z, y, x), else that of the first file which has one, else None.

    Raises
    ------
    UserError
        If the user's is not three positive numbers, or there is none and two files differ by more than 1 %.
    """
    if given is None:
        known = [source for source in sources if source.voxel_size_nm]
        for other in known[1:]:
            if not np.allclose(known[0].voxel_size_nm, other.voxel_size_nm, rtol=0.01):
                sizes = [f"{s.uri} says {' × '.join(f'{v:g}' for v in s.voxel_size_nm)} nm" for s in (known[0], other)]
                raise UserError(f"the voxel sizes (z, y, x) differ: {', '.join(sizes)}; give --voxel_size Z Y X")
        return known[0].voxel_size_nm if known else None
    size = voxel_size(given)
    if size is None:
        raise UserError(f"--voxel_size {tuple(given)} is not three positive numbers of nm (z, y, x)")
    return size


def read_table(
    path: str | Path,
    numbers: Iterable[str],
    ids: Iterable[str] = (),
    *,
    optional: Iterable[str] = (),
    aliases: Mapping[str, Iterable[str]] | None = None,
) -> pd.DataFrame:
    """Read a CSV table and check the columns that are needed.

    Parameters
    ----------
    path : path
    numbers : names of columns that must be there and hold finite numbers
    ids : names of columns that must be there and hold whole numbers of at least 0
    optional : names among ``numbers`` and ``ids`` that may be absent as a column, but are checked if present
    aliases : other names that a column may have in the file, taken where the name itself is absent

    Returns
    -------
    DataFrame
        All columns of the file; those named are float64 and int64. A table with a header and no rows is allowed.

    Raises
    ------
    UserError
        If there is no such file, it is no CSV, a column is missing, or a value is empty, NaN, infinite or, for an id,
        not a whole number.
    """
    path, numbers, ids, optional = Path(path), list(numbers), list(ids), set(optional)
    table = _read_csv(path, ", ".join(name for name in ids + numbers if name not in optional))
    wanted = {
        name.lower(): name for name in (*numbers, *ids, *(n for names in (aliases or {}).values() for n in names))
    }
    table.columns = [name if name in wanted.values() else wanted.get(name.lower(), name) for name in table.columns]
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise UserError(f"{path} has the column {twice[0]} more than once; keep the one that is meant")
    for name, others in (aliases or {}).items():
        known = next((other for other in others if other in table), None)
        if name not in table and known is not None:
            table = table.rename(columns={known: name})
    missing = [name for name in numbers + ids if name not in table and name not in optional]
    if missing:
        there = ", ".join(" ".join(name.split())[:60] for name in table.columns[:12])
        raise UserError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has {there}")
    for name in [name for name in numbers + ids if name in table]:
        table[name] = _checked(table[name], path, whole=name in ids)
    return table


def _read_csv(path: Path, needed: str) -> pd.DataFrame:
    """Every column of a table as text or numbers, separated by the most frequent of comma, semicolon and tab."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a table in it")
    if not path.is_file():
        raise UserError(f"no such table: {path}")
    try:
        with reading(path), open(path, encoding="utf-8-sig", newline="") as file:
            header, first = file.readline(), file.readline()
            if not header.strip():
                raise UserError(f"{path} is empty; a table needs at least a header with {needed}")
            mark = max(",;\t", key=header.count)
            names, values = (next(csv.reader([line], delimiter=mark), []) for line in (header, first))
            if len(values) > len(names):
                raise UserError(
                    f"{path}: line 2 has {len(values)} values, the header {len(names)} names; mend the header"
                )
            file.seek(0)
            table = pd.read_csv(file, sep=mark, skipinitialspace=True, index_col=False)
    except UserError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise UserError(f"{path} is not in UTF-8; save it as CSV in UTF-8") from error
        raise
    table.columns = [name.strip() for name in names]
    return table


def _checked(column: pd.Series, path: Path, whole: bool) -> pd.Series:
    """A column as numbers, or an error that names the first row which is none (counted from the header as line 1)."""
    values = pd.to_numeric(column.astype(str) if column.dtype == bool else column, errors="coerce")
    wrong = ~np.isfinite(values.to_numpy(np.float64))
    if whole and values.dtype.kind == "f" and (values >= 2**53).any():
        row = int((values >= 2**53).to_numpy().argmax())
        raise UserError(
            f"{path}, line {row + 2}: {column.name} has lost digits to a decimal point, or to an empty row in it; "
            "write ids as whole numbers"
        )
    if whole:
        wrong |= (values < 0).to_numpy() | (values != values.round()).to_numpy() | (values >= 2**63).to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        kind, found = (
            "a whole number in 0 … 2^63-1" if whole else "a number",
            " ".join(str(column.iloc[row]).split())[:60],
        )
        raise UserError(f"{path}, line {row + 2}: {column.name} is {found}, not {kind}; mend or drop the row")
    return values.astype(np.int64 if whole else np.float64)
