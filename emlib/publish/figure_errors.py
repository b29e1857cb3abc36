"""The figure of the worst merge and the worst split: EM, truth and prediction where it happens, in section and cut.

Only the ids at fault are painted; all others keep thin outlines, so that the eye finds the error and not the crowd.
The x–z cuts stand below the sections and share their x, so that an error can be followed from one into the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle

from emlib.publish.page import DPI, LINE, MARGIN, PANEL_PT, TEXT_PT, Page, scale_bar, set_extent
from emlib.publish.style import BLACK, GREEN, ORANGE, SKY, grey_range, grey_u8, outline, overlay, plural

WIDTH = 11.5  # inches
GAP = 0.16
CELL = (WIDTH - 2 * MARGIN - 2 * GAP) / 3  # three sections side by side
CAPTION = 0.26  # inches above each panel for its title
HEADING = 0.24  # inches above each row
MIN_CUT, MAX_CUT = 0.7, 2.8  # inches: flat cuts are stretched in z, tall ones get narrower
BAR = 0.8  # inches: a smaller picture has no room for a scale bar
STEP = 1.25 * TEXT_PT * LINE  # inches from one line of text to the next
GROUND = 196  # grey without EM
ALPHA = 0.45  # of the paint
ONE, PARTS = GREEN, (ORANGE, SKY)  # the id at fault, and the two ids that it joins or is cut into


@dataclass(frozen=True)
class ErrorView:
    """One merge or split and its surroundings.

    Parameters
    ----------
    kind : {"merge", "split"}
    truth, pred : (Z, Y, X) integer arrays
        The same box of both volumes; 0 is unlabelled.
    em : (Z, Y, X) array or None
        The same box of the EM.
    place : (z, y, x)
        Voxel of the box where the two parts meet or come nearest.
    origin : (z, y, x)
        The box's first voxel in the volume.
    one : int
        Merge: the predicted id. Split: the true id.
    parts : two ints
        Merge: the two largest true ids inside it. Split: the two largest predicted ids.
    bits : float
        What this error adds to VOI.
    voxels : two ints
        Overlap of ``one`` with each of the parts, in the whole volume.

    Raises
    ------
    ValueError
        If the kind is neither, the boxes differ in shape, the place lies outside of them, or the parts share an id.
    """

    kind: str
    truth: np.ndarray
    pred: np.ndarray
    em: np.ndarray | None
    place: tuple[int, int, int]
    origin: tuple[int, int, int]
    one: int
    parts: tuple[int, int]
    bits: float
    voxels: tuple[int, int]

    def __post_init__(self) -> None:
        if self.kind not in ("merge", "split"):
            raise ValueError(f"an error is a merge or a split, not {self.kind!r}")
        shapes = [box.shape for box in (self.truth, self.pred, self.em) if box is not None]
        if self.truth.ndim != 3 or len(set(shapes)) > 1:
            raise ValueError(f"truth, prediction and EM must be boxes of one shape (Z, Y, X), not {shapes}")
        if not all(0 <= at < side for at, side in zip(self.place, shapes[0], strict=True)):
            raise ValueError(f"the place {self.place} lies outside of the box {shapes[0]}")
        if int(self.parts[0]) == int(self.parts[1]):
            raise ValueError(f"the two parts have one id, {int(self.parts[0])}: nothing could tell them apart")

    @property
    def where(self) -> tuple[int, int, int]:
        """Return the place in voxels of the whole volume, (z, y, x)."""
        z, y, x = (int(first) + int(at) for first, at in zip(self.origin, self.place, strict=True))
        return z, y, x

    def colours(self, panel: str) -> dict[int, str]:
        """Return the ids to paint in a panel, ``"Truth"`` or ``"Prediction"``, and their colours; none in any other."""
        if panel not in ("Truth", "Prediction"):
            return {}
        if (panel == "Prediction") == (self.kind == "merge"):
            return {int(self.one): ONE}
        return {int(part): colour for part, colour in zip(self.parts, PARTS, strict=True)}


def figure_errors(
    views: Sequence[ErrorView], voxel_size_nm: tuple[float, float, float] | None, note: str | None = None
) -> Figure:
    """Show merges and splits: EM, truth and prediction in the section of the place, and x–z cuts through it.

    Parameters
    ----------
    views : sequence of ErrorView
        One row each, merges first. Without any the figure says that none was found.
    voxel_size_nm : (z, y, x) or None
        None: voxels are drawn as cubes and there are no scale bars.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure

    Examples
    --------
    >>> truth = np.array([[[1, 1, 2, 2]]])
    >>> view = ErrorView("merge", truth, truth * 0 + 7, None, (0, 0, 1), (0, 0, 0), 7, (1, 2), 1.0, (2, 2))
    >>> figure_errors([view], (40, 4, 4)).get_suptitle()
    'The worst merge'
    """
    if not views:
        page = Page(WIDTH, 1.3, "No merge and no split", note)
        text = "No merge and no split was found among the voxels that the truth labels."
        page.message(MARGIN, 0.1, WIDTH - 2 * MARGIN, 1.0, text)
        return page.figure
    views = sorted(views, key=lambda view: view.kind != "merge")
    size = (1.0, 1.0, 1.0) if voxel_size_nm is None else tuple(float(side) for side in voxel_size_nm)
    planes = [_planes(view, size) for view in views]
    facts = [_facts(view) for view in views]
    heights = [_height(*row) for row in zip(views, planes, map(len, facts), strict=True)]
    drawn = "Voxels of {:g} × {:g} × {:g} nm (z, y, x)." if voxel_size_nm else "Voxel size not known: drawn as cubes."
    page = Page(
        WIDTH,
        sum(heights),
        _title([view.kind for view in views]),
        note,
        "Painted are the ids named in each row, thin lines outline all others. Rings mark where the two parts come "
        f"nearest. In x–z cuts z runs down. {drawn.format(*size)}",
    )
    top = 0.0
    for view, sheets, lines, height in zip(views, planes, facts, heights, strict=True):
        _draw_row(page, top, view, sheets, size[2] if voxel_size_nm else None)
        _write_facts(page, top + _facts_top(view, sheets), lines)
        top += height
    return page.figure


def _title(kinds: list[str]) -> str:
    """Say what is shown: the worst merge and the worst split."""
    numbers = {kind: kinds.count(kind) for kind in ("merge", "split")}
    named = [f"the worst {kind}" if n == 1 else f"the {plural(n, f'worst {kind}')}" for kind, n in numbers.items() if n]
    title = " and ".join(named)
    return title[0].upper() + title[1:]


@dataclass(frozen=True)
class _Plane:
    """A plane through the place: how it is cut from the box, where the place lies in it, and its panels on the page."""

    index: tuple
    mark: tuple[int, int]  # x and row of the place
    title: str
    letters: str  # of its panels
    width: float  # inches
    height: float
    down: float  # inches from the top of the row


def _planes(view: ErrorView, size: tuple[float, float, float]) -> list[_Plane]:
    """Lay out the section and, unless it is the only one, the x–z cut below it."""
    (z, y, x), at = view.place, view.where
    depth, height, width = (n * side for n, side in zip(view.truth.shape, size, strict=True))
    w, h = min(CELL, CELL * width / height), min(CELL, CELL * height / width)
    letters = ("ab", "cd") if view.em is None else ("abc", "de")
    section = _Plane(np.s_[z, :, :], (x, y), f"z = {at[0]}", letters[0], w, h, HEADING + CAPTION)
    if len(view.truth) == 1:
        return [section]
    tall = w * depth / width
    cut = w * min(1.0, MAX_CUT / tall), min(max(tall, MIN_CUT), MAX_CUT)
    stretch = cut[1] / cut[0] * width / depth
    title = f"x–z at y = {at[1]}" + (f", z × {stretch:.1f}" if stretch > 1.01 else "")
    return [section, _Plane(np.s_[:, y, :], (x, z), title, letters[1], *cut, section.down + h + 0.08 + CAPTION)]


def _facts_top(view: ErrorView, planes: list[_Plane]) -> float:
    """Return where the lines of text begin, inches below the top of the row: below the EM, or in its place."""
    return planes[0].down + (0.0 if view.em is None else planes[0].height + 0.14)


def _height(view: ErrorView, planes: list[_Plane], lines: int) -> float:
    """Return the height of a row in inches."""
    return max(_facts_top(view, planes) + lines * STEP, planes[-1].down + planes[-1].height) + 0.22


def _draw_row(page: Page, top: float, view: ErrorView, planes: list[_Plane], nm: float | None) -> None:
    """Draw the panels of one error; ``nm`` is the voxel size along x, None for no scale bars."""
    words = _words(view)
    verb = "joins" if view.kind == "merge" else "is cut into"
    heading = f"{view.kind.capitalize()}: {words[0]} {verb} {words[1]} and {words[2]}"
    page.text(MARGIN, top + 0.03, heading, size=PANEL_PT + 1, fontweight="bold")
    em = np.full(view.truth.shape, GROUND, np.uint8)
    if view.em is not None:
        em = grey_u8(view.em, *grey_range(view.em[view.place[0]]))
    names = {"EM": view.truth, "Truth": view.truth, "Prediction": view.pred}
    for plane in planes:
        shown = list(names)[-len(plane.letters) :]
        for name, letter in zip(shown, plane.letters, strict=True):
            colours = view.colours(name)
            ids = names[name][plane.index]
            picture = _painted(em[plane.index], ids if colours else 0 * ids, colours, (plane.height, plane.width))
            left = MARGIN + list(names).index(name) * (CELL + GAP)
            box = (left, top + plane.down, plane.width, plane.height)
            axes = page.picture(*box, picture, f"{letter}  {name}, {plane.title}")
            _finish(axes, view, plane, nm)
            for one, colour in colours.items():
                line = PathPatch(outline(ids == one), fill=False, edgecolor=colour, linewidth=1.4, capstyle="round")
                axes.add_artist(line)  # add_patch would measure each of the many pieces


def _painted(grey: np.ndarray, labels: np.ndarray, colours: dict[int, str], inches: tuple[float, float]) -> np.ndarray:
    """Return thin outlines of all ids over EM, and the ids of ``colours`` painted; 1.3 pixels per printed pixel."""
    rows, columns = (max(2, round(side * DPI * 1.3)) for side in inches)
    # Without paint the palette plays no part, whatever the ids. 64 greys × 3 paints: a PDF stores pictures of at most
    # 256 colours by index, a third of the bytes.
    picture = overlay(grey, labels, (rows, columns), alpha=0) & 0xFC
    nearest = np.ix_(np.arange(rows) * labels.shape[0] // rows, np.arange(columns) * labels.shape[1] // columns)
    ids = labels[nearest]
    for one, colour in colours.items():
        here = ids == one
        picture[here] = picture[here] * (1 - ALPHA) + np.float32(255 * ALPHA) * np.float32(to_rgb(colour))
    return picture


def _finish(axes: Axes, view: ErrorView, plane: _Plane, nm: float | None) -> None:
    """Give a panel the box's coordinates, the ring, and a scale bar where there is room for it."""
    set_extent(axes, view.truth[plane.index].shape)
    x, y = plane.mark
    for colour, points in ((BLACK, 3.4), ("white", 1.7)):
        ring = axes.scatter([x], [y], s=190, facecolors="none", edgecolors=colour, linewidths=points, zorder=7)
        ring.set_gid("place")
    if nm and min(plane.width, plane.height) >= BAR:
        scale_bar(axes, nm)


def _words(view: ErrorView) -> list[str]:
    """Name the id at fault and its two parts: predicted 7, true 8, true 9."""
    owner, part = ("predicted", "true") if view.kind == "merge" else ("true", "predicted")
    return [f"{owner} {int(view.one)}", *(f"{part} {int(one)}" for one in view.parts)]


def _facts(view: ErrorView) -> list[tuple[str | None, str]]:
    """Return lines of text, each with the colour of the square before it: ids, voxels, the place, bits."""
    section = {name: labels[view.place[0]] for name, labels in (("Truth", view.truth), ("Prediction", view.pred))}
    unseen = {
        colour: "" if (section[name] == one).any() else f", none at z = {view.where[0]}"
        for name in section
        for one, colour in view.colours(name).items()
    }
    words, voxels = _words(view), ["", *(f": {plural(n, 'voxel')} in common" for n in view.voxels)]
    lines: list[tuple[str | None, str]] = []
    for word, common, colour in zip(words, voxels, (ONE, *PARTS), strict=True):
        first, *rest = textwrap.wrap(word + common + unseen[colour], 56)
        lines += [(colour, first), *((None, f"     {more}") for more in rest)]
    lines.append((None, f"Place (z, y, x): {', '.join(map(str, view.where))} in voxels of the volume"))
    lines.append((None, f"Adds {view.bits:.3g} bits to VOI {view.kind}"))
    return lines if view.em is not None else [*lines, (None, "No EM was given: labels on a grey ground")]


def _write_facts(page: Page, top: float, facts: list[tuple[str | None, str]]) -> None:
    """Write the lines into the first column, a square of colour before each id."""
    side = 0.1
    for colour, text in facts:
        if colour:
            corner = MARGIN / page.width, page.from_top(top + 0.028 + side)
            square = Rectangle(corner, side / page.width, side / page.height, color=colour)
            square.set_transform(page.figure.transFigure)
            page.figure.add_artist(square)
        page.text(MARGIN + (0.18 if colour else 0), top, text)
        top += STEP
