"""What a window knows beside the session: the neurite and synapse at hand, the tool, what was last said.

All changes go through `Proofreader.apply`, `undo` and `redo`. What is refused says its line and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emlib.errors import UserError
from emlib.proofread.edits import Edit
from emlib.proofread.records import NEURITE
from emlib.proofread.session import Applied, Session
from emlib.proofread.window.guide import Guide
from emlib.proofread.window.layers import Layers
from emlib.proofread.window.wording import described

if TYPE_CHECKING:
    import napari

Voxel = tuple[int, int, int]
TOUCH_NM = 60.0  # from a synapse in the same section: so near a click or the cursor means it


@dataclass(frozen=True)
class Message:
    """What the window says.

    Attributes
    ----------
    text : str
        One line.
    refused : bool
        Whether it tells why something was not done.
    """

    text: str = ""
    refused: bool = False


class Tool(Protocol):
    """What the next clicks are for."""

    prompt: str

    def click(self, proofreader: Proofreader, at: Voxel) -> bool:
        """Take a click; return whether the tool has done its work."""


class Proofreader:
    """A session in a viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session

    Attributes
    ----------
    neurite : int
        The one at hand; 0: none.
    place : (z, y, x) or None
        Where it was chosen by a click.
    shown : tuple of int
        One or two neurites in colours of their own, the others dimmed.
    synapse : str or None
        The one at hand, by its name.
    flat : bool
        Whether split, new id, delete and fill keep to the section in view.
    hide_others : bool
        Whether neurites but those at hand are hidden.
    tool : Tool or None
        None: clicks choose neurites and synapses.
    suspects, sections : Guide or None
        What to look at next, once it was asked for.
    said : Message
    watchers : list of functions
        Called after everything that may have changed what a dock widget shows.
    in_background : function of a computation and of what to do with its result
        Here one after the other; a window with threads puts its own in its place.
    later : function of an action
        Here at once; a window does it when napari has done its part of what goes on now.
    """

    def __init__(self, viewer: napari.components.ViewerModel, session: Session) -> None:
        self.viewer, self.session = viewer, session
        self.layers = Layers(viewer, session)
        self.neurite, self.shown, self.synapse = 0, (), None
        self.place: Voxel | None = None
        self._hovered = 0
        self.flat = self.hide_others = False
        self.tool: Tool | None = None
        self.suspects: Guide | None = None
        self.sections: Guide | None = None
        self.said = Message()
        self.watchers: list[Callable[[], None]] = []
        self.in_background: Callable[[Callable[[], Any], Callable[[Any], None]], None] = lambda work, use: use(work())
        self._button_down = False
        self.later: Callable[[Callable[[], None]], None] = lambda action: action()
        self.layers.neurites.events.paint.connect(self._stroke_ended)
        self.layers.neurites.data.written = self._written
        viewer.dims.events.point.connect(self._show_section)
        viewer.mouse_drag_callbacks.append(self._clicked)
        viewer.mouse_move_callbacks.append(self._moved)
        overlays = viewer.canvas.overlays
        overlays.scale_bar.visible = overlays.text.visible = True
        overlays.text.position = "top_left"
        self._show_section()

    # what is said

    def tell(self, text: str) -> None:
        """Say what was done."""
        self._say(Message(text))

    def refuse(self, text: str) -> None:
        """Say why something was not done."""
        self._say(Message(text, refused=True))

    def attempt(self, action: Callable[[], Any]) -> bool:
        """Do what may be refused; return whether it was done."""
        try:
            self.take_up_strokes()
            action()
        except UserError as error:
            self.refuse(str(error))
            return False
        self.changed()
        return True

    def changed(self) -> None:
        """Let a dock widget show what is so now."""
        for watcher in list(self.watchers):
            watcher()

    def _say(self, message: Message) -> None:
        self.said = message
        self.viewer.status = message.text
        self.changed()

    # edits

    def apply(self, operation: str, **arguments: Any) -> Applied:
        """Do an edit and show it.

        Raises
        ------
        UserError
            If it is refused; nothing has changed then.
        """
        return self._show(self.session.apply(Edit(operation, arguments)), described)

    def undo(self) -> Applied:
        """Take back the last edit; errors as for `apply`."""
        return self._show(self.session.undo(), lambda done: f"undone: {described(done)}")

    def redo(self) -> Applied:
        """Do the edit again that was undone last; errors as for `apply`."""
        return self._show(self.session.redo(), lambda done: f"done again: {described(done)}")

    def save(self) -> list[Path]:
        """Write corrected labels and tables; errors as for `apply`."""
        self.take_up_strokes()
        written = self.session.save()
        self.tell(f"written: {written[0]} and {len(written) - 1} tables and sidecars")
        return written

    def take_up_strokes(self) -> None:
        """Turn what was drawn on the neurites into edits.

        Raises
        ------
        UserError
            If one is refused; the strokes are gone from the picture, as they are from the journal.
        """
        drawing = self.layers.neurites.data
        if not drawing:
            return
        strokes = drawing.strokes()
        drawing.wipe()
        try:
            for neurite, voxels in strokes.items():
                if neurite:
                    self.apply("paint", neurite=neurite, voxels=voxels)
                else:
                    self.apply("erase", voxels=voxels)
        finally:
            self.layers.neurites.refresh(extent=False)

    def _show(self, done: Applied, words: Callable[[Applied], str]) -> Applied:
        self.layers.refresh(done.box)
        if "synapse" in done.operation:
            if self.synapse is not None and self.synapse not in set(self.session.synapses()["synapse"]):
                self.synapse = None
            self.layers.draw_synapses(self.synapse)
        if self.neurite and self.neurite not in self.session.boxes:
            self.choose(next((known for known in done.ids if known in self.session.boxes), 0))
        if any(neurite not in self.session.boxes for neurite in self.shown):
            self.show(())
        self._show_section()
        self.tell(words(done))
        return done

    # what is at hand

    def choose(self, neurite: int) -> None:
        """Take a neurite in hand; 0: none."""
        self.neurite, self.place = int(neurite), None
        if neurite:
            self.layers.neurites.selected_label = int(neurite)
        if self.hide_others:
            self.show((self.neurite,) if neurite else ())
        self.changed()

    def choose_synapse(self, synapse: str | None) -> None:
        """Take a synapse in hand."""
        self.synapse = synapse
        self.layers.draw_synapses(synapse)
        self.changed()

    def show(self, ids: tuple[int, ...]) -> None:
        """Put one or two neurites forward; none: all as usual."""
        self.shown = tuple(dict.fromkeys(int(neurite) for neurite in ids if neurite))
        self.layers.colour(self.shown, self.hide_others)
        self.changed()

    def neurite_for(self, at: Voxel | None) -> int:
        """Return the neurite that is meant: under the cursor, else the one at hand, and take it in hand.

        Raises
        ------
        UserError
            If there is none.
        """
        neurite = int(self.session.labels[at]) if at is not None else self.neurite
        if not neurite:
            where = "under the cursor" if at is not None else "chosen"
            raise UserError(f"no neurite is {where}; click inside of one")
        self.choose(neurite)
        return neurite

    def synapse_for(self, at: Voxel | None) -> str:
        """Return the synapse that is meant, as `neurite_for`."""
        synapse = self.synapse_at(at) if at is not None else None
        synapse = synapse or self.synapse
        if synapse is None:
            raise UserError("no synapse is chosen; click on one")
        if synapse != self.synapse:
            self.choose_synapse(synapse)
        return synapse

    def synapse_at(self, at: Voxel) -> str | None:
        """Return the synapse next to a place, in its section."""
        table = self.session.synapses()
        table = table[table["new_z"] == at[0]]
        if not len(table):
            return None
        _, height, width = self.session.voxel_size_nm
        far = np.hypot((table["new_y"] - at[1]) * height, (table["new_x"] - at[2]) * width)
        return str(table["synapse"].loc[far.idxmin()]) if far.min() <= TOUCH_NM else None

    def about(self, neurite: int) -> tuple[str, str]:
        """Return name and note of a neurite."""
        known = self.session.scene.records.get(NEURITE, neurite) or {}
        return known.get("name", ""), known.get("note", "")

    # the mouse

    def under_cursor(self) -> Voxel | None:
        """Return the voxel below the mouse; None where it is not over the volume, or in the 3D view."""
        if not self.viewer.mouse_over_canvas or self.viewer.dims.ndisplay != 2:
            return None
        return self.layers.voxel(self.viewer.cursor.position)

    def take(self, tool: Tool | None) -> None:
        """Take a tool, or none."""
        self.tool = tool
        self.layers.neurites.mode = "pan_zoom"
        if tool is not None:
            self.viewer.layers.selection.active = self.layers.neurites
            self.tell(tool.prompt)
        self.changed()

    def click(self, at: Voxel) -> None:
        """Do what a click on a voxel means; raises as `apply`."""
        if self.tool is not None:
            tool = self.tool
            if tool.click(self, at) and self.tool is tool:
                self.tool = None
            return
        if (synapse := self.synapse_at(at)) is not None and self.layers.synapses.visible:
            self.choose_synapse(synapse)
            self.tell(f"synapse {synapse}")
            return
        self.choose(int(self.session.labels[at]))
        self.place = at
        self.tell(f"neurite {self.neurite}" if self.neurite else "background")

    def _clicked(self, viewer: Any, event: Any):
        """Follow a button from press to release: strokes are taken up at its end, and a left click does its work.

        A drag with the hand moves the camera, as ever.
        """
        active = viewer.layers.selection.active
        hand = viewer.dims.ndisplay == 2 and (active is None or active.mode == "pan_zoom")
        start, meant = event.position, event.button == 1 and hand
        self._button_down = True
        yield
        while event.type == "mouse_move":
            meant = meant and tuple(event.position) == tuple(start)
            yield
        self._button_down = False
        if meant and (at := self.layers.voxel(start)) is not None:
            self.attempt(lambda: self.click(at))
        elif self.layers.neurites.data:
            self._stroke_ended()

    def _moved(self, viewer: Any, event: Any) -> None:
        """Say which neurite lies under the cursor, and its name and note."""
        at = self.layers.voxel(event.position) if viewer.dims.ndisplay == 2 else None
        hovered = 0 if at is None else int(self.session.labels[at])
        if hovered != self._hovered:
            self._hovered = hovered
            self._show_section()

    def _stroke_ended(self, event: Any = None) -> None:
        self.attempt(lambda: None)  # takes up the strokes, and says so if they are refused

    def _written(self) -> None:
        """Take up what was drawn without the mouse, by a polygon, a script or another plugin, at once."""
        if not self._button_down:
            self.later(self._stroke_ended)

    def _show_section(self, event: Any = None) -> None:
        z, depth = self.layers.section, self.session.labels.shape[0]
        mark = ", accepted" if z in self.session.accepted_sections else ""
        here = ""
        if self._hovered:
            name, note = self.about(self._hovered)
            here = f"\nneurite {self._hovered}{name and f' {name}'}{note and f' ({note})'}"
        self.viewer.canvas.overlays.text.text = f"section {z} of 0 … {depth - 1}{mark}{here}"
