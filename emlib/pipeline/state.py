"""What a run has produced so far."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from tqdm import tqdm

from emlib.pipeline.settings import PipelineSettings
from emlib.runs.artefacts import Outputs
from emlib.runs.runlog import RunLog
from emlib.runs.stopwatch import Stopwatch
from emlib.volumes.volume import Volume


@dataclass
class Run:
    """What a run has produced so far; stages fill it in order."""

    settings: PipelineSettings
    outputs: Outputs
    log: RunLog
    watch: Stopwatch = field(default_factory=Stopwatch)
    command: str = ""
    warnings: list[str] = field(default_factory=list)
    synthetic: str | None = None  # the note that every figure and artefact carries
    volume: Volume | None = None
    added: pd.DataFrame | None = None  # shifts that were added on purpose
    preprocessed: np.ndarray | None = None
    shifts: pd.DataFrame | None = None
    align_skipped: str | None = None
    aligned: np.ndarray | None = None
    boundaries: np.ndarray | None = None
    labels: np.ndarray | None = None
    candidates: pd.DataFrame | None = None
    graph: nx.DiGraph | None = None
    edges: pd.DataFrame | None = None
    truth: np.ndarray | None = None
    given_synapses: pd.DataFrame | None = None  # true ones, as the user's file has them
    true_synapses: pd.DataFrame | None = None  # in voxels of the aligned volume
    scores: dict[str, Any] = field(default_factory=dict)

    def warn(self, line: str) -> None:
        """Say a line that the user must see, and keep it for the report."""
        self.warnings.append(line)
        tqdm.write(f"warning: {line}", file=sys.stderr)

    def save_array(self, name: str, array: np.ndarray, what: str, settings: Any = None) -> None:
        """Write an array with the provenance of this run in its sidecar."""
        volume = self.volume
        self.outputs.array(
            name,
            array,
            what,
            voxel_size_nm=volume.voxel_size_nm,
            offset=volume.offset,
            source=volume.source,
            synthetic=self.synthetic,
            settings=settings,
            seed=self.settings.seed,
        )
