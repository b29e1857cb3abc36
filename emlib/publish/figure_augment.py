"""A contact sheet of augmented patches: the outlines of their masks on the EM, as a network is going to be taught."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emlib.measure.masks.outlines import outline
from emlib.publish.page import LINE, MARGIN, TEXT_PT, Page, set_extent
from emlib.publish.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALETTE,
    SKY,
    VERMILLION,
    YELLOW,
    grey_range,
    grey_u8,
)

WIDTH, NARROW = 11.5, 5.0  # inches, of the widest and of the narrowest page
GAP, COLUMNS, WIDEST = 0.12, 6, 3.2  # inches between panels; panels in a row, and inches across one, at most
ROW = 2.2 * TEXT_PT * LINE  # of the legend
CAPTION = 1.3 * TEXT_PT * LINE  # below a panel that lacks an organelle
SIDE, AFTER = 0.11, 0.25  # of a square of the legend; from one entry to the next
EM = 0.55 * TEXT_PT / 72  # inches that a character takes
DETAIL = 512  # pixels: a shorter patch is magnified, so that outlines are thinner than its pixels
THICK, STRIPE = 3, 6  # pixels of the magnified patch
MAGENTA = "#E040C8"  # purple that shows as a line on grey
COLOURS = (ORANGE, SKY, YELLOW, VERMILLION, GREEN, MAGENTA, BLUE, "#FFFFFF")
BACKGROUND = "background"  # of classes: what all the others leave, which needs no outline


def figure_augment(
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str] | None = None,
    title: str = "Augmented patches",
) -> Figure:
    """Draw a grid of patches with the outlines of their masks.

    Parameters
    ----------
    images : (N, Y, X) or (N, 1, Y, X) float array in [0, 1]
        All are stretched alike, so that their differences in grey can be seen.
    masks : (N, E, Y, X) float array
        0, 1, and NaN where nobody annotated. An outline is the innermost pixels of its mask; where masks overlap, that
        of the later organelle is on top. Pixels of which something is not known are hatched; an organelle that a whole
        patch knows nothing of is named below it instead.
    names : (E,) str
        Of organelles or classes; a first one called background is not outlined.
    colours : (E,) colours of matplotlib, optional
        Default: eight that stay apart in the common forms of colour blindness, then their tints.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is no patch, or shapes or numbers do not fit.

    Examples
    --------
    >>> figure = figure_augment(np.zeros((3, 64, 64)), np.zeros((3, 2, 64, 64)), ["membranes", "synapses"])
    >>> len(figure.axes)
    3
    """
    images, masks = np.asarray(images), np.asarray(masks)
    images = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
    if images.ndim != 3 or not len(images) or masks.shape != (len(images), len(names), *images.shape[1:]):
        raise ValueError(f"images {images.shape} and masks {masks.shape} of {len(names)} names do not fit")
    colours = default_colours(len(names)) if colours is None else list(colours)
    if len(colours) != len(names):
        raise ValueError(f"{len(names)} names and {len(colours)} colours")
    first = int(names[0] == BACKGROUND) if len(names) else 0
    masks, names, colours = masks[:, first:], list(names[first:]), colours[first:]
    unknown = np.isnan(masks)
    lacking = unknown.all((2, 3)) & ~unknown.all((1, 2, 3))[:, None]  # (N, E); all at once is hatched
    hatched = (unknown & ~lacking[..., None, None]).any(1)

    columns = min(math.ceil(math.sqrt(len(images))), COLUMNS)
    wide = min((WIDTH - 2 * MARGIN + GAP) / columns - GAP, WIDEST)
    high = wide * images.shape[1] / images.shape[2]
    width = max(2 * MARGIN + columns * (wide + GAP) - GAP, NARROW)
    entries = list(_placed(names, colours, bool(hatched.any()), width))
    top = (entries[-1][1] + 1 if entries else 0) * ROW
    lacks_any = [lacking[i : i + columns].any() for i in range(0, len(images), columns)]
    tops = [top, *(top + np.cumsum([high + GAP + CAPTION * int(lacks) for lacks in lacks_any]))]
    subtitle = "Outlines are those of the masks, which the network is to learn."
    page = Page(width, tops[-1], title, subtitle=subtitle)
    for entry in entries:
        _draw_entry(page, *entry)
    grey = grey_range(images.reshape(-1, images.shape[-1]))
    for i, image in enumerate(images):
        x, y = MARGIN + i % columns * (wide + GAP), tops[i // columns]
        picture = _outlined(grey_u8(image, *grey), masks[i], colours, hatched[i])
        set_extent(page.picture(x, y, wide, high, picture, ""), image.shape)
        if lacking[i].any():
            lacks = [name for name, lacked in zip(names, lacking[i], strict=True) if lacked]
            page.text(x, y + high + 0.02, _shortened(f"not annotated: {', '.join(lacks)}", wide))
    return page.figure


def default_colours(count: int) -> list[str]:
    """Return as many colours, ``#RRGGBB``, the first eight far apart."""
    tints = ["#" + "".join(f"{round(float(value)):02X}" for value in colour) for colour in PALETTE[7:]]
    more = [tints[i % len(tints)] for i in range(max(count - len(COLOURS), 0))]
    return [*COLOURS, *more][:count]


def _outlined(grey: np.ndarray, masks: np.ndarray, colours: Sequence[str], hatched: np.ndarray) -> np.ndarray:
    """The magnified patch with stripes and outlines, (H, W, 3) uint8."""
    factor = max(1, round(DETAIL / max(grey.shape)))

    def magnified(plane: np.ndarray) -> np.ndarray:
        return plane.repeat(factor, -2).repeat(factor, -1)

    picture = np.repeat(magnified(grey)[..., None], 3, axis=2)
    if hatched.any():
        y, x = np.indices(picture.shape[:2], sparse=True)
        stripes = magnified(hatched) & ((x + y) // STRIPE % 3 == 0)
        picture[stripes] = picture[stripes] // 4 + np.uint8(170)
    for mask, colour in zip(masks, colours, strict=True):
        inside = magnified(mask > 0.5)  # NaN is not
        line = inside & False
        for _ in range(min(factor + 1, THICK)):
            line |= outline(inside & ~line)
        picture[line] = np.round(255 * np.array(to_rgb(colour))).astype(np.uint8)
    return picture


def _placed(
    names: Sequence[str], colours: Sequence[str], hatched: bool, width: float
) -> Iterator[tuple[float, int, str, str | None]]:
    """Entries of the legend: inches from the left, row, text, and colour (None: hatched)."""
    entries = [*zip(names, colours, strict=True)] + [("not annotated", None)] * hatched
    left, row = MARGIN, 0
    for text, colour in entries:
        text = _shortened(text, width - 2 * MARGIN - 0.18)
        long = 0.18 + len(text) * EM
        if left > MARGIN and left + long > width - MARGIN:
            left, row = MARGIN, row + 1
        yield left, row, text, colour
        left += long + AFTER


def _draw_entry(page: Page, left: float, row: int, text: str, colour: str | None) -> None:
    """A square and what it stands for; a dark rim makes pale ones visible on white."""
    corner = left / page.width, page.from_top(row * ROW + 0.028 + SIDE)
    paint = {"facecolor": colour} if colour else {"facecolor": "white", "hatch": "/////"}
    square = Rectangle(corner, SIDE / page.width, SIDE / page.height, edgecolor=INK, linewidth=0.6, **paint)
    square.set_transform(page.figure.transFigure)
    page.figure.add_artist(square)
    page.text(left + 0.18, row * ROW + 0.02, text)


def _shortened(text: str, width: float) -> str:
    """As much of a text as so many inches hold."""
    room = max(int(width / EM), 4)
    return text if len(text) <= room else text[: room - 1].rstrip(", ") + "…"
