"""Tools that take several clicks: merge two neurites, move a synapse, add one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emlib.errors import UserError

if TYPE_CHECKING:
    from emlib.proofread.window.proofreader import Proofreader, Voxel


class Merge:
    """The neurite that stays, then the one that becomes part of it."""

    prompt = "merge: click the neurite that stays, then the one that becomes part of it; Esc ends"

    def __init__(self) -> None:
        self.keep = 0

    def click(self, proofreader: Proofreader, at: Voxel) -> bool:
        """Take the first or the second neurite."""
        neurite = int(proofreader.session.labels[at])
        if not neurite:
            raise UserError("this is background; click inside of a neurite")
        if not self.keep:
            self.keep = neurite
            proofreader.choose(neurite)
            proofreader.tell(f"merge: {neurite} stays; click the neurite that becomes part of it")
            return False
        proofreader.apply("merge", keep=self.keep, gone=neurite)
        proofreader.choose(self.keep)
        return True


class MoveSynapse:
    """The new place of a synapse."""

    def __init__(self, synapse: str) -> None:
        self.synapse = synapse
        self.prompt = f"move synapse {synapse}: click its new place; Esc ends"

    def click(self, proofreader: Proofreader, at: Voxel) -> bool:
        """Move it here."""
        proofreader.apply("move_synapse", synapse=self.synapse, to=list(at))
        return True


class AddSynapse:
    """Sender, then receiver; the synapse lies in the middle."""

    prompt = "add a synapse: click inside of the sender, then inside of the receiver; Esc ends"

    def __init__(self) -> None:
        self.sender: Voxel | None = None

    def click(self, proofreader: Proofreader, at: Voxel) -> bool:
        """Take the sender or the receiver."""
        neurite = int(proofreader.session.labels[at])
        if not neurite:
            raise UserError("this is background; click inside of a neurite")
        if self.sender is None:
            self.sender = at
            proofreader.tell(f"add a synapse: {neurite} sends; click inside of the receiver")
            return False
        middle = [round((a + b) / 2) for a, b in zip(self.sender, at, strict=True)]
        before = set(proofreader.session.synapses()["synapse"])
        proofreader.apply("add_synapse", at=middle, pre=list(self.sender), post=list(at))
        (added,) = set(proofreader.session.synapses()["synapse"]) - before
        proofreader.choose_synapse(added)
        return True
