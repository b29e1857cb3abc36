"""The first look at the input: every annotation read once, its image found, sizes compared, names made unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from emlib.annotations.findings import Findings
from emlib.annotations.images import ImageFinder, image_size
from emlib.annotations.shapes import Annotation, Entry
from emlib.errors import UserError


@dataclass(frozen=True)
class Item:
    """An annotated image whose image was found.

    Attributes
    ----------
    entry : Entry
    image : Path or None
        None: the annotation holds it.
    where : str
        For messages.
    name : str
        Unique in the input, and the name by which a split file calls it.
    file_name : str
        Unique in its split.
    """

    entry: Entry
    image: Path | None
    where: str
    name: str
    file_name: str

    def load(self) -> Annotation:
        """Read the annotation."""
        return self.entry.load()


@dataclass(frozen=True)
class Survey:
    """What there is: the images, and how many shapes have each label."""

    items: list[Item]
    labels: Counter = field(default_factory=Counter)


def look_at(entries: Iterable[Entry], finder: ImageFinder, findings: Findings, *, skip_missing: bool) -> Survey:
    """Read every annotation once.

    Raises
    ------
    UserError
        If an image is missing (unless ``skip_missing``), annotated twice, or of another size than its annotation says.
    """
    found, missing, labels = [], [], Counter()
    for entry in entries:
        annotation = entry.load()
        image = finder.find(annotation, entry.split)
        if image is None and annotation.data is None:
            missing.append((annotation.where, annotation.image))
            findings.note("missing image", entry.split or "", entry.key, detail=annotation.image)
            continue
        size = image_size(image, annotation.data, annotation.where)
        if annotation.size is not None and annotation.size != size:
            told = "{} × {}".format(*annotation.size), "{} × {}".format(*size)
            raise UserError(
                f"{annotation.where} is of an image of {told[0]}, but {image or 'the image in it'} is {told[1]} "
                "(height × width); give the images that were annotated with --images"
            )
        labels.update(shape.label for shape in annotation.shapes)
        found.append((entry, image, annotation.where))
    if missing and not skip_missing:
        more = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
        raise UserError(
            f"no image {missing[0][1]} for {missing[0][0]}{more}; name their folder with --images, or leave such "
            "annotations out with --skip_missing"
        )
    if not found:
        raise UserError("no annotation has an image; name the folder of the images with --images")
    return Survey(_named(found), labels)


def _named(found: list[tuple[Entry, Path | None, str]]) -> list[Item]:
    """Give each image the last part of its key as name, or all parts where several would be called alike."""
    keys = Counter((entry.split, entry.key) for entry, _, _ in found)
    if twice := next((key for key, count in keys.items() if count > 1), None):
        both = [where for entry, _, where in found if (entry.split, entry.key) == twice]
        raise UserError(f"the image {twice[1]} is annotated in {both[0]} and in {both[1]}; keep one, or rename one")
    stems = Counter((entry.split, entry.key.rpartition("/")[2].lower()) for entry, _, _ in found)
    items = []
    for entry, image, where in found:
        stem = entry.key.rpartition("/")[2]
        unique = stems[entry.split, stem.lower()] == 1
        file_name = stem if unique else entry.key.replace("/", "_")
        items.append(Item(entry, image, where, f"{entry.split}/{file_name}" if entry.split else file_name, file_name))
    return items
