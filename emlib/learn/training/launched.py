"""Whether this process is one of several that ``torchrun`` started, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from emlib.errors import UserError


@dataclass(frozen=True)
class Launch:
    """The processes of a training.

    Attributes
    ----------
    here : int
        On this machine.
    machines : int
    """

    here: int
    machines: int = 1

    @property
    def all(self) -> int:
        """On all machines together."""
        return self.here * self.machines


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return what ``torchrun`` says of its processes; None where it did not start this one.

    Raises
    ------
    UserError
        If machines have different numbers of processes.

    Examples
    --------
    >>> find_launch({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
    Launch(here=4, machines=2)
    >>> find_launch({})
    """
    if "TORCHELASTIC_RUN_ID" not in environ:
        return None
    world, here = int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
    if world % here:
        raise UserError(
            f"torchrun started {here} processes on this machine and {world} in all; give each machine the same "
            "--nproc_per_node"
        )
    return Launch(here, world // here)


def devices_in_all(asked: int | None, launch: Launch | None) -> int | None:
    """Return how many processes share each step out: as ``--devices`` says, or as ``torchrun`` started.

    Raises
    ------
    UserError
        If they contradict each other.
    """
    if launch is None:
        return asked
    if asked not in (None, launch.here, launch.all):
        raise UserError(
            f"torchrun started {launch.all} processes and --devices says {asked}; leave --devices out, "
            "--nproc_per_node decides"
        )
    return launch.all


def helps(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is not the first one of a training on several devices."""
    return any(int(environ.get(name) or 0) > 0 for name in ("RANK", "LOCAL_RANK"))
