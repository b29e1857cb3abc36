"""Tasks that go wrong, for tests of the engine; workers import them by name."""

import os
import signal
import time
from pathlib import Path

from emlib.errors import UserError


def double(site, shared, box):
    """What every task does: read, compute, write."""
    return [site.write("em", box, 2.0 * site.read("raw", box))], {"sum": int(site.read("raw", box).sum())}


def die_once(site, shared, box):
    """Kill the worker the first time that this block is tried."""
    mark = Path(site.work) / f"died-{box[0].start}"
    if box[0].start == shared and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return double(site, None, box)


def die_always(site, shared, box):
    """Kill the worker whenever the block that begins here is tried."""
    if tuple(side.start for side in box) == shared:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(site, None, box)


def fail(site, shared, box):
    """Fail on one block, whatever is tried; says how often."""
    if box[0].start == shared:
        with (Path(site.work) / "tries").open("a") as file:
            file.write("x")
        raise ZeroDivisionError("no way")
    return double(site, None, box)


def fail_once(site, shared, box):
    mark = Path(site.work) / f"failed-{box[0].start}"
    if box[0].start == shared and not mark.exists():
        mark.touch()
        raise OSError("a hiccup of the file system")
    return double(site, None, box)


def refuse(site, shared, box):
    raise UserError("mend this")


def slow(site, shared, box):
    time.sleep(shared)
    return double(site, None, box)
