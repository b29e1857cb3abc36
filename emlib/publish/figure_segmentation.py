"""Figure 5: from boundaries to neurites in three planes: EM, boundary probability, fragments, what they were joined to.

A gap in a boundary, a fragment across a membrane, two neurites joined: each shows in the column where it happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from emlib.publish.figure_stages import CAPTION, GAP, MIN_CUT, WIDTH, mark_cuts, paint_labels, paint_map
from emlib.publish.page import MARGIN, Page, scale_bar, set_extent
from emlib.publish.style import ORANGE, count, grey_range, grey_u8, shrink
from emlib.volumes.volume import near_isotropic

if TYPE_CHECKING:
    from emlib.stages.fragment_planes import FragmentPlanes

MAX_SECTION, MAX_CUT = 3.4, 2.3  # inches: taller pictures become narrower
MAX_PIXELS = 600  # of a grey picture's longer side
STRENGTH = 0.95  # of the colour where a boundary is certain


def figure5(
    aligned: np.ndarray,
    boundaries: np.ndarray,
    fragments: FragmentPlanes | None,
    labels: np.ndarray,
    voxel_size_nm: tuple[float, float, float],
    used: str = "",
    note: str | None = None,
) -> Figure:
    """Show EM, boundary probability, fragments and neurites in the three planes through the middle.

    Parameters
    ----------
    aligned : (Z, Y, X) array
    boundaries : (Z, Y, X) float array in [0, 1]
    fragments : FragmentPlanes or None
        Before they were joined; None leaves their column out.
    labels : (Z, Y, X) integer array
        Neurites; 0 is background.
    voxel_size_nm : (z, y, x)
    used : str
        What made boundaries and neurites, for the subtitle.
    note : str, optional
        Goes first into the title.

    Returns
    -------
    Figure
    """
    depth, height, width = labels.shape
    vz, vy, vx = voxel_size_nm
    columns = 3 + (fragments is not None)
    cell = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    rows = [("x–y", np.s_[depth // 2], f"z = {depth // 2}", (height * vy, width * vx), vx)]
    if depth > 1:
        rows.append(("x–z", np.s_[:, height // 2], f"y = {height // 2}", (depth * vz, width * vx), vx))
        rows.append(("y–z", np.s_[:, :, width // 2], f"x = {width // 2}", (depth * vz, height * vy), vy))
    boxes = [_box(cell, row[3], MAX_CUT if at else MAX_SECTION) for at, row in enumerate(rows)]
    total = sum(CAPTION + tall + 0.12 for _, tall in boxes)
    flat = depth > 1 and fragments is not None and not near_isotropic(voxel_size_nm)
    parts = "boundaries, fragments and neurites" if fragments is not None else "boundaries and neurites"
    page = Page(
        WIDTH,
        total,
        f"Figure 5. From EM to neurites: {parts} in three planes",
        note,
        f"{used}{' ' if used else ''}Orange: boundary probability, full colour at 1. One colour per id, white lines "
        f"between ids. Yellow ticks mark the cuts; in cuts z runs down."
        + (" In a volume as anisotropic as this a fragment lies in one section." if flat else ""),
    )
    low_high = grey_range(aligned[depth // 2])
    letters, top = iter("abcdefghijkl"), CAPTION
    for at, ((plane, index, where, real, step), (wide, tall)) in enumerate(zip(rows, boxes, strict=True)):
        em, ids = grey_u8(aligned[index], *low_high), labels[index]
        stretch = tall / wide * real[1] / real[0]
        named = f"{plane} at {where}" + (f", z × {stretch:.1f}" if stretch > 1.01 else "")
        pieces = None if fragments is None else getattr(fragments, plane.replace("–", ""))
        panels = _panels(em, boundaries[index], pieces, ids, (tall, wide), named)
        for column, (title, picture) in enumerate(panels):
            left = MARGIN + column * (cell + GAP) + (cell - wide) / 2
            axes = page.picture(left, top, wide, tall, picture, f"{next(letters)}  {title}")
            set_extent(axes, ids.shape)
            scale_bar(axes, step)
            if not at and column == 0 and len(rows) > 1:
                mark_cuts(axes, height // 2, width // 2)
        top += tall + CAPTION + 0.12
    return page.figure


def _panels(
    em: np.ndarray,
    boundary: np.ndarray,
    fragments: np.ndarray | None,
    labels: np.ndarray,
    inches: tuple[float, float],
    named: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield title and picture of each panel of a row."""
    yield f"EM, {named}", shrink(em, MAX_PIXELS)
    yield "Boundary probability", paint_map(em, boundary, 255 * np.array(to_rgb(ORANGE)), STRENGTH, inches)
    if fragments is not None:
        yield f"Fragments ({count(_ids(fragments))} here)", paint_labels(em, fragments, inches)
    yield f"Neurites ({count(_ids(labels))} here)", paint_labels(em, labels, inches)


def _ids(labels: np.ndarray) -> int:
    return np.unique(labels[labels > 0]).size


def _box(cell: float, real: tuple[float, float], tallest: float) -> tuple[float, float]:
    """Width and height in inches of a picture of so many nm (down, across) in a cell."""
    wide, tall = cell, cell * real[0] / real[1]
    if tall > tallest:
        wide, tall = wide * tallest / tall, tallest
    return wide, max(tall, MIN_CUT)
