"""Unknown names: which of the three it is, and what is there instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emlib.errors import UserError, nearest
from emlib.volumes.bossdb.errors import NetworkUnreachable
from emlib.volumes.bossdb.server import Server

KINDS = ("collection", "experiment", "channel")


@contextmanager
def explain_unknown(server: Server, uri: str, names: tuple[str, ...]) -> Iterator[None]:
    """Replace the error of a 404 in the block by one that names what there is, if the server lists it.

    Asks once per name from the last to the first, each without another try; if the lists cannot be had, the error stays
    as it is.

    Parameters
    ----------
    server : Server
    uri : str
        What to name in the error.
    names : collection, experiment, channel; or fewer
    """
    try:
        yield
    except NetworkUnreachable:
        raise
    except UserError as error:
        line = _explained(server, uri, names) if f"{server.host} answered HTTP 404" in str(error) else None
        if line is None:
            raise
        raise UserError(line) from error.__cause__


def _explained(server: Server, uri: str, names: tuple[str, ...]) -> str | None:
    for depth in range(len(names), 0, -1):
        try:
            there = list_names(server, uri, names[: depth - 1], tries=1)
        except UserError:
            continue
        name, kind = names[depth - 1], KINDS[depth - 1]
        if name in there:  # it exists, so the 404 was about something else
            return None
        parent = f" in {'/'.join(names[: depth - 1])}" if depth > 1 else ""
        return f"{uri}: {server.host} answered HTTP 404: no {kind} {name}{parent}; {hint(name, there, kind)}"
    return None


def list_names(server: Server, uri: str, parents: tuple[str, ...], tries: int | None = None) -> list[str]:
    """Return the names of all collections, of the experiments of one, or of the channels of an experiment, sorted.

    Raises
    ------
    UserError
        As `Server.ask` does.
    """

    def request(remote) -> list[str]:
        listing = (remote.list_collections, remote.list_experiments, remote.list_channels)[len(parents)]
        return sorted(str(name) for name in listing(*parents))

    return server.ask(uri, request, tries=tries)


def hint(name: str, there: list[str], kind: str) -> str:
    """Return a hint at the names like an unknown one; where there is none at all, the token may be why."""
    if not there:
        return f"there is no {kind} to be seen with this token; check the names before it"
    return nearest(name, there)
