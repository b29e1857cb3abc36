"""One image in a file, grey or in colour, as it is stored: TIFF with one page, and what Pillow opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.tiff import opened, upright

TIFF = (".tif", ".tiff")
LUMA = (19595, 38470, 7471)  # of red, green, blue in 65536 parts, ITU-R BT.601, as Pillow has it


def open_with_pillow(source: Path | IO[bytes], formats: Sequence[str] | None = None) -> Any:
    """Return an image that Pillow has opened and not decoded yet, whatever its size.

    Parameters
    ----------
    source : Path or binary file
    formats : sequence of str, optional
        The only formats to try, as in ``("PNG",)``.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # Pillow takes a 20 000 × 20 000 section for an attack
    return Image.open(source, formats=formats)


def read_tiff_image(path: Path, *, keep_palette: bool, as_shown: bool = True) -> np.ndarray:
    """Read the one image of a TIFF.

    Parameters
    ----------
    path : Path
    keep_palette : bool
        Of an image with a palette return the indices, not the colours.
    as_shown : bool
        Turn the grey values round where 0 is white (MINISWHITE); False leaves numbers of classes as they are stored.

    Returns
    -------
    (Y, X) or (Y, X, C) array
        Samples last, also where the file holds a plane for each. The colours of a palette are uint8.

    Raises
    ------
    UserError
        If the file holds several images.
    """
    with opened(path) as tif:
        if len(tif.pages) > 1:
            raise UserError(f"{path} holds {len(tif.pages)} images; save one section per file")
        page = tif.pages.first
        array = page.asarray()
        if page.photometric.name == "PALETTE" and not keep_palette:
            return np.moveaxis(page.colormap[:, array] >> 8, 0, -1).astype(np.uint8)
        if array.ndim == 3 and page.planarconfig.name == "SEPARATE":
            return np.moveaxis(array, 0, -1)
        return upright(array, page) if as_shown else array


def tiff_image_shape(path: Path) -> tuple[int, int]:
    """Return (Y, X) of the first image of a TIFF from its header, nothing decoded."""
    with opened(path) as tif:
        page = tif.pages.first
        return page.imagelength, page.imagewidth


def grey_of(colour: np.ndarray) -> np.ndarray:
    """Return the brightness of (Y, X, 3) red, green and blue, in their type; equal channels stay exactly as they are.

    Floats become float32.

    Examples
    --------
    >>> grey_of(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8))
    array([[10, 76]], dtype=uint8)
    """
    if colour.dtype.kind == "f":
        return (colour @ (np.array(LUMA) / 65536)).astype(np.float32)
    weighted = sum(colour[..., k].astype(np.uint64) * np.uint64(LUMA[k]) for k in range(3))
    return ((weighted + np.uint64(0x8000)) >> np.uint64(16)).astype(colour.dtype)
