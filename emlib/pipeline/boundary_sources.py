"""Where the boundary probability of a run comes from: intensity, a forest of pixels, a network, or a file.

A network is run once: what it tells of mitochondria and synapses is kept in the same pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emlib.errors import UserError
from emlib.pipeline.settings import BOUNDARY_SOURCES, PipelineSettings
from emlib.pipeline.state import Run
from emlib.stages.align import apply_shifts
from emlib.stages.boundaries import damaged_sections, intensity_boundaries
from emlib.stages.expert_boundaries import ExpertMaps, check_experts, expert_boundaries
from emlib.volumes.companions import read_probability

if TYPE_CHECKING:
    from emlib.learn.volumes.boundary_model import BoundaryModel
    from emlib.refine.features import FeatureSettings
    from emlib.refine.forest import Forest


def boundaries_are_made(settings: PipelineSettings) -> bool:
    """Whether a run asks for boundaries at all: labels of a file and the slice-wise baseline need none."""
    return not (settings.labels_from or settings.stages.segment.segmenter == "watershed")


def network_is_used(settings: PipelineSettings) -> bool:
    """Whether a run shows its volume to a network, for its boundaries or for its synapses."""
    learned = settings.boundaries_from == "experts"
    if learned and boundaries_are_made(settings):
        return True
    return settings.synapses_from == "experts" or (learned and settings.synapses_from == "auto" and _named(settings))


def check_boundary_source(settings: PipelineSettings) -> None:
    """Refuse a model that cannot tell boundaries, or the synapses that it is asked for, before there is work to lose.

    Raises
    ------
    UserError
        If there is no such model, it has no output that tells boundaries or synapses, or flags do not go together.
    """
    source = settings.boundaries_from
    _check_flags(settings)
    if source == "forest" and boundaries_are_made(settings):
        if not settings.model_path:
            raise UserError(
                "--boundaries forest needs --model_path FILE.npz: refine_rf_model.npz of train_refine_rf.py, in data/ "
                "of the run that was corrected"
            )
        _read_forest(settings.model_path)
    if not network_is_used(settings):
        return
    from emlib.learn.volumes.boundary_model import load_boundary_model, refuse_without_synapses  # torch

    check_experts(settings.stages.experts)
    model = load_boundary_model(settings.model_path, boundary=source == "experts" and boundaries_are_made(settings))
    if settings.synapses_from == "experts":
        refuse_without_synapses(model)


def _check_flags(settings: PipelineSettings) -> None:
    """Refuse flags that do not go together.

    Raises
    ------
    UserError
    """
    source, synapses = settings.boundaries_from, settings.synapses_from == "experts"
    if synapses and source == "forest":
        raise UserError(
            "--synapses experts needs a network and --boundaries forest a forest, and --model_path names only one of "
            "them; take --boundaries experts, or hand on the boundaries of an earlier run as a file"
        )
    if synapses and not settings.model_path:
        raise UserError(
            "--synapses experts needs a network that tells synapses: --model_path NAME|FILE.pth; with --boundaries "
            "experts it runs once for both"
        )
    if settings.model_path and not synapses and source not in ("forest", "experts"):
        raise UserError(
            f"--model_path {settings.model_path} goes with --boundaries experts (a network) or forest "
            f"(train_refine_rf.py's) or --synapses experts, and boundaries are taken from {source}"
        )
    if not settings.resample and source != "experts" and not synapses:
        raise UserError("--no-resample goes with --boundaries experts, whose model is for one voxel size")


def _named(settings: PipelineSettings) -> bool:
    """Whether ``--model_path`` names a network that tells synapses."""
    if not settings.model_path:
        return False
    from emlib.learn.volumes.boundary_model import load_boundary_model  # torch

    return load_boundary_model(settings.model_path, boundary=False).synapses is not None


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
    """The boundaries of a network; what it tells of mitochondria and synapses is put into the run."""
    maps, model = network_maps(run, maps_wanted(run.settings, boundaries=True))
    about = {**about_model(model), "channel": model.names[model.boundary]}
    return maps.boundaries.astype(np.float32), {**about, **asdict(run.settings.stages.experts)}


def maps_without_boundaries(run: Run) -> None:
    """Show the volume to a network for its synapses where boundaries come from elsewhere or none are made."""
    if network_is_used(run.settings):
        network_maps(run, maps_wanted(run.settings, boundaries=False))


def maps_wanted(settings: PipelineSettings, *, boundaries: bool) -> tuple[str, ...]:
    """The maps that the network of a run is asked for, its boundaries if these come from it."""
    first = ("boundaries", "mitochondria") if boundaries else ("mitochondria",)
    return first if settings.synapses_from == "heuristic" else (*first, "synapses")


def about_model(model: BoundaryModel) -> dict[str, Any]:
    """Say which model made a map."""
    return {"model": model.path.name, "model_sha256": model.sha256}


def network_maps(run: Run, wanted: Sequence[str]) -> tuple[ExpertMaps, BoundaryModel]:
    """Run the network of a run; it sees the EM as read, a 2D one before sections are moved.

    Returns
    -------
    maps : ExpertMaps
        In the frame of the aligned EM. Those of mitochondria and synapses are put into the run as well.
    model : BoundaryModel
    """
    from emlib.learn.volumes.boundary_model import load_boundary_model  # torch

    settings = run.settings
    model = load_boundary_model(settings.model_path, boundary="boundaries" in wanted)
    warn_of_training_data(run, model.trained_on, model.path)
    moved = not run.align_skipped
    em = run.volume.array
    if moved and model.sections > 1:  # neighbours must lie on top of each other
        em = np.rint(apply_shifts(em.astype(np.float32), run.shifts)).astype(np.uint8)
    maps = expert_boundaries(
        em,
        run.volume.voxel_size_nm,
        model,
        settings.stages.experts,
        maps=wanted,
        resample=settings.resample,
        note=run.say,
        progress=not run.quiet,
    )
    if moved and model.sections == 1:
        there = {name: plane for name, plane in vars(maps).items() if plane is not None}
        maps = ExpertMaps(**{name: _moved(plane, run.shifts) for name, plane in there.items()})
    run.mitochondria_probability = maps.mitochondria if "mitochondria" in wanted else None
    run.synapse_probability = maps.synapses
    run.network = about_model(model)
    return maps, model


def _moved(plane: np.ndarray, shifts: pd.DataFrame) -> np.ndarray:
    return apply_shifts(plane.astype(np.float32), shifts).astype(np.float16)


def warn_of_training_data(run: Run, trained_on: dict[str, Any], path: Path) -> None:
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
    from emlib.refine.pixel_forest import background_probability

    voxel = run.volume.voxel_size_nm
    forest, features = forest_of(run)
    damaged = damaged_sections(run.aligned)
    result = np.zeros(run.aligned.shape, np.float32)
    if not damaged.all():
        good = run.aligned if not damaged.any() else run.aligned[~damaged]
        result[~damaged] = background_probability(good, voxel, forest, features)
    return result


def forest_of(run: Run) -> tuple[Forest, FeatureSettings]:
    """The forest of pixels of a run, and the features that it knows.

    Raises
    ------
    UserError
        If there is none in the file, or the volume gives other features.
    """
    from emlib.refine.model_file import feature_settings

    path = run.settings.model_path
    forest, stored = _read_forest(path)
    return forest, feature_settings(stored, forest, run.volume.voxel_size_nm, path)


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
