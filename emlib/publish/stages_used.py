"""What each stage of a run used: method, model with its checksum, the settings that decide most, what was changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from emlib.publish.report import Table
from emlib.runs.history import changed

if TYPE_CHECKING:
    from emlib.pipeline import Run

DIGITS = 12  # of a checksum; the sidecars hold all
CAPTION = (
    "Settings that are not named have their defaults; all of them stand below. A model is named with the first "
    f"{DIGITS} digits of its file's SHA-256."
)


def stages_used(run: Run) -> Table:
    """Make the table of what each stage used that this run went through."""
    given = asdict(run.settings)
    other = changed(given, asdict(type(run.settings)()))
    rows = []
    for stage, prefixes, used in _rows(run):
        own = {name: value for name, value in other.items() if name.startswith(prefixes)}
        rows.append([stage, used, ", ".join(f"{name} = {value}" for name, value in own.items()) or "defaults"])
    return Table("What each stage used", ["stage", "used", "settings that were changed"], rows, CAPTION)


def used_in_short(run: Run) -> str:
    """Say in a sentence where boundaries and neurites come from."""
    found = {stage: used for stage, _, used in _rows(run)}
    return " ".join(f"{stage}: {found[stage]}." for stage in ("Boundaries", "Neurites") if stage in found)


def _rows(run: Run) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield name, prefixes of its settings and what was used, by stage."""
    if run.preprocessed is not None:
        yield "Preprocessing", ("preprocess.",), "denoising and contrast equalisation, section by section"
    if run.align_skipped:
        yield "Alignment", ("align.",), f"none: {run.align_skipped}"
    elif run.shifts is not None:
        yield "Alignment", ("align.",), "translation of each section"
    if run.boundaries is not None:
        yield "Boundaries", ("segment.boundaries.", "experts."), _boundaries(run)
    if run.labels is not None:
        prefixes = tuple(f"segment.{name}" for name in ("bias", "fragments.", "multicut.", "gasp.", "baseline."))
        yield "Neurites", prefixes, _neurites(run)
    if run.candidates is not None:
        yield "Synapses", ("synapses.",), _synapses(run)
    if run.graph is not None:
        directed = "directed" if run.graph.is_directed() else "undirected"
        used = f"{directed}, of candidates that score {run.settings.stages.graph.min_score:g} or more"
        yield "Graph", ("graph.",), used
    if run.graph is not None and run.mitochondria_probability is not None:
        own = run.settings.stages.neurites
        used = (
            f"{_network(run)}, components of probability {own.mitochondria_threshold:g} and "
            f"{own.min_mitochondrion_um3:g} µm³ or more"
        )
        yield "Mitochondria", ("neurites.",), used


def _boundaries(run: Run) -> str:
    settings = run.settings
    if settings.boundaries_from == "intensity":
        return "intensity: dark, thin sheets"
    if settings.boundaries_from == "forest":
        return f"forest of pixels, {_file(settings.model_path)}"
    if settings.boundaries_from == "experts":
        return _network(run)
    return f"the file {settings.boundaries_from}"


def _network(run: Run) -> str:
    if not run.network:  # a graph that is rebuilt takes the map as it lies there
        return "network"
    return f"network {run.network['model']} ({run.network['model_sha256'][:DIGITS]})"


def _neurites(run: Run) -> str:
    settings = run.settings
    if settings.labels_from:
        return f"the file {settings.labels_from}"
    own = settings.stages.segment
    if own.segmenter == "watershed":
        return "watershed in each section, stitched by overlap (the slice-wise baseline)"
    used = {"multicut": "multicut of fragments", "gasp": "mean affinity of fragments (GASP)"}[own.segmenter]
    count = "" if run.fragments is None else f" ({run.fragments.count})"
    evidence = f"learned contacts, {_file(settings.edge_model)}" if settings.edge_model else "boundary evidence"
    return f"{used}{count}, {evidence}, bias {own.bias:g}"


def _synapses(run: Run) -> str:
    own = run.settings.stages.synapses
    if run.synapse_probability is None:
        used = "dark densities at contacts"
    else:
        experts = own.experts
        used = (
            f"{_network(run)}, pieces of probability {experts.min_probability:g} and {experts.min_area_nm2:g} nm² "
            "or more"
        )
    return f"{used}; direction {'guessed from what lies on both sides' if own.directed else 'left open'}"


def _file(path: str | None) -> str:
    """The name of a model's file and the beginning of its checksum."""
    file = Path(str(path)).expanduser()
    try:
        with file.open("rb") as stream:
            return f"{file.name} ({hashlib.file_digest(stream, 'sha256').hexdigest()[:DIGITS]})"
    except OSError:  # moved away since it was read
        return file.name
