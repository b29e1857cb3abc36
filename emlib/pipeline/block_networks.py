"""The network of a run in blocks: for its boundaries, and in the same pass for mitochondria and synapses."""

from __future__ import annotations

from collections.abc import Sequence

from emlib.blockwise.budget import NetworkCost
from emlib.blockwise.engine import Engine
from emlib.blockwise.networks import predict_maps
from emlib.pipeline.boundary_sources import (
    about_model,
    boundaries_are_made,
    maps_wanted,
    network_is_used,
    warn_of_training_data,
)
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.stages.expert_boundaries import plan_experts
from emlib.volumes.volume import ZYX


def network_maps_in_blocks(run: Run, engine: Engine) -> tuple[str, ...]:
    """Write what the network of a run tells, as `emlib.pipeline.boundary_sources.network_maps` makes it in memory.

    Returns
    -------
    tuple of str
        The maps that it told.
    """
    from emlib.learn.volumes.boundary_model import load_boundary_model  # torch

    settings, wanted = run.settings, _wanted(run.settings)
    model = load_boundary_model(settings.model_path, boundary="boundaries" in wanted)
    warn_of_training_data(run, model.trained_on, model.path)
    own = settings.stages.experts
    plan = plan_experts(model, run.volume.voxel_size_nm, own, wanted, resample=settings.resample, note=run.say)
    told = predict_maps(engine, model, plan, own, None if run.align_skipped else run.shifts)
    run.network = about_model(model)
    if "boundaries" in wanted:
        run.network |= {"channel": model.names[model.boundary]}
    return told


def network_cost(settings: PipelineSettings, voxel_size_nm: ZYX) -> NetworkCost | None:
    """What the network of a run takes; None where it has none."""
    if not network_is_used(settings):
        return None
    from emlib.learn.prediction.memory import WORK_SPACE, measure_bytes_per_pixel
    from emlib.learn.volumes.boundary_model import load_boundary_model

    wanted = _wanted(settings)
    model = load_boundary_model(settings.model_path, boundary="boundaries" in wanted)
    told = {"boundaries": model.boundary, "mitochondria": model.mitochondria, "synapses": model.synapses}
    zoom = max(voxel_size_nm[1:]) / min((model.voxel_size_nm or voxel_size_nm)[1:])
    return NetworkCost(
        WORK_SPACE * measure_bytes_per_pixel(model.network, channels=model.sections),
        sum(told[name] is not None for name in wanted),
        model.sections,
        max(1.0, zoom),
    )


def _wanted(settings: PipelineSettings) -> Sequence[str]:
    learned = settings.boundaries_from == "experts" and boundaries_are_made(settings)
    return maps_wanted(settings, boundaries=learned)
