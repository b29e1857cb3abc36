"""How a run in blocks is carried out: by how many, where, and with how much memory; none of it changes a result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emlib.pipeline.memory import free_bytes
from emlib.pipeline.run import run_pipeline
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run

GB = 10**9
SHARE = 0.75  # of what is free, where no budget is given


@dataclass(frozen=True)
class Carriage:
    """Who carries out the blocks of a run.

    Attributes
    ----------
    workers : int
        Processes of this machine.
    scheduler : str or None
        Address of a Dask scheduler instead.
    memory_gb : float or None
        The most that all processes of this machine may take; None is three quarters of what is free.
    """

    workers: int = 1
    scheduler: str | None = None
    memory_gb: float | None = None

    @property
    def budget(self) -> int:
        """Bytes for all processes of this machine."""
        return int(self.memory_gb * GB) if self.memory_gb else int(SHARE * free_bytes())


def run_any(settings: PipelineSettings, outdir: str | Path, carriage: Carriage, **how: Any) -> Run:
    """Run the stages, in blocks if the settings say so; ``how`` as for `emlib.pipeline.run_pipeline`."""
    if settings.blocks_xyz is None:
        return run_pipeline(settings, outdir, **how)
    from emlib.pipeline.blockwise import run_blockwise  # what it needs besides is loaded only where it is asked for

    return run_blockwise(settings, outdir, carriage, **how)
