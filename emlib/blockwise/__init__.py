"""The stages of a run on volumes larger than memory: blocks read from Zarr with a margin, each written by one task.

No result depends on the blocks. What a block sees around itself is as wide as the filters reach; statistics of sections
and of the volume are exact; fragments are flooded on a grid of cells that is fixed in the volume, whatever the blocks.
"""
