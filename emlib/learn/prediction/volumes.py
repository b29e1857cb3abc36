"""One volume from file to masks, block by block, so that neither has to fit in memory.

1. Empty Zarr arrays are made below ``.partial``: masks, and probabilities where they are asked for.
2. Each block is read with its margin, predicted, written, and put on record. A killed run goes on with the next.
3. From the whole arrays come objects, pictures and TIFFs.
4. What stays of the arrays is moved to its place, and the volume is put on record.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np

from emlib.annotations.classes import MaskClass
from emlib.errors import UserError
from emlib.learn.inference import decide
from emlib.learn.prediction.blocks import Shape, predict_block, usable_grey
from emlib.learn.prediction.channels import index_dtype, index_mask
from emlib.learn.prediction.inputs import Input, VolumeInput
from emlib.learn.prediction.memory import GB
from emlib.learn.prediction.objects import number_objects, write_measurements
from emlib.learn.prediction.pictures import write_pictures
from emlib.learn.prediction.record import PARTIAL
from emlib.learn.prediction.run import Run
from emlib.learn.prediction.stores import Store, convert_store, move_store, write_labels
from emlib.volumes.volume import ZYX, Box

TIFF_SHARE = 0.25  # of the memory limit: a larger mask stays Zarr
CHUNKED = (".zarr", ".h5", ".hdf5", ".hdf", "bossdb:")  # inputs whose masks are Zarr too


@dataclass(frozen=True)
class Results:
    """The arrays of one volume.

    Attributes
    ----------
    masks : dict of Store
        One for each class, or one for None where classes exclude each other.
    probabilities : dict of Store
        By class, where they are asked for.
    """

    masks: dict[MaskClass | None, Store]
    probabilities: dict[MaskClass, Store]


def predict_volume(run: Run, one: VolumeInput, tick: Callable[[], None] = lambda: None) -> dict:
    """Predict a volume, write what is asked for, and put it on record.

    Parameters
    ----------
    run : Run
    one : VolumeInput
    tick : function
        Called after each block, also those of an earlier run.

    Returns
    -------
    dict
        What is on record: ``pixels``, ``foreground`` by organelle, ``files``.

    Raises
    ------
    UserError
        If voxels cannot be read, grey values are of no usable range, memory runs out, or a file cannot be written.
        Blocks that are on record are whole, and ``--resume`` takes them as they are.
    """
    if (done := run.journal.get(one.name)) is not None:
        return done
    size = run.settings.voxel_size_nm or one.source.voxel_size_nm
    boxes = volume_blocks(run, one)
    results = _open_results(run, one, len(boxes), size)
    for number, box in enumerate(boxes):
        if run.journal.get(one.name, number) is None:
            _predict_one(run, one, results, number, box, size)
        tick()
    counts = [run.journal.get(one.name, number)["foreground"] for number in range(len(boxes))]
    found = finish_volume(run, one, results, counts)
    shutil.rmtree(run.root / PARTIAL / one.name, ignore_errors=True)
    return found


class OneByOne:
    """Predicts volumes block by block in this process; blocks are as large as memory allows."""

    def count(self, run: Run, one: VolumeInput) -> int:
        """Return how many blocks a volume has."""
        return len(volume_blocks(run, one))

    @contextmanager
    def opened(self, run: Run, inputs: Sequence[Input]) -> Iterator[Callable[[VolumeInput, Callable], dict]]:
        """Yield a function that predicts a volume, and calls another one after each block."""
        yield lambda one, tick: predict_volume(run, one, tick)


def volume_blocks(run: Run, one: VolumeInput) -> list[Box]:
    """Return the blocks of a volume."""
    return run.lay(one.source.shape, run.settings.voxel_size_nm or one.source.voxel_size_nm)


def as_tiff(form: str, one: VolumeInput, memory_gb: float, where: str) -> bool:
    """Whether the masks of a volume are written as TIFF.

    Parameters
    ----------
    form : "auto", "tiff" or "zarr"
    one : VolumeInput
    memory_gb : float
        A TIFF is converted from a quarter of it at the most.
    where : str
        The volume, for the message.

    Raises
    ------
    UserError
        If TIFF is asked for and the masks are too large.
    """
    fits = prod(one.source.shape) <= TIFF_SHARE * memory_gb * GB
    if form == "tiff" and not fits:
        raise UserError(f"--format tiff: the masks of {where} do not fit into --memory_gb; use zarr")
    chunked = any(part in one.source.uri.lower() for part in CHUNKED)
    return form == "tiff" or (form == "auto" and fits and not chunked)


def _open_results(run: Run, one: VolumeInput, count: int, size: ZYX | None) -> Results:
    """The arrays below ``.partial``; made anew, and the blocks with them, unless all are there."""
    folder, stores = run.root / PARTIAL / one.name, {}
    dtypes = result_dtypes(run.classes, run.exclusive, run.settings.probabilities)
    for number, (what, kind) in enumerate(dtypes):
        stores[what, kind] = Store(folder / f"{number}" / f"{one.name}.zarr")
    predicted = all(run.journal.get(one.name, number) for number in range(count))
    moved = {key: Store(run.root / f"{_target(run, one.name, *key)}.zarr") for key in stores}
    if predicted and all(store.complete or moved[key].complete for key, store in stores.items()):
        stores = {key: store if store.complete else moved[key] for key, store in stores.items()}
    elif not all(store.complete for store in stores.values()):
        run.journal.forget(one.name)
        for key, store in stores.items():
            store.create(one.source.shape, dtypes[key], run.blocks.chunk, size)
    return as_results(stores)


def result_dtypes(
    classes: Collection[MaskClass], exclusive: bool, probabilities: bool
) -> dict[tuple[str, MaskClass | None], np.dtype]:
    """Return the arrays that a volume's results are kept in, and their types.

    Parameters
    ----------
    classes : collection of MaskClass
        Those that are written.
    exclusive : bool
        Whether one index mask holds all of them.
    probabilities : bool
        Whether they are written too.

    Returns
    -------
    dict of numpy dtype
        By ``masks`` or ``probabilities`` and the class; None for the index mask.
    """
    masks = {None: index_dtype(tuple(classes))} if exclusive else dict.fromkeys(classes, np.dtype(np.uint8))
    dtypes = {("masks", kind): dtype for kind, dtype in masks.items()}
    return dtypes | {("probabilities", kind): np.dtype(np.float16) for kind in classes if probabilities}


def as_results(stores: Mapping[tuple[str, MaskClass | None], Store]) -> Results:
    """Return the arrays of `result_dtypes` by what they hold."""
    kept = {"masks": {}, "probabilities": {}}
    for (what, kind), store in stores.items():
        kept[what][kind] = store
    return Results(**kept)


def decided_arrays(
    found: np.ndarray, activation: str, threshold: float, classes: Mapping[MaskClass, int], exclusive: bool
) -> tuple[dict[tuple[str, MaskClass | None], np.ndarray], dict[str, int]]:
    """Turn the probabilities of a block into what is written of it.

    Parameters
    ----------
    found : (E, z, y, x) float32 array
    activation, threshold
        As for `emlib.learn.inference.decide`.
    classes : mapping
        Those that are written, and their channels.
    exclusive : bool
        Whether one index mask holds all of them.

    Returns
    -------
    arrays : dict of arrays
        By the keys of `result_dtypes`, probabilities included.
    foreground : dict of int
        Voxels of each class by its name.
    """
    decided = decide(found, activation, threshold)
    masks = {kind: decided[channel] for kind, channel in classes.items()}
    if exclusive:
        arrays = {("masks", None): index_mask(masks, found.shape[1:])}
    else:
        arrays = {("masks", kind): mask * np.uint8(255) for kind, mask in masks.items()}
    arrays |= {("probabilities", kind): found[channel].astype(np.float16) for kind, channel in classes.items()}
    return arrays, {kind.name: int(np.count_nonzero(mask)) for kind, mask in masks.items()}


def _target(run: Run, name: str, what: str, kind: MaskClass | None) -> str:
    return f"{run.mask_folder(kind)}/{name}" if what == "masks" else run.file(what, kind, name)


def _predict_one(run: Run, one: VolumeInput, results: Results, number: int, box: Box, size: ZYX | None) -> None:
    """Predict a block, write it to all arrays, then put it on record."""
    try:
        found = predict_block(run.predictor, one.source.read, one.source.shape, box, run.block_settings(size))
    except UserError as error:
        raise UserError(str(error).replace("the input", one.source.uri, 1)) from error
    how = run.predictor.activation, run.settings.threshold, run.classes, run.exclusive
    arrays, foreground = decided_arrays(found, *how)
    for what, stores in (("masks", results.masks), ("probabilities", results.probabilities)):
        for kind, store in stores.items():
            store.write(box, arrays[what, kind])
    run.journal.add(one.name, number, foreground=foreground)


def finish_volume(run: Run, one: VolumeInput, results: Results, counts: Sequence[Mapping[str, int]]) -> dict:
    """Make all that comes from whole arrays, give these their places, and put the volume on record.

    Parameters
    ----------
    run : Run
    one : VolumeInput
    results : Results
        Whole.
    counts : sequence of dict
        Foreground of each block by organelle.

    Returns
    -------
    dict
        What is on record, as from `predict_volume`.
    """
    files = _write_files(run, one, results, run.settings.voxel_size_nm or one.source.voxel_size_nm)
    foreground = {kind.name: sum(count[kind.name] for count in counts) for kind in run.classes}
    return run.journal.add(one.name, files=files, pixels=prod(one.source.shape), foreground=foreground)


def _write_files(run: Run, one: VolumeInput, results: Results, size: ZYX | None) -> list[str]:
    """Make all that comes from whole arrays, move these, and return the files."""
    tiff = as_tiff(run.settings.form, one, run.memory_gb, one.source.uri)
    files = _write_objects(run, one, results, size, tiff) if run.settings.objects else []
    if run.settings.overlay or run.settings.colour_masks:
        files += _write_pictures(run, one, results)
    for kind, store in results.masks.items():
        file = _target(run, one.name, "masks", kind) + (".tif" if tiff else ".zarr")
        (convert_store(store, run.root / file, size) if tiff else move_store(store, run.root / file))
        files.append(file)
    for kind, store in results.probabilities.items():
        files.append(f"{_target(run, one.name, 'probabilities', kind)}.zarr")
        move_store(store, run.root / files[-1])
    return files


def _write_objects(run: Run, one: VolumeInput, results: Results, size: ZYX | None, tiff: bool) -> list[str]:
    nm, files, tables = run.object_size(size), [], {}
    em = usable_grey(one.source.read(_whole(one.source.shape)), run.settings.grey_range)
    for kind in run.classes:
        labels, table = number_objects(run, _read_mask(results, kind, _whole(one.source.shape)), nm, em)
        if table is not None:
            tables[kind.name] = table
        if not run.settings.instances:
            continue
        files.append(run.file("instances", kind, one.name) + (".tif" if tiff else ".zarr"))
        if tiff:
            write_labels(run.root / files[-1], labels, nm)
            continue
        made = Store(run.root / PARTIAL / one.name / "instances" / f"{one.name}.zarr")
        made.create(labels.shape, labels.dtype, run.blocks.chunk, nm)
        made.write(_whole(labels.shape), labels)
        move_store(made, run.root / files[-1])
    if run.settings.measure:
        files.append(write_measurements(run.root, one.name, tables))
    return files


def _write_pictures(run: Run, one: VolumeInput, results: Results) -> list[str]:
    """A picture of each section, one section at a time; return their folders."""
    depth, height, width = one.source.shape
    for z in range(depth):
        box = slice(z, z + 1), slice(0, height), slice(0, width)
        em = usable_grey(one.source.read(box), run.settings.grey_range)[0]
        masks = {kind: _read_mask(results, kind, box)[0] for kind in run.classes}
        write_pictures(run.root, f"{one.name}/section_{z:04d}", em, masks, run.settings)
    wanted = {"overlay": run.settings.overlay, "colour_masks": run.settings.colour_masks}
    return [f"{what}/{one.name}" for what, asked in wanted.items() if asked]


def _read_mask(results: Results, kind: MaskClass, box: Box) -> np.ndarray:
    """The mask of one class in a block, bool."""
    return results.masks[None].read(box) == kind.id if None in results.masks else results.masks[kind].read(box) > 0


def _whole(shape: Shape) -> Box:
    return tuple(slice(0, length) for length in shape)
