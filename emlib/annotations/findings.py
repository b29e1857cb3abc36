"""What a conversion found: counts of each class in each split, and all that was odd, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from emlib.annotations.splits import NAMES

# What may be found, and what was done about it; the order is that of the report.
MEANINGS = {
    "missing image": "no image for an annotation; left out (--skip_missing)",
    "unannotated image": "no annotation for an image; left out",
    "empty": "an annotation without shapes; the image is background throughout",
    "dropped label": "the label map drops these shapes",
    "degenerate": "fewer than three corners, or no area; left out",
    "mended": "polygons that cross themselves; made the union of what their loops enclose (GEOS MakeValid, structure)",
    "clipped": "shapes that reach outside of the image; cut off at its border",
    "outside": "shapes wholly outside of the image; left out",
    "no pixel": "shapes too small to hold the centre of a pixel; left out",
    "overlap": "pixels under shapes of several classes",
    "hidden": "objects wholly under others; no pixel has their number",
    "crowd": "regions of several objects (iscrowd); not numbered",
    "drawn line": "lines drawn with a width (their own, else --line_width)",
    "drawn point": "points drawn as discs (--point_radius)",
    "ignored": "pixels that nobody annotated, which the output cannot tell from background",
    "image": "what was done to the image",
    "note": "what the reader left out or changed",
}


@dataclass
class Findings:
    """Collects what a conversion finds; memory grows with the number of findings, not of pixels."""

    rows: Counter = field(default_factory=Counter)  # (what, split, image, label, detail) -> number
    counts: defaultdict = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))  # shapes, images, pixels
    images: Counter = field(default_factory=Counter)  # split -> images

    def note(self, what: str, split: str, image: str, label: str = "", number: int = 1, detail: str = "") -> None:
        """Add to the number of times that this was found; ``what`` is a key of ``MEANINGS``."""
        if what not in MEANINGS:
            raise KeyError(what)
        self.rows[what, split, image, label, detail] += number

    def count(self, split: str, shapes: dict[str, int], pixels: dict[str, int]) -> None:
        """Add an image: the shapes of each class, and the pixels that the output gives it."""
        self.images[split] += 1
        for name, number in shapes.items():
            self.counts[split, name][0] += number
            self.counts[split, name][1] += number > 0
            self.counts[split, name][2] += pixels.get(name, 0)

    def total(self, what: str) -> int:
        """How many times this was found."""
        return sum(number for (kind, *_), number in self.rows.items() if kind == what)

    def table(self) -> str:
        """Return the CSV: what, split, image, label, number, detail; ``shapes``, ``images``, ``pixels`` first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("what", "split", "image", "label", "number", "detail"))
        for split, number in self._in_order(self.images):
            writer.writerow(("images", split, "", "", number, ""))
        for (split, name), values in self._in_order(self.counts):
            for what, number in zip(("shapes", "images", "pixels"), values, strict=True):
                writer.writerow((what, split, "", name, number, ""))
        for (what, split, image, label, detail), number in self._sorted_rows():
            writer.writerow((what, split, image, label, number, detail))
        return text.getvalue()

    def page(self, title: str, facts: dict[str, str]) -> str:
        """Return the report as Markdown: facts, counts, then each kind of finding with the first images it was in."""
        lines = [f"# {title}", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
        splits = [split for split in NAMES if self.images[split]]
        lines += [
            "## Images and shapes",
            "",
            "| class | " + " | ".join(splits) + " |",
            "|---" * (1 + len(splits)) + "|",
        ]
        lines.append("| images | " + " | ".join(str(self.images[split]) for split in splits) + " |")
        for name in dict.fromkeys(name for _, name in self.counts):
            cells = ["{} shapes in {} images, {} px".format(*self.counts[split, name]) for split in splits]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines += ["", "## Findings", ""]
        grouped: dict[str, list[str]] = defaultdict(list)
        for (what, split, image, label, detail), number in self._sorted_rows():
            where = "/".join(part for part in (split, image) if part)
            words = [where, label, f"× {number}" if number != 1 else "", detail]
            grouped[what].append(" ".join(word for word in words if word))
        if not grouped:
            lines.append("None.")
        for what, places in grouped.items():
            more = f"; and {len(places) - 10} more, see report.csv" if len(places) > 10 else ""
            lines.append(f"- **{what}**: {self.total(what)}, {MEANINGS[what]}. {'; '.join(places[:10])}{more}")
        return "\n".join(lines) + "\n"

    def warnings(self) -> list[str]:
        """Return one line for each kind of finding that cost something that was annotated."""
        serious = (
            "missing image",
            "unannotated image",
            "empty",
            "degenerate",
            "mended",
            "clipped",
            "outside",
            "no pixel",
        )
        serious += ("hidden", "crowd", "ignored")
        return [f"{what}: {self.total(what)}, {MEANINGS[what]}" for what in serious if self.total(what)]

    def _sorted_rows(self) -> list:
        rank = {what: place for place, what in enumerate(MEANINGS)}
        return sorted(self.rows.items(), key=lambda item: (rank[item[0][0]], *item[0][1:]))

    @staticmethod
    def _in_order(counts) -> list:
        rank = {split: place for place, split in enumerate(NAMES)}
        return sorted(counts.items(), key=lambda item: rank[item[0] if isinstance(item[0], str) else item[0][0]])
