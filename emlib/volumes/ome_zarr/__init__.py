"""Zarr and OME-Zarr: 0.4 (Zarr v2) and 0.5 (Zarr v3, with or without shards), one image or several in a store."""

from emlib.volumes.ome_zarr.arrays import create_array, open_array, write_ome_zarr
from emlib.volumes.ome_zarr.pyramid import add_levels, build_pyramid, fill_level, level_boxes
from emlib.volumes.ome_zarr.reading import MARKS, is_zarr, open_zarr

__all__ = [
    "MARKS",
    "add_levels",
    "build_pyramid",
    "create_array",
    "fill_level",
    "is_zarr",
    "level_boxes",
    "open_array",
    "open_zarr",
    "write_ome_zarr",
]
