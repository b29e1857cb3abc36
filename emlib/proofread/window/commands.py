"""All that buttons and keys do, in one table: the dock widget, the keys and the documentation are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlib.proofread.window import guide, neurites, synapses

if TYPE_CHECKING:
    from emlib.proofread.window.proofreader import Proofreader, Voxel


@dataclass(frozen=True)
class Command:
    """A button and its key.

    Attributes
    ----------
    group, label : str
        Where the button stands, and what is on it.
    key : str
        As napari names it.
    help : str
        One line.
    act : function of a `Proofreader` and a voxel
        The voxel lies under the cursor when a key was pressed over the picture; None means what is at hand.
    """

    group: str
    label: str
    key: str
    help: str
    act: Callable[[Proofreader, Voxel | None], None]


def undo(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take back the last edit."""
    proofreader.undo()


def redo(proofreader: Proofreader, at: Voxel | None) -> None:
    """Do again what was undone last."""
    proofreader.redo()


def save(proofreader: Proofreader, at: Voxel | None) -> None:
    """Write corrected labels and tables."""
    proofreader.save()


NEURITES, DRAW, SYNAPSES, LOOK, JOURNAL = "Neurites", "Draw", "Synapses", "Look at", "Journal"
COMMANDS: dict[str, Command] = {
    "merge": Command(NEURITES, "merge", "M", "click two: the second becomes part of the first", neurites.merge),
    "merge_shown": Command(
        NEURITES, "merge the pair", "Shift-M", "merge the two that are put forward", neurites.merge_shown
    ),
    "new_id": Command(NEURITES, "new id", "N", "the connected piece under the cursor gets an id", neurites.new_id),
    "split": Command(NEURITES, "split", "S", "draw a seed in each part, then cut", neurites.split),
    "next_seed": Command(NEURITES, "next part", "T", "the seed of the next part of a split", neurites.next_seed),
    "cut": Command(NEURITES, "cut", "Enter", "cut along the boundary between the seeds", neurites.cut),
    "delete": Command(NEURITES, "delete", "Delete", "the neurite becomes background", neurites.delete),
    "fill": Command(NEURITES, "fill", "F", "close the holes of the neurite", neurites.fill),
    "hide_others": Command(NEURITES, "hide others", "H", "show what is at hand alone, or all", neurites.hide_others),
    "only_this_section": Command(
        NEURITES,
        "section only",
        "D",
        "split, new id, delete, fill: in this section or in 3D",
        neurites.only_this_section,
    ),
    "paint": Command(DRAW, "paint", "P", "draw on the neurite at hand", neurites.paint),
    "paint_new": Command(DRAW, "paint new", "Shift-P", "draw a neurite with a new id", neurites.paint_new),
    "erase": Command(DRAW, "erase", "E", "draw background", neurites.erase),
    "end": Command(
        DRAW, "end tool", "Escape", "put tool, brush and seeds away; again: show all neurites", neurites.end
    ),
    "confirm": Command(SYNAPSES, "confirm", "C", "it is a synapse", synapses.confirm),
    "reject": Command(SYNAPSES, "reject", "X", "it is none; an added one is removed", synapses.reject),
    "reset": Command(SYNAPSES, "undecided", "U", "as it was found", synapses.reset),
    "flip": Command(SYNAPSES, "flip", "L", "exchange sender and receiver", synapses.flip),
    "move": Command(SYNAPSES, "move", "G", "click its new place", synapses.move),
    "add": Command(SYNAPSES, "add", "I", "click sender, then receiver", synapses.add),
    "next_undecided": Command(SYNAPSES, "next", "K", "the undecided one with the next score", synapses.next_undecided),
    "previous_undecided": Command(SYNAPSES, "previous", "J", "back", synapses.previous_undecided),
    "next_suspect": Command(LOOK, "next suspect", ".", "the next suspected error, by rank", guide.next_suspect),
    "previous_suspect": Command(LOOK, "previous suspect", ",", "back", guide.previous_suspect),
    "next_section": Command(LOOK, "next section", "Q", "the next section worth correcting", guide.next_section),
    "accept_section": Command(LOOK, "accept section", "A", "it is corrected; again: it is not", guide.accept_section),
    "undo": Command(JOURNAL, "undo", "Control-Z", "take back the last edit", undo),
    "redo": Command(JOURNAL, "redo", "Control-Shift-Z", "do it again", redo),
    "save": Command(JOURNAL, "save", "Control-S", "write corrected labels and tables", save),
}


def run(proofreader: Proofreader, name: str, by_key: bool = False) -> bool:
    """Do a command, by its button or its key; return whether it was done, else the window says why not."""
    at = proofreader.under_cursor() if by_key else None
    return proofreader.attempt(lambda: COMMANDS[name].act(proofreader, at))


def bind_keys(proofreader: Proofreader) -> None:
    """Give the keys to the viewer and to the layers, whose own keys would come first."""
    for name, command in COMMANDS.items():

        def pressed(holder: object, name: str = name) -> None:
            run(proofreader, name, by_key=True)

        for holder in (proofreader.viewer, *proofreader.layers.all):
            holder.bind_key(command.key, pressed, overwrite=True)
