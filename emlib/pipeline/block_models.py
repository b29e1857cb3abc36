"""What a forest of pixels and a model of contacts take of memory in a run in blocks, told before it starts."""

from __future__ import annotations

from emlib.blockwise.site import Site
from emlib.pipeline.boundary_sources import boundaries_are_made, forest_of
from emlib.pipeline.state import Run


def model_costs(run: Run, site: Site) -> dict[str, int]:
    """Bytes that a block takes of the stages that use a forest or a model of contacts, by stage."""
    settings, costs = run.settings, {}
    if settings.boundaries_from == "forest" and boundaries_are_made(settings):
        from emlib.blockwise.forest import block_bytes  # scikit-learn

        costs["boundaries"] = block_bytes(site, forest_of(run)[1])
    if settings.edge_model:
        from emlib.blockwise.learned import block_bytes

        costs["contacts"] = block_bytes(site)
    return costs
