"""A refinement on record: one at a time in a folder, an entry in its run log however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.proofread.run_files import RunFiles
from emlib.runs.artefacts import Outputs, plain
from emlib.runs.lock import run_lock
from emlib.runs.runlog import RunLog
from emlib.runs.stopwatch import Stopwatch


@dataclass
class Recording:
    """What a refinement writes into, and what it leaves for its entry.

    Attributes
    ----------
    outputs : Outputs
    watch : Stopwatch
        Of its steps.
    files : RunFiles
        What it reads.
    summary : dict
        For the run log, to be filled.
    status : str
        For the run log where it ends without an error.
    """

    outputs: Outputs
    watch: Stopwatch
    files: RunFiles
    summary: dict[str, Any] = field(default_factory=dict)
    status: str = "done"

    def mark_synthetic(self) -> None:
        """Say in the folder that what is written there is not real, if what was read is not."""
        if self.files.synthetic:
            self.outputs.mark_synthetic(self.files.synthetic)

    def volumes(self, names: tuple[str, str], labels: np.ndarray, boundaries: np.ndarray, by: str, **meta: Any) -> None:
        """Write what was refined.

        Parameters
        ----------
        names : pair of str
            Of labels and boundaries, without folder and suffix.
        labels : (Z, Y, X) int array
        boundaries : (Z, Y, X) float array in [0, 1]
            Kept as float16.
        by : str
            What they were refined by: "forest".
        **meta
            For the sidecars, as `emlib.runs.artefacts.Outputs.array`.
        """
        self.mark_synthetic()
        mark = {"synthetic": self.files.synthetic} if self.files.synthetic else {}
        meta = {"voxel_size_nm": self.files.voxel_size_nm, **meta, **mark}
        self.outputs.array(names[0], labels, f"Neurite labels, refined by a {by}", **meta)
        self.outputs.array(names[1], boundaries.astype(np.float16), f"Boundary probability of the {by}", **meta)

    def lines(self) -> list[str]:
        """Return how long the steps took, and the paths written."""
        took = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.watch.seconds.items())
        return [f"seconds: {took}", *(f"written: {self.outputs.path(str(one.path))}" for one in self.outputs.written)]


@contextmanager
def recorded(files: RunFiles, request: dict[str, Any], command: str) -> Iterator[Recording]:
    """Hold a run's folder for the length of the block and put what it does on record.

    Parameters
    ----------
    files : RunFiles
    request : dict
        All that was asked for.
    command : str
        The command line.

    Raises
    ------
    UserError
        If another run holds the folder, or it cannot be written.
    """
    with run_lock(files.root):
        outputs = Outputs(files.root)
        outputs.remove_stale()
        log = RunLog(outputs.root / "runs", plain(request), command)
        log.update(dataset=files.em.uri, synthetic=files.synthetic, voxel_size_nm_zyx=files.voxel_size_nm)
        log.update(cutout_xyz=files.labels.shape[::-1])
        watch = Stopwatch()
        recording = Recording(outputs, watch, files)
        try:
            yield recording
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(UserError):  # a log that cannot be written must not hide what went wrong
                log.update(status=status, stage_seconds=watch.seconds, error=f"{type(error).__name__}: {error}")
            raise
        peaks = {"stage_peak_mib": watch.peak_mib, "peak_mib": max(watch.peak_mib.values())}
        log.update(status=recording.status, stage_seconds=watch.seconds, summary=recording.summary, **peaks)
