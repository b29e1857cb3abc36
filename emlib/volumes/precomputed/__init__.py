"""Neuroglancer's precomputed volumes, through TensorStore: read from a folder or an address, written to a folder."""

from emlib.volumes.precomputed.reading import open_precomputed
from emlib.volumes.precomputed.writing import write_precomputed

__all__ = ["open_precomputed", "write_precomputed"]
