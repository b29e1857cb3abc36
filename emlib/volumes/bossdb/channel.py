"""Open a channel and read blocks of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm import tqdm

from emlib.errors import UserError
from emlib.volumes.bossdb.answers import check_cutout
from emlib.volumes.bossdb.cache import BlockCache
from emlib.volumes.bossdb.description import Description, describe, refuse_annotation, refuse_resolution
from emlib.volumes.bossdb.errors import NetworkUnreachable
from emlib.volumes.bossdb.names import explain_unknown
from emlib.volumes.bossdb.options import BossOptions
from emlib.volumes.bossdb.server import Server
from emlib.volumes.bossdb.uri import BossUri, parse_uri
from emlib.volumes.volume import Box, VolumeSource

BLOCK = (16, 512, 512)  # (z, y, x), as the Boss stores them; 4 MiB of uint8 each


def open_bossdb(
    uri: str,
    options: BossOptions | None = None,
    *,
    labels: bool = False,
    progress: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> VolumeSource:
    """Open a channel: three small requests for its type, its experiment and its coordinate frame.

    Parameters
    ----------
    uri : str
        ``bossdb://collection/experiment/channel``
    options : BossOptions, optional
        Where the server is, how patiently it is asked, at which resolution, and where blocks are kept. With a cache,
        what is in it can be read while the server is out of reach; it is never compared with the server again, unless
        ``refresh`` fetches all anew.
    labels : bool
        Whether ids are wanted: annotation channels are refused otherwise.
    progress : bool
        Draw a bar while blocks are fetched, if stderr is a terminal.
    note : function of a line
        Told what the user should know and need not act on: a damaged block in the cache, a server out of reach.

    Returns
    -------
    VolumeSource
        ``shape`` and ``voxel_size_nm`` are those of the resolution; voxel (0, 0, 0) is the first of the coordinate
        frame, which ``notes["frame_origin"]`` holds.

    Raises
    ------
    NetworkUnreachable
        If the server does not answer, and the cache holds no description of the channel.
    UserError
        If the address is malformed, a name is unknown (the nearest ones are told), the token is refused, the server
        answers with another error or with nonsense, there is no such resolution, the channel holds ids, or the cache
        cannot be written. ``read`` raises likewise.
    """
    options = options or BossOptions()
    names = parse_uri(uri)
    server = Server(options)
    cache = None
    if options.cache_dir is not None:
        cache = BlockCache(options.cache_dir, server.host, uri.rstrip("/"), options.resolution, note)
    whole = _described(server, uri, names, None if options.refresh else cache, note)
    if cache:
        cache.put_description(asdict(whole))
    refuse_resolution(uri, whole, options.resolution)
    if not labels:
        refuse_annotation(uri, whole)
    level, dtype = whole.at(options.resolution), np.dtype(whole.dtype)
    server.remote.volume_service.session.hooks["response"].append(check_cutout(dtype))
    channel = _Channel(server, uri, names, level, cache, progress)
    notes: dict[str, Any] = {"host": server.host, "frame_origin": list(level.start), "resolution": options.resolution}
    if options.resolution != whole.base_resolution and not whole.downsampled:
        line = f"the server says that resolution {options.resolution} of {uri} has not been made; it may be all black"
        notes["messages"] = [line]
    return VolumeSource(uri, level.shape, dtype, channel.read, level.voxel_size_nm, notes=notes)


def _described(
    server: Server, uri: str, names: BossUri, cache: BlockCache | None, note: Callable[[str], None]
) -> Description:
    """The server's description; while it is out of reach, the one that is kept beside the blocks, if that may serve."""
    try:
        with explain_unknown(server, uri, names):
            found = describe(server, uri, names)
    except NetworkUnreachable as error:
        kept = cache and cache.get_description()
        if not kept:
            raise
        note(f"{error}. Using what is kept in {cache.folder}")
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()}
        return Description(**tuples)
    return found


class _Channel:
    """One level of a channel, read block by block."""

    def __init__(
        self,
        server: Server,
        uri: str,
        names: BossUri,
        level: Description,
        cache: BlockCache | None,
        progress: bool,
    ) -> None:
        from intern.resource.boss.resource import ChannelResource

        self.server, self.uri, self.level = server, uri, level
        self.cache, self.progress = cache, progress
        self.resource = ChannelResource(
            names.channel, names.collection, names.experiment, type=level.type, datatype=level.dtype
        )

    def read(self, box: Box) -> np.ndarray:
        """Return a box: blocks from the cache where it has them, the others from the server."""
        if not all(0 <= s.start < s.stop <= n for s, n in zip(box, self.level.shape, strict=True)):
            raise UserError(
                f"{self.uri}: the cutout {_told(box)} lies outside of the extent of {self.level.shape} voxels (z, y, x)"
            )
        origin = [start + side.start for start, side in zip(self.level.start, box, strict=True)]
        out = np.empty([side.stop - side.start for side in box], self.level.dtype)
        blocks = list(_blocks(origin, out.shape))
        silent = not self.progress or not sys.stderr.isatty()
        with tqdm(blocks, desc="download", unit="block", disable=silent, leave=False) as bar:
            for done, block in enumerate(bar):
                inside = tuple(slice(b.start - a, b.stop - a) for a, b in zip(origin, block, strict=True))
                out[inside] = self._block(block, f"{done} of {len(blocks)} blocks", bar.set_postfix_str)
        return out

    def _block(self, block: Box, done: str, retrying: Callable[[str], None]) -> np.ndarray:
        """A block in coordinates of the server's frame."""
        offset, shape = tuple(s.start for s in block), tuple(s.stop - s.start for s in block)
        dtype = np.dtype(self.level.dtype)
        found = self.cache.get(offset, shape, dtype) if self.cache and not self.server.options.refresh else None
        if found is not None:
            return found
        z, y, x = ([s.start, s.stop] for s in block)

        def fetch(remote: Any) -> np.ndarray:
            return remote.get_cutout(self.resource, self.server.options.resolution, x, y, z, parallel=False)

        kept = f"{done} are kept in {self.cache.folder}; " if self.cache else ""
        found = self.server.ask(self.uri, fetch, kept=kept, retrying=retrying)
        if self.cache:
            self.cache.put(offset, found)
        return found


def _told(box: Box) -> str:
    return ", ".join(f"{side.start}:{side.stop}" for side in box)


def _blocks(origin: list[int], shape: tuple[int, ...]) -> Iterator[Box]:
    """Cut a box, given in the server's frame, along the server's own grid of blocks."""
    zs, ys, xs = (list(_spans(a, a + n, step)) for a, n, step in zip(origin, shape, BLOCK, strict=True))
    return ((z, y, x) for z in zs for y in ys for x in xs)


def _spans(start: int, stop: int, step: int) -> Iterator[slice]:
    while start < stop:
        end = min((start // step + 1) * step, stop)
        yield slice(start, end)
        start = end
