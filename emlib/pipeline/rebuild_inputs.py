"""What a rebuild rests on: the run in the folder, its EM and its own labels, and the labels that are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import read_whole
from emlib.pipeline.dependence import checksum
from emlib.pipeline.finished import FILE as FINISHED
from emlib.pipeline.rerun import recall
from emlib.pipeline.settings import PipelineSettings, of_pipeline
from emlib.runs.history import read_runs
from emlib.volumes.companions import open_labels
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Volume

ALIGNED = "em_aligned_{}_zyx"
SYNAPSE_MAP = "synapse_probability_f16_zyx"
RAW, PREPROCESSED, TRUTH = "em_cutout_u8_zyx", "em_preprocessed_f32_zyx", "truth_neurites_i32_zyx"
BOUNDARIES, MITOCHONDRIA = "boundaries_f16_zyx", "mitochondria_probability_f16_zyx"
LABELS = re.compile(r"neurite_labels_(?:(?P<kind>refined_\w+|corrected)_)?i(?:32|64)_zyx")


@dataclass(frozen=True)
class Base:
    """A run that ended well and whose files are still there.

    Attributes
    ----------
    root : Path
        The output folder.
    run_id : str
    settings : PipelineSettings
        As recorded.
    row : dict
        Of the run log.
    files : dict of str
        SHA-256 by name of what it wrote; empty where that is not on record.
    place : Path
        Where the relative paths of its settings begin.
    warning : str or None
        What is not as it was when it ran.
    """

    root: Path
    run_id: str
    settings: PipelineSettings
    row: dict[str, Any]
    files: dict[str, str]
    place: Path
    warning: str | None

    @contextlib.contextmanager
    def at_its_place(self) -> Iterator[None]:
        """Be where the run was started for the length of the block, so that its relative paths hold."""
        with contextlib.chdir(self.place):
            yield

    def wrote(self, name: str) -> bool:
        """Whether the run wrote this file, as far as is on record, and one of this name is there."""
        return (self.root / name).is_file() and (not self.files or name in self.files)

    def array(self, name: str) -> np.ndarray | None:
        """Read an array of the run; None where it kept none.

        Raises
        ------
        UserError
            If what lies there is not as the run left it.
        """
        if not self.wrote(f"data/{name}.npy"):
            return None
        path = self.root / "data" / f"{name}.npy"
        sidecar = f"data/{name}.json"  # holds the checksum of the voxels, which are compared as they are read
        if sidecar in self.files and not (
            (self.root / sidecar).is_file() and checksum(self.root / sidecar) == self.files[sidecar]
        ):
            raise UserError(
                f"{path} is not as run {self.run_id} left it: a later run has begun to replace it; run run_pipeline.py "
                "to its end (--resume goes on where it broke off), then rebuild"
            )
        return read_whole(open_volume(path))

    def aligned(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the aligned EM, float32, and its sidecar.

        Raises
        ------
        UserError
            If it is missing.
        """
        name = ALIGNED.format(self.settings.aligned_dtype)
        em, sidecar = self.array(name), self.root / "data" / f"{name}.json"
        if em is None or not sidecar.is_file():
            raise UserError(
                f"{self.root / 'data' / name}.npy is missing, and synapses are found on it; it is kept with "
                "--save_minimal too: run run_pipeline.py into this folder again"
            )
        return em.astype(np.float32, copy=False), json.loads(sidecar.read_text(encoding="utf-8"))

    def synapse_map(self) -> np.ndarray | None:
        """Return the network's map of synapses that the run found its candidates on; None where it used none.

        Raises
        ------
        UserError
            If the run used one and it is missing.
        """
        found, path = self.array(SYNAPSE_MAP), self.root / "data" / f"{SYNAPSE_MAP}.npy"
        if found is None and (f"data/{SYNAPSE_MAP}.npy" in self.files or self.settings.synapses_from == "experts"):
            raise UserError(
                f"{path} is missing, and run {self.run_id} found its synapses on it; run run_pipeline.py into this "
                "folder again"
            )
        return found

    def labels(self) -> tuple[np.ndarray, str]:
        """Return the neurites of the run itself and the name of their file.

        Raises
        ------
        UserError
            If they are missing.
        """
        for name in ("neurite_labels_i32_zyx", "neurite_labels_i64_zyx"):
            if (found := self.array(name)) is not None:
                return found, name
        raise UserError(
            f"{self.root / 'data'} holds no neurite_labels_i32_zyx.npy of run {self.run_id}, and what is rebuilt is "
            "compared with it; run run_pipeline.py into this folder again"
        )


def find_base(outdir: str | Path) -> Base:
    """Find the newest run in a folder that ended well and got as far as neurites.

    Raises
    ------
    UserError
        If there is none.
    """
    root = Path(outdir)
    advice = f"run run_pipeline.py --outdir {root} first, or name its --outdir"
    if not root.is_dir():
        raise UserError(f"there is no run in {root}: no such folder; {advice}")
    try:
        runs = [run for run in read_runs(root) if run["folder"] == root]
    except UserError as error:
        if "no runs yet" not in str(error):
            raise
        runs = []
    runs = [run for run in runs if isinstance(run["settings"], dict) and of_pipeline(run["settings"])]
    if not runs:
        raise UserError(f"there is no run in {root}; {advice}")
    done = [run for run in runs if run["status"] == "done"]
    if not done:
        raise UserError(f"no run in {root} has come to its end (the newest is {runs[0]['status']}); {advice}")
    row = done[0]
    recalled = recall(str(row["run_id"]), root)
    if recalled.settings.until in ("cutout", "preprocess", "align", "boundaries"):
        raise UserError(
            f"run {row['run_id']} in {root} stopped after {recalled.settings.until} and has no neurites; {advice}"
        )
    try:
        told = json.loads((root / FINISHED).read_text(encoding="utf-8"))
        files = dict(told["files"]) if told["run_id"] == row["run_id"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    place = recalled.started_in or Path.cwd()
    return Base(root.resolve(), str(row["run_id"]), recalled.settings, row, files, place, recalled.warning())


def newest_labels(root: Path) -> Path:
    """Return the newest label volume in ``data/``: refined, corrected or the run's own.

    Returns
    -------
    Path
        By time of change; of equal times refined before corrected before the run's own.

    Raises
    ------
    UserError
        If there is none.
    """
    there = sorted((root / "data").glob("*.npy"))
    found = [(path, known["kind"] or "") for path in there if (known := LABELS.fullmatch(path.stem))]
    if not found:
        advice = "run run_pipeline.py into this folder, or name --labels"
        raise UserError(f"{root / 'data'} holds no neurite labels; {advice}")
    return max(found, key=lambda one: (one[0].stat().st_mtime_ns, one[1]))[0]  # "refined…" sorts behind "corrected"


def labels_name(path: str | Path) -> str:
    """Return a short name of labels for a folder.

    Examples
    --------
    >>> labels_name("data/neurite_labels_refined_rf_i32_zyx.npy"), labels_name("neurite_labels_i32_zyx.npy")
    ('refined_rf', 'baseline')
    >>> labels_name("my labels.tif"), labels_name("file.h5:main/ids")
    ('my_labels', 'ids')
    """
    stem = Path(path).stem
    if known := LABELS.fullmatch(stem):
        return known["kind"] or "baseline"
    return re.sub(r"\W+", "_", stem).strip("_")[:40] or "labels"


def read_new_labels(path: str | Path, like: Volume) -> tuple[np.ndarray, str]:
    """Read labels in the frame of a run's aligned volume, from any format.

    Returns
    -------
    labels : (Z, Y, X) int32 array, or int64 where an id is beyond 2³¹
    sha256 : str
        Of these voxels.

    Raises
    ------
    UserError
        If they are not integers, negative, or of another shape.
    """
    source = open_labels(path)
    if source.shape != like.shape:
        raise UserError(
            f"{path} has shape {source.shape} and the aligned volume of the run {like.shape} (z, y, x); give labels "
            "that were made on this run"
        )
    labels = read_whole(source)
    high = int(labels.max(initial=0))
    if high >= 2**63:
        raise UserError(f"{path} holds the label {high}; labels must lie in 0 … 2^63-1")
    wide = high >= 2**31 or source.dtype == np.int64
    labels = np.ascontiguousarray(labels, np.int64 if wide else np.int32)
    return labels, hashlib.sha256(labels).hexdigest()


def own_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame | None:
    """Read a table that a run wrote; None where it has none or cannot be read as it should be."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return None
    return table if set(columns) <= set(table) else None
