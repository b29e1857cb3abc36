"""A figure's page: a title with the note about synthetic data, panels placed in inches, scale bars, and saving.

Everything is placed by arithmetic, so that a figure is drawn once per file: matplotlib's layout engines and
``bbox_inches="tight"`` draw it twice. ``pyplot`` is not used: it keeps global state and is slow to import.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import NullLocator
from PIL import Image

from emlib.publish.style import BLACK, INK, YELLOW
from emlib.runs.artefacts import Outputs
from emlib.volumes.atomic import atomic_path

DPI = 130
TITLE_PT, PANEL_PT, TEXT_PT = 12, 9, 8
MARGIN = 0.2  # inches left free at the sides of the page
SPACING = 1.45  # matplotlib's line spacing, which makes lines 1.32 times their point size apart
LINE = 1.32 / 72  # the same in inches per point


class Page:
    """A figure with a header, whose panels are placed in inches from the top left corner below the header.

    Parameters
    ----------
    width, height : float
        Size in inches of the space for panels; the header comes on top.
    title : str
        What the figure shows.
    note : str, optional
        Printed first in the title on a yellow band: "SYNTHETIC PHANTOM: …".
    subtitle : str, optional
        One or more lines of smaller text below the title.
    """

    def __init__(self, width: float, height: float, title: str, note: str | None = None, subtitle: str = "") -> None:
        # DejaVu Sans is on average 0.53 of its size wide per character, 0.63 in bold.
        def wrap(text: str, size: float, em: float = 0.63) -> list[str]:
            return textwrap.wrap(text, max(20, int((width - 2 * MARGIN) * 72 / (size * em))))

        note_lines, title_lines = wrap(note or "", TITLE_PT), wrap(title, TITLE_PT)
        sub_lines = wrap(subtitle, TEXT_PT + 0.5, 0.52)
        band = len(note_lines) * TITLE_PT * LINE
        pad = (0 if note_lines else 4) / 72
        titles = band + pad + len(title_lines) * TITLE_PT * LINE
        head = titles + len(sub_lines) * (TEXT_PT + 0.5) * LINE + 12 / 72
        self.width, self.height = width, height + head
        self._head = head
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        if note_lines:
            bottom = 1 - (band + 4 / 72) / self.height
            self.figure.add_artist(
                Rectangle((0, bottom), 1, 1 - bottom, color=YELLOW, transform=self.figure.transFigure, zorder=0)
            )
        self.figure.suptitle(
            "\n".join(note_lines + title_lines),
            x=MARGIN / self.width,
            y=1 - (1 / 72 + pad) / self.height,
            ha="left",
            va="top",
            fontsize=TITLE_PT,
            fontweight="bold",
            color=INK,
            linespacing=SPACING,
        )
        if sub_lines:
            self.text(MARGIN, titles + 4 / 72 - head, "\n".join(sub_lines), size=TEXT_PT + 0.5, linespacing=SPACING)

    def from_top(self, y: float) -> float:
        """Return inches below the header as a fraction of the figure's height, counted from its bottom."""
        return 1 - (self._head + y) / self.height

    def text(self, x: float, y: float, text: str, size: float = TEXT_PT, **style) -> None:
        """Write text whose top left corner is ``x, y`` inches right of and below the panel space's corner."""
        style = {"ha": "left", "va": "top", "color": INK, "fontsize": size, **style}
        self.figure.text(x / self.width, self.from_top(y), text, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes whose top left corner is ``x, y`` inches right of and below the panel space's corner."""
        box = (x / self.width, self.from_top(y + height), width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def picture(self, x: float, y: float, width: float, height: float, image: np.ndarray, title: str) -> Axes:
        """Add an image that fills its box, without ticks; ``image`` is uint8, grey (H, W) or colour (H, W, 3)."""
        axes = self.axes(x, y, width, height)
        axes.set_axis_off()
        for axis in (axes.xaxis, axes.yaxis):  # ticks that nobody sees take a third of the time
            axis.set_major_locator(NullLocator())
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="auto")
        self.text(x, y - 4 / 72, title, size=PANEL_PT, va="bottom")
        return axes

    def message(self, x: float, y: float, width: float, height: float, text: str) -> None:
        """Write a sentence into the middle of a grey box where a panel would be."""
        top = self.from_top(y)
        box = Rectangle(
            (x / self.width, top - height / self.height),
            width / self.width,
            height / self.height,
            facecolor="#F4F4F4",
            edgecolor="#BBBBBB",
            transform=self.figure.transFigure,
        )
        self.figure.add_artist(box)
        lines = "\n".join(textwrap.wrap(text, max(12, int(width * 72 / (PANEL_PT * 0.62)) - 2)))
        self.text(x + width / 2, y + height / 2, lines, size=PANEL_PT + 1, ha="center", va="center")


def set_extent(axes: Axes, shape: tuple[int, int]) -> None:
    """Give a picture the coordinates of the (rows, columns) it was made from, whatever its number of pixels."""
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    axes.images[0].set_extent(extent)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar as drawn: its length along x in the axes' data units, in nm, and its label."""

    length: float
    nm: float
    label: str


def nice_length(span_nm: float) -> float:
    """Return the length 1, 2 or 5 times a power of ten that is closest below 35 % of the span.

    Examples
    --------
    >>> nice_length(2500), nice_length(600)
    (500.0, 200.0)
    """
    target = 0.35 * span_nm
    decade = 10.0 ** np.floor(np.log10(target))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= target))


def length_label(nm: float) -> str:
    """Write a length with its unit.

    Examples
    --------
    >>> length_label(500), length_label(2000)
    ('500 nm', '2 µm')
    """
    return f"{nm / 1000:g} µm" if nm >= 1000 else f"{nm:g} nm"


def scale_bar(axes: Axes, nm_per_unit: float) -> ScaleBar:
    """Draw a horizontal scale bar with its label into the lower left corner of a picture.

    Parameters
    ----------
    axes : Axes
        Its limits are in voxels and set.
    nm_per_unit : float
        Voxel size along the horizontal axis.

    Returns
    -------
    ScaleBar
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    box = axes.get_window_extent()
    x_pt = (right - left) / (box.width / axes.figure.dpi * 72)  # data units per point
    y_pt = (top - bottom) / (box.height / axes.figure.dpi * 72)
    nm = nice_length(abs(right - left) * nm_per_unit)
    label, length = length_label(nm), nm / nm_per_unit
    # The plate is as wide as the longer of the bar and its label.
    plate = max(length / x_pt, len(label) * TEXT_PT * 0.62) + 8
    x, y = left + 4 * x_pt, bottom + 4 * y_pt
    axes.add_patch(Rectangle((x, y), plate * x_pt, 18 * y_pt, color=BLACK, alpha=0.65, linewidth=0, zorder=5))
    x += plate / 2 * x_pt
    bar = Rectangle((x - length / 2, y + 3 * y_pt), length, 2.5 * y_pt, color="white", linewidth=0, zorder=6)
    bar.set_gid("scale_bar")
    axes.add_patch(bar)
    axes.text(x, y + 7 * y_pt, label, color="white", fontsize=TEXT_PT, ha="center", va="bottom", zorder=6)
    return ScaleBar(length, nm, label)


def save_figure(figure: Figure, folder: Path | str, name: str) -> list[Path]:
    """Write a figure as ``name.png`` and ``name.pdf``; equal figures give equal bytes.

    Parameters
    ----------
    figure : Figure
    folder : path
        Made if missing.
    name : str
        Without suffix.

    Returns
    -------
    list of two paths, PNG first
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    dpi = figure.dpi
    _set_font(figure)
    # Canvases are called directly: Figure.savefig rehearses every drawing once before it draws.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with atomic_path(png) as path:
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        picture.save(path, format="png", compress_level=2, dpi=(dpi, dpi))
    _set_font(figure)  # drawing has made new tick labels
    # In the PDF pictures keep their own pixels; the reader's screen or printer scales them.
    images = [image for axes in figure.axes for image in axes.images]
    before = [image.get_interpolation() for image in images]
    try:
        for image in images:
            image.set_interpolation("none")
        with atomic_path(pdf) as path:
            FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None, "Producer": None})
    finally:  # print_pdf leaves the figure at 72 dpi
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure)  # a fresh one, so that the drawing's memory is free at once
        for image, interpolation in zip(images, before, strict=True):
            image.set_interpolation(interpolation)
    return [png, pdf]


def put_figure(outputs: Outputs, figure: Figure, name: str, what: str) -> list[Path]:
    """Write a figure into ``figures/`` of a run's folder, and note there what it shows; as `save_figure` else."""
    paths = save_figure(figure, outputs.path("figures"), name)
    for path in paths:
        outputs.note(f"figures/{path.name}", what)
    return paths


def _set_font(figure: Figure) -> None:
    """Name one font that comes with matplotlib: looks and bytes depend on no setting, and no fallback is searched."""
    for text in figure.findobj(Text):
        text.set_fontfamily("DejaVu Sans")
