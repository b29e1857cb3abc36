"""Raw electron microscopy in, a measured connectome out.

The stages of the pipeline are at hand as ``emlib.open_volume``, ``emlib.segment`` …; each is imported when it is first
asked for, so that ``import emlib`` costs nothing.

Examples
--------
>>> import numpy as np
>>> import emlib
>>> emlib.score_instances(np.ones((1, 4, 4), int), np.ones((1, 4, 4), int))["voi"]
0.0
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "open_volume": "emlib.volumes.open",
    "read_cutout": "emlib.volumes.cutout",
    "read_labels": "emlib.volumes.companions",
    "make_phantom": "emlib.volumes.phantom",
    "preprocess": "emlib.stages.preprocess",
    "align": "emlib.stages.align",
    "intensity_boundaries": "emlib.stages.boundaries",
    "segment": "emlib.stages.segment",
    "find_candidates": "emlib.stages.synapses",
    "build_graph": "emlib.stages.graph",
    "node_table": "emlib.stages.graph",
    "edge_table": "emlib.stages.graph",
    "score_instances": "emlib.measure.instances",
    "run_pipeline": "emlib.pipeline",
    "PipelineSettings": "emlib.pipeline",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'emlib' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
