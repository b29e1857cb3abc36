"""Everything that decides what a run produces."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from emlib.errors import UserError
from emlib.stages.align import AlignSettings
from emlib.stages.graph import GraphSettings
from emlib.stages.preprocess import PreprocessSettings
from emlib.stages.segment import SegmentSettings
from emlib.stages.synapses import SynapseSettings
from emlib.volumes.bossdb import DEFAULT_URI


@dataclass(frozen=True)
class StageSettings:
    """The settings of the stages, as ``--set`` names them."""

    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    synapses: SynapseSettings = field(default_factory=SynapseSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)


@dataclass(frozen=True)
class PipelineSettings:
    """Everything that decides what a run produces."""

    dataset: str = DEFAULT_URI
    cutout_xyz: tuple[int, int, int] = (256, 256, 64)
    offset_xyz: tuple[int, int, int] | None = None
    voxel_size_nm: tuple[float, float, float] | None = None
    seed: int = 0
    fallback: bool = True  # to the phantom, when the network cannot be reached
    network_timeout_s: float = 30.0
    resolution: int = 0  # of BossDB; each halves the finest one
    boss_config: str | None = None  # file with host and token, which themselves are kept nowhere
    until: str = "publish"
    save_minimal: bool = False
    aligned_dtype: str = "float32"
    align_sections: bool | None = None  # None: unless near isotropic
    simulate_misalignment_px: float = 0.0
    boundaries_from: str = "intensity"  # or a file
    labels_from: str | None = None
    truth: str | None = None  # true labels
    truth_synapses: str | None = None  # table of true synapses, in voxels of the whole volume
    stages: StageSettings = field(default_factory=StageSettings)


def defaults() -> dict[str, Any]:
    """The settings of a run without flags, as a run log holds them."""
    return asdict(PipelineSettings())


def settings_of_record(record: dict[str, Any]) -> PipelineSettings:
    """Rebuild settings from the JSON of a run record; names that an older record lacks keep their defaults.

    Raises
    ------
    UserError
        If the record names a setting that this version does not have.

    Examples
    --------
    >>> settings_of_record({"seed": 3, "cutout_xyz": [8, 8, 4]}).cutout_xyz
    (8, 8, 4)
    """
    return _restored(PipelineSettings(), record, "")


def _restored(settings: Any, record: dict[str, Any], prefix: str) -> Any:
    known = {f.name for f in fields(settings)}
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
        values[name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **values)
