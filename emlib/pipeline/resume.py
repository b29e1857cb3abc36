"""Go on where a run broke off: each whole stage is put on record in ``runs/resume/``.

1. After a stage, what later stages need of it and no artefact holds exactly is written to ``<stage>.npz``.
2. ``stages.json`` then gets the stage's record: what it depends on, the checksum of each file, small values.
3. ``--resume`` reads back the stages whose record and files are still good, up to the first that is not.

A stage counts from the moment at which its record is in place. The folder is removed when the run ends well.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.pipeline.dependence import CONTENT, checksum, code_fingerprint, dependence
from emlib.pipeline.packing import pack, unpack
from emlib.pipeline.state import Run
from emlib.pipeline.steps import RECALL, STEPS
from emlib.runs.artefacts import Artefact, write_text
from emlib.runs.runlog import PACKAGES
from emlib.volumes.atomic import atomic_path, remove_stale

# What each stage adds to the state of a run. The last stage is always done again: it ends the run.
MADE = {
    "cutout": ("volume", "added", "synthetic"),
    "preprocess": ("preprocessed",),
    "align": ("shifts", "align_skipped", "aligned", "added", "scores"),
    "boundaries": ("boundaries", "synapse_probability", "mitochondria_probability", "network"),
    "segment": ("labels", "fragments"),
    "synapses": ("candidates",),
    "graph": (),  # built again from the candidates
}


class StageRecords:
    """The whole stages of a run, on record so that another run can go on after them.

    Parameters
    ----------
    run : Run
        Only while its output folder is locked.

    Raises
    ------
    UserError
        If a file lies where the records go.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.root = run.outputs.root
        self.folder = self.root / "runs" / "resume"
        self.index = self.folder / "stages.json"
        self.records: list[dict[str, Any]] = []
        self.code = code_fingerprint({name: run.log.versions.get(name, "") for name in ("python", *PACKAGES)})
        # Now, not when a stage is done: a file that changes while it is read must count as changed.
        self.depends = {name: dependence(run.settings, name) for name in STEPS}
        self._seen = (0, 0)
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise UserError(f"{self.folder} is no folder, and the record of the stages goes there; move it away")
        remove_stale(self.folder)

    def clear(self) -> None:
        """Forget all stages: the run starts afresh, or has ended well."""
        self.records = []
        with suppress(OSError):  # where this cannot be removed, the first record cannot be written: that tells
            self.index.unlink()  # first, so that no record ever stands for files that are gone
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, stage: str) -> None:
        """Put a stage on record that is whole."""
        run, (warned, written) = self.run, self._seen
        arrays, values = pack(run, MADE[stage])
        held = {name: run.held[name].as_posix() for name in arrays if name in run.held}
        files = [path for artefact in run.outputs.written[written:] for path in artefact.files]
        spare = {name: array for name, array in arrays.items() if name not in held}
        if spare:
            path = self.folder / f"{stage}.npz"
            with atomic_path(path) as temporary:
                np.savez(temporary, **spare)
            files.append(path.relative_to(self.root))
        record = {
            "stage": stage,
            "depends": self.depends[stage],
            "files": {path.as_posix(): checksum(self.root / path) for path in files},
            "held": held,
            "values": values,
            "artefacts": [[a.path.as_posix(), a.what, a.detail, a.size] for a in run.outputs.written[written:]],
            "warnings": run.warnings[warned:],
            "seconds": run.watch.seconds[stage],
            "cpu_seconds": run.watch.cpu_seconds[stage],
            "peak_mib": run.watch.peak_mib[stage],
        }
        self.records.append(json.loads(json.dumps(record, default=lambda value: value.item())))
        self._write()
        self._seen = (len(run.warnings), len(run.outputs.written))

    def restore(self, stages: Sequence[str]) -> list[str]:
        """Read back the first of these stages, as far as they are on record and nothing has changed; say how far.

        Returns
        -------
        list of str
            The stages that need not be done.
        """
        found, reason = self._read()
        for stage, record in zip(stages, found, strict=False):
            reason = _changed(record["depends"], self.depends[stage]) or self._damaged(record["files"])
            if reason:
                break
            self.records.append(record)
        done = [record["stage"] for record in self.records]
        if not done:
            self.clear()
            self.run.say(f"--resume: {reason or f'no interrupted run in {self.root}'}, starting afresh")
            return done
        if reason:
            self.run.say(f"--resume: {reason}, {stages[len(done)]} and what follows is done again")
        self._write()  # without the stages that are done again
        for record in self.records:
            self._recall(record)
        self._seen = (len(self.run.warnings), len(self.run.outputs.written))
        self.run.say(f"--resume: going on after {done[-1]}")
        return done

    def _recall(self, record: dict[str, Any]) -> None:
        """Bring back what a stage had made."""
        run, stage = self.run, record["stage"]
        arrays = {name: np.load(self.root / path) for name, path in record["held"].items()}
        spare = self.folder / f"{stage}.npz"
        if spare.relative_to(self.root).as_posix() in record["files"]:
            with np.load(spare) as stored:
                arrays |= {name: stored[name] for name in stored.files}
        unpack(run, arrays, record["values"])
        for path, *rest in record["artefacts"]:
            run.outputs.written.append(Artefact(Path(path), *rest))
        for line in record["warnings"]:
            run.warn(line)
        watch = run.watch
        watch.seconds[stage], watch.peak_mib[stage] = record["seconds"], record["peak_mib"]
        watch.cpu_seconds[stage] = record["cpu_seconds"]
        run.held |= {name: Path(path) for name, path in record["held"].items()}
        if stage in RECALL:
            RECALL[stage](run)

    def _write(self) -> None:
        stages = json.dumps(self.records)
        head = {"code": self.code, "sha256": hashlib.sha256(stages.encode()).hexdigest()}
        write_text(self.index, f"{json.dumps(head)}\n{stages}\n")

    def _read(self) -> tuple[list[dict[str, Any]], str]:
        """The records of the run before, and if there are none that can be used, why."""
        try:
            head, stages = self.index.read_text(encoding="utf-8").splitlines()
            told = json.loads(head)
            if told["sha256"] != hashlib.sha256(stages.encode()).hexdigest():
                return [], "the record of the interrupted run is damaged"
            if told["code"] != self.code:
                return [], "the interrupted run was made by another version of emlib or its libraries"
            return json.loads(stages), ""
        except FileNotFoundError:
            return [], ""
        except (OSError, ValueError, KeyError, TypeError):
            return [], "the record of the interrupted run is damaged"

    def _damaged(self, files: dict[str, str]) -> str:
        """Name the first file that is not as it was written."""
        for path, written in files.items():
            try:
                if checksum(self.root / path) != written:
                    return f"{self.root / path} is damaged"
            except OSError:
                return f"{self.root / path} is missing"
        return ""


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first thing that is not as it was."""
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old != new:
            return f"{name} has changed" + ("" if name.startswith(CONTENT) else f" ({old} -> {new})")
    return ""
