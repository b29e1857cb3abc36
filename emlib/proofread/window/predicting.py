"""A live prediction as a layer: of the section in view, or of a box around what is in view."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from emlib.errors import UserError
from emlib.proofread.boxes import Box

if TYPE_CHECKING:
    from emlib.proofread.live import LiveModel, Prediction
    from emlib.proofread.window.proofreader import Proofreader


class Predicting:
    """Live prediction in a window; the model stays loaded until another is named.

    Parameters
    ----------
    proofreader : Proofreader
    """

    def __init__(self, proofreader: Proofreader) -> None:
        self.proofreader = proofreader
        self.busy = False
        self._loaded: tuple[str, LiveModel] | None = None

    def start(self, path_or_name: str, in_view: bool = False, sections: int = 1) -> None:
        """Predict in the background, and add the result as a layer when it is there.

        Parameters
        ----------
        path_or_name : str
            Of a checkpoint.
        in_view : bool
            Only what the window shows of the section, not all of it.
        sections : int
            How many, around the one in view.

        Raises
        ------
        UserError
            If one is being made already. What goes wrong later is said by the window.
        """
        if self.busy:
            raise UserError("a prediction is being made; wait for it")
        box = self.box(in_view, sections)
        self.busy = True
        self.proofreader.tell(f"predicting {_place(box)} …")
        self.proofreader.in_background(lambda: self._predict(path_or_name, box), self._show)

    def box(self, in_view: bool, sections: int) -> Box:
        """Return the box that is meant: sections around the one in view, whole or as far as they are seen."""
        layers = self.proofreader.layers
        depth, height, width = layers.session.labels.shape
        z0 = min(max(0, layers.section - (sections - 1) // 2), max(0, depth - sections))
        low, high = (0, 0), (height, width)
        if in_view:
            corners = np.asarray(layers.neurites.corner_pixels)[:, 1:]
            low = np.clip(corners[0], 0, (height - 1, width - 1))
            high = np.clip(corners[1] + 1, low + 1, (height, width))
        return z0, min(depth, z0 + sections), int(low[0]), int(high[0]), int(low[1]), int(high[1])

    def _predict(self, path_or_name: str, box: Box) -> Prediction | UserError:
        """Off the main thread: load the model where it is a new one, and predict; what is refused is returned."""
        from emlib.proofread.live import load_model, predict_box

        session = self.proofreader.session
        try:
            if self._loaded is None or self._loaded[0] != path_or_name:
                self._loaded = path_or_name, load_model(path_or_name)
            return predict_box(self._loaded[1], session.files.em, box, session.voxel_size_nm)
        except UserError as error:
            return error

    def _show(self, found: Any) -> None:
        self.busy = False
        if isinstance(found, UserError):
            self.proofreader.refuse(str(found))
            return
        from napari.utils.colormaps import DirectLabelColormap

        name = f"{self._loaded[1].name}, {_place(found.box)}"
        layers = self.proofreader.layers
        colours = {one.id: np.array([*one.colour, 255]) / 255 for one in found.classes}
        nothing = np.zeros(4)
        colours = defaultdict(lambda: nothing, {None: nothing, 0: nothing, **colours})
        corner = np.array(found.box[::2]) * layers.session.voxel_size_nm
        viewer = self.proofreader.viewer
        active = viewer.layers.selection.active
        layer = viewer.add_labels(
            found.mask,
            name=name,
            opacity=0.5,
            scale=layers.session.voxel_size_nm,
            translate=corner,
            units=("nm",) * 3,
            axis_labels=("z", "y", "x"),
            colormap=DirectLabelColormap(color_dict=colours),
            features={"index": [one.id for one in found.classes], "name": [one.name for one in found.classes]},
        )
        layer.editable = False
        viewer.layers.selection.active = active
        names = ", ".join(one.name for one in found.classes)
        note = f"; {found.note}" if found.note else ""
        self.proofreader.tell(f"{name} in {found.seconds:.1f} s: {names}{note}")


def _place(box: Box) -> str:
    z0, z1, y0, y1, x0, x1 = box
    sections = f"section {z0}" if z1 == z0 + 1 else f"sections {z0} … {z1 - 1}"
    return f"{sections}, y {y0} … {y1 - 1}, x {x0} … {x1 - 1}"
