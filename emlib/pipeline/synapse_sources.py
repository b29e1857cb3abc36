"""Where the synapse candidates of a run come from: dark densities, or the map of a network."""

from __future__ import annotations

import pandas as pd

from emlib.pipeline.state import Run
from emlib.stages.expert_synapses import find_expert_candidates
from emlib.stages.synapses import find_candidates

GUESSED = (
    "which neurite of a synapse sends was never validated on tissue like this: pre_id and post_id are a guess; "
    "--undirected leaves it open"
)


def find_synapses(run: Run) -> pd.DataFrame:
    """Find candidates on the aligned EM and the labels of a run.

    Returns
    -------
    DataFrame
        As from `emlib.stages.expert_synapses.find_expert_candidates` where the run has a network's map of synapses,
        else as from `emlib.stages.synapses.find_candidates`.
    """
    settings, size = run.settings.stages.synapses, run.volume.voxel_size_nm
    if run.synapse_probability is not None:
        return find_expert_candidates(run.synapse_probability, run.aligned, run.labels, size, settings)
    return find_candidates(run.aligned, run.labels, size, settings)


def tell_of_direction(run: Run, *, learned: bool | None = None) -> None:
    """Say of real tissue that a network finds synapses there, but that nobody knows which way they point.

    ``learned`` says whether a network found them; default: whether the run has its map.
    """
    learned = run.synapse_probability is not None if learned is None else learned
    if learned and not run.synthetic and run.settings.stages.synapses.directed:
        run.say(f"note: {GUESSED}")
