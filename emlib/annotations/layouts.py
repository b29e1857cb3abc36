"""The data sets that a conversion writes: one class for each ``--to``, fed one image at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emlib.annotations import coco, labelme
from emlib.annotations.classes import BACKGROUND, CLASSES_FILE, Classes, write_classes
from emlib.annotations.drawing import Region
from emlib.annotations.overlap import index_mask, instance_labels, organelle_masks
from emlib.annotations.shapes import IGNORED
from emlib.errors import UserError

RAW, MASKS = "raw", "masks"


@dataclass(frozen=True)
class Picture:
    """An image that is written.

    Attributes
    ----------
    name : str
        Of its files, without suffix.
    split : str
    pixels : (Y, X) uint8 or uint16 array
    regions : list of (class, Region)
        In the order in which they were drawn.
    order : list of int
        The indices of the regions in the order in which to paint them.
    """

    name: str
    split: str
    pixels: np.ndarray
    regions: Sequence[tuple[str, Region]]
    order: Sequence[int]


class Layout(Protocol):
    """A data set being written into a folder."""

    def add(self, picture: Picture) -> dict[str, int]:
        """Write one image; return the pixels that each class got."""

    def finish(self) -> int:
        """Write what stands for all images; return how many objects are hidden under others."""


class IndexMasks:
    """``<split>/{raw,masks}/NAME.png`` and ``classes.yaml``."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.folder, self.classes = folder, classes
        write_classes(folder / CLASSES_FILE, classes)

    def add(self, picture: Picture) -> dict[str, int]:
        """Write the image and the mask of its class ids."""
        mask = index_mask(picture.regions, picture.order, self.classes, picture.pixels.shape)
        write_png(self.folder / picture.split / RAW / f"{picture.name}.png", picture.pixels)
        write_png(self.folder / picture.split / MASKS / f"{picture.name}.png", mask)
        counts = np.bincount(mask.ravel(), minlength=max(self.classes.ids) + 1)
        return {one.name: int(counts[one.id]) for one in self.classes.classes if one.id}

    def finish(self) -> int:
        """Nothing is left to do."""
        return 0


class Organelles:
    """``<split>/{raw,<class>}/NAME.png``, 255 inside; every class has a mask of every image."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.folder, self.names = folder, [one.name for one in classes.classes if one.id]
        for name in self.names:
            if name.lower() in (RAW, MASKS, "average") or name != Path(name).name or set(name) & set('\\/:*?"<>|'):
                raise UserError(
                    f"no organelle can be called {name!r}, as its folder could not; rename it with --labels"
                )

    def add(self, picture: Picture) -> dict[str, int]:
        """Write the image and a mask of each class."""
        masks = organelle_masks(picture.regions, self.names, picture.pixels.shape)
        write_png(self.folder / picture.split / RAW / f"{picture.name}.png", picture.pixels)
        for name, mask in masks.items():
            write_png(self.folder / picture.split / name / f"{picture.name}.png", mask)
        return {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}

    def finish(self) -> int:
        """Nothing is left to do."""
        return 0


class Instances:
    """``<split>/raw/NAME.png``, ``<split>/instances/NAME.tif``, and ``instances.csv``: the class of each object."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.table = (folder / "instances.csv").open("w", encoding="utf-8", newline="")
        self.rows = csv.writer(self.table, lineterminator="\n")
        self.rows.writerow(("split", "image", "id", "class", "pixels"))
        self.folder, self.names, self.hidden = folder, classes.names, 0

    def add(self, picture: Picture) -> dict[str, int]:
        """Write the image, its labels, and a row for each object."""
        import tifffile

        labels, objects = instance_labels(picture.regions, picture.order, picture.pixels.shape)
        write_png(self.folder / picture.split / RAW / f"{picture.name}.png", picture.pixels)
        path = self.folder / picture.split / "instances" / f"{picture.name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, labels, compression="zlib", photometric="minisblack", metadata=None, software=False)
        for number, name, pixels in objects:
            self.rows.writerow((picture.split, picture.name, number, name, pixels))
        self.hidden += sum(pixels == 0 for _, _, pixels in objects)
        return {name: sum(px for _, one, px in objects if one == name) for name in self.names if name != BACKGROUND}

    def finish(self) -> int:
        """Close the table."""
        self.table.close()
        return self.hidden


class Coco:
    """``images/<split>/NAME.png`` and ``annotations/instances_<split>.json``; annotations are written as they come."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.folder, self.ids = folder, {one.name: one.id for one in classes.classes if one.id}
        self.files: dict[str, Any] = {}
        self.images: dict[str, list[dict]] = {}
        self.numbers: dict[str, int] = {}

    def add(self, picture: Picture) -> dict[str, int]:
        """Write the image and an annotation for each shape."""
        split, size = picture.split, picture.pixels.shape
        write_png(self.folder / "images" / split / f"{picture.name}.png", picture.pixels)
        if split not in self.files:
            path = self.folder / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.files[split], self.images[split], self.numbers[split] = path.open("w", encoding="utf-8"), [], 0
            self.files[split].write('{"annotations": [')
        number = len(self.images[split]) + 1
        entry = {"id": number, "file_name": f"{picture.name}.png", "height": size[0], "width": size[1]}
        self.images[split].append(entry)
        for name, region in picture.regions:
            if name in self.ids:
                comma = "," if self.numbers[split] else ""
                self.numbers[split] += 1
                one = coco.annotation(region, size, (self.numbers[split], number, self.ids[name]))
                self.files[split].write(f"{comma}\n{json.dumps(one)}")
        return _drawn_pixels(picture)

    def finish(self) -> int:
        """Write the lists of images and categories, and close the files."""
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self.ids.items()]
        for split, file in self.files.items():
            rest = json.dumps({"images": self.images[split], "categories": categories}, ensure_ascii=False)
            file.write(f"\n],\n{rest[1:]}\n")
            file.close()
        return 0


class Labelme:
    """``<split>/NAME.png`` and ``<split>/NAME.json``."""

    def __init__(self, folder: Path, classes: Classes) -> None:
        self.folder = folder

    def add(self, picture: Picture) -> dict[str, int]:
        """Write the image and its Labelme file."""
        image = self.folder / picture.split / f"{picture.name}.png"
        write_png(image, picture.pixels)
        shown = [(name, region) for name, region in picture.regions if name != IGNORED]
        content = labelme.write(shown, picture.pixels.shape, image.name)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        image.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        return _drawn_pixels(picture)

    def finish(self) -> int:
        """Nothing is left to do."""
        return 0


LAYOUTS = {
    "index-masks": IndexMasks,
    "organelles": Organelles,
    "instances": Instances,
    "coco": Coco,
    "labelme": Labelme,
}


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an image of 8 or 16 bits, or RGB, into a folder that is made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path, compress_level=3)


def _drawn_pixels(picture: Picture) -> dict[str, int]:
    """Pixels of all shapes of each class, where they overlap counted for each."""
    counts: dict[str, int] = {}
    for name, region in picture.regions:
        if name != IGNORED:
            counts[name] = counts.get(name, 0) + int(region.mask.sum())
    return counts
