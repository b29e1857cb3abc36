"""What a run has produced so far."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from tqdm import tqdm

from emlib.pipeline.settings import PipelineSettings
from emlib.runs.artefacts import Outputs
from emlib.runs.runlog import RunLog
from emlib.runs.stopwatch import Stopwatch
from emlib.stages.fragment_planes import FragmentPlanes
from emlib.volumes.volume import Volume


@dataclass
class Run:
    """What a run has produced so far; stages fill it in order."""

    settings: PipelineSettings
    outputs: Outputs
    log: RunLog
    watch: Stopwatch = field(default_factory=Stopwatch)
    command: str = ""
    quiet: bool = False
    warnings: list[str] = field(default_factory=list)
    synthetic: str | None = None  # the note that every figure and artefact carries
    volume: Volume | None = None
    added: pd.DataFrame | None = None  # shifts that were added on purpose
    preprocessed: np.ndarray | None = None
    shifts: pd.DataFrame | None = None
    align_skipped: str | None = None
    aligned: np.ndarray | None = None
    boundaries: np.ndarray | None = None
    synapse_probability: np.ndarray | None = None  # of a network, aligned, float16
    mitochondria_probability: np.ndarray | None = None
    network: dict[str, Any] | None = None  # name and checksum of the model that made the maps
    fragments: FragmentPlanes | None = None  # before they were joined, in the middle planes
    labels: np.ndarray | None = None
    labelled: int | None = None  # neurites of a volume of which `labels` is a window
    candidates: pd.DataFrame | None = None
    graph: nx.DiGraph | None = None
    edges: pd.DataFrame | None = None
    neurites: pd.DataFrame | None = None
    truth: np.ndarray | None = None
    given_synapses: pd.DataFrame | None = None  # true ones, as the user's file has them
    true_synapses: pd.DataFrame | None = None  # in voxels of the aligned volume
    scores: dict[str, Any] = field(default_factory=dict)
    held: dict[str, Path] = field(default_factory=dict)  # what of this can be read back from which artefact, exactly

    def say(self, line: str) -> None:
        """Say a line that is good to know."""
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def warn(self, line: str) -> None:
        """Say a line that the user must see, and keep it for the report."""
        self.warnings.append(line)
        tqdm.write(f"warning: {line}", file=sys.stderr)

    def save_array(
        self, name: str, array: np.ndarray, what: str, settings: Any = None, *, holds: str | None = None
    ) -> None:
        """Write an array with the provenance of this run in its sidecar.

        ``holds`` names the attribute of this run whose voxels the file holds exactly: a run that is resumed reads
        them back from there.
        """
        volume = self.volume
        path = self.outputs.array(
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
        if holds:
            self.held[holds] = path.relative_to(self.outputs.root)
