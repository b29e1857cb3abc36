"""The layers of a run: EM, boundary probability, neurites, synapses, and the seeds of a split, in nm.

Nothing here changes the run. The layer of neurites shows the labels of the session through a `Drawing`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from emlib.proofread.boxes import Box
from emlib.proofread.session import Session
from emlib.proofread.window.drawing import Drawing
from emlib.proofread.window.stored import Stored

if TYPE_CHECKING:
    import napari

FIRST, SECOND = (0.90, 0.62, 0.0, 1.0), (0.34, 0.71, 0.91, 1.0)  # orange and sky blue of Okabe and Ito 2008
DIMMED, HIDDEN = (0.6, 0.6, 0.6, 0.25), (0.0, 0.0, 0.0, 0.0)
MARK_NM = 60.0  # across a synapse
SYMBOLS = {"undecided": "disc", "confirmed": "star", "rejected": "x"}
BORDERS = {"undecided": "white", "confirmed": "deepskyblue", "rejected": "crimson"}
SEED_BRUSH = 4  # pixels
MIDDLE = 0.8  # of the view: what lies in it is left where it is
VIEWED = ("z", "y", "x")


class Layers:
    """The layers of a session in a viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session

    Attributes
    ----------
    em, boundary : Image or None
        None where the run kept none.
    neurites, seeds : Labels
    synapses : Points
    """

    def __init__(self, viewer: napari.components.ViewerModel, session: Session) -> None:
        self.viewer, self.session = viewer, session
        files = session.files
        self._space = {"scale": session.voxel_size_nm, "units": ("nm",) * 3, "axis_labels": VIEWED}
        self.em = self.boundary = None
        if files.em is not None:
            em = Stored(files.em)
            self.em = viewer.add_image(
                em, name="EM", contrast_limits=em.grey_range(), colormap="gray", rgb=False, **self._space
            )
        if files.boundaries is not None:
            boundary = {"contrast_limits": (0, 1), "colormap": "magma", "blending": "additive", "opacity": 0.6}
            self.boundary = viewer.add_image(
                Stored(files.boundaries), name="boundary probability", visible=False, **boundary, **self._space
            )
        self.neurites = viewer.add_labels(Drawing(session.labels), name="neurites", opacity=0.4, **self._space)
        self._usual = self.neurites.colormap
        empty = np.broadcast_to(np.uint8(0), session.labels.shape)
        self.seeds = viewer.add_labels(Drawing(empty), name="seeds of a split", opacity=0.9, **self._space)
        self.seeds.brush_size, self.seeds.visible = SEED_BRUSH, False
        self.synapses = viewer.add_points(ndim=3, name="synapses", **self._space)
        for layer in self.all:
            layer.locked = True  # the window needs them all; they can be hidden
        self.draw_synapses()
        viewer.layers.selection.active = self.neurites

    @property
    def all(self) -> list[napari.layers.Layer]:
        """Those that there are."""
        there = (self.em, self.boundary, self.neurites, self.seeds, self.synapses)
        return [layer for layer in there if layer is not None]

    def draw_synapses(self, selected: str | None = None) -> None:
        """Show the synapses as they stand: coloured by score, symbol and border by decision, the selected one large."""
        table = self.session.synapses()
        layer = self.synapses
        chosen = (table["synapse"] == selected).to_numpy()
        across = MARK_NM / max(self.session.voxel_size_nm[1:])
        layer.data = table[["new_z", "new_y", "new_x"]].to_numpy(float)
        layer.editable = False  # a point that was dragged would be moved past the journal
        if not len(table):
            return
        from napari.utils.colormaps import ensure_colormap

        shown = table[["synapse", "score", "decision", "new_pre_id", "new_post_id"]]
        layer.features = shown.astype({"synapse": object, "decision": object})
        layer.face_color = ensure_colormap("viridis").map(table["score"].clip(0, 1).to_numpy())
        layer.symbol = [SYMBOLS[decision] for decision in table["decision"]]
        layer.border_color = [BORDERS[decision] for decision in table["decision"]]
        layer.border_width = np.where(chosen, 0.3, 0.15)
        layer.size = np.where(chosen, 1.4, 1.0) * across
        layer.refresh()

    def colour(self, ids: tuple[int, ...], hide_others: bool) -> None:
        """Show one or two neurites in orange and blue, the others dimmed or not at all; none: all in their colours."""
        if not ids:
            self.neurites.colormap = self._usual
            return
        from napari.utils.colormaps import DirectLabelColormap

        others = np.array(HIDDEN if hide_others else DIMMED)
        colours = {None: others, 0: np.array(HIDDEN)}
        colours |= {neurite: np.array(colour) for neurite, colour in zip(ids, (FIRST, SECOND), strict=False)}
        self.neurites.colormap = DirectLabelColormap(color_dict=defaultdict(lambda: others, colours))

    def refresh(self, box: Box | None) -> None:
        """Draw the neurites anew where a box is in view."""
        if box is None:
            return
        z = self.section
        if self.viewer.dims.ndisplay == 3 or tuple(self.viewer.dims.order) != (0, 1, 2) or box[0] <= z < box[1]:
            self.neurites.refresh(extent=False)

    @property
    def section(self) -> int:
        """The one in view."""
        z = round(self.viewer.dims.point[0] / self.session.voxel_size_nm[0])
        return min(max(int(z), 0), self.session.labels.shape[0] - 1)

    def voxel(self, position: tuple[float, ...]) -> tuple[int, int, int] | None:
        """Return the voxel z, y, x at a place in nm; None outside of the volume."""
        if len(position) != 3:
            return None
        at = np.rint(np.asarray(self.neurites.world_to_data(position))).astype(int)
        inside = ((at >= 0) & (at < self.session.labels.shape)).all()
        return tuple(map(int, at)) if inside else None

    def look_at(self, z: float, y: float | None = None, x: float | None = None) -> None:
        """Show a section; the camera moves only where a place in it lies outside of the middle of the view."""
        size = self.session.voxel_size_nm
        self.viewer.dims.set_point(0, z * size[0])
        if y is None or x is None:
            return
        camera, place = self.viewer.scene.camera, np.array([y * size[1], x * size[2]])
        seen = np.asarray(self.viewer.canvas.size) / camera.zoom
        if (np.abs(place - camera.center[1:]) > MIDDLE * seen / 2).any():
            camera.center = (0.0, *place)
