"""Everything that decides what a run produces."""

from __future__ import annotations

from dataclasses import dataclass, field

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
