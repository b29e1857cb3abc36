"""COCO instance segmentation: one JSON file for many images. Modelled on COCO 2017 and pycocotools 2.0.

Polygons and boxes count from the corner of the first pixel. Read are polygons (several of one annotation are one
object), run lengths (RLE, a list or compressed), boxes where there is no segmentation, ``iscrowd``. CVAT, Roboflow,
Label Studio and VIA write this form with differences that are allowed for: a file name with folders, ids that are text,
sizes that are missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from emlib.annotations import geometry
from emlib.annotations.drawing import Region
from emlib.annotations.files import guess, key_of, list_files, read_json, root_of, split_of
from emlib.annotations.shapes import Annotation, Entry, Shape, Source
from emlib.annotations.tracing import trace
from emlib.errors import UserError
from emlib.volumes.reading import reading


def find(source: Source) -> list[Entry]:
    """Return an entry for each image of each ``.json`` of the input.

    Raises
    ------
    UserError
        If there is no file, one is no COCO, an annotation names an image or a category that is not there.
    """
    root = root_of(source.path)
    return [entry for path in list_files(source.path, (".json",), "COCO files") for entry in _entries(path, root)]


def _entries(path: Path, root: Path) -> list[Entry]:
    """The images of one file."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise UserError(f"{path} is no COCO file, it lacks the list 'images' or 'annotations'; {guess(content)}")
    with reading(path):
        names = {one["id"]: str(one["name"]) for one in content.get("categories", [])}
        by_image: dict[Any, list[dict]] = {image["id"]: [] for image in content["images"]}
        for one in content["annotations"]:
            if one["image_id"] not in by_image:
                raise UserError(f"{path}: annotation {one.get('id')} is of image {one['image_id']}, which is not there")
            if one["category_id"] not in names:
                raise UserError(
                    f"{path}: annotation {one.get('id')} has category {one['category_id']}, which is not "
                    f"there; its ids are {', '.join(map(str, names)) or 'none'}"
                )
            by_image[one["image_id"]].append(one)
        split = split_of(path.relative_to(root)) or _split_of_stem(path.stem)
        return [
            Entry(key_of(image["file_name"]), split or split_of(image["file_name"]),
                  partial(_read, path, image, by_image[image["id"]], names))
            for image in content["images"]
        ]  # fmt: skip


def _split_of_stem(stem: str) -> str | None:
    """The split in names like ``instances_val2017`` and ``train``."""
    words = stem.lower().replace("-", "_").replace("2017", "").replace("2014", "").split("_")
    return next((split for word in words if (split := split_of(f"{word}/x"))), None)


def _read(path: Path, image: dict, annotations: list[dict], names: dict[Any, str]) -> Annotation:
    with reading(path):
        size = _size(path, image, annotations)
        shapes = [shape for one in annotations for shape in _shapes(one, names[one["category_id"]])]
        return Annotation(
            where=f"{path} ({image['file_name']})",
            shapes=tuple(shapes),
            image=str(image["file_name"]),
            near=path.parent,
            size=size,
        )


def _size(path: Path, image: dict, annotations: list[dict]) -> tuple[int, int] | None:
    """The (height, width) that the image and the run lengths on it claim; None where nothing does."""
    runs = [one["segmentation"]["size"] for one in annotations if isinstance(one.get("segmentation"), dict)]
    told = [*runs, *([[image["height"], image["width"]]] if image.get("height") and image.get("width") else [])]
    sizes = list(dict.fromkeys((int(height), int(width)) for height, width in told))
    if len(sizes) > 1:
        both = " and ".join(f"{height} × {width}" for height, width in sizes[:2])
        raise UserError(f"{path}: {image['file_name']} is said to be {both} (height × width); export it again")
    return sizes[0] if sizes else None


def _shapes(one: dict, label: str) -> list[Shape]:
    """The object of an annotation."""
    what, crowd = one.get("segmentation"), bool(one.get("iscrowd", 0))
    if isinstance(what, dict):
        return [Shape(label, "mask", mask=decode(what), crowd=crowd)]
    if what:
        parts = [geometry.polygon(np.reshape(ring, (-1, 2))) for ring in what]
        whole = [shapely.make_valid(part, method="structure") for part in parts] if len(parts) > 1 else parts
        return [Shape(label, "polygon", shapely.union_all(whole) if len(whole) > 1 else whole[0], crowd=crowd)]
    if one.get("bbox"):
        x, y, width, height = one["bbox"]
        return [Shape(label, "rectangle", geometry.rectangle(x, y, x + width, y + height), crowd=crowd)]
    return [Shape(label, "polygon", geometry.polygon([]))]


def decode(runs: dict) -> np.ndarray:
    """Return the (H, W) bool mask of ``{"size": [H, W], "counts": list or text}``.

    Examples
    --------
    >>> decode({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)  # down the columns: one 0, two 1, three 0
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    from pycocotools import mask

    height, width = runs["size"]
    counts = runs["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise ValueError(f"the run lengths add up to {sum(counts)} pixels, not {height} × {width}")
        runs = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools 2.0.11 with NumPy 2
        return mask.decode({"size": [height, width], "counts": runs["counts"]}).astype(bool)


def encode(mask: np.ndarray) -> dict:
    """Return compressed run lengths of an (H, W) bool mask, as `decode` reads them."""
    from pycocotools import mask as coco_mask

    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def annotation(region: Region, size: tuple[int, int], ids: tuple[int, int, int]) -> dict[str, Any]:
    """Return an entry of ``annotations``; reading it and drawing it gives the same pixels.

    Parameters
    ----------
    region : Region
    size : (height, width) of the image
    ids : (annotation, image, category)

    Returns
    -------
    dict
        The polygon as it was drawn, or along the edges of the pixels; run lengths where there are holes, which COCO's
        polygons cannot have.
    """
    full = np.zeros(size, bool)
    full[region.window] = region.mask
    rows, columns = np.nonzero(region.mask)
    top, left = region.corner[0] + int(rows.min()), region.corner[1] + int(columns.min())
    box = [left, top, int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    parts = _polygons(region)
    holes = any(part.interiors for part in parts)
    outline = encode(full) if holes else [np.ravel(part.exterior.coords[:-1]).tolist() for part in parts]
    return {
        **dict(zip(("id", "image_id", "category_id"), ids, strict=True)),
        "segmentation": outline,
        "area": int(region.mask.sum()),
        "bbox": box,
        "iscrowd": int(region.shape.crowd),
    }


def _polygons(region: Region) -> Sequence[Any]:
    shape = region.shape
    if shape.geometry is not None and shape.kind in ("polygon", "rectangle", "circle", "ellipse"):
        parts = [part for part in getattr(shape.geometry, "geoms", [shape.geometry]) if part.geom_type == "Polygon"]
        if not any(part.interiors for part in parts):
            return parts
    return trace(region.mask, region.corner)
