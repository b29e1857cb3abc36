"""Volumes that ``predict.py`` predicts in blocks: the very masks of a prediction of whole sections.

1. Arrays for the results are made below ``runs/blocks``; each task predicts one block of the volume and writes it to
   all of them (`emlib.blockwise.prediction_task`).
2. Done-marks and carriers are those of `emlib.blockwise.engine`; a run that was ended goes on with ``--resume``.
3. Whole arrays are moved to where ``predict.py`` keeps results, and what is made of them is made in this process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emlib import __version__
from emlib.annotations.classes import MaskClass
from emlib.blockwise.carriers import need_dask, open_carrier
from emlib.blockwise.engine import Carrier, Engine
from emlib.blockwise.grid import Shape, lay
from emlib.blockwise.prediction_memory import plan_prediction
from emlib.blockwise.prediction_task import PredictionSite, Work, given, predict_part
from emlib.errors import UserError
from emlib.learn.prediction.blocks import seen_shape
from emlib.learn.prediction.inputs import Input, VolumeInput
from emlib.learn.prediction.run import Run
from emlib.learn.prediction.stores import Store
from emlib.learn.prediction.volumes import as_results, finish_volume, result_dtypes
from emlib.learn.volumes.prediction import Resampling
from emlib.runs.artefacts import plain
from emlib.volumes.volume import ZYX

WORK, STAGE = "runs/blocks", "predict"


def way_of_flags(args: argparse.Namespace) -> InBlocks:
    """Return how ``predict.py`` predicts volumes as its flags say.

    Raises
    ------
    UserError
        If they do not go together, or Dask is asked for and absent.
    """
    if args.workers and args.scheduler:
        raise UserError("--scheduler has workers of its own; leave --workers out")
    return InBlocks(args.blocks, args.workers or 1, args.scheduler, resume=args.resume, quiet=args.quiet)


class InBlocks:
    """The way of ``predict.py --blocks``, for `emlib.learn.prediction.command.predict_from_flags`.

    Parameters
    ----------
    blocks_xyz : (X, Y, Z)
    workers : int
    scheduler : str, optional
    resume, quiet : bool
    """

    def __init__(
        self, blocks_xyz: Sequence[int], workers: int, scheduler: str | None, *, resume: bool, quiet: bool
    ) -> None:
        self.block: Shape = tuple(reversed([int(side) for side in blocks_xyz]))
        self.workers, self.scheduler, self.resume, self.quiet = workers, scheduler, resume, quiet
        need_dask(scheduler, workers)

    def count(self, run: Run, one: VolumeInput) -> int:
        """Return how many blocks a volume has."""
        return len(lay(one.source.shape, self.block))

    @contextmanager
    def opened(self, run: Run, inputs: Sequence[Input]) -> Iterator[Callable[[VolumeInput, Callable], dict]]:
        """Yield a function that predicts a volume; before, see that its blocks fit into memory.

        Raises
        ------
        UserError
            If an input is no volume, or a block does not fit.
        """
        for one in inputs:
            if not isinstance(one, VolumeInput):
                raise UserError(f"--blocks is for volumes, and {one.path} is one image; leave it out (or give --stack)")
        if not self.resume:
            shutil.rmtree(run.root / WORK, ignore_errors=True)
        workers = min(self._planned(run, one) for one in inputs)
        with open_carrier(workers, self.scheduler, run.root / WORK) as carrier:
            try:
                yield lambda one, tick: self._predict(run, one, carrier, tick)
            finally:
                given.clear()
                with suppress(OSError):  # of a run that ended well it is empty
                    (run.root / WORK).rmdir()

    def _planned(self, run: Run, one: VolumeInput) -> int:
        """How many workers the memory suffices for."""
        size = run.settings.voxel_size_nm or one.source.voxel_size_nm
        how = run.block_settings(size)
        for axis in (0, 1, 2) if how.orthogonal else (0,):
            planes = [at for at in range(3) if at != axis]
            factors = tuple(how.factors[at] for at in planes)
            if factors != (1.0, 1.0):
                seen_shape(tuple(one.source.shape[at] for at in planes), factors)
        local = 1 if self.scheduler else self.workers
        block = tuple(min(side, n) for side, n in zip(self.block, one.source.shape, strict=True))
        budget = plan_prediction(run, one, block, how, local)
        if budget.workers < local:
            run.note(
                f"note: {budget.workers} of {local} workers, as {run.memory_gb:g} GB do not suffice for more; with a "
                "smaller --tile or smaller --blocks more can work"
            )
        if not self.quiet:
            tqdm.write(budget.line(), file=sys.stderr)
        return budget.workers

    def _predict(self, run: Run, one: VolumeInput, carrier: Carrier, tick: Callable[[], Any]) -> dict:
        """Predict a volume, write what is asked for, and put it on record."""
        boxes = lay(one.source.shape, self.block)
        found = run.journal.get(one.name)
        if found is None:
            size = run.settings.voxel_size_nm or one.source.voxel_size_nm
            folder = (run.root / WORK / one.name).resolve()
            site, stores = self._make_arrays(run, one, folder, size)
            work = _work(run, one, size)
            given.update({work.volume: one.source, work.sha256: (run.channels, run.predictor)})
            engine = Engine(site, carrier, _key(run, one), self.resume, self.quiet)
            told = engine.run(STAGE, predict_part, work, boxes)
            found = finish_volume(run, one, as_results(stores), [block["foreground"] for block in told])
            shutil.rmtree(folder, ignore_errors=True)
        for _ in boxes:
            tick()
        return found

    def _make_arrays(
        self, run: Run, one: VolumeInput, folder: Path, size: ZYX | None
    ) -> tuple[PredictionSite, dict[tuple[str, MaskClass | None], Store]]:
        """The arrays below a folder of this volume; those that are there are left."""
        dtypes = result_dtypes(run.classes, run.exclusive, run.settings.probabilities)
        stores = {key: Store(folder / "arrays" / f"{at}" / f"{one.name}.zarr") for at, key in enumerate(dtypes)}
        images = tuple((f"{at}", str(store.path)) for at, store in enumerate(stores.values()))
        block = tuple(min(side, n) for side, n in zip(self.block, one.source.shape, strict=True))
        site = PredictionSite(
            str(folder), str(folder), tuple(one.source.shape), block, size or (1.0, 1.0, 1.0), images=images
        )
        for (name, _), dtype in zip(images, dtypes.values(), strict=True):
            site.make(name, dtype, size, tuple(one.source.notes.get("offset_nm", (0.0, 0.0, 0.0))))
        return site, stores


def _work(run: Run, one: VolumeInput, size: ZYX | None) -> Work:
    how, pixel, uri = run.block_settings(size), run.settings.pixel_nm, one.source.uri
    resampling = None
    if pixel is not None and how.factors != (1.0, 1.0, 1.0):
        resampling = Resampling(size, (pixel, pixel, pixel))
    return Work(
        uri if "://" in uri else str(Path(uri).expanduser().resolve()),
        str(run.predictor.path.expanduser().resolve()),
        run.predictor.sha256,
        run.settings.organelles,
        how,
        resampling,
        run.settings.threshold,
        run.settings.probabilities,
    )


def _key(run: Run, one: VolumeInput) -> str:
    """What a block depends on besides what its task is given: the input as it is on disk, the version of emlib."""
    about = [__version__, plain(one.identity)]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
