"""The stages of a run in blocks, one method each: what a stage takes, calls and leaves, as `emlib.pipeline.steps`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np

from emlib.blockwise import aligning, clefts, sections, segmenting, synapses
from emlib.blockwise.engine import Engine
from emlib.blockwise.forest import forest_boundaries
from emlib.blockwise.given import boundaries_of_file, labels_of_file, sizes_of_labels
from emlib.blockwise.networks import ARRAYS
from emlib.blockwise.partition import sizes
from emlib.blockwise.reading import copy_volume
from emlib.blockwise.site import MAPS
from emlib.blockwise.slices import baseline
from emlib.errors import UserError
from emlib.pipeline.block_networks import network_maps_in_blocks
from emlib.pipeline.block_results import load_results, publish_window
from emlib.pipeline.boundary_sources import boundaries_are_made, forest_of, is_file, network_is_used
from emlib.pipeline.contacts import contact_model
from emlib.pipeline.state import Run
from emlib.pipeline.steps import (
    alignment_quality,
    graph_stage,
    keep_shifts,
    no_shifts,
    publish_stage,
    tell_place,
    why_not_aligned,
    write_graph,
)
from emlib.pipeline.synapse_sources import tell_of_direction
from emlib.stages.align import drawn_misalignment
from emlib.stages.graph import build_graph, edge_table
from emlib.volumes.volume import VolumeSource

IN_MEMORY = 60  # bytes of a voxel, of a run in memory
WINDOW = (64, 512, 512)  # voxels (z, y, x) that are shown of a volume that does not fit into memory


class BlockStages:
    """The stages of one run.

    Parameters
    ----------
    run : Run
    engine : Engine
        Its site changes when sections are left out.
    budget : int
        Bytes of memory of all processes.
    """

    def __init__(self, run: Run, engine: Engine, budget: int) -> None:
        self.run, self.engine, self.budget = run, engine, budget
        self.settings = run.settings
        self.maps: tuple[str, ...] = ()  # that a network told

    def cutout(self, source: VolumeSource, start: list[int]) -> None:
        """Copy the box into the store, and say where it comes from."""
        run, settings, site = self.run, self.settings, self.engine.site
        moves = None
        if settings.simulate_misalignment_px:
            run.added = drawn_misalignment(site.shape[0], settings.simulate_misalignment_px, settings.seed)
            moves = run.added[["dy", "dx"]].to_numpy().tolist()
        site.create("raw", np.uint8)
        run.volume.source["grey"] = copy_volume(self.engine, source, start, moves, settings.fill_missing, note=run.warn)
        tell_place(run)

    def preprocess(self) -> None:
        """Preprocess; where sections stay in place that is the aligned EM already."""
        run, site = self.run, self.engine.site
        run.align_skipped = why_not_aligned(run)
        target = "em" if run.align_skipped else "preprocessed"
        site.create(target, self.settings.aligned_dtype if target == "em" else np.float32)
        told = self.engine.run(
            "preprocess",
            sections.preprocess_layer,
            (self.settings.stages.preprocess, target),
            sections.layers(site),
        )
        if target == "em":
            self._keep(told)

    def align(self) -> None:
        """Estimate shifts and move sections, or say why not."""
        run, site, own = self.run, self.engine.site, self.settings.stages.align
        if run.align_skipped:
            run.shifts = no_shifts(site.shape[0])
            keep_shifts(run, {"skipped": run.align_skipped})
            return
        run.shifts = aligning.estimate(self.engine, own)
        site.create("em", self.settings.aligned_dtype)
        moves = run.shifts[["dy", "dx"]].to_numpy().tolist()
        told = self.engine.run("align", sections.move_layer, moves, sections.layers(site))
        keep_shifts(run, {"skipped": None, **alignment_quality(run, aligning.check(self.engine, own))})
        self._keep(told)

    def _keep(self, told: list[dict[str, Any]]) -> None:
        """Leave out of what follows the sections that hold a single grey value."""
        site = self.engine.site
        flat = {z for one in told for z in one["flat"]}
        if len(flat) == site.shape[0]:
            raise UserError("every section of the aligned EM holds a single grey value; there is nothing to segment")
        if flat:
            kept = tuple(z for z in range(site.shape[0]) if z not in flat)
            self.engine.site = replace(site, kept=kept)

    def boundaries(self) -> None:
        """Boundary probability; not needed when labels come from a file."""
        run, settings = self.run, self.settings
        if boundaries_are_made(settings):
            if settings.boundaries_from == "intensity":
                segmenting.intensity_boundaries(self.engine, settings.stages.segment.boundaries)
            elif settings.boundaries_from == "forest":
                forest_boundaries(self.engine, *forest_of(run))
            elif is_file(settings.boundaries_from):
                boundaries_of_file(self.engine, settings.boundaries_from, run.volume, run.shifts)
        if network_is_used(settings):
            self.maps = network_maps_in_blocks(run, self.engine)
        for name in {*MAPS} - {ARRAYS[told][0] for told in self.maps}:  # of a run before that is resumed otherwise
            shutil.rmtree(self.engine.site.place(name), ignore_errors=True)

    def segment(self) -> None:
        """Neurite labels from the segmenter or from a file."""
        settings, own = self.settings, self.settings.stages.segment
        if settings.labels_from:
            labels_of_file(self.engine, settings.labels_from, self.run.volume, self.run.shifts)
        elif own.segmenter == "watershed":
            baseline(self.engine, own.baseline)
        else:
            segmenting.neurites(self.engine, own, contact_model(self.run))

    def synapses(self) -> None:
        """Synapse candidates with their partners."""
        run, own, layers = self.run, self.settings.stages.synapses, sections.layers(self.engine.site)
        if "synapses" in self.maps:
            run.candidates = clefts.find_candidates_in_blocks(self.engine, own)
            tell_of_direction(run, learned=True)
        else:
            self.engine.run(synapses.STAGE, synapses.find_layer, own, layers)
            run.candidates = synapses.join_candidates(self.engine.site, layers, own)
        run.outputs.table("synapse_candidates", run.candidates, "Synapse candidates: position, pre, post, score")

    def graph(self) -> None:
        """The graph of a volume that does not fit into memory; voxels were counted with the fragments."""
        run = self.run
        run.graph = build_graph(run.candidates, None, run.settings.stages.graph)
        ids, voxels = self._sizes()
        um3 = voxels * (float(np.prod(run.volume.voxel_size_nm)) * 1e-9)
        for node in run.graph:
            run.graph.nodes[node]["volume_um3"] = float(um3[np.searchsorted(ids, node)])
        if run.synthetic:
            run.graph.graph["synthetic"] = run.synthetic
        run.edges = edge_table(run.graph)
        write_graph(run)

    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Neurites of the whole volume, ascending, and the voxels of each."""
        if self.settings.labels_from:
            return sizes_of_labels(self.engine.site)
        voxels = sizes(self.engine.site)
        return np.arange(1, len(voxels)), voxels[1:]

    def publish(self, graph: bool) -> None:
        """Tables, scores, pictures and the report, from the whole volume where it fits into memory."""
        run, site = self.run, self.engine.site
        if self._fits():
            load_results(run, site, window=None)
            if graph:
                graph_stage(run)
            publish_stage(run)
            return
        window = self._window()
        load_results(run, site, window)
        if graph:
            self.graph()
        if run.labels is not None:
            run.labelled = len(self._sizes()[0])
        publish_window(run, window, site.shape)

    def _fits(self) -> bool:
        """Whether the arrays of the volume fit into memory, beside what has to be computed on them."""
        if self.settings.npy != "auto":
            return self.settings.npy == "always"
        return np.prod(self.engine.site.shape) * IN_MEMORY < self.budget

    def _window(self) -> tuple[slice, slice, slice]:
        """A box in the middle that is shown where the whole cannot be."""
        shape = self.engine.site.shape
        size = [min(n, m) for n, m in zip(shape, WINDOW, strict=True)]
        z, y, x = (slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(shape, size, strict=True))
        return z, y, x

    def tidy(self) -> None:
        """Leave behind what is asked for."""
        if self.settings.save_minimal:
            for array in ("raw", "boundaries", "mitochondria_probability"):
                shutil.rmtree(self.engine.site.place(array), ignore_errors=True)
