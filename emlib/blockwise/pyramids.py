"""Coarser levels of the arrays that a viewer shows, made block by block."""

from __future__ import annotations

from typing import Any

from emlib.blockwise.engine import Engine
from emlib.blockwise.site import Site
from emlib.volumes.ome_zarr import add_levels, fill_level, level_boxes
from emlib.volumes.volume import Box


def write_pyramids(engine: Engine) -> None:
    """Make the coarser levels of the arrays that a viewer shows, block by block."""
    engine.resume = False  # made anew: the levels that a run before had begun are emptied here
    for array in ("em", "boundaries", "neurites"):
        path = engine.site.place(array)
        if not (path / "zarr.json").is_file():
            continue
        shapes = add_levels(path)
        for level in range(1, len(shapes)):
            engine.run(f"level{level}_{array}", fill_part, (array, level), list(level_boxes(path, level)))


def fill_part(site: Site, shared: tuple[str, int], box: Box) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fill a box of a coarser level."""
    array, level = shared
    fill_level(site.place(array), level, box)
    return [], {}
