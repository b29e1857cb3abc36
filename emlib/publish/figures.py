"""The figures of a run and how they are written; each lives in a file of its own."""

from emlib.publish.figure_graph import figure3
from emlib.publish.figure_neurites import figure6
from emlib.publish.figure_segmentation import figure5
from emlib.publish.figure_shifts import figure4
from emlib.publish.figure_stages import figure1
from emlib.publish.figure_synapses import figure2
from emlib.publish.page import save_figure

NAMES = {
    "figure1": "Figure1_EM_preprocess_align_segment",
    "figure2": "Figure2_synapse_candidates_overlay",
    "figure3": "Figure3_graph",
    "figure4": "Figure4_alignment_shifts",
    "figure5": "Figure5_boundaries_fragments_neurites",
    "figure6": "Figure6_largest_neurites_3d",
}

__all__ = ["NAMES", "figure1", "figure2", "figure3", "figure4", "figure5", "figure6", "save_figure"]
