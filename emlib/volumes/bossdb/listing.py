"""What a collection holds: experiments, channels, types, extents, voxel sizes."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from emlib.errors import UserError
from emlib.volumes.bossdb.description import UNREAD, ask_frame, build_description, get_channel
from emlib.volumes.bossdb.errors import NOT_NOW, REMEDY, NetworkUnreachable
from emlib.volumes.bossdb.names import explain_unknown, hint, list_names
from emlib.volumes.bossdb.options import BossOptions
from emlib.volumes.bossdb.server import Server
from emlib.volumes.bossdb.uri import SCHEME, parse_listing_uri

if TYPE_CHECKING:
    import pandas as pd

LIST_REMEDY = "check the network and the proxy, and run it again; to work without, --dataset sample://phantom"
COLUMNS = ("experiment", "channel", "type", "dtype", "size_x", "size_y", "size_z")
COLUMNS = (*COLUMNS, "voxel_z_nm", "voxel_y_nm", "voxel_x_nm", "resolutions", "hierarchy", "note")


def list_bossdb(uri: str, options: BossOptions | None = None, *, progress: bool = False) -> pd.DataFrame:
    """List the channels of a collection or of one experiment.

    Parameters
    ----------
    uri : str
        ``bossdb://collection``, ``bossdb://collection/experiment``, or a channel.
    options : BossOptions, optional
        Resolution and cache do not matter.
    progress : bool
        Draw a bar, if stderr is a terminal.

    Returns
    -------
    DataFrame, one row per channel, sorted by experiment and channel
        ``experiment, channel, type, dtype``; ``size_x, size_y, size_z`` in voxels and ``voxel_z_nm, voxel_y_nm,
        voxel_x_nm`` at the finest resolution; ``resolutions`` as ``0-4``; ``hierarchy``; ``note``, why a row is not
        whole. An experiment without channels, or one that may not be read, has a row too.

    Raises
    ------
    NetworkUnreachable
        If the server does not answer.
    UserError
        If the address is malformed, the collection or the experiment unknown (the nearest names are told), or the
        token refused.
    """
    import pandas as pd

    names = parse_listing_uri(uri)
    server = Server(options or BossOptions())
    try:
        with explain_unknown(server, uri, names):
            experiments = list_names(server, uri, names[:1]) if len(names) == 1 else [names[1]]
            channels = {e: _channels(server, uri, names, e) for e in experiments}
    except NetworkUnreachable as error:  # nothing can be listed in its place
        raise NetworkUnreachable(str(error).replace(REMEDY, LIST_REMEDY)) from error
    if not experiments:
        raise UserError(f"{uri} holds no experiment that this token may see; name another collection")
    rows = []
    total = sum(map(len, channels.values()))
    with tqdm(total=total, desc="list", disable=not progress or not sys.stderr.isatty(), leave=False) as bar:
        for experiment, there in channels.items():
            rows += _experiment_rows(server, uri, names[0], experiment, there, bar)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _channels(server: Server, uri: str, names: tuple[str, ...], experiment: str) -> list[str]:
    there = list_names(server, uri, (names[0], experiment))
    if len(names) < 3:
        return there
    if names[2] not in there:
        raise UserError(f"{uri}: no channel {names[2]} in {names[0]}/{names[1]}; {hint(names[2], there, 'channel')}")
    return [names[2]]


def _experiment_rows(
    server: Server, uri: str, collection: str, experiment: str, channels: list[str], bar: tqdm
) -> list[dict[str, Any]]:
    """Rows of one experiment; what the server refuses becomes a note, since the rest is still worth listing."""
    from intern.resource.boss.resource import ExperimentResource

    try:
        project = server.ask(uri, lambda remote: remote.get_project(ExperimentResource(experiment, collection)))
        frame = ask_frame(server, uri, project)
    except UserError as error:
        return [{"experiment": experiment, "channel": name, "note": _refused(error)} for name in channels or [""]]
    rows = [] if channels else [{"experiment": experiment, "channel": "", "note": "no channels"}]
    for name in channels:
        rows.append({"experiment": experiment, "channel": name, "note": ""})
        where = f"{SCHEME}{collection}/{experiment}/{name}"
        try:
            names = (collection, experiment, name)
            channel = server.ask(where, partial(get_channel, uri=where, names=names))
            rows[-1] |= _row(build_description(where, channel, project, frame))
        except UserError as error:
            rows[-1]["note"] = _refused(error)
        bar.update()
    return rows


def _refused(error: UserError) -> str:
    """A status of 4xx or a type in a few words; anything else, and a server that is busy, ends the listing."""
    if unread := re.search(rf"holds \S+(?=, {UNREAD})", str(error)):
        return unread[0]
    status = re.search(r"answered HTTP (4\d\d)", str(error))
    if status is None or int(status[1]) in NOT_NOW:
        raise error
    return f"HTTP {status[1]}"


def _row(found: Any) -> dict[str, Any]:
    sizes = dict(zip(("size_z", "size_y", "size_x"), found.shape, strict=True))
    voxel = found.voxel_size_nm or (float("nan"),) * 3
    levels = found.resolutions
    return {
        "type": found.type,
        "dtype": found.dtype,
        **sizes,
        **dict(zip(("voxel_z_nm", "voxel_y_nm", "voxel_x_nm"), voxel, strict=True)),
        "resolutions": f"{levels[0]}-{levels[-1]}" if len(levels) > 1 else str(levels[0]),
        "hierarchy": found.hierarchy,
    }


def listing_lines(table: pd.DataFrame, collection_uri: str) -> list[str]:
    """Return a listing as lines to print, each channel with the address that ``--dataset`` takes.

    Parameters
    ----------
    table : DataFrame
        From `list_bossdb`.
    collection_uri : str
        As it was given to `list_bossdb`.

    Examples
    --------
    >>> import pandas as pd
    >>> row = dict(experiment="a", channel="em", type="image", dtype="uint8", size_x=100, size_y=90, size_z=30, note="")
    >>> row |= dict(voxel_z_nm=40.0, voxel_y_nm=4.0, voxel_x_nm=4.0, resolutions="0-3", hierarchy="anisotropic")
    >>> print(*listing_lines(pd.DataFrame([row]), "bossdb://lab"), sep="\\n")
    address            type   dtype  size (x y z)   voxel nm (z y x)  resolutions      note
    bossdb://lab/a/em  image  uint8  100 × 90 × 30  40 × 4 × 4        0-3 anisotropic
    """
    collection = parse_listing_uri(collection_uri)[0]
    rows = [("address", "type", "dtype", "size (x y z)", "voxel nm (z y x)", "resolutions", "note")]
    for row in table.to_dict("records"):
        address = f"{SCHEME}{collection}/{row['experiment']}/{row['channel']}".rstrip("/")
        known = isinstance(row["dtype"], str)
        size = " × ".join(f"{row[name]:.0f}" for name in ("size_x", "size_y", "size_z")) if known else ""
        voxel = " × ".join(f"{row[name]:g}" for name in ("voxel_z_nm", "voxel_y_nm", "voxel_x_nm")) if known else ""
        kind = (row["type"], row["dtype"]) if known else ("", "")
        levels = f"{row['resolutions']} {row['hierarchy']}" if known else ""
        rows.append((address, *kind, size, voxel.replace("nan × nan × nan", "unknown"), levels, row["note"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
