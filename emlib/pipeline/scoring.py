"""Score a run whose truth is known: cut like the EM and moved by the same shifts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emlib.measure.run_scores import score_candidates, score_segmentation
from emlib.pipeline.state import Run
from emlib.stages.align import apply_shifts


def score_run(run: Run) -> None:
    """Score against truth that was moved like the EM; keep the truth of a phantom beside the run."""
    shifts, size = _total_shifts(run), run.volume.voxel_size_nm
    truth = apply_shifts(run.truth, shifts, order=0, fill=0)
    run.scores["segmentation"] = score_segmentation(truth, run.labels)
    if run.volume.truth is not None:
        run.save_array("truth_neurites_i32_zyx", truth.astype(np.int32), "True neurites of the phantom, aligned")
        run.true_synapses = _true_synapses(run, shifts)
        run.outputs.table("truth_synapses", run.true_synapses, "True synapses of the phantom, aligned")
        if run.candidates is not None:
            run.scores["synapses"] = score_candidates(
                run.candidates, run.true_synapses, size, run.settings.stages.graph.min_score, run.labels, truth
            )
    run.outputs.json("scores", {"synthetic": run.synthetic, **run.scores}, "Scores against truth")


def _total_shifts(run: Run) -> pd.DataFrame:
    """Shifts from the frame of the truth to that of the labels: simulated ones first, then the estimated."""
    if not run.settings.simulate_misalignment_px:
        return run.shifts
    return run.shifts.assign(dy=run.shifts["dy"] + run.added["dy"], dx=run.shifts["dx"] + run.added["dx"])


def _true_synapses(run: Run, shifts: pd.DataFrame) -> pd.DataFrame:
    """The phantom's synapses inside the cutout, in voxels of the aligned volume."""
    known = run.volume.truth.synapses
    table = known[["z", "y", "x", "pre_id", "post_id"]].copy()
    table[["z", "y", "x"]] -= np.array(run.volume.offset)
    inside = np.logical_and.reduce([table[a].between(0, n - 1) for a, n in zip("zyx", run.volume.shape, strict=True)])
    table = table[inside].reset_index(drop=True)
    move = shifts.set_index("z").loc[table["z"]]
    table["y"] += move["dy"].to_numpy()
    table["x"] += move["dx"].to_numpy()
    return table
