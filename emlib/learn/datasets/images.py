"""One image of a data set: EM or mask, 8-bit or 16-bit, PNG or TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.volumes.image_file import open_with_pillow, read_tiff_image, tiff_image_shape
from emlib.volumes.reading import reading

GREY = (np.dtype(np.uint8), np.dtype(np.uint16))


def read_grey(path: Path) -> np.ndarray:
    """Read a section of EM.

    Returns
    -------
    (Y, X) uint8 or uint16 array
        Colour whose channels are equal is grey; black and white become 0 and 255.

    Raises
    ------
    UserError
        If the file cannot be read, its channels differ, or it holds anything but 8 or 16 unsigned bits.
    """
    image = _read(path, keep_palette=False)
    if image.dtype not in GREY:
        raise UserError(f"{path} holds {image.dtype}; convert it to 8-bit or 16-bit grey")
    return image


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as it is stored.

    Returns
    -------
    (Y, X) array of integers or floats
        Of an image with a palette its indices; black and white become 0 and 255.

    Raises
    ------
    UserError
        If the file cannot be read, or is in colour.
    """
    return _read(path, keep_palette=True)


def image_shape(path: Path) -> tuple[int, int]:
    """Return (Y, X) from the header, nothing decoded.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    with reading(path):
        if path.suffix.lower() == ".png":
            with open_with_pillow(path, ("PNG",)) as image:
                return image.height, image.width
        return tiff_image_shape(path)


def _read(path: Path, *, keep_palette: bool) -> np.ndarray:
    with reading(path):
        png = path.suffix.lower() == ".png"
        image = _read_png(path, keep_palette) if png else read_tiff_image(path, keep_palette=keep_palette)
    if image.ndim == 3:
        image = _one_channel(image, path)
    if image.dtype == bool:
        return image * np.uint8(255)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _read_png(path: Path, keep_palette: bool) -> np.ndarray:
    with open_with_pillow(path, ("PNG",)) as image:
        if image.mode == "P" and not keep_palette:
            return np.asarray(image.convert("RGB"))
        array = np.asarray(image)
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:  # how some versions give 16 bits
        return array.astype(np.uint16)
    return array


def _one_channel(image: np.ndarray, path: Path) -> np.ndarray:
    """Grey of (Y, X, C), where C counts red, green and blue, or grey alone, perhaps with opacity last."""
    channels = image.shape[-1]
    if channels not in (2, 3, 4):
        raise UserError(f"{path} has {channels} channels; convert it to grey")
    if channels in (2, 4) and (image[..., -1] != np.iinfo(image.dtype).max).any():
        raise UserError(f"{path} is partly transparent; convert it to grey without transparency")
    grey = image[..., 0]
    if channels > 2 and not (np.array_equal(grey, image[..., 1]) and np.array_equal(grey, image[..., 2])):
        raise UserError(f"{path} is in colour, its red, green and blue differ; convert it to grey")
    return np.ascontiguousarray(grey)
