"""One image from file to masks; nothing of it stays in memory."""

from __future__ import annotations

import numpy as np

from emlib.annotations.classes import MaskClass
from emlib.errors import UserError
from emlib.learn.inference import decide
from emlib.learn.prediction.blocks import predict_block, usable_grey
from emlib.learn.prediction.channels import index_mask
from emlib.learn.prediction.inputs import ImageInput
from emlib.learn.prediction.objects import number_objects, write_measurements
from emlib.learn.prediction.pictures import write_pictures, write_png
from emlib.learn.prediction.run import Run
from emlib.learn.prediction.stores import write_labels
from emlib.volumes.npy import write_npy


def predict_image(run: Run, one: ImageInput) -> dict:
    """Predict an image, write what is asked for, and put it on record.

    Parameters
    ----------
    run : Run
    one : ImageInput

    Returns
    -------
    dict
        What is on record: ``pixels``, ``foreground`` by organelle, ``files``.

    Raises
    ------
    UserError
        If the image is damaged, its grey values are of no usable range, memory runs out, or
        a file cannot be written. What was written of other images is whole.
    """
    if (done := run.journal.get(one.name)) is not None:
        return done
    image = one.read(run.note)
    try:
        masks, probabilities = _predict(run, image)
    except UserError as error:
        raise UserError(str(error).replace("the input", str(one.path), 1)) from error
    files = _write_masks(run, one.name, masks)
    if run.settings.probabilities:
        files += _write_probabilities(run, one.name, probabilities)
    em = usable_grey(image, run.settings.grey_range)
    files += write_pictures(run.root, one.name, em, masks, run.settings)
    if run.settings.objects:
        files += _write_objects(run, one.name, masks, em)
    foreground = {kind.name: int(np.count_nonzero(mask)) for kind, mask in masks.items()}
    return run.journal.add(one.name, files=files, pixels=image.size, foreground=foreground)


def _predict(run: Run, image: np.ndarray) -> tuple[dict[MaskClass, np.ndarray], dict[MaskClass, np.ndarray]]:
    """Masks, and probabilities as float16 where they are asked for, by class."""
    how = run.block_settings(run.settings.voxel_size_nm)
    masks = {one: np.zeros(image.shape, bool) for one in run.classes}
    kept = {one: np.zeros(image.shape, np.float16) for one in run.classes} if run.settings.probabilities else {}
    shape = (1, *image.shape)
    for box in run.lay(shape, run.settings.voxel_size_nm):
        found = predict_block(run.predictor, lambda part: image[None][part], shape, box, how)
        decided = decide(found, run.predictor.activation, run.settings.threshold)
        for one, channel in run.classes.items():
            masks[one][box[1:]] = decided[channel, 0]
            if kept:
                kept[one][box[1:]] = found[channel, 0]
    return masks, kept


def _write_masks(run: Run, name: str, masks: dict[MaskClass, np.ndarray]) -> list[str]:
    if run.exclusive:
        file = f"{run.mask_folder(None)}/{name}.png"
        shape = next(iter(masks.values())).shape
        write_png(run.root / file, index_mask(masks, shape))
        return [file]
    files = []
    for one, mask in masks.items():
        files.append(f"{run.mask_folder(one)}/{name}.png")
        write_png(run.root / files[-1], mask * np.uint8(255))
    return files


def _write_probabilities(run: Run, name: str, probabilities: dict[MaskClass, np.ndarray]) -> list[str]:
    files = []
    for one, probability in probabilities.items():
        files.append(f"{run.file('probabilities', one, name)}.npy")
        write_npy(run.root / files[-1], probability)
    return files


def _write_objects(run: Run, name: str, masks: dict[MaskClass, np.ndarray], em: np.ndarray) -> list[str]:
    size, files, tables = run.object_size(run.settings.voxel_size_nm), [], {}
    for one, mask in masks.items():
        labels, table = number_objects(run, mask, size, em)
        if run.settings.instances:
            files.append(f"{run.file('instances', one, name)}.tif")
            write_labels(run.root / files[-1], labels, size)
        if table is not None:
            tables[one.name] = table
    if run.settings.measure:
        files.append(write_measurements(run.root, name, tables))
    return files
