"""From the aligned EM to neurite labels, stage by stage over the blocks of a volume."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.blockwise import contacts, flood, intensity, partition, seeds
from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import lay
from emlib.stages.boundaries import BoundarySettings
from emlib.stages.segment import SegmentSettings
from emlib.volumes.volume import Box

if TYPE_CHECKING:
    from emlib.refine.edge_model import ContactModel


def blocks_of(engine: Engine) -> list[Box]:
    """The blocks of the volume."""
    return lay(engine.site.shape, engine.site.block)


def intensity_boundaries(engine: Engine, settings: BoundarySettings) -> None:
    """Write ``boundaries`` as `emlib.stages.boundaries.intensity_boundaries` computes them."""
    site, blocks = engine.site, blocks_of(engine)
    for name in intensity.EVIDENCE:
        site.create(name, np.float32, packed=False)
    site.create("boundaries", np.float32)
    told = engine.run("ridge", intensity.weigh_block, settings, blocks)
    engine.run("boundaries", intensity.decide_block, (settings, *intensity.moments(told)), blocks)


def neurites(engine: Engine, settings: SegmentSettings, edges: ContactModel | None = None) -> int:
    """Write ``neurites`` as `emlib.stages.segment.segment` labels them, and return how many there are.

    Fragments are flooded in cells (see `emlib.blockwise.flood`); all else is as in memory. ``edges`` is a model of
    contacts, in the place of the boundary evidence.
    """
    site, blocks, cut = engine.site, blocks_of(engine), settings.fragments
    site.create("neurites", np.int32)
    told = engine.run(seeds.STAGE, seeds.seed_block, cut, blocks)
    site.save("renamed", seeds.join_seeds(site, blocks, told))
    site.save("heights", seeds.heights(site, blocks, told))
    site.create("fragments", np.int32, chunk=flood.cell_chunk(site))
    engine.run(flood.STAGE, flood.flood_cell, cut, flood.cells(site))
    flood.gather_nodes(site)

    told = weighed(engine, settings) if edges is None else _learned(engine, settings, edges)
    count = partition.solve(engine, blocks, told, settings.segmenter, settings.multicut.min_enclosed)
    solved = {"segmenter": settings.segmenter, "min_enclosed": settings.multicut.min_enclosed}
    engine.run("neurites", partition.label_block, solved, blocks)
    return count


def weighed(engine: Engine, settings: SegmentSettings) -> list[dict[str, Any]]:
    """Weigh contacts by the boundary along them."""
    blocks = blocks_of(engine)
    told = engine.run(contacts.STAGE, contacts.contact_block, None, blocks)
    own = list(enumerate(contacts.senders(told, blocks)))
    bias = settings.bias + (settings.gasp.bias if settings.segmenter == "gasp" else settings.multicut.bias)
    return engine.run(contacts.JOINED, contacts.join_block, replace(settings.multicut, bias=bias), blocks, own)


def _learned(engine: Engine, settings: SegmentSettings, edges: ContactModel) -> list[dict[str, Any]]:
    """Weigh contacts by what a model says of them."""
    from emlib.blockwise.learned import learned_contacts  # only where one is asked for: it loads scikit-learn

    tuning = edges.tuning(settings.segmenter)
    return learned_contacts(engine, blocks_of(engine), edges, tuning._replace(bias=tuning.bias + settings.bias))
