"""Everything that decides what a run produces."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from emlib.errors import UserError
from emlib.stages.align import AlignSettings
from emlib.stages.expert_boundaries import ExpertSettings
from emlib.stages.graph import GraphSettings
from emlib.stages.neurite_stats import NeuriteSettings
from emlib.stages.preprocess import PreprocessSettings
from emlib.stages.segment import SEGMENTERS, SegmentSettings
from emlib.stages.synapses import SynapseSettings
from emlib.volumes.bossdb import DEFAULT_URI

UNTIL = ("cutout", "preprocess", "align", "boundaries", "segment", "synapses", "graph", "publish")
ALIGNED_DTYPES = ("float32", "float16")
BOUNDARY_SOURCES = ("intensity", "forest", "experts")  # else a file
SYNAPSE_SOURCES = ("auto", "heuristic", "experts")  # auto: experts where the network of the boundaries tells them
NPY = ("always", "never", "auto")
REBUILD = "rebuild"  # what a record has besides, if only graph and figures were made anew
NEWER = {
    "resolution",
    "refresh",
    "fill_missing",
    "boss_config",
    "truth_synapses",
    "model_path",
    "resample",
    "experts",
    "edge_model",
    "neurites",
    "synapses_from",
    "blocks_xyz",
    "npy",
}  # than the first run log


@dataclass(frozen=True)
class StageSettings:
    """The settings of the stages, as ``--set`` names them."""

    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    experts: ExpertSettings = field(default_factory=ExpertSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    synapses: SynapseSettings = field(default_factory=SynapseSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    neurites: NeuriteSettings = field(default_factory=NeuriteSettings)


def stage_defaults(boundaries_from: str = "intensity") -> StageSettings:
    """The settings of the stages where nobody says otherwise.

    The boundaries of a network (``"experts"``) are sharp and complete: they are smoothed by 3.5 nm in place of 7, and a
    segment is given to a neighbour only where that encloses it altogether. Chosen for multicut on fib25 z 0-119,
    larval-vnc-3d z 0-6 and phantom seed 3.

    Examples
    --------
    >>> stage_defaults("experts").segment.multicut.min_enclosed, stage_defaults().segment.multicut.min_enclosed
    (1.0, 0.6)
    """
    plain = StageSettings()
    if boundaries_from != "experts":
        return plain
    own = plain.segment
    fragments, multicut = replace(own.fragments, smooth_nm=3.5), replace(own.multicut, min_enclosed=1.0)
    return replace(plain, segment=replace(own, fragments=fragments, multicut=multicut))


@dataclass(frozen=True)
class PipelineSettings:
    """Everything that decides what a run produces."""

    dataset: str = DEFAULT_URI
    cutout_xyz: tuple[int, int, int] | None = (256, 256, 64)  # None: all of it, in blocks
    offset_xyz: tuple[int, int, int] | None = None
    voxel_size_nm: tuple[float, float, float] | None = None
    seed: int = 0
    fallback: bool = True  # to the phantom, when the network cannot be reached
    network_timeout_s: float = 30.0
    resolution: int = 0  # of BossDB; each halves the finest one
    refresh: bool = False  # fetch from BossDB anew what an earlier run has kept
    fill_missing: bool = False  # take chunks that a Zarr or precomputed volume lacks as empty
    boss_config: str | None = None  # file with host and token, which themselves are kept nowhere
    until: str = "publish"
    save_minimal: bool = False
    aligned_dtype: str = "float32"
    align_sections: bool | None = None  # None: unless near isotropic
    simulate_misalignment_px: float = 0.0
    boundaries_from: str = "intensity"  # or forest, experts, or a file
    model_path: str | None = None  # of the forest or the network
    resample: bool = True  # to the voxel size of the network's training
    synapses_from: str = "auto"  # or heuristic, experts
    labels_from: str | None = None
    edge_model: str | None = None  # file of `train_refine_rf.py --edges --volume`
    truth: str | None = None  # true labels
    truth_synapses: str | None = None  # table of true synapses, in voxels of the whole volume
    blocks_xyz: tuple[int, int, int] | None = None  # work in blocks of this size
    npy: str = "auto"  # with blocks: write .npy files too "always", "never", or where the volume fits into memory
    stages: StageSettings = field(default_factory=StageSettings)


def defaults() -> dict[str, Any]:
    """The settings of a run without flags, as a run log holds them."""
    return asdict(PipelineSettings())


def of_pipeline(record: dict[str, Any]) -> bool:
    """Return whether a run record is that of run_pipeline.py, not of a rebuild, a refinement or a training.

    Examples
    --------
    >>> of_pipeline(defaults()), of_pipeline({"slices": [3]}), of_pipeline({**defaults(), "rebuild": {}})
    (True, False, False)
    """
    return REBUILD not in record and "stages" in record


def settings_of_record(record: dict[str, Any]) -> PipelineSettings:
    """Rebuild settings from the JSON of a run record; what is newer than the oldest record may lack in it.

    Raises
    ------
    UserError
        If the record names a setting that this version does not have, lacks one that every version has, holds a value
        that no run can have, or is that of a rebuild.

    Examples
    --------
    >>> record = {**defaults(), "cutout_xyz": [8, 8, 4]}
    >>> settings_of_record(record).cutout_xyz
    (8, 8, 4)
    """
    if isinstance(record.get(REBUILD), dict):
        raise UserError(
            "this was no run of the pipeline but of rebuild_graph_and_figures.py, on what run "
            f"{record[REBUILD].get('run', 'before')} left; repeat it with that script, or name that run"
        )
    if record and "stages" not in record and "boundaries_from" not in record:  # both, since one may be lost by damage
        raise UserError("this was no run of the pipeline; repeat it with the command that the record holds")
    settings = _restored(PipelineSettings(), record, "")
    if settings.cutout_xyz is None and settings.blocks_xyz is None:
        raise UserError("the record is damaged: cutout_xyz is 'None', which it cannot be")
    allowed = {"until": UNTIL, "aligned_dtype": ALIGNED_DTYPES, "synapses_from": SYNAPSE_SOURCES, "npy": NPY}
    wrong = [name for name, choice in allowed.items() if getattr(settings, name) not in choice]
    wrong += ["stages.segment.segmenter"] * (settings.stages.segment.segmenter not in SEGMENTERS)
    least = {"seed": 0, "resolution": 0, "simulate_misalignment_px": 0}
    wrong += [name for name, lowest in least.items() if getattr(settings, name) < lowest]
    sizes = {"network_timeout_s": (settings.network_timeout_s,), "cutout_xyz": settings.cutout_xyz or ()}
    sizes["blocks_xyz"] = settings.blocks_xyz or ()
    sizes["voxel_size_nm"] = settings.voxel_size_nm or ()
    wrong += [name for name, values in sizes.items() if not all(value > 0 for value in values)]
    if wrong:
        raise UserError(f"the record is damaged: {wrong[0]} has a value that no run can have; it cannot be repeated")
    return settings


def _restored(settings: Any, record: dict[str, Any], prefix: str) -> Any:
    known, kinds = {f.name for f in fields(settings)}, get_type_hints(type(settings))
    if isinstance(settings, (PipelineSettings, StageSettings)) and (lost := sorted(known - set(record) - NEWER)):
        raise UserError(f"the record is damaged: it lacks {prefix}{lost[0]}; it cannot be repeated")
    values = {}
    for name, value in record.items():
        if name not in known:
            raise UserError(
                f"the record has a setting {prefix}{name} and this emlib has none; use the version it names"
            )
        old = getattr(settings, name)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise UserError(f"the record is damaged: {prefix}{name} should hold settings, not {value!r}")
            value = _restored(old, value, f"{prefix}{name}.")
        elif not _fits(value, kinds[name]):
            raise UserError(f"the record is damaged: {prefix}{name} is {str(value)[:60]!r}, which it cannot be")
        values[name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **values)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of the kind that a field is declared with; numbers in the bounds of 64 bits."""
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        alike = isinstance(value, (list, tuple)) and len(value) == len(kinds)
        return alike and all(map(_fits, value, kinds))
    if isinstance(value, bool) or kind not in (int, float):
        return type(value) is kind
    if isinstance(value, float):
        return kind is float and math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63
