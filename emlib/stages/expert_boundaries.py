"""Maps of a volume from a trained network: boundaries, and in the same pass mitochondria and synapses.

1. Sections along z, or along all three axes where voxels are near isotropic, through the network; axes are averaged.
2. Grey is brought to mean and spread of the training: laboratories stain and scan differently.
3. Where an expert tells mitochondria, the boundary inside them can be lowered: their cristae and double membranes are
   taken for the end of a neurite else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emlib.errors import UserError
from emlib.stages.boundaries import damaged_sections
from emlib.volumes.volume import ZYX, near_isotropic

if TYPE_CHECKING:
    from torch import nn

    from emlib.learn.normalisation import Normalisation
    from emlib.learn.volumes.boundary_model import BoundaryModel
    from emlib.learn.volumes.prediction import Resampling


@dataclass(frozen=True)
class ExpertSettings:
    """How a network sees a volume."""

    axes: int = 0  # 1: along z; 3: along all axes, averaged; 0: 3 where voxels are near isotropic, else 1
    mirrored: bool = False  # also in eight positions each, at eight times the cost
    own_grey: bool = True  # subtract the volume's own mean grey and divide by its own spread, not the training's
    mitochondria: float = (
        0.0  # share of the boundary that is taken away inside mitochondria, where an expert tells them
    )
    tile: int = 1024  # px, a multiple of 32; memory grows with its square


@dataclass(frozen=True)
class ExpertMaps:
    """What a network says of a volume: (Z, Y, X) float16 arrays in [0, 1], None for what was not asked for.

    Attributes
    ----------
    boundaries : array or None
    mitochondria, synapses : array or None
        None also where the network does not tell them.
    """

    boundaries: np.ndarray | None = None
    mitochondria: np.ndarray | None = None
    synapses: np.ndarray | None = None


def check_experts(settings: ExpertSettings) -> None:
    """Refuse settings that mean nothing.

    Raises
    ------
    UserError
        Naming the first of them.
    """
    if settings.axes not in (0, 1, 3):
        raise UserError(f"--set experts.axes={settings.axes}: give 1 (along z), 3 (all axes), or 0 for what fits")
    if not 0 <= settings.mitochondria <= 1:
        raise UserError(f"--set experts.mitochondria={settings.mitochondria:g}: a share lies in [0, 1]")
    if settings.tile < 384 or settings.tile % 32:
        raise UserError(f"--set experts.tile={settings.tile}: give a multiple of 32 px, at least 384")


def expert_boundaries(
    em: np.ndarray,
    voxel_size_nm: ZYX,
    model: BoundaryModel,
    settings: ExpertSettings | None = None,
    *,
    maps: Collection[str] = ("boundaries",),
    resample: bool = True,
    note: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> ExpertMaps:
    """Predict the probability that a voxel lies on a boundary, in a mitochondrion or in a synapse, in one pass.

    Parameters
    ----------
    em : (Z, Y, X) uint8 array
        As the microscope made it: networks are trained on grey that nobody has equalised.
    voxel_size_nm : (z, y, x) in nm
    model : BoundaryModel
        From `emlib.learn.volumes.boundary_model.load_boundary_model`.
    settings : ExpertSettings
    maps : collection of "boundaries", "mitochondria", "synapses"
        What to return, as far as the network tells it; mitochondria also where settings make use of them.
    resample : bool
        Bring sections to the voxel size of the model's training where it is another; False refuses.
    note : function of a line
        Told what the user should know.
    progress : bool
        Draw a bar, if stderr is a terminal.

    Returns
    -------
    ExpertMaps
        Sections that hold a single grey value get 0.

    Raises
    ------
    UserError
        If the voxel size differs and must not be resampled, settings mean nothing, the model gives what is no number,
        or memory runs out.

    Notes
    -----
    A 2D network with neighbouring sections as channels, averaged over three orthogonal cuts, stands in for a 3D network
    at the cost of the former (after the triplanar network of Prasoon et al. 2013).
    """
    from tqdm import tqdm

    from emlib.learn.tiles import TileSettings
    from emlib.learn.volumes.prediction import predict_along, section_count

    settings = settings or ExpertSettings()
    plan = plan_experts(model, voxel_size_nm, settings, maps, resample=resample, note=note)
    damaged = damaged_sections(em)
    good = em if not damaged.any() else em[~damaged]
    if not (len(good) and plan.channels):
        return ExpertMaps(**{name: np.zeros(em.shape, np.float16) for name in plan.channels})
    network, places = ready_network(model, plan)
    with tqdm(
        total=section_count(good.shape, plan.axes), desc="experts", unit="section", disable=None if progress else True
    ) as bar:
        found = predict_along(
            network,
            good,
            _normalisation(model, good, settings.own_grey),
            sections=model.sections,
            axes=plan.axes,
            resampling=plan.resampling,
            tiles=TileSettings(tile=settings.tile, tta=settings.mirrored),
            tick=bar.update,
        )
    planes = {name: found[place] for name, place in places.items()}
    result = finished_maps(planes, model.inverted, settings.mitochondria)
    if damaged.any():
        result = {name: _spread(plane, ~damaged) for name, plane in result.items()}
    return ExpertMaps(**result)


@dataclass(frozen=True)
class ExpertPlan:
    """How a network goes through a volume.

    Attributes
    ----------
    axes : tuple of int
        Along which sections are cut.
    channels : dict of int
        Of the network, by the map that they tell: "boundaries", "mitochondria", "synapses".
    resampling : Resampling or None
    """

    axes: tuple[int, ...]
    channels: dict[str, int]
    resampling: Resampling | None


def plan_experts(
    model: BoundaryModel,
    voxel_size_nm: ZYX,
    settings: ExpertSettings,
    maps: Collection[str],
    *,
    resample: bool = True,
    note: Callable[[str], None] = lambda line: None,
) -> ExpertPlan:
    """Plan how a network goes through a volume; parameters and errors as of `expert_boundaries`."""
    check_experts(settings)
    axes = tuple(range(settings.axes or (3 if near_isotropic(voxel_size_nm) else 1)))
    resampling = _resampling(model, voxel_size_nm, axes, resample, note)
    wanted = {*maps, *(["mitochondria"] if settings.mitochondria and "boundaries" in maps else [])}
    told = {"boundaries": model.boundary, "mitochondria": model.mitochondria, "synapses": model.synapses}
    channels = {name: channel for name, channel in told.items() if name in wanted and channel is not None}
    return ExpertPlan(axes, channels, resampling)


def ready_network(model: BoundaryModel, plan: ExpertPlan) -> tuple[nn.Module, dict[str, int]]:
    """Return a network that computes no more than a plan needs, and where it gives each map; sets PyTorch's threads."""
    import torch

    from emlib.learn.prediction.predictor import SomeChannels
    from emlib.threads import get_threads

    torch.set_num_threads(get_threads())
    channels, network = plan.channels, model.network
    if getattr(network, "activation", "sigmoid") != "softmax":  # else all channels decide together
        network = SomeChannels(network, list(channels.values()))
        channels = {name: place for place, name in enumerate(channels)}
    return network.to(memory_format=torch.channels_last), channels


def finished_maps(planes: dict[str, np.ndarray], inverted: bool, share: float) -> dict[str, np.ndarray]:
    """Turn what a network tells into maps.

    Parameters
    ----------
    planes : dict of (Z, Y, X) float16 arrays
        Probability of each channel, by the map that it tells.
    inverted : bool
        Whether the channel of boundaries tells the inside of neurites.
    share : float
        Of the boundary that is taken away inside mitochondria.
    """
    maps = dict(planes)
    if inverted and "boundaries" in maps:
        maps["boundaries"] = np.float16(1) - maps["boundaries"]
    if share and {"boundaries", "mitochondria"} <= set(maps):
        maps["boundaries"] = maps["boundaries"] * (1 - np.float16(share) * maps["mitochondria"])
    return maps


def _spread(planes: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Put sections back among those that were left out, which get 0."""
    result = np.zeros((len(good), *planes.shape[1:]), planes.dtype)
    result[good] = planes
    return result


def _resampling(
    model: BoundaryModel, voxel_size_nm: ZYX, axes: tuple[int, ...], allowed: bool, note: Callable[[str], None]
) -> Resampling | None:
    """How voxels are brought to those of the model's training; None where they are alike or these are unknown."""
    from emlib.learn.volumes.prediction import Resampling

    if model.voxel_size_nm is None:
        note(f"note: {model.path} does not say for which voxel size it is; voxels are shown to it as they are")
        return None
    resampling = Resampling(voxel_size_nm, model.voxel_size_nm)
    if not resampling.needed(axes, model.sections):
        return None
    own, wanted = (" × ".join(f"{side:g}" for side in size) for size in (voxel_size_nm, model.voxel_size_nm))
    if not allowed:
        raise UserError(
            f"{model.path} is for voxels of {wanted} nm (z, y, x) and these are {own} nm; leave --no-resample out to "
            "resample them on the way, or take a model of this size"
        )
    note(f"note: sections are resampled for {model.path}, from {own} to {wanted} nm (z, y, x) and back")
    return resampling


def _normalisation(model: BoundaryModel, em: np.ndarray, own: bool) -> Normalisation:
    """That of the volume's own grey; the model's, also where it was trained on grey as it is."""
    from emlib.learn.normalisation import own_normalisation

    return own_normalisation(em) if own and takes_own_grey(model) else model.normalisation


def takes_own_grey(model: BoundaryModel) -> bool:
    """Whether a model was trained on grey of which a mean was subtracted."""
    from emlib.learn.normalisation import Normalisation

    return model.normalisation != Normalisation()
