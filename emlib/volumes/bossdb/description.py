"""What a channel is: type, extent, voxel size, and how both change with the resolution."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from emlib.errors import UserError
from emlib.volumes.bossdb.server import Server
from emlib.volumes.bossdb.uri import SCHEME
from emlib.volumes.units import nm_per, voxel_size
from emlib.volumes.volume import ZYX

ANISOTROPIC, ISOTROPIC = "anisotropic", "isotropic"
UNREAD = "which is not read: EM is uint8 or uint16, labels are uint64"


@dataclass(frozen=True)
class Description:
    """A channel as its server describes it, at the finest resolution.

    Attributes
    ----------
    type : "image" or "annotation"
    dtype : str
        uint8, uint16 or uint64; the Boss knows no other.
    start, stop : (z, y, x) in voxels
        The coordinate frame.
    voxel_size_nm : (z, y, x) in nm, or None if the frame does not say
    base_resolution : int
        The finest level that is stored.
    levels : int
        How many levels there are from it on.
    hierarchy : "anisotropic" or "isotropic"
        Whether a level halves y and x only, or z too.
    downsampled : bool
        Whether the server says that the coarser levels have been made.
    """

    type: str
    dtype: str
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    voxel_size_nm: ZYX | None
    base_resolution: int = 0
    levels: int = 1
    hierarchy: str = ANISOTROPIC
    downsampled: bool = True

    @property
    def resolutions(self) -> range:
        """The levels that may be asked for."""
        return range(self.base_resolution, self.base_resolution + max(self.levels, 1))

    def at(self, resolution: int) -> Description:
        """Return the same channel with the extent and the voxel size of a coarser level.

        A level halves the extent, rounded up, and doubles the voxel size: along y and x, and along z too if the
        hierarchy is isotropic (jhuapl-boss/spdb, ``get_downsampled_extent_dims`` and ``get_downsampled_voxel_dims``).

        Examples
        --------
        >>> stack = Description("image", "uint8", (0, 0, 0), (30, 1001, 500), (40.0, 4.0, 4.0), levels=4)
        >>> stack.at(2).stop, stack.at(2).voxel_size_nm
        ((30, 251, 125), (40.0, 16.0, 16.0))
        """
        step = (2**resolution if self.hierarchy == ISOTROPIC else 1, 2**resolution, 2**resolution)
        size = self.voxel_size_nm and tuple(v * s for v, s in zip(self.voxel_size_nm, step, strict=True))
        start = tuple(a // s for a, s in zip(self.start, step, strict=True))
        stop = tuple(-(-b // s) for b, s in zip(self.stop, step, strict=True))
        known = {**self.__dict__, "start": start, "stop": stop, "voxel_size_nm": size}
        return Description(**known)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X) in voxels."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x


def describe(server: Server, uri: str, names: tuple[str, str, str]) -> Description:
    """Ask for the channel, its experiment and its coordinate frame: three small requests.

    Parameters
    ----------
    server : Server
    uri : str
        What to name in an error.
    names : collection, experiment, channel

    Raises
    ------
    NetworkUnreachable
        If the server does not answer.
    UserError
        If it answers with an error or with nonsense, the voxels are of a type that is not read, or the frame is empty.
    """
    from intern.resource.boss.resource import ExperimentResource

    collection, experiment, _ = names
    found = server.ask(uri, lambda remote: _checked_channel(get_channel(remote, uri, names)))
    project = server.ask(uri, lambda remote: remote.get_project(ExperimentResource(experiment, collection)))
    return build_description(uri, found, project, ask_frame(server, uri, project))


def get_channel(remote: Any, uri: str, names: tuple[str, str, str]) -> Any:
    """Return a channel as the client describes it; a `UserError` names the type of voxels that it does not know."""
    collection, experiment, channel = names
    try:
        return remote.get_channel(channel, collection, experiment)
    except ValueError as error:
        found = re.fullmatch(r"(.*) is not a valid data type\.", str(error), re.DOTALL)
        if found is None:
            raise
        told = re.sub(r"[^\w.<>|=-]", "?", found[1])[:20] or "no type"
        raise UserError(f"{uri} holds {told}, {UNREAD}; name another channel") from error


def ask_frame(server: Server, uri: str, project: Any) -> Any:
    """Ask for the coordinate frame of an experiment."""
    from intern.resource.boss.resource import CoordinateFrameResource

    return server.ask(uri, lambda remote: remote.get_project(CoordinateFrameResource(project.coord_frame)))


def build_description(uri: str, channel: Any, project: Any, frame: Any) -> Description:
    """Bring what the client returns into our terms.

    Raises
    ------
    UserError
        If the frame is empty or holds no numbers.
    """
    try:
        start = tuple(int(getattr(frame, f"{axis}_start")) for axis in "zyx")
        stop = tuple(int(getattr(frame, f"{axis}_stop")) for axis in "zyx")
        factor = nm_per(frame.voxel_unit) or 0
        size = voxel_size(factor * float(getattr(frame, f"{axis}_voxel_size")) for axis in "zyx")
        base, levels = int(channel.base_resolution), int(project.num_hierarchy_levels)
    except (TypeError, ValueError) as error:
        raise UserError(f"{uri}: its coordinate frame is damaged; name another channel") from error
    if min(b - a for a, b in zip(start, stop, strict=True)) < 1:
        raise UserError(
            f"{uri} has an empty coordinate frame, {list(start)} to {list(stop)} (z, y, x); name another channel"
        )
    made = channel.downsample_status in ("DOWNSAMPLED", None)
    kind = {"base_resolution": base, "levels": levels, "hierarchy": project.hierarchy_method, "downsampled": made}
    return Description(channel.type, channel.datatype, start, stop, size, **kind)


def refuse_resolution(uri: str, description: Description, resolution: int) -> None:
    """Raise a `UserError` that tells the levels there are, unless ``resolution`` is one of them."""
    levels = description.resolutions
    if resolution not in levels:
        there = f"only {levels[0]}" if len(levels) == 1 else f"{levels[0]} to {levels[-1]}"
        raise UserError(f"{uri} has no resolution {resolution}; give --resolution: {there} (0 is the finest)")


def refuse_annotation(uri: str, description: Description) -> None:
    """Raise a `UserError` unless the channel holds grey values."""
    if description.type == "annotation" or np.dtype(description.dtype).itemsize > 2:
        kind = "an annotation channel" if description.type == "annotation" else "a channel"
        parent = SCHEME + "/".join(uri.removeprefix(SCHEME).split("/")[:2])
        raise UserError(
            f"{uri} is {kind} of {description.dtype} ids, not EM; name an image channel (--list {parent} shows them), "
            "or give it as --labels or --truth"
        )


def _checked_channel(channel: Any) -> Any:
    """A channel whose type is not told is no answer of a Boss: the client would take it for uint8."""
    if not channel.cutout_ready:
        raise ValueError("a channel without a datatype")
    return channel
