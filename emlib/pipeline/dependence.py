"""What the outcome of a stage depends on: its settings, the content of input files, the server, the code.

A stage depends on what is named here and on the stages before it. A setting that is named nowhere counts for the first
stage, so that a new one is never overlooked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from emlib.errors import UserError
from emlib.pipeline.boundary_sources import boundaries_are_made
from emlib.pipeline.settings import PipelineSettings
from emlib.volumes.bossdb.options import server_address
from emlib.volumes.open import HDF5

# Read anew by each run, since only the scores need the truth; or without any effect on what a stage makes.
FREE = ("until", "network_timeout_s", "boss_config", "truth", "truth_synapses")
OWN = {
    "align": ("align_sections", "aligned_dtype"),
    "boundaries": ("boundaries_from", "model_path", "resample"),
    "segment": ("labels_from", "edge_model"),
    "synapses": ("synapses_from",),
}
INPUTS = {"cutout": ("dataset",), "boundaries": ("boundaries_from",), "segment": ("labels_from", "edge_model")}
MOST_FILES = 20_000  # of a folder; Zarr can have millions, and to look at each takes longer than to read a cutout
MOST_BYTES = 64 * 2**20  # of an input that are hashed, 0.1 s; terabytes would take hours
CONTENT = "the content of "  # begins the name of what stands for the content of a file
SERVER = "the server of "


def dependence(settings: PipelineSettings, stage: str) -> dict[str, Any]:
    """What the outcome of one stage depends on besides the stages before it.

    Parameters
    ----------
    settings : PipelineSettings
    stage : str
        One of `emlib.pipeline.STAGES`.

    Returns
    -------
    dict
        JSON values by name: settings as ``--set`` names them, for each input file what stands for its content, and for
        a BossDB address protocol and host of the server, without the token.

    Examples
    --------
    >>> dependence(PipelineSettings(aligned_dtype="float16"), "graph")
    {'graph.min_score': 0.1, 'neurites.mitochondria_threshold': 0.5, 'neurites.min_mitochondrion_um3': 0.002}
    >>> list(dependence(PipelineSettings(), "align"))[:3]
    ['align_sections', 'aligned_dtype', 'align.reach']
    """
    everything = asdict(settings)
    stages = everything.pop("stages")
    if stage == "cutout":
        taken = {*FREE, *(name for names in OWN.values() for name in names)}
        found = {name: value for name, value in everything.items() if name not in taken}
    else:
        found = {name: everything[name] for name in OWN.get(stage, ())}
    if stage == "boundaries":
        found = _of_boundaries(settings, found, stages)
    else:
        found |= _flat(stages.get(stage, {}), f"{stage}.")
    if stage == "graph":
        found |= _flat(stages["neurites"], "neurites.")
    for given in filter(None, (everything[name] for name in INPUTS.get(stage, ()))):
        if given.startswith("bossdb://"):
            found[SERVER + given] = server_address(settings.boss_config)
        elif content := _content(given):
            found[CONTENT + given] = content
    return _as_json(found)


def _of_boundaries(settings: PipelineSettings, found: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """Whether boundaries are made, and what decides how; which segmenter uses them does not matter."""
    made, source = boundaries_are_made(settings), settings.boundaries_from
    learned = "experts" in (source, settings.synapses_from)  # a network may be asked for synapses alone
    if not (made or learned):
        return {"boundaries_made": made}
    if learned:
        found |= {"synapses_from": settings.synapses_from, **_flat(stages["experts"], "experts.")}
    if made and source not in ("forest", "experts"):
        found |= _flat(stages["segment"]["boundaries"], "segment.boundaries.")
    if settings.model_path and (content := _content(model_file(settings.model_path))):
        found[CONTENT + settings.model_path] = content
    return {"boundaries_made": made, **found}


def model_file(path_or_name: str) -> str:
    """Return the file of a model; what names none as it is, the stage that loads it says what is wrong."""
    from emlib.learn.models.model_files import find_checkpoint  # without torch

    try:
        return str(find_checkpoint(path_or_name))
    except UserError:
        return path_or_name


def code_fingerprint(versions: dict[str, str]) -> str:
    """A checksum over the source of `emlib` and these versions; another one may give another outcome."""
    digest = hashlib.sha256(repr(sorted(versions.items())).encode())
    package = Path(str(files("emlib")))
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _as_json(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _content(spec: str) -> str:
    """Stands for the content of a file or folder.

    Files are hashed as far as 64 MiB go, in the order of their names; of a file that does not fit into what is left of
    these, size and time of change count, and of a folder with very many files the first ones. Empty for what is no
    file: a sample, ``intensity``, a path that does not exist.
    """
    spec = spec.removeprefix("precomputed://").removeprefix("file://")
    if not spec or "://" in spec:
        return ""
    hdf5 = HDF5.fullmatch(spec)
    path = Path(hdf5["file"] if hdf5 else spec).expanduser()
    room, told = MOST_BYTES, []
    try:
        # A sidecar tells the voxel size of a file that cannot hold it.
        found = islice(_inside(path), MOST_FILES) if path.is_dir() else [path.with_suffix(".json"), path]
        for file in (file for file in found if file.is_file()):
            about = file.stat()
            hashed = about.st_size <= room
            room -= about.st_size if hashed else 0
            name = os.path.relpath(file, path)
            told.append((name, checksum(file) if hashed else (about.st_size, about.st_mtime_ns)))
    except (OSError, ValueError):  # the stage that reads it says what is wrong
        return ""
    return hashlib.sha256(repr(told).encode()).hexdigest() if told else ""


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders in an order of their own, one by one."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))
