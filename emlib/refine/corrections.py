"""What a run and its proofreading give to learn from: EM, corrected labels, and the sections that were corrected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.evaluation.inputs import read_whole
from emlib.proofread.run_files import RunFiles, find_run
from emlib.volumes.volume import ZYX

LABELS = ("neurite_labels_corrected_i32_zyx", "neurite_labels_corrected_i64_zyx")
SLICES = Path("tables") / "proofread_slices.json"


@dataclass(frozen=True)
class Corrections:
    """Sections whose labels are right.

    Attributes
    ----------
    sections : tuple of int
        Ascending, each once.
    labels : (K, Y, X) int array
        One plane for each; 0 is background.
    """

    sections: tuple[int, ...]
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CorrectedRun:
    """Which run is learnt from, as the command line names it.

    Attributes
    ----------
    outdir : Path
    slices : tuple of int or None
        None: those that the proofreader accepted.
    labels : str or None
        Corrected labels instead of the run's.
    voxel_size_nm : (z, y, x) or None
        Wins over that of the files.
    seed : int
    """

    outdir: Path
    slices: tuple[int, ...] | None = None
    labels: str | None = None
    voxel_size_nm: ZYX | None = None
    seed: int = 0


def find_corrected_run(
    outdir: str | Path, labels: str | Path | None = None, voxel_size_nm: Iterable[float] | None = None
) -> RunFiles:
    """Find a run's EM and its corrected labels.

    Parameters
    ----------
    outdir : path
        Where ``run_pipeline.py`` wrote, and ``napari_proofread.py`` after it.
    labels : path, optional
        Corrected labels in any input format instead of the run's.
    voxel_size_nm : (z, y, x) in nm, optional
        Wins over that of the files.

    Raises
    ------
    UserError
        If there is no run, no EM in it, no corrected labels, or the shapes differ.
    """
    if labels is None and (Path(outdir) / "data").is_dir():
        there = (Path(outdir) / "data" / f"{name}.npy" for name in LABELS)
        labels = next((path for path in there if path.is_file()), None)
        if labels is None:
            raise UserError(
                f"the run in {outdir} has no corrected labels (data/{LABELS[0]}.npy); correct sections with "
                "napari_proofread.py and save, or name labels with --labels"
            )
    return find_run_with_em(outdir, labels, voxel_size_nm)


def find_run_with_em(
    outdir: str | Path, labels: str | Path | None = None, voxel_size_nm: Iterable[float] | None = None
) -> RunFiles:
    """Find a run's EM and its labels as the segmentation left them; parameters and errors as `find_corrected_run`."""
    if not (Path(outdir) / "data").is_dir():
        raise UserError(f"there is no run in {outdir}: it has no folder data; name the --outdir of run_pipeline.py")
    files = find_run(outdir, labels, voxel_size_nm)
    if files.em is None:
        raise UserError(f"the run in {outdir} has no EM (data/em_aligned_float32_zyx.npy); run run_pipeline.py into it")
    return files


def read_em(files: RunFiles) -> np.ndarray:
    """Read a run's EM as float32 in [0, 1]."""
    em = read_whole(files.em)
    if em.dtype == np.uint8:
        return em.astype(np.float32) / 255
    return em.astype(np.float32, copy=False)


def read_corrections(
    files: RunFiles, sections: Sequence[int] | None = None, damaged: np.ndarray | None = None
) -> Corrections:
    """Read the sections that were corrected.

    Parameters
    ----------
    files : RunFiles
        From `find_corrected_run`.
    sections : sequence of int, optional
        By default those of ``tables/proofread_slices.json``.
    damaged : (Z,) bool array, optional
        Sections without a picture, from which nothing can be learnt.

    Raises
    ------
    UserError
        If there is none, one lies outside of the volume, is damaged, or holds fewer than two neurites.
    """
    where = "--slices"
    if sections is None:
        sections, where = _listed(files.root / SLICES), str(files.root / SLICES)
    depth = files.labels.shape[0]
    if outside := [z for z in sections if not 0 <= z < depth]:
        raise UserError(f"{where}: there is no section {outside[0]}; the volume has sections 0 to {depth - 1}")
    chosen = sorted(set(sections))
    if damaged is not None and (without := [z for z in chosen if damaged[z]]):
        raise UserError(f"{where}: section {without[0]} holds a single grey value, so nothing can be learnt from it")
    whole = tuple(slice(0, size) for size in files.labels.shape)
    planes = []
    for z in chosen:
        plane = files.labels.read((slice(z, z + 1), *whole[1:]))[0]
        there = np.unique(plane[plane > 0])
        if len(there) < 2:
            holds = f"one neurite only ({there[0]})" if len(there) else "no neurite"
            raise UserError(
                f"section {z} of {files.labels.uri} holds {holds}; a corrected section has all of its neurites: "
                f"correct it, or leave it out of {where}"
            )
        planes.append(plane.astype(np.int64))
    return Corrections(tuple(chosen), np.stack(planes))


def _listed(path: Path) -> list[int]:
    """The sections that a file of the proofreader names."""
    remedy = "accept sections in napari_proofread.py and save, or name them with --slices"
    if not path.is_file():
        raise UserError(f"there are no corrected sections: {path} is not there; {remedy}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["slices"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{path} does not hold {{"slices": [10, 30, 50]}}; {remedy}') from error
    if not isinstance(found, list) or not all(type(z) is int for z in found):
        raise UserError(f"{path} does not list whole numbers under slices; {remedy}")
    if not found:
        raise UserError(f"there are no corrected sections: {path} lists none; {remedy}")
    return found
