"""The results of a run and of what was rebuilt from it later: the newest in place, all of them kept in ``rebuilt/``.

    outputs/tables, figures, report.html    the newest
    outputs/rebuilt/00_baseline/            those of the run itself, kept before they are first replaced
    outputs/rebuilt/01_corrected/ …         a copy of each rebuild, in its order

When another run ends in the same folder, ``rebuilt/`` belongs to the run before and becomes ``rebuilt_of_<run id>/``.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.runs.artefacts import write_json
from emlib.volumes.atomic import atomic_path
from emlib.volumes.synthetic import SYNTHETIC_MARK

FOLDER, OWN, RECORD = "rebuilt", "00_baseline", "kept.json"
NUMBERED = re.compile(r"(\d{2,})_(.+)")


def own_file(root: Path, name: str) -> Path:
    """Return where a table or figure of the run itself lies, also after a rebuild has replaced it.

    Parameters
    ----------
    root : Path
        The output folder.
    name : str
        Relative to it, as ``tables/synapse_candidates.csv``.

    Returns
    -------
    Path
        It need not exist.
    """
    kept = root / FOLDER / OWN
    return kept / name if (kept / RECORD).is_file() else root / name


def keep_own(root: Path, run_id: str, files: Iterable[str]) -> None:
    """Keep the results of a run before they are first replaced; those of an earlier run are set aside.

    Parameters
    ----------
    root : Path
    run_id : str
        Of the run whose results lie in place.
    files : str
        Their names relative to ``root``; those that are not there are left out.

    Raises
    ------
    UserError
        If they cannot be copied.
    """
    kept = root / FOLDER / OWN
    if (kept / RECORD).is_file():
        if _record(kept).get("run_id") == run_id:
            return
        set_aside(root)
    _keep(root, kept, {"run_id": run_id}, files)


def keep_rebuilt(root: Path, name: str, record: dict[str, Any], files: Iterable[str]) -> Path:
    """Keep a copy of what a rebuild has put in place.

    Parameters
    ----------
    root : Path
    name : str
        Of the labels, as "corrected".
    record : dict
        What it was made from, JSON values; the newest copy with the same name and an equal record is replaced.
    files : str
        Relative to ``root``.

    Returns
    -------
    Path
        The folder, ``rebuilt/NN_<name>``.

    Raises
    ------
    UserError
        If they cannot be copied.
    """
    there = sorted((int(m[1]), path) for path in (root / FOLDER).iterdir() if (m := NUMBERED.fullmatch(path.name)))
    number, newest = there[-1] if there else (0, None)
    again = newest is not None and newest.name.partition("_")[2] == name and number > 0
    if not (again and _record(newest).get("made_from") == json.loads(json.dumps(record))):
        number += 1
    folder = root / FOLDER / f"{number:02d}_{name}"
    _keep(root, folder, {"made_from": record}, files)
    return folder


def set_aside(root: Path) -> Path | None:
    """Rename ``rebuilt/``, which belongs to an earlier run; return its new place, None where there is none.

    Raises
    ------
    UserError
        If it cannot be renamed.
    """
    old = root / FOLDER
    if not old.is_dir():
        return None
    name = f"{FOLDER}_of_{_record(old / OWN).get('run_id', 'an_earlier_run')}"
    taken = [path.name for path in root.glob(f"{name}*")]
    new = root / (name if name not in taken else f"{name}_{len(taken) + 1}")
    try:
        old.rename(new)
    except OSError as error:
        raise UserError(f"cannot rename {old} to {new}: {error.strerror}; move it away") from error
    return new


def _keep(root: Path, folder: Path, record: dict[str, Any], names: Iterable[str]) -> None:
    names = sorted(name for name in {*names, f"tables/{SYNTHETIC_MARK}"} if (root / name).is_file())
    with atomic_path(folder) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, temporary / name)
        write_json(temporary / RECORD, {**record, "files": names})


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
