"""From raw EM to a wiring graph: which stage follows which, and what is kept.

1. cutout       read a box of the volume; fall back to the phantom when BossDB cannot be reached
2. preprocess   denoise, equalise contrast
3. align        translate sections onto a common frame; skipped when the volume is near isotropic
4. boundaries   probability that a voxel is membrane
5. segment      neurite labels
6. synapses     candidates with their partners
7. graph        directed, weighted
8. publish      scores when truth is known, figures, report
"""

from emlib.pipeline.carriage import Carriage, run_any
from emlib.pipeline.cutouts import cutout_lines, run_cutouts
from emlib.pipeline.memory import plan_memory
from emlib.pipeline.rerun import recall
from emlib.pipeline.run import STAGES, run_pipeline
from emlib.pipeline.settings import PipelineSettings, StageSettings, defaults, stage_defaults
from emlib.pipeline.state import Run
from emlib.pipeline.summary import announce, report_lines

__all__ = [
    "STAGES",
    "Carriage",
    "PipelineSettings",
    "Run",
    "StageSettings",
    "announce",
    "cutout_lines",
    "defaults",
    "plan_memory",
    "recall",
    "report_lines",
    "run_any",
    "run_cutouts",
    "run_pipeline",
    "stage_defaults",
]
