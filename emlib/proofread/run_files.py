"""The files of a run that proofreading opens: labels, EM, boundary probability, synapse candidates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.evaluation.inputs import known_voxel_size, read_table
from emlib.runs.kept_results import own_file
from emlib.volumes.companions import open_labels
from emlib.volumes.open import open_volume
from emlib.volumes.synthetic import SYNTHETIC_MARK
from emlib.volumes.volume import ZYX, VolumeSource

LABELS = ("neurite_labels_i32_zyx", "neurite_labels_i64_zyx")
EM = ("em_aligned_float32_zyx", "em_aligned_float16_zyx", "em_cutout_u8_zyx")  # the first that is there
BOUNDARIES = "boundaries_f16_zyx"
CANDIDATES = Path("tables") / "synapse_candidates.csv"
IN_STORE = {LABELS: "labels/neurites", EM: "em", (BOUNDARIES,): "boundaries"}  # of data/volume.zarr, in block mode


@dataclass(frozen=True)
class RunFiles:
    """What a run left to be proofread; only headers are read.

    Attributes
    ----------
    root : Path
        The output folder.
    labels : VolumeSource
    em, boundaries : VolumeSource or None
        None where the run kept none.
    voxel_size_nm : (z, y, x) in nm
    synthetic : str or None
        Why the data are not real, if they are not.
    """

    root: Path
    labels: VolumeSource
    em: VolumeSource | None
    boundaries: VolumeSource | None
    voxel_size_nm: ZYX
    synthetic: str | None

    def read_labels(self) -> np.ndarray:
        """Read the labels whole, as a C-contiguous int32 array, or int64 where an id is beyond 2³¹."""
        whole = tuple(slice(0, size) for size in self.labels.shape)
        labels = self.labels.read(whole)
        high = int(labels.max(initial=0))
        if high >= 2**63:
            raise UserError(f"{self.labels.uri} holds the label {high}; labels must lie in 0 … 2^63-1")
        narrow = high < 2**31 and labels.dtype != np.int64
        return np.ascontiguousarray(labels, np.int32 if narrow else np.int64)

    def read_candidates(self, newest: bool = False) -> pd.DataFrame:
        """Read the synapse candidates of the run itself, or of its newest rebuild; none where there is no table."""
        own = own_file(self.root, CANDIDATES.as_posix())  # a rebuild puts its own in their place
        path = self.root / CANDIDATES if newest else own
        if not path.is_file():
            return pd.DataFrame({name: [] for name in ("z", "y", "x", "pre_id", "post_id", "score")})
        return read_table(path, ("z", "y", "x", "score"), ("pre_id", "post_id"))


def find_run(
    outdir: str | Path, labels: str | Path | None = None, voxel_size_nm: Iterable[float] | None = None
) -> RunFiles:
    """Find the files of a run and compare their shapes.

    Parameters
    ----------
    outdir : path
        Where ``run_pipeline.py`` wrote.
    labels : path, optional
        Other labels of the same volume, in any input format.
    voxel_size_nm : (z, y, x) in nm, optional
        Wins over that of the files.

    Returns
    -------
    RunFiles

    Raises
    ------
    UserError
        If there is no such folder, it holds no labels, shapes differ, or the voxel size is not known.
    """
    root = Path(outdir)
    if labels is None:
        if not root.is_dir():
            raise UserError(f"there is no run in {root}: no such folder; name the --outdir of run_pipeline.py")
        labels = _first(root, LABELS)
        if labels is None:
            raise UserError(
                f"the run in {root} has no labels (data/{LABELS[0]}.npy); run run_pipeline.py into it, or name "
                "labels with --labels"
            )
    source = open_labels(labels)
    em = _first(root, EM)
    boundaries = _first(root, (BOUNDARIES,))
    files = {"em": em and open_volume(em), "boundaries": boundaries and open_volume(boundaries)}
    for other in files.values():
        if other is not None and other.shape != source.shape:
            raise UserError(
                f"{source.uri} has shape {source.shape} and {other.uri} {other.shape} (z, y, x); both must be of one "
                "run: run run_pipeline.py again, or name the labels that belong to it with --labels"
            )
    size = known_voxel_size(voxel_size_nm, source, *filter(None, (files["em"],)))
    if size is None:
        raise UserError(f"the voxel size of {source.uri} is not known; give it in nm with --voxel_size Z Y X")
    synthetic = source.notes.get("synthetic") or (files["em"].notes.get("synthetic") if files["em"] else None)
    mark = root / "data" / SYNTHETIC_MARK
    if synthetic is None and mark.is_file():  # a store has no sidecars
        synthetic = mark.read_text(encoding="utf-8").strip()
    return RunFiles(root, source, files["em"], files["boundaries"], size, synthetic)


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    there = (root / "data" / f"{name}.npy" for name in names)
    stored = root / "data" / "volume.zarr" / IN_STORE[names]
    return next((path for path in there if path.is_file()), stored if stored.is_dir() else None)
