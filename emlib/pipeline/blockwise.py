"""A run in blocks: the same stages and the same results, on volumes that do not fit into memory.

1. The box is copied into ``data/volume.zarr``; each stage reads blocks of it with a margin and writes blocks.
2. Done-marks of blocks lie in ``runs/blocks/<stage>/``; ``--resume`` does what has none.
3. Where the volume fits into memory, the arrays are then written as ``.npy`` too, and scored, as a run in memory does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from emlib.blockwise.budget import Budget, check_blocks, plan_blocks
from emlib.blockwise.carriers import need_dask, open_carrier
from emlib.blockwise.engine import Carrier, Engine
from emlib.blockwise.pyramids import write_pyramids
from emlib.blockwise.site import Site
from emlib.pipeline.block_models import model_costs
from emlib.pipeline.block_networks import network_cost
from emlib.pipeline.block_stages import BlockStages
from emlib.pipeline.boundary_sources import check_boundary_source
from emlib.pipeline.carriage import GB, Carriage
from emlib.pipeline.contacts import check_segmenting
from emlib.pipeline.dependence import code_fingerprint, dependence
from emlib.pipeline.finished import basis, keep_finished
from emlib.pipeline.run import STAGES, record_costs, recorded_run
from emlib.pipeline.scoring import read_true_synapses
from emlib.pipeline.settings import PipelineSettings
from emlib.pipeline.state import Run
from emlib.pipeline.steps import (
    PHANTOM_URI,
    SYNTHETIC,
    boss_options,
    phantom_instead,
)
from emlib.pipeline.summary import summary
from emlib.runs.kept_results import set_aside
from emlib.runs.runlog import PACKAGES
from emlib.volumes.bossdb import NetworkUnreachable
from emlib.volumes.cutout import place_box, refuse_palette, size_of_voxels
from emlib.volumes.open import open_volume
from emlib.volumes.volume import Volume, VolumeSource

STORE = "data/volume.zarr"


def run_blockwise(
    settings: PipelineSettings,
    outdir: str | Path = "outputs",
    carriage: Carriage | None = None,
    *,
    command: str = "",
    quiet: bool = False,
    resume: bool = False,
) -> Run:
    """Run the stages over the blocks of a volume and write what they make.

    Parameters
    ----------
    settings : PipelineSettings
        With ``blocks_xyz``.
    outdir : path
    carriage : Carriage
    command, quiet, resume
        As for `emlib.pipeline.run_pipeline`; blocks that are done and undamaged are not done again.

    Returns
    -------
    Run
        With tables, graph and scores. Its arrays are those of the volume where this fits into memory, and of a window
        in its middle where not.

    Raises
    ------
    UserError
        For what the user can mend: a budget that is too small for a block, a scheduler that cannot be reached, a block
        that fails whatever is tried; the run log keeps the message.
    KeyboardInterrupt
        On Ctrl-C and on SIGTERM.
    """
    carriage = carriage or Carriage()
    need_dask(carriage.scheduler, carriage.workers)
    with recorded_run(settings, outdir, command=command, quiet=quiet) as (run, stopped):
        _Blockwise(run, carriage, resume, stopped).go()
    return run


class _Blockwise:
    """The stages of one run, in order."""

    def __init__(self, run: Run, carriage: Carriage, resume: bool, stopped: threading.Event) -> None:
        self.run, self.carriage, self.resume, self.stopped = run, carriage, resume, stopped
        self.settings = run.settings
        self.work = run.outputs.root / "runs" / "blocks"
        self.store = run.outputs.root / STORE
        self.engine: Engine | None = None

    def go(self) -> None:
        """Do all stages that are asked for, and end the run."""
        run, rests_on = self.run, basis(self.settings)
        if not self.resume:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.rmtree(self.store, ignore_errors=True)
        source, start, box = self._open()
        budget = self._plan(source, [side.stop - side.start for side in box])
        with open_carrier(budget.workers, self.carriage.scheduler, self.work) as carrier:
            self._stages(carrier, source, start)
        set_aside(run.outputs.root)
        keep_finished(run, rests_on, {})
        peak = max([*run.watch.peak_mib.values(), *self.engine.peak_mib.values()])
        told = {"blocks": self._told(budget)}
        run.log.update(status="done", **record_costs(run), peak_mib=peak, summary={**summary(run), **told})
        shutil.rmtree(self.work, ignore_errors=True)

    def _open(self) -> tuple[VolumeSource, list[int], Any]:
        """Open the volume, or the phantom in its place, and say which box of it is worked on."""
        run, settings = self.run, self.settings
        check_boundary_source(settings)
        check_segmenting(settings)
        read_true_synapses(run)
        try:
            source = self._source(settings)
        except NetworkUnreachable as error:
            run.synthetic = phantom_instead(settings, error)
            run.warn(f"{error}. THIS RUN USES THE SYNTHETIC PHANTOM INSTEAD; --no-fallback makes this an error")
            settings = replace(settings, dataset=PHANTOM_URI, voxel_size_nm=None, offset_xyz=None)
            source = self._source(settings)
        if source.truth is not None:
            run.synthetic = run.synthetic or SYNTHETIC
        refuse_palette(source)
        notes: list[str] = list(source.notes.get("messages", []))
        size, assumed = size_of_voxels(source, settings.voxel_size_nm, notes)
        box = place_box(source, settings.cutout_xyz, settings.offset_xyz, settings.seed, notes)
        record = {
            "uri": source.uri,
            "shape": list(source.shape),
            "dtype": str(source.dtype),
            "voxel_size_assumed": assumed,
            "notes": notes,
            "file": {key: value for key, value in source.notes.items() if key != "messages"},
        }
        for line in notes:
            run.warn(line)
        shape = tuple(side.stop - side.start for side in box)
        start = tuple(side.start for side in box)
        nothing = np.broadcast_to(np.uint8(0), shape)  # only its shape counts until the arrays are there
        run.volume = Volume(nothing, size, start, record, source.truth)
        return source, list(start), box

    def _source(self, settings: PipelineSettings) -> VolumeSource:
        hint = settings.cutout_xyz
        return open_volume(
            settings.dataset,
            shape_hint=None if hint is None else tuple(reversed(hint)),
            seed=settings.seed,
            boss=boss_options(settings, self.run.outputs.root),
            progress=not self.run.quiet,
            fill_missing=settings.fill_missing,
            note=self.run.say,
        )

    def _plan(self, source: VolumeSource, shape: list[int]) -> Budget:
        """Lay the blocks and see that they fit into memory."""
        run, settings = self.run, self.settings
        block = tuple(min(side, n) for side, n in zip(reversed(settings.blocks_xyz), shape, strict=True))
        site = Site(
            str(self.work.resolve()),
            str(self.store.resolve()),
            tuple(shape),
            block,
            run.volume.voxel_size_nm,
            run.volume.offset,
        )
        check_blocks(site, settings.stages)
        workers = 1 if self.carriage.scheduler else self.carriage.workers
        network = network_cost(settings, site.voxel_size_nm)
        budget = plan_blocks(
            site, settings.stages, source.dtype.itemsize, self.carriage.budget, workers, network, model_costs(run, site)
        )
        if budget.workers < self.carriage.workers:
            run.say(
                f"note: {budget.workers} of {self.carriage.workers} workers, as {self.carriage.budget / GB:.1f} GB do "
                "not suffice for more"
            )
        if not run.quiet:
            tqdm.write(budget.line(), file=sys.stderr)
        names = (*PACKAGES, "python")
        code = code_fingerprint({name: run.log.versions.get(name, "") for name in names})
        about = {k: v for k, v in dependence(settings, "cutout").items() if k not in ("npy", "save_minimal")}
        key = hashlib.sha256(json.dumps([code, about], sort_keys=True, default=str).encode()).hexdigest()
        self.engine = Engine(site, None, key, self.resume, run.quiet or not sys.stderr.isatty())
        return budget

    def _told(self, budget: Budget) -> dict[str, Any]:
        """What the record says of how the run was carried out."""
        engine = self.engine
        return {
            "blocks_xyz": list(reversed(engine.site.block)),
            "workers": engine.carrier.workers,
            "scheduler": self.carriage.scheduler,
            "planned_gb": round(budget.needed / GB, 3),
            "peak_mib": engine.peak_mib,
            "seconds": engine.seconds,
            "cpu_seconds": engine.cpu_seconds,
            "wall_seconds": engine.wall_seconds,
            **({"kept_from_before": engine.skipped} if self.resume else {}),
        }

    def _stages(self, carrier: Carrier, source: VolumeSource, start: list[int]) -> None:
        run, self.engine.carrier = self.run, carrier
        stages = BlockStages(run, self.engine, self.carriage.budget)
        steps: dict[str, Callable[[], None]] = {
            "cutout": lambda: stages.cutout(source, start),
            "preprocess": stages.preprocess,
            "align": stages.align,
            "boundaries": stages.boundaries,
            "segment": stages.segment,
            "synapses": stages.synapses,
        }
        last = STAGES.index(self.settings.until)
        for name, step in steps.items():
            if STAGES.index(name) > last:
                break
            with run.watch.stage(name):
                step()
            run.log.update(**record_costs(run))
            if self.stopped.is_set():
                raise KeyboardInterrupt
        with run.watch.stage("publish"):
            write_pyramids(self.engine)
            stages.publish(graph=STAGES.index("graph") <= last)
        stages.tidy()
