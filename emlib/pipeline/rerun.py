"""Reproduce a run from its record: the same settings again, and whether the same bytes came out."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.pipeline.finished import FILE
from emlib.pipeline.settings import BOUNDARY_SOURCES, PipelineSettings, defaults, settings_of_record
from emlib.runs.history import changed, find_run, read_runs
from emlib.runs.runlog import environment, git_commit, versions

FOLDERS = ("data", "tables")  # equal runs give equal bytes here
PATHS = (
    "dataset",
    "truth",
    "truth_synapses",
    "labels_from",
    "boundaries_from",
    "boss_config",
    "model_path",
    "edge_model",
)


@dataclass(frozen=True)
class Recalled:
    """A run to be done again.

    Attributes
    ----------
    run_id : str
    settings : PipelineSettings
        As recorded.
    folder : Path
        The output folder of that run, where the new one goes.
    differences : list of str
        Versions, git commit and surroundings that are not those of the record.
    checksums : dict or None
        SHA-256 by file of ``data/`` and ``tables/``, if what lies there is that run's.
    started_in : Path or None
        Where the relative paths of its settings begin, if that is not the current folder.
    """

    run_id: str
    settings: PipelineSettings
    folder: Path
    differences: list[str]
    checksums: dict[str, str] | None
    started_in: Path | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Be in the folder that the run was started in for the length of the block, so that its paths hold."""
        with contextlib.chdir(self.started_in) if self.started_in else contextlib.nullcontext():
            yield

    def warning(self) -> str | None:
        """One line that says what is not as it was; None if all is."""
        if not self.differences:
            return None
        return f"not as when {self.run_id} ran: {'; '.join(self.differences)}; results may differ"

    def verdict(self) -> str:
        """One line, after the run: whether the files are byte for byte as before."""
        if self.checksums is None:
            return f"repeated {self.run_id}; its files had been replaced since, so there was nothing to compare with"
        now = checksums(self.folder)
        other = sorted(name for name in now.keys() | self.checksums.keys() if now.get(name) != self.checksums.get(name))
        if not other:
            return f"repeated {self.run_id}: the same bytes in all {len(now)} files of data/ and tables/"
        return f"repeated {self.run_id}: {len(other)} of {len(now)} files differ: {', '.join(other)}"


def recall(name: str, outdir: str | Path, asked: PipelineSettings | None = None) -> Recalled:
    """Look up a run to do again.

    Where that run did not end well, and one with the same settings did whose files still lie there, as after a repeat
    that failed, that one is repeated.

    Parameters
    ----------
    name : str
        Its id, the beginning of it, or ``last``.
    outdir : path
    asked : PipelineSettings, optional
        What the flags ask for; anything but the defaults contradicts the record.

    Raises
    ------
    UserError
        If no such run is on record, its settings cannot be read, or other settings are asked for as well.
    """
    extra = changed(asdict(asked or PipelineSettings()), defaults())
    if extra:
        raise UserError(f"--rerun takes all settings from the record; leave out what sets {', '.join(extra)}")
    runs = read_runs(outdir)
    run = find_run(runs, name)
    if not isinstance(run["settings"], dict):
        raise UserError(f"the settings of run {run['run_id']} are not on record; it cannot be repeated")
    settings = settings_of_record(run["settings"])
    standing = _standing(runs, run)
    run, known = standing or run, standing is not None
    folder, place = run["folder"].resolve(), _other_place(run)
    return Recalled(
        *(str(run["run_id"]), settings, folder if place else run["folder"], _differences(run)),
        *(checksums(folder) if known else None, place),
    )


def _standing(runs: list[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any] | None:
    """The run whose files lie in the folder: this one, or one of the same settings if this one did not end well."""
    here = [other for other in runs if other["folder"] == run["folder"]]
    done = next((other for other in here if other["status"] == "done"), None)
    if done is None or not (done is run or (run["status"] != "done" and done["settings"] == run["settings"])):
        return None
    return done if done is here[0] or _untouched(done) else None


def _untouched(run: dict[str, Any]) -> bool:
    """Whether what a run wrote to ``data/`` and ``tables/`` is as it left it, though later ones have begun."""
    try:
        told = json.loads((run["folder"] / FILE).read_text(encoding="utf-8"))
        written = {name: sha for name, sha in told["files"].items() if Path(name).parts[0] in FOLDERS}
        same_run = told["run_id"] == run["run_id"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
    there = checksums(run["folder"])
    return same_run and all(there.get(name) == sha for name, sha in written.items())


def _other_place(run: dict[str, Any]) -> Path | None:
    """The folder in which a run was started, if its paths begin there, it is still there and it is not this one."""
    folder = (run["environment"] or {}).get("folder")
    if not isinstance(folder, str) or not folder or not _relative_paths(run["settings"]):
        return None
    place = Path(folder)
    return place if place.is_dir() and place.resolve() != Path.cwd() else None


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in ``data/`` and ``tables/`` of an output folder, by name."""
    found = {}
    for path in sorted(path for name in FOLDERS for path in (folder / name).glob("*") if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _differences(run: dict[str, Any]) -> list[str]:
    """What has changed since a run that can change its result, as "numpy 2.3.0, now 2.4.6"."""
    now, then = environment(), run["environment"] or {}
    pairs = {name: ((run["versions"] or {}).get(name), version) for name, version in versions().items()}
    pairs["git commit"] = (run["git_commit"], git_commit())
    pairs["CPU"] = (then.get("cpu"), now["cpu"])
    if _relative_paths(run["settings"]) and _other_place(run) is None:
        pairs["folder it is started in"] = (then.get("folder"), now["folder"])
    return [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old is not None and old != new]


def _relative_paths(settings: dict[str, Any]) -> bool:
    """Whether a file of the settings is named relative to the folder in which the run was started."""
    named = [settings.get(name) for name in PATHS]
    files = [str(name) for name in named if name and name not in BOUNDARY_SOURCES and "://" not in str(name)]
    if (model := settings.get("model_path")) and not Path(model).suffix:
        files.remove(str(model))  # the name of a bundled one
    return any(not Path(name).is_absolute() for name in files)
