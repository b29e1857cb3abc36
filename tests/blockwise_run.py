"""A run in blocks without the pipeline around it, for tests: grey values in, arrays out."""

from dataclasses import replace

import numpy as np

from emlib.blockwise import sections, segmenting, synapses
from emlib.blockwise.engine import Engine, Here
from emlib.blockwise.site import Site
from emlib.stages.preprocess import PreprocessSettings
from emlib.stages.segment import SegmentSettings
from emlib.stages.synapses import SynapseSettings


def everything(site):
    return tuple(slice(0, n) for n in site.shape)


def engine_of(folder, grey, voxel_size_nm, block, carrier=None, resume=False):
    """An engine whose ``raw`` is filled."""
    site = Site(str(folder / "work"), str(folder / "volume.zarr"), grey.shape, tuple(block), voxel_size_nm)
    site.create("raw", np.uint8)
    for box in sections.layers(site):
        site.write("raw", box, grey[box])
    return Engine(site, carrier or Here(), resume=resume, quiet=True)


def preprocess(engine):
    """Write ``em`` and leave out the sections that hold a single grey value."""
    site = engine.site
    site.create("em", np.float32)
    told = engine.run("preprocess", sections.preprocess_layer, (PreprocessSettings(), "em"), sections.layers(site))
    flat = {z for one in told for z in one["flat"]}
    kept = tuple(z for z in range(site.shape[0]) if z not in flat)
    engine.site = replace(site, kept=kept if flat else None)


def segmented(engine, settings=None):
    """Do all stages up to the labels and return em, boundaries and labels."""
    settings = settings or SegmentSettings()
    preprocess(engine)
    segmenting.intensity_boundaries(engine, settings.boundaries)
    segmenting.neurites(engine, settings)
    site = engine.site
    return tuple(site.read(name, everything(site)) for name in ("em", "boundaries", "neurites"))


def candidates(engine, settings=None):
    """The synapse candidates of an engine whose labels are written."""
    settings, layers = settings or SynapseSettings(), sections.layers(engine.site)
    engine.run(synapses.STAGE, synapses.find_layer, settings, layers)
    return synapses.join_candidates(engine.site, layers, settings)
