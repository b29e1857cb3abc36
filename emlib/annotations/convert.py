"""From annotations to a data set: what ``convert_annotations.py`` does.

1. Find the annotated images; read each once, to see labels, images and sizes before anything is written.
2. Name the classes and share the images out among train, val and test.
3. Read each again, draw its shapes, and write it; only one image is held at a time.
4. Write the report; the folder takes its name at the very end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from emlib.annotations.classes import BACKGROUND, Classes, read_classes
from emlib.annotations.drawing import DrawSettings, Region, draw, scaled
from emlib.annotations.files import OVERLAYS, root_of
from emlib.annotations.findings import Findings
from emlib.annotations.images import ImageFinder, read_image
from emlib.annotations.label_map import LabelMap, plan_classes, read_label_map
from emlib.annotations.layouts import LAYOUTS, Layout, Picture, write_png
from emlib.annotations.mask_files import IMAGE_FOLDERS, find_classes
from emlib.annotations.output_folder import check_output, new_folder
from emlib.annotations.overlap import RULES, overlapping_pixels, painting_order
from emlib.annotations.overlays import draw_overlay
from emlib.annotations.shapes import IGNORED, Annotation, Source
from emlib.annotations.splits import DEFAULT, NAMES, by_file, check_fractions, read_split_file, share_out
from emlib.annotations.survey import Item, Survey, look_at
from emlib.errors import UserError, nearest

FORMATS = {
    "labelme": "labelme",
    "coco": "coco",
    "cvat": "cvat",
    "via": "via",
    "yolo-seg": "yolo_seg",
    "geojson": "geojson",
    "napari-shapes": "napari_shapes",
    "imagej-roi": "imagej_roi",
    "index-mask": "index_mask",
    "rgb-mask": "rgb_mask",
    "instances": "instances",
}
MASKS = ("index-mask", "rgb-mask", "instances")  # images themselves, so that theirs lie elsewhere
WITH_CLASSES = ("index-mask", "rgb-mask")  # read classes.yaml of the input
IGNORE = 255


@dataclass(frozen=True)
class ConvertSettings:
    """What to convert, and how; the flags of ``convert_annotations.py``.

    Attributes
    ----------
    format, to : str
        One of ``FORMATS``, one of ``LAYOUTS``.
    input, output : Path
    images : Path, optional
        Folder of the images, where they do not lie beside the annotations.
    labels, classes : Path, optional
        A label map; names, ids and colours of the classes.
    label, attribute : str, optional
        See `emlib.annotations.shapes.Source`.
    split : (train, val, test), optional
        Shares that add up to 1.
    split_file : Path, optional
    seed : int
    overlap : str
        One of `emlib.annotations.overlap.RULES`.
    line_width, point_radius : float
        Pixels.
    overlays, skip_missing, overwrite, quiet : bool
    """

    format: str
    input: Path
    output: Path
    to: str = "index-masks"
    images: Path | None = None
    labels: Path | None = None
    classes: Path | None = None
    label: str | None = None
    attribute: str | None = None
    split: tuple[float, float, float] | None = None
    split_file: Path | None = None
    seed: int = 0
    overlap: str = "later"
    line_width: float = 3.0
    point_radius: float = 3.0
    overlays: bool = False
    skip_missing: bool = False
    overwrite: bool = False
    quiet: bool = True


def convert(settings: ConvertSettings) -> list[str]:
    """Convert annotations into a data set.

    Returns
    -------
    list of str
        Lines for the shell: what was written, warnings, the paths.

    Raises
    ------
    UserError
        For what the user can mend; nothing is written then.
    """
    _check(settings)
    label_map = read_label_map(settings.labels) if settings.labels else LabelMap()
    given = read_classes(settings.classes) if settings.classes else None
    source = Source(settings.input, settings.label, settings.attribute, given)
    findings = Findings()
    survey = _survey(settings, source, findings)
    own = find_classes(source) if settings.format in WITH_CLASSES else given
    ignore = IGNORE if IGNORED in survey.labels else None
    labels = survey.labels.keys() - {IGNORED}
    classes = plan_classes(label_map, labels, own, strict=given is not None, ignore=ignore)
    splits = _splits(settings, survey.items)
    _check_names(survey.items, splits)
    told = {key: str(value) for key, value in asdict(settings).items() if key not in ("quiet", "overwrite")}
    with new_folder(settings.output, told) as folder:
        layout = LAYOUTS[settings.to](folder, classes)
        for item in _progress(survey.items, settings.quiet):
            picture = _convert_one(item, splits[item.name], settings, label_map, classes, layout, findings)
            if settings.overlays:
                path = folder / OVERLAYS / picture.split / f"{picture.name}.png"
                write_png(path, draw_overlay(picture.pixels, picture.regions, classes))
        if hidden := layout.finish():
            findings.note("hidden", "", "", number=hidden)
        _write_report(folder, settings, classes, findings)
    return _summary(settings, classes, findings)


def _check(settings: ConvertSettings) -> None:
    """Refuse what cannot be done, before anything is read."""
    for flag, name, known in (
        ("--from", settings.format, list(FORMATS)),
        ("--to", settings.to, list(LAYOUTS)),
        ("--overlap", settings.overlap, list(RULES)),
    ):
        if name not in known:
            raise UserError(f"{flag} {name} is unknown; {nearest(name, known)}; there are {', '.join(known)}")
    if settings.split is not None:
        check_fractions(settings.split)
        if settings.split_file is not None:
            raise UserError("--split and --split_file exclude each other; give one")
    if not settings.input.exists():
        raise UserError(f"no such file or folder: --input {settings.input}")
    if settings.images is not None and not settings.images.is_dir():
        raise UserError(f"no such folder: --images {settings.images}")
    sources = [settings.input, *([settings.images] if settings.images else [])]
    check_output(settings.output, sources, overwrite=settings.overwrite)


def _survey(settings: ConvertSettings, source: Source, findings: Findings) -> Survey:
    """Read every annotation once."""
    reader = import_module(f"emlib.annotations.{FORMATS[settings.format]}")
    root, masks = root_of(settings.input), settings.format in MASKS
    if settings.images is not None:
        folders = [settings.images]
    elif masks:
        folders = [p for p in (root, *sorted(root.rglob("*"))) if p.is_dir() and p.name.lower() in IMAGE_FOLDERS]
        folders += [p for name in IMAGE_FOLDERS if (p := root.parent / name).is_dir() and p != root]
    else:
        folders = [root]
    finder = ImageFinder(folders, beside=not masks)
    entries = reader.find(source)
    if not entries:
        raise UserError(f"{settings.input} holds no annotated image; check --from {settings.format}")
    survey = look_at(_progress(entries, settings.quiet), finder, findings, skip_missing=settings.skip_missing)
    for path in finder.unused():
        findings.note("unannotated image", "", path.relative_to(folders[0]).as_posix() if folders[0] in path.parents
                      else path.name)  # fmt: skip
    return survey


def _splits(settings: ConvertSettings, items: Sequence[Item]) -> dict[str, str]:
    """The split of each image."""
    names = [item.name for item in items]
    divided = {item.name: item.entry.split for item in items if item.entry.split}
    if settings.split_file is not None:
        return by_file(names, read_split_file(settings.split_file), settings.split_file)
    if divided and settings.split is not None:
        there = ", ".join(name for name in NAMES if name in divided.values())
        raise UserError(f"{settings.input} is divided already into {there}; leave out --split, or give a --split_file")
    if divided and len(divided) < len(names):
        lost = next(name for name in names if name not in divided)
        raise UserError(
            f"{settings.input} is divided into splits, but {lost} is in none; move it, or give --split_file"
        )
    return divided or share_out(names, settings.split or DEFAULT, settings.seed)


def _check_names(items: Sequence[Item], splits: dict[str, str]) -> None:
    """Refuse two images that would be one file, as a split file may bring together what folders kept apart."""
    there: dict[tuple[str, str], str] = {}
    for item in items:
        place = splits[item.name], item.file_name.lower()
        if place in there:
            raise UserError(f"{there[place]} and {item.where} would both be {'/'.join(place)}.png; rename one")
        there[place] = item.where


def _convert_one(
    item: Item, split: str, settings: ConvertSettings, label_map: LabelMap, classes: Classes, layout: Layout,
    findings: Findings,
) -> Picture:  # fmt: skip
    """Draw and write one image, and note what was odd."""
    loaded = item.load()
    image = read_image(item.image, loaded.data, item.where)
    annotation = scaled(loaded, image.pixels.shape)
    regions = _regions(annotation, item.file_name, split, image.pixels.shape, settings, label_map, findings)
    order = painting_order(regions, settings.overlap, label_map.priority)
    picture = Picture(item.file_name, split, image.pixels, regions, order)
    pixels = layout.add(picture)
    drawn = Counter(name for name, _ in regions)
    findings.count(split, {name: drawn[name] for name in classes.names if name != BACKGROUND}, pixels)
    for what, text in [("image", image.note), *(("note", note) for note in annotation.notes)]:
        if text:
            findings.note(what, split, item.file_name, detail=text)
    if not annotation.shapes:
        findings.note("empty", split, item.file_name)
    if several := overlapping_pixels(regions, image.pixels.shape):
        findings.note("overlap", split, item.file_name, number=several)
    return picture


def _regions(
    annotation: Annotation, name: str, split: str, size: tuple[int, int], settings: ConvertSettings,
    label_map: LabelMap, findings: Findings,
) -> list[tuple[str, Region]]:  # fmt: skip
    """The pixels of each shape with its class, in the order in which they were drawn."""
    how = DrawSettings(settings.line_width, settings.point_radius)
    regions = []
    for shape in annotation.shapes:
        ignored = shape.label == IGNORED
        wanted = IGNORED if ignored else label_map.class_of(shape.label)
        if wanted is None:
            findings.note("dropped label", split, name, shape.label)
            continue
        region, found = draw(shape, size, how)
        for what in found:
            findings.note(what, split, name, shape.label)
        if region is None:
            continue
        if ignored and settings.to != "index-masks":
            findings.note("ignored", split, name, number=int(region.mask.sum()))
            continue
        if shape.kind in ("line", "point"):
            findings.note(f"drawn {shape.kind}", split, name, shape.label)
        if shape.crowd and settings.to == "instances":
            findings.note("crowd", split, name, shape.label)
        regions.append((wanted, region))
    return regions


def _write_report(folder: Path, settings: ConvertSettings, classes: Classes, findings: Findings) -> None:
    """Write report.md and report.csv."""
    facts = {
        "annotations": f"{settings.format} from {settings.input.as_posix()}",
        "written as": settings.to,
        "classes": ", ".join(f"{one.id} {one.name}" for one in classes.classes),
        "where shapes overlap": "both are kept" if settings.to == "organelles" else f"--overlap {settings.overlap}",
        "lines and points": f"{settings.line_width:g} px wide where no file says, radius {settings.point_radius:g} px",
    }
    page = findings.page(f"Conversion of {settings.output.name}", facts)
    (folder / "report.md").write_bytes(page.encode("utf-8"))
    (folder / "report.csv").write_bytes(findings.table().encode("utf-8"))


def _summary(settings: ConvertSettings, classes: Classes, findings: Findings) -> list[str]:
    """Lines for the shell."""
    images = ", ".join(f"{split} {findings.images[split]}" for split in NAMES if findings.images[split])
    shapes = Counter()
    for (_, name), (number, _, _) in findings.counts.items():
        shapes[name] += number
    lines = [f"{sum(findings.images.values())} images ({images})"]
    lines.append("shapes: " + ", ".join(f"{name} {shapes[name]}" for name in classes.names if name != BACKGROUND))
    lines += [f"warning: {line}" for line in findings.warnings()]
    shares = zip(NAMES, settings.split or DEFAULT, strict=True)
    lost = [split for split, share in shares if share > 0 and not findings.images[split]]
    lines += [f"warning: no image is left for {' and '.join(lost)}"] if lost else []
    written = ("report.md", "report.csv", *([OVERLAYS] if settings.overlays else []))
    return [*lines, f"written: {settings.output}", *(f"written: {settings.output / name}" for name in written)]


def _progress(things: Sequence, quiet: bool) -> Sequence:
    from tqdm import tqdm

    return tqdm(things, unit="image", leave=False, disable=True if quiet else None)
