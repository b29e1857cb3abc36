"""BossDB: public EM volumes over the network, through the `intern` client.

Which server: ``INTERN_PROTOCOL``, ``INTERN_HOST`` and ``INTERN_TOKEN`` if all three are set, else the file
``~/.intern/intern.cfg``, else the public one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from emlib.errors import UserError
from emlib.volumes.units import nm_per, voxel_size
from emlib.volumes.volume import Box, VolumeSource

DEFAULT_URI = "bossdb://mulcahy2022/1h_L1/em"
FORM = "bossdb://collection/experiment/channel"
PUBLIC = {"protocol": "https", "host": "api.bossdb.io", "token": "public"}
TOKEN_PLACES = "INTERN_TOKEN or ~/.intern/intern.cfg"
BLOCK = (16, 1024, 1024)  # (z, y, x): above 30 million voxels intern 1.4 forks a pool of processes by itself


class NetworkUnreachable(UserError):
    """The server gave no answer at all: no such host, connection refused, no route, or the time ran out."""


class BossUri(NamedTuple):
    """The three names of a channel."""

    collection: str
    experiment: str
    channel: str


def parse_uri(uri: str) -> BossUri:
    """Split a BossDB URI into its names.

    Raises
    ------
    UserError
        If it has not the form ``bossdb://collection/experiment/channel``.

    Examples
    --------
    >>> parse_uri(DEFAULT_URI).experiment
    '1h_L1'
    """
    names = uri.removeprefix("bossdb://").rstrip("/").split("/")
    if not uri.startswith("bossdb://") or len(names) != 3 or any(not n or n != n.strip() or "?" in n for n in names):
        raise UserError(f"{uri} is no BossDB address; it has the form {FORM}, for instance {DEFAULT_URI}")
    return BossUri(*names)


def open_bossdb(uri: str, timeout_s: float = 30) -> VolumeSource:
    """Open a channel: three small requests for its type, its experiment and its coordinate frame.

    Parameters
    ----------
    uri : str
        ``bossdb://collection/experiment/channel``
    timeout_s : float
        For all three together in seconds, and later for each block of voxels.

    Raises
    ------
    NetworkUnreachable
        If the server does not answer.
    UserError
        If it answers with an error (the HTTP status is told), or with nonsense.
    """
    names = parse_uri(uri)
    remote = _remote(timeout_s)
    host = remote.project_service.base_url

    def describe() -> tuple[Any, Any]:
        from intern.resource.boss.resource import CoordinateFrameResource, ExperimentResource

        channel = remote.get_channel(names.channel, names.collection, names.experiment)
        experiment = remote.get_project(ExperimentResource(names.experiment, names.collection))
        return channel, remote.get_project(CoordinateFrameResource(experiment.coord_frame))

    with _answering(uri, host, opening=True):
        channel, frame = _within(timeout_s, describe)
        origin = [int(start) for start in (frame.z_start, frame.y_start, frame.x_start)]
        stop = [int(stop) for stop in (frame.z_stop, frame.y_stop, frame.x_stop)]
        shape = tuple(b - a for a, b in zip(origin, stop, strict=True))
        if min(shape) < 1:
            raise UserError(f"{uri} has an empty coordinate frame, {origin} to {stop} (z, y, x); name another channel")
        factor = nm_per(frame.voxel_unit) or 0
        size = voxel_size(factor * float(v) for v in (frame.z_voxel_size, frame.y_voxel_size, frame.x_voxel_size))
        dtype = np.dtype(channel.datatype)

    def read(box: Box) -> np.ndarray:
        out = np.empty([side.stop - side.start for side in box], dtype)
        for block in _blocks(box):
            z, y, x = ([o + side.start, o + side.stop] for o, side in zip(origin, block, strict=True))
            with _answering(uri, host, opening=False):
                part = remote.get_cutout(channel, 0, x, y, z, parallel=False)
            out[tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(box, block, strict=True))] = part
        return out

    return VolumeSource(uri, shape, dtype, read, size, notes={"host": host, "frame_origin": origin})


def _remote(timeout_s: float):
    """The real client, with a time-out on every request, since requests has none of its own."""
    from intern.remote.boss import BossRemote

    keys = {key: os.environ.get(f"INTERN_{key.upper()}", "") for key in PUBLIC}
    try:
        if all(keys.values()):
            remote = BossRemote({key: value.replace("%", "%%") for key, value in keys.items()})
        elif Path("~/.intern/intern.cfg").expanduser().is_file():
            remote = BossRemote()
        else:
            remote = BossRemote(PUBLIC)
    except Exception:  # its text, and the errors it comes from, may hold the token
        raise UserError(f"the settings for BossDB cannot be read; check {TOKEN_PLACES}") from None
    for service in (remote.project_service, remote.metadata_service, remote.volume_service):
        service.session_send_opts = {**service.session_send_opts, "timeout": timeout_s}
    return remote


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call ``function``, but wait no longer than this.

    A time-out of `requests` is per packet and address; looking up a name and an answer that trickles have none.
    """
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["value"] = function()
        except BaseException as error:  # handed over to the caller's thread
            outcome["error"] = error

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


@contextmanager
def _answering(uri: str, host: str, opening: bool) -> Iterator[None]:
    """Turn what `requests` and `intern` raise in the block into a `UserError`.

    Their own words stay out of it: they hold pages of HTML, and the token where that is what is wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _told(error, uri, host, opening) from error


def _told(error: Exception, uri: str, host: str, opening: bool) -> UserError:
    from requests import exceptions

    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, exceptions.HTTPError) and status is not None:
            return UserError(f"{uri}: {host} answered HTTP {status}; {_advice(status)}")
        if isinstance(cause, exceptions.SSLError):
            return UserError(f"{uri}: the certificate of {host} is not accepted; check the clock and the proxy")
        if isinstance(cause, exceptions.InvalidHeader):
            return UserError(f"{uri}: the token has characters that no token has; check {TOKEN_PLACES}")
        if isinstance(cause, (exceptions.ConnectionError, exceptions.Timeout, TimeoutError)):
            if opening:
                remedy = "check the network, or use sample://phantom"
                return NetworkUnreachable(f"{uri}: {host} cannot be reached ({_why(error)}); {remedy}")
            return UserError(f"{uri}: {host} stopped answering ({_why(error)}); try again")
    kind = type(error).__name__
    return UserError(f"{uri}: {host} gave no answer that a Boss server gives ({kind}); check INTERN_HOST and the proxy")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _why(error: BaseException) -> str:
    """A few words: the deepest cause that is the system's own."""
    import requests

    if any(isinstance(cause, (TimeoutError, requests.exceptions.Timeout)) for cause in _chain(error)):
        return "time-out"
    told = [cause.strerror for cause in _chain(error) if isinstance(cause, OSError) and cause.strerror]
    return told[-1].lower() if told else "no connection"


def _advice(status: int) -> str:
    if status in (401, 403):
        return f"check the token in {TOKEN_PLACES}"
    if status == 404:
        return f"check the names, {FORM}"
    return "try again later" if status >= 500 else "check the address and the cutout"


def _blocks(box: Box) -> Iterator[Box]:
    """Cut a box along a grid of blocks that fit the server's own, 16 sections thick."""
    zs, ys, xs = (list(_spans(side, step)) for side, step in zip(box, BLOCK, strict=True))
    return ((z, y, x) for z in zs for y in ys for x in xs)


def _spans(side: slice, step: int) -> Iterator[slice]:
    start = side.start
    while start < side.stop:
        stop = min((start // step + 1) * step, side.stop)
        yield slice(start, stop)
        start = stop
