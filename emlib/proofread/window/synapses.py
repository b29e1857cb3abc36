"""What buttons and keys do to synapses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emlib.errors import UserError
from emlib.proofread.synapse_edits import ADDED
from emlib.proofread.window.tools import AddSynapse, MoveSynapse

if TYPE_CHECKING:
    from emlib.proofread.window.proofreader import Proofreader, Voxel


def confirm(proofreader: Proofreader, at: Voxel | None) -> None:
    """It is a synapse."""
    proofreader.apply("confirm_synapse", synapse=proofreader.synapse_for(at))


def reject(proofreader: Proofreader, at: Voxel | None) -> None:
    """It is none; one that a person added is removed."""
    synapse = proofreader.synapse_for(at)
    proofreader.apply("remove_synapse" if synapse.startswith(ADDED) else "reject_synapse", synapse=synapse)


def reset(proofreader: Proofreader, at: Voxel | None) -> None:
    """Leave it undecided, where and as it was found."""
    proofreader.apply("reset_synapse", synapse=proofreader.synapse_for(at))


def flip(proofreader: Proofreader, at: Voxel | None) -> None:
    """Exchange sender and receiver."""
    proofreader.apply("flip_synapse", synapse=proofreader.synapse_for(at))


def move(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the tool that moves it."""
    proofreader.take(MoveSynapse(proofreader.synapse_for(at)))


def add(proofreader: Proofreader, at: Voxel | None) -> None:
    """Take the tool that adds one; pressed over a neurite, the key stands for the click on it."""
    tool = proofreader.tool if isinstance(proofreader.tool, AddSynapse) else AddSynapse()
    if tool is not proofreader.tool:
        proofreader.take(tool)
    if at is not None:
        proofreader.click(at)


def next_undecided(proofreader: Proofreader, at: Voxel | None) -> None:
    """Look at the undecided synapse with the next lower score."""
    _step(proofreader, 1)


def previous_undecided(proofreader: Proofreader, at: Voxel | None) -> None:
    """Look at the undecided synapse with the next higher score."""
    _step(proofreader, -1)


def _step(proofreader: Proofreader, way: int) -> None:
    table = proofreader.session.synapses().sort_values("score", ascending=False, kind="stable")
    names = table["synapse"].tolist()
    undecided = table["decision"].eq("undecided").tolist()
    start = names.index(proofreader.synapse) if proofreader.synapse in names else (-1 if way > 0 else len(names))
    ahead = range(start + way, len(names) if way > 0 else -1, way)
    found = next((n for n in ahead if undecided[n]), None)
    if found is None:
        raise UserError(f"no undecided synapse has a {'lower' if way > 0 else 'higher'} score")
    row = table.iloc[found]
    proofreader.choose_synapse(names[found])
    proofreader.show((int(row["new_pre_id"]), int(row["new_post_id"])))
    proofreader.layers.look_at(*row[["new_z", "new_y", "new_x"]])
    proofreader.tell(f"synapse {names[found]}: score {row['score']:.2f}, {sum(undecided)} undecided")
