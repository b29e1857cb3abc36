"""Where the boundary probability of a run comes from: intensity, a forest of pixels, a network, or a file."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.pipeline.settings import BOUNDARY_SOURCES, PipelineSettings
from emlib.pipeline.state import Run
from emlib.stages.align import apply_shifts
from emlib.stages.boundaries import damaged_sections, intensity_boundaries
from emlib.stages.expert_boundaries import check_experts, expert_boundaries
from emlib.volumes.companions import read_probability


def boundaries_are_made(settings: PipelineSettings) -> bool:
    """Whether a run asks for boundaries at all: labels of a file and the slice-wise baseline need none."""
    return not (settings.labels_from or settings.stages.segment.segmenter == "watershed")


def check_boundary_source(settings: PipelineSettings) -> None:
    """Refuse a model that cannot tell boundaries, before there is any work to lose.

    Raises
    ------
    UserError
        If there is no such model, it has no output that tells boundaries, or flags do not go together.
    """
    source = settings.boundaries_from
    needs = source in ("forest", "experts")
    if settings.model_path and not needs:
        raise UserError(
            f"--model_path {settings.model_path} goes with --boundaries experts (a network) or forest "
            f"(train_refine_rf.py's), and boundaries are taken from {source}"
        )
    if not settings.resample and source != "experts":
        raise UserError("--no-resample goes with --boundaries experts, whose model is for one voxel size")
    if not needs or not boundaries_are_made(settings):
        return
    if source == "forest":
        if not settings.model_path:
            raise UserError(
                "--boundaries forest needs --model_path FILE.npz: refine_rf_model.npz of train_refine_rf.py, in data/ "
                "of the run that was corrected"
            )
        _read_forest(settings.model_path)
        return
    from emlib.learn.volumes.boundary_model import load_boundary_model  # torch

    check_experts(settings.stages.experts)
    load_boundary_model(settings.model_path)


def make_boundaries(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """Make or read the boundary probability in the frame of the aligned EM.

    Returns
    -------
    boundaries : (Z, Y, X) float32 array in [0, 1]
        That of a network with the digits of float16, as the artefact holds it.
    record : dict
        For the sidecar.

    Raises
    ------
    UserError
        If a file or a model cannot be used.
    """
    settings, voxel = run.settings, run.volume.voxel_size_nm
    record: dict[str, Any] = {"from": settings.boundaries_from}
    own = settings.stages.segment.boundaries
    if settings.boundaries_from == "intensity":
        return intensity_boundaries(run.aligned, voxel, own), {**record, **asdict(own)}
    if settings.boundaries_from == "forest":
        return _from_forest(run), {**record, "model": Path(str(settings.model_path)).name}
    if settings.boundaries_from == "experts":
        found, about = _from_experts(run)
        return found, {**record, **about}
    given = read_probability(settings.boundaries_from, run.volume)
    return apply_shifts(given, run.shifts), {**record, **asdict(own)}


def _from_experts(run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """The boundaries of a network, which sees the EM as read; a 2D one before sections are moved."""
    from emlib.learn.volumes.boundary_model import load_boundary_model  # torch

    settings = run.settings
    model = load_boundary_model(settings.model_path)
    _warn_of_training_data(run, model.trained_on, model.path)
    moved = not run.align_skipped
    em = run.volume.array
    if moved and model.sections > 1:  # neighbours must lie on top of each other
        em = np.rint(apply_shifts(em.astype(np.float32), run.shifts)).astype(np.uint8)
    maps = expert_boundaries(
        em,
        run.volume.voxel_size_nm,
        model,
        settings.stages.experts,
        resample=settings.resample,
        note=run.say,
        progress=not run.quiet,
    )
    found = maps.boundaries
    if moved and model.sections == 1:
        found = apply_shifts(found.astype(np.float32), run.shifts).astype(np.float16)
    about = {"model": model.path.name, "model_sha256": model.sha256, "channel": model.names[model.boundary]}
    return found.astype(np.float32), {**about, **asdict(settings.stages.experts)}


def _warn_of_training_data(run: Run, trained_on: dict[str, Any], path: Path) -> None:
    """Say that a model has seen this very volume, and whether these sections."""
    if not trained_on.get("sha256") or "://" in run.settings.dataset or run.synthetic:
        return
    from emlib.volumes.identity import volume_sha256
    from emlib.volumes.open import open_volume

    with contextlib.suppress(UserError):  # the cutout was read: what else is wrong with the file is no matter here
        if volume_sha256(open_volume(run.settings.dataset)) != trained_on["sha256"]:
            return
        first, end = run.volume.offset[0], run.volume.offset[0] + run.volume.shape[0]
        seen = [trained_on.get(name) for name in ("z", "val_z")]
        spans = [span for span in seen if isinstance(span, list) and len(span) == 2]
        overlap = sum(max(0, min(end, span[1]) - max(first, span[0])) for span in spans)
        told = ", ".join(f"z {span[0]}-{span[1] - 1}" for span in spans)
        if overlap:
            run.warn(
                f"{path} was trained on this very volume ({told}), {overlap} of these {end - first} sections among it: "
                "scores here say nothing of other data"
            )
        else:
            run.warn(f"{path} was trained on this very volume ({told}), though not on these sections")


def _from_forest(run: Run) -> np.ndarray:
    """The background probability of a forest of pixels."""
    from emlib.refine.model_file import feature_settings
    from emlib.refine.pixel_forest import background_probability

    path, voxel = run.settings.model_path, run.volume.voxel_size_nm
    forest, stored = _read_forest(path)
    features = feature_settings(stored, forest, voxel, path)
    damaged = damaged_sections(run.aligned)
    result = np.zeros(run.aligned.shape, np.float32)
    if not damaged.all():
        good = run.aligned if not damaged.any() else run.aligned[~damaged]
        result[~damaged] = background_probability(good, voxel, forest, features)
    return result


def _read_forest(path: str):
    """The forest of pixels of a file, and the settings that it was trained with."""
    from emlib.refine.model_file import read_model

    forests, stored = read_model(path)
    if "pixels" not in forests:
        raise UserError(f"the model {path} has no forest of pixels; train it with train_refine_rf.py")
    return forests["pixels"], stored


def is_file(source: str) -> bool:
    """Whether ``--boundaries`` names a file."""
    return source not in BOUNDARY_SOURCES
