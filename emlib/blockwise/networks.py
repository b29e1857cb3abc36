"""Maps of a network in blocks, the very bytes of `emlib.stages.expert_boundaries`.

1. The sections that the network sees are looked through once: which hold a single grey value, how often each grey value
   occurs; moved first, where it sees neighbours of sections that are to be moved.
2. Along each axis the volume is cut into windows of sections, as large as a block has voxels; tiles lie on the grid of
   the whole section, whatever the windows (`emlib.learn.volumes.box_prediction`).
3. Axes are averaged and maps are finished in blocks; in layers of sections where these are moved afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import Shape, lay, sides
from emlib.blockwise.sections import Outcome, layers
from emlib.blockwise.site import Site
from emlib.errors import UserError
from emlib.stages.align import apply_shifts
from emlib.stages.boundaries import damaged_sections
from emlib.stages.expert_boundaries import (
    ExpertPlan,
    ExpertSettings,
    finished_maps,
    ready_network,
    takes_own_grey,
)
from emlib.volumes.volume import Box

if TYPE_CHECKING:
    from torch import nn

    from emlib.learn.normalisation import Normalisation
    from emlib.learn.volumes.boundary_model import BoundaryModel

ARRAYS = {
    "boundaries": ("boundaries", np.float32),
    "mitochondria": ("mitochondria_probability", np.float16),
    "synapses": ("synapse_probability", np.float16),
}
SHOWN, JOINED = "shown", "maps"
# Sections of a window, the deepest that fits is taken, and side of the chunks in which its prediction is stored.
DEPTHS = {16: 128, 4: 256, 1: 512}

Moves = list[list[float]]


@dataclass(frozen=True)
class Prediction:
    """A network on its way through a volume: what each of its tasks is given.

    Attributes
    ----------
    path, sha256 : str
        Of the model; every worker must see the file.
    plan : ExpertPlan
    normalisation : Normalisation
    settings : ExpertSettings
    source : str
        The array that the network sees.
    """

    path: str
    sha256: str
    plan: ExpertPlan
    normalisation: Normalisation
    settings: ExpertSettings
    source: str


def predict_maps(
    engine: Engine, model: BoundaryModel, plan: ExpertPlan, settings: ExpertSettings, shifts: pd.DataFrame | None
) -> tuple[str, ...]:
    """Write the maps of a network into the arrays of `ARRAYS`.

    Parameters
    ----------
    engine : Engine
        Its site holds ``raw``.
    model : BoundaryModel
    plan : ExpertPlan
    settings : ExpertSettings
    shifts : DataFrame or None
        Of sections that are to be moved. A network that sees one section sees it before it is moved.

    Returns
    -------
    tuple of str
        The maps that the network told, of those that were planned.
    """
    from emlib.learn.normalisation import counted_normalisation

    if not plan.channels:
        return ()
    moves = None if shifts is None else shifts[["dy", "dx"]].to_numpy().tolist()
    first = moves if model.sections > 1 else None  # neighbours must lie on top of each other
    site = engine.site
    if first is not None:
        site.create(SHOWN, np.uint8)
    told = engine.run(SHOWN, show_layer, first, layers(site))
    flat = {z for one in told for z in one["flat"]}
    counts = np.sum([one["counts"] for one in told], axis=0)
    normalisation = model.normalisation
    if settings.own_grey and takes_own_grey(model) and counts.any():
        normalisation = counted_normalisation(counts, np.iinfo(np.uint8).max)
    source = "raw" if first is None else SHOWN
    task = Prediction(str(model.path.resolve()), model.sha256, plan, normalisation, settings, source)

    kept = tuple(z for z in range(site.shape[0]) if z not in flat) if flat else None
    engine.site = replace(site, kept=kept)
    try:
        for axis in plan.axes:
            chunk, boxes = windows(engine.site, axis, settings.tile)
            for name in plan.channels:
                engine.site.create(_array(axis, name), np.float32, chunk=chunk, packed=False)
            engine.run(f"network{axis}", predict_window, (task, axis), boxes)
        for name in plan.channels:
            engine.site.create(*ARRAYS[name])
        after = moves if first is None else None
        boxes = lay(site.shape, site.block) if after is None else layers(site)
        engine.run(JOINED, join_block, (plan, model.inverted, settings.mitochondria, after), boxes)
    finally:
        engine.site = site
    return tuple(plan.channels)


def windows(site: Site, axis: int, tile: int) -> tuple[Shape, list[Box]]:
    """Cut a volume into the windows that a network is shown.

    A window holds some sections along the axis and as much of each as a block has voxels: whole sections where these
    are no larger. Only a tile that lies across two windows is computed twice; no window is cut below a tile.

    Parameters
    ----------
    site : Site
    axis : int
    tile : int
        Side of a tile, pixels.

    Returns
    -------
    chunk : (z, y, x)
        Of the arrays in which predictions are stored.
    boxes : list of three slices
        Of whole chunks.
    """
    most = int(np.prod(site.block))
    plane = [length for at, length in enumerate(site.shape) if at != axis]
    while np.prod(plane) > most and max(plane) > tile:
        longest = int(np.argmax(plane))
        wide = max(DEPTHS.values())
        half = -(-plane[longest] // (2 * wide)) * wide
        if half >= plane[longest]:
            break
        plane[longest] = half
    deep = next((n for n in DEPTHS if n * np.prod(plane) <= most), 1)
    chunk = [DEPTHS[deep]] * 2
    size = tuple([*plane[:axis], deep, *plane[axis:]])
    return tuple([*chunk[:axis], deep, *chunk[axis:]]), lay(site.shape, size)


def show_layer(site: Site, moves: Moves | None, box: Box) -> Outcome:
    """Look through a layer of sections; with ``moves``, shifts (dy, dx) of all sections, they are moved and kept."""
    grey, wrote = site.read("raw", box), []
    if moves is not None:
        grey = np.rint(apply_shifts(grey.astype(np.float32), _shifts(moves, range(*box[0].indices(len(moves))))))
        grey = grey.astype(np.uint8)
        wrote.append(site.write(SHOWN, box, grey))
    flat = damaged_sections(grey)
    counts = np.bincount(grey[~flat].ravel(), minlength=256)
    return wrote, {"flat": (np.flatnonzero(flat) + box[0].start).tolist(), "counts": counts.tolist()}


def predict_window(site: Site, shared: tuple[Prediction, int], box: Box) -> Outcome:
    """Show a window to the network along one axis; ``shared`` is the prediction and the axis."""
    from emlib.learn.tiles import TileSettings
    from emlib.learn.volumes.box_prediction import predict_planes

    task, axis = shared
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {}
    model, network, places = _network(task.path, task.sha256, tuple(task.plan.channels))
    found = {name: np.empty(sides(part), np.float32) for name in places}
    planes = predict_planes(
        network,
        lambda seen: site.read_seen(task.source, seen),
        site.seen,
        part,
        axis,
        task.normalisation,
        sections=model.sections,
        resampling=task.plan.resampling,
        tiles=TileSettings(tile=task.settings.tile, tta=task.settings.mirrored),
    )
    for index, plane in enumerate(planes):
        for name, place in places.items():
            np.moveaxis(found[name], axis, 0)[index] = plane[place]
    return [site.write_seen(_array(axis, name), box, values) for name, values in found.items()], {}


def join_block(site: Site, shared: tuple[ExpertPlan, bool, float, Moves | None], box: Box) -> Outcome:
    """Average the axes of a block and finish its maps; ``shared`` is the plan, what `finished_maps` takes, and moves.

    With moves the block is a layer of whole sections.
    """
    plan, inverted, share, moves = shared
    part, planes = site.seen_part(box), {}
    for name in plan.channels:
        if len(plan.axes) == 1:
            planes[name] = site.read_seen(_array(plan.axes[0], name), part).astype(np.float16)
            continue
        total = np.zeros(sides(part), np.float32)
        for axis in plan.axes:
            total += site.read_seen(_array(axis, name), part) / len(plan.axes)
        planes[name] = total.astype(np.float16)
    wrote = []
    for name, plane in finished_maps(planes, inverted, share).items():
        if moves is not None:
            numbers = range(box[0].start, box[0].stop) if site.kept is None else site.kept[part[0]]
            plane = apply_shifts(plane.astype(np.float32), _shifts(moves, numbers)).astype(np.float16)
        wrote.append(site.write_seen(ARRAYS[name][0], box, plane))
    return wrote, {}


def _array(axis: int, name: str) -> str:
    """What a network says along an axis."""
    return f"network{axis}_{name}"


def _shifts(moves: Moves, numbers: Sequence[int]) -> pd.DataFrame:
    return pd.DataFrame([moves[z] for z in numbers], columns=["dy", "dx"])


@lru_cache(maxsize=1)
def _network(path: str, sha256: str, maps: tuple[str, ...]) -> tuple[BoundaryModel, nn.Module, dict[str, int]]:
    """The network of this process, and where it gives each map."""
    from emlib.learn.volumes.boundary_model import load_boundary_model

    model = load_boundary_model(path, boundary="boundaries" in maps)
    if model.sha256 != sha256:
        raise UserError(f"{path} is another file here than where the run was started; all workers must see the same")
    told = {"boundaries": model.boundary, "mitochondria": model.mitochondria, "synapses": model.synapses}
    return model, *ready_network(model, ExpertPlan((), {name: told[name] for name in maps}, None))
