"""What buttons and keys do to neurites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emlib.errors import UserError
from emlib.proofread.edits import find_voxels
from emlib.proofread.window.tools import Merge

if TYPE_CHECKING:
    from emlib.proofread.window.proofreader import Proofreader, Voxel

SEEDS = 9  # parts that a split can be given seeds for


def merge(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the tool; pressed over a neurite, the key stands for the click on it."""
    tool = proofreader.tool if isinstance(proofreader.tool, Merge) else Merge()
    if tool is not proofreader.tool:
        proofreader.take(tool)
    if at is not None:
        proofreader.click(at)


def merge_shown(proofreader: Proofreader, at: Voxel | None) -> None:
    """Merge the two neurites that are put forward."""
    if len(proofreader.shown) != 2:
        raise UserError("two neurites must be put forward to be merged; go to a suspect, or use merge")
    keep, gone = proofreader.shown
    boxes = proofreader.session.boxes
    if boxes.voxels(gone) > boxes.voxels(keep):
        keep, gone = gone, keep
    proofreader.apply("merge", keep=keep, gone=gone)
    proofreader.choose(keep)


def split(proofreader: Proofreader, at: Voxel | None) -> None:
    """Make ready to draw the seeds of a split, of its first part to begin with."""
    neurite = proofreader.neurite_for(at)
    proofreader.take(None)
    seeds = proofreader.layers.seeds
    seeds.data.wipe()
    seeds.visible, seeds.selected_label = True, 1
    seeds.refresh()
    proofreader.viewer.layers.selection.active = seeds
    seeds.mode = "paint"
    proofreader.tell(f"split {neurite}: click or paint in the part that keeps the id, then T, the next part, Enter")


def next_seed(proofreader: Proofreader, at: Voxel | None) -> None:
    """Go on with the seed of the next part."""
    seeds = splitting(proofreader)
    if seeds.selected_label >= SEEDS:
        raise UserError(f"a split takes {SEEDS} seeds at the most; cut, then split again")
    seeds.selected_label += 1
    proofreader.tell(f"split {proofreader.neurite}: click or paint in part {seeds.selected_label}; Enter cuts")


def cut(proofreader: Proofreader, at: Voxel | None) -> None:
    """Cut between the seeds that were drawn, in the section in view or in 3D; the seeds stay if it is refused."""
    seeds = splitting(proofreader)
    drawn = [voxels for _, voxels in sorted(seeds.data.strokes().items())]
    z = proofreader.layers.section if proofreader.flat else None
    proofreader.apply("split", neurite=proofreader.neurite, seeds=drawn, z=z)
    end(proofreader, None)


def end(proofreader: Proofreader, at: Voxel | None) -> None:
    """Put tool, brush and seeds away; with none in hand, put no neurite forward."""
    seeds = proofreader.layers.seeds
    idle = proofreader.tool is None and not seeds.visible and proofreader.layers.neurites.mode == "pan_zoom"
    seeds.data.wipe()
    seeds.mode, seeds.visible = "pan_zoom", False
    proofreader.viewer.layers.selection.active = proofreader.layers.neurites
    proofreader.take(None)
    if idle:
        proofreader.hide_others = False
        proofreader.show(())


def splitting(proofreader: Proofreader):
    """The layer of seeds, while a split is being made."""
    if not proofreader.layers.seeds.visible:
        raise UserError("no split was begun; choose a neurite and press S")
    return proofreader.layers.seeds


def paint(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the brush of the neurite."""
    neurite = proofreader.neurite_for(at)
    brush(proofreader, "paint")
    proofreader.tell(f"paint {neurite}: each stroke is an edit; [ and ] change the brush, Esc ends")


def erase(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the eraser."""
    brush(proofreader, "erase")
    proofreader.tell("erase: each stroke is an edit; [ and ] change the brush, Esc ends")


def paint_new(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the brush of an id that no neurite has or had."""
    neurite = proofreader.session.fresh_id()
    brush(proofreader, "paint")
    proofreader.layers.neurites.selected_label = neurite
    proofreader.tell(f"paint the new neurite {neurite}: each stroke is an edit; Esc ends")


def brush(proofreader: Proofreader, mode: str) -> None:
    """Let the mouse draw on the neurites."""
    proofreader.take(None)
    proofreader.viewer.layers.selection.active = proofreader.layers.neurites
    proofreader.layers.neurites.mode = mode


def new_id(proofreader: Proofreader, at: Voxel | None) -> None:
    """Give the connected piece under the cursor, or at the last click, an id of its own."""
    at = at or proofreader.place
    if at is None:
        raise UserError("new id is for the piece at a place; click on it, or point at it and press N")
    done = proofreader.apply("new_id", at=list(at), z=at[0] if proofreader.flat else None)
    proofreader.choose(done.ids[1])


def delete(proofreader: Proofreader, at: Voxel | None) -> None:
    """Turn the neurite, or its part in the section, into background."""
    neurite = proofreader.neurite_for(at)
    proofreader.apply("delete", neurite=neurite, z=proofreader.layers.section if proofreader.flat else None)


def fill(proofreader: Proofreader, at: Voxel | None) -> None:
    """Close the holes of the neurite."""
    neurite = proofreader.neurite_for(at)
    proofreader.apply("fill", neurite=neurite, z=proofreader.layers.section if proofreader.flat else None)


def hide_others(proofreader: Proofreader, at: Voxel | None) -> None:
    """Show the neurites at hand alone, or all again."""
    hide = not proofreader.hide_others
    ids = proofreader.shown or (proofreader.neurite_for(at),) if hide else proofreader.shown
    proofreader.hide_others = hide
    proofreader.show(ids if hide or len(ids) == 2 else ())


def only_this_section(proofreader: Proofreader, at: Voxel | None) -> None:
    """Let split, new id, delete and fill keep to the section in view, or go through the volume again."""
    proofreader.flat = not proofreader.flat
    proofreader.tell("edits keep to the section in view" if proofreader.flat else "edits go through the volume")


def go_to_neurite(proofreader: Proofreader, neurite: int) -> None:
    """Look at a voxel inside of a neurite, and take it in hand."""
    session = proofreader.session
    if neurite not in session.boxes:
        raise UserError(f"there is no neurite {neurite} in these labels; the ids go up to {session.boxes.highest}")
    box = session.boxes[neurite]
    z = next(
        z
        for z in sorted(range(box[0], box[1]), key=lambda z: abs(z - (box[0] + box[1]) / 2))
        if (session.labels[z, box[2] : box[3], box[4] : box[5]] == neurite).any()
    )
    places = find_voxels(session.labels, neurite, box, z)
    _, height, width = session.labels.shape
    y, x = divmod(int(places[len(places) // 2]) % (height * width), width)
    proofreader.layers.look_at(z, y, x)
    proofreader.choose(neurite)
    proofreader.tell(f"neurite {neurite}")


def describe(proofreader: Proofreader, name: str, note: str) -> None:
    """Give the neurite at hand a name and a note, as far as they are new."""
    neurite = proofreader.neurite_for(None)
    before = proofreader.about(neurite)
    if " ".join(name.split()) != before[0]:
        proofreader.apply("name_neurite", neurite=neurite, name=name)
    if " ".join(note.split()) != before[1]:
        proofreader.apply("note_neurite", neurite=neurite, note=note)
