"""What a run in blocks leaves: arrays in memory or a window of them, ``.npy`` files, a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from emlib.blockwise.site import MAPS, Site
from emlib.pipeline.boundary_sources import boundaries_are_made
from emlib.pipeline.settings import UNTIL
from emlib.pipeline.state import Run
from emlib.publish.report import Number
from emlib.publish.run_report import Additions, publish
from emlib.volumes.volume import Box


def load_results(run: Run, site: Site, window: Box | None) -> None:
    """Read the arrays of a run, or a window of them, into its state; whole ones are written as ``.npy`` too."""
    settings, last = run.settings, UNTIL.index(run.settings.until)
    box = window or tuple(slice(0, n) for n in site.shape)
    run.volume = replace(run.volume, array=site.read("raw", box))
    keep = window is None and settings.npy != "never"
    if keep and not settings.save_minimal:
        run.save_array("em_cutout_u8_zyx", run.volume.array, "EM as read, uint8")
    if last >= UNTIL.index("preprocess") and not (run.align_skipped and settings.aligned_dtype != "float32"):
        run.preprocessed = site.read("em" if run.align_skipped else "preprocessed", box)
        if keep and not settings.save_minimal:
            what = "EM denoised and contrast-equalised"
            run.save_array("em_preprocessed_f32_zyx", run.preprocessed, what, settings.stages.preprocess)
    if last >= UNTIL.index("align"):
        stored = site.read("em", box)
        run.aligned = stored.astype(np.float32)
        if keep:
            own = settings.stages.align
            run.save_array(f"em_aligned_{settings.aligned_dtype}_zyx", stored, "EM aligned, in [0, 1]", own)
    if last >= UNTIL.index("boundaries") and boundaries_are_made(settings):
        run.boundaries = site.read("boundaries", box)
        learned = settings.boundaries_from == "experts"
        if keep and not settings.save_minimal:
            about = {"from": settings.boundaries_from, **((run.network or {}) if learned else {})}
            if settings.boundaries_from == "forest":
                about["model"] = Path(str(settings.model_path)).name
            run.save_array("boundaries_f16_zyx", run.boundaries.astype(np.float16), "Boundary probability", about)
    for name in (name for name in MAPS if site.place(name).is_dir()):
        stored = site.read(name, box)
        setattr(run, name, stored)
        if keep and (name == "synapse_probability" or not settings.save_minimal):
            what = name.replace("_", " ").capitalize()
            run.save_array(f"{name}_f16_zyx", stored, what, run.network)
    if last >= UNTIL.index("segment"):
        run.labels = site.read("neurites", box)
        if keep:
            name = "neurite_labels_i32_zyx" if run.labels.dtype == np.int32 else "neurite_labels_i64_zyx"
            run.save_array(name, run.labels, "Neurite labels", settings.stages.segment)


def publish_window(run: Run, window: Box, shape: tuple[int, ...]) -> None:
    """Write the report of a volume that does not fit into memory: numbers of the whole, pictures of a window.

    Scores against truth are for `evaluate.py`, which reads in slabs.
    """
    if run.truth is not None:
        run.warn(
            "the volume does not fit into memory and is not scored here: evaluate.py segmentation --pred "
            f"{run.outputs.path('data/volume.zarr/labels/neurites')} --truth FILE reads it in slabs"
        )
    corner, size = (" ".join(map(str, reversed(part))) for part in ([side.start for side in window], shape))
    notes = [
        f"The volume of {size} voxels (x y z) does not fit into memory: pictures, shape and largest neurites are those "
        f"of a window in its middle, from {corner} on; tables are of the whole."
    ]
    numbers = []
    if run.labelled is not None:
        numbers.append(Number("neurites of the whole volume", run.labelled, "pieces of neurites, not whole cells"))
    whole = run.candidates
    if whole is not None:
        numbers.append(Number("candidates of the whole volume", len(whole), "in tables/synapse_candidates.csv"))
        run.candidates = inside(whole, window)
    publish(run, Additions("EM volume to wiring graph, in blocks", numbers=numbers, notes=notes))
    run.candidates = whole


def inside(table: pd.DataFrame, window: Box) -> pd.DataFrame:
    """The rows of a table of positions that lie in a window, counted from its corner."""
    at = table[["z", "y", "x"]].to_numpy()
    first = np.array([side.start for side in window])
    there = ((at >= first) & (at < [side.stop for side in window])).all(axis=1)
    found = table[there].reset_index(drop=True)
    return found.assign(**{axis: found[axis] - side.start for axis, side in zip("zyx", window, strict=True)})
