"""How much memory a prediction in blocks takes, told before it starts, and refused if one block does not fit."""

from __future__ import annotations

from math import prod

import numpy as np

from emlib.blockwise.budget import DASK, GB, Budget
from emlib.blockwise.grid import Shape
from emlib.errors import UserError
from emlib.learn.prediction.blocks import BlockSettings, block_bytes
from emlib.learn.prediction.inputs import VolumeInput
from emlib.learn.prediction.memory import PROGRAM, measure_bytes_per_pixel, tile_bytes_per_pixel
from emlib.learn.prediction.run import Run
from emlib.learn.tiles import tile_grid

READ = 2  # copies of the grey of a block with what tiles see around it
RESULT = 4 + 1 + 1 + 2  # of a voxel and channel: probability, decision, mask, float16
MEAN = 4  # besides, where several planes are averaged


def plan_prediction(run: Run, one: VolumeInput, block: Shape, how: BlockSettings, workers: int) -> Budget:
    """Plan the memory of a prediction in blocks.

    Parameters
    ----------
    run : Run
        Its ``memory_gb`` is the budget of all processes of this machine.
    one : VolumeInput
    block : (z, y, x)
    how : BlockSettings
    workers : int
        Asked for; 1 does the work in the process of the run itself.

    Returns
    -------
    Budget

    Raises
    ------
    UserError
        If the budget does not suffice for one; says which would.
    """
    cost, budget = task_bytes(run, one, block, how), run.memory_gb * GB
    for count in range(workers, 1, -1):
        needed = PROGRAM + DASK + count * (PROGRAM + DASK + cost)
        if needed <= budget:
            return Budget(count, needed, "predict")
    alone = PROGRAM + cost
    if alone > budget:
        x, y, z = reversed(block)
        raise UserError(
            f"--memory_gb {run.memory_gb:g} is too little for blocks of {x} {y} {z} (x y z), which take "
            f"{alone / GB:.2f} GB; give --memory_gb {np.ceil(alone / GB * 20) / 20:.2f}, or smaller --blocks or --tile"
        )
    return Budget(1, alone, "predict")


def task_bytes(run: Run, one: VolumeInput, block: Shape, how: BlockSettings) -> int:
    """Bytes that one block takes at the peak: a tile in the network, and the arrays of the block."""
    network, channels = run.predictor.network, len(run.predictor.classes)
    pixel = tile_bytes_per_pixel(
        run.predictor.bytes_per_pixel or measure_bytes_per_pixel(network), channels, how.tiles.batch_size, how.tiles.tta
    )
    tile = seen = 0
    for axis in (0, 1, 2) if how.orthogonal else (0,):
        area, voxels = 1, block[axis]
        for at in (other for other in range(3) if other != axis):
            length, factor = one.source.shape[at], how.factors[at]
            side = tile_grid(max(1, round(length * factor)), how.tiles)[1]
            area *= side
            voxels *= min(length, block[at] + 2 * side / factor)  # a tile may begin a side before the block
        tile, seen = max(tile, area), max(seen, voxels)
    itemsize = max(one.source.dtype.itemsize, 4 if how.grey_range or one.source.dtype.kind == "f" else 1)
    arrays = prod(block) * channels * (RESULT + (MEAN if how.orthogonal else 0))
    section = prod(sorted(block)[1:]) * block_bytes(channels, itemsize, how)
    return int(tile * pixel + seen * READ * itemsize + arrays + section)
