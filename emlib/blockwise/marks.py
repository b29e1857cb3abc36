"""Done-marks: a block counts as done once a small file says what it wrote, and that is still as it was written.

A mark is written after the data. It holds the key of its stage, a checksum over all that the outcome depends on, so
that a run with other settings does the block again; and the checksum of each array part and table, so that damage is
found before anything is built on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emlib.blockwise.site import DamagedData, Site, crc
from emlib.runs.artefacts import write_json


def mark_path(site: Site, stage: str, name: str) -> Path:
    """Where the mark of a block lies."""
    return Path(site.work) / stage / f"{name}.json"


def write_mark(site: Site, stage: str, name: str, key: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Put a block on record as done; ``outcome`` holds ``wrote`` and ``told``, JSON values."""
    mark = {"key": key, **outcome}
    write_json(mark_path(site, stage, name), mark)
    return mark


def read_mark(site: Site, stage: str, name: str, key: str) -> dict[str, Any] | None:
    """Return the mark of a block that is done and undamaged, or None.

    Every part that the block wrote is read and compared with its checksum.
    """
    try:
        mark = json.loads(mark_path(site, stage, name).read_text(encoding="utf-8"))
        if mark["key"] != key:
            return None
        for part in mark["wrote"]:
            if "file" in part:
                found = crc((Path(site.work) / part["file"]).read_bytes())
            else:
                found = crc(site.read(part["array"], tuple(slice(first, last) for first, last in part["box"])))
            if found != part["crc"]:
                return None
        return mark
    except (OSError, ValueError, KeyError, TypeError, DamagedData):
        return None
