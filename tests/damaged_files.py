"""How tests damage files, and what a reader may do with them: read, or say in one line why not."""

import json
import resource
import signal
from contextlib import contextmanager

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from emlib.errors import UserError

LIMIT_S = 10  # for one file of a few kB; a reader that needs more hangs
ROOM = 2 << 30  # bytes of address space beyond what the process has when the test begins
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
WORDS = [
    "-1",
    "0",
    "1e308",
    "-0",
    "nan",
    "9" * 30,
    "null",
    "true",
    '"',
    "[",
    "{",
    "\n",
    "\0",
    "é",
    ",",
    "(",
    "../",
    "%s",
]

KINDS = ["flip", "flip", "number", "word", "cut", "drop", "repeat", "flip early", "number early", "word early"]


def drawn(seed):
    """Which of several files (0 … 1), and one to three changes to it: (kind, place 0 … 1, value)."""
    rng = np.random.default_rng(seed)
    changes = []
    for _ in range(rng.integers(1, 4)):
        kind = KINDS[rng.integers(len(KINDS))]
        values = NUMBERS if kind.startswith("number") else WORDS if kind.startswith("word") else range(1, 65)
        changes.append((kind, float(rng.random()), values[rng.integers(len(values))]))
    return float(rng.random()), changes


# Drawn from a seed: strategies that Hypothesis composes prefer ends and small values, which all fall on the header.
DAMAGE = st.integers(0, 2**32 - 1).map(drawn)


class Hang(BaseException):
    """The time for one file ran out; no `Exception`, so that no reader takes it for damage."""


def fuzz(examples):
    """Settings of a property: the same files in every run, whatever machine it is."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


def damaged(content, changes):
    """Apply changes to bytes; those called early fall on the first 512."""
    content = bytearray(content)
    for kind, place, value in changes:
        reach = min(512, len(content)) if kind.endswith("early") else len(content)
        at = int(place * reach)
        if not content:
            break
        if kind.startswith("flip"):
            content[at] ^= 1 << value % 8
        elif kind.startswith("number"):
            width = 1 if value < 256 else 2 if value < 2**16 else 4 if value < 2**32 else 8
            content[at : at + width] = value.to_bytes(width, "little")
        elif kind.startswith("word"):
            content[at : at + len(value)] = value.encode()
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + value]
        else:
            content[at:at] = content[at : at + value]
    return bytes(content)


@contextmanager
def bounded():
    """A limit on the time and on the memory that the block may take."""

    def ring(*_):
        raise Hang(f"not done after {LIMIT_S} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def outcome(read):
    """Call a reader within `bounded`; return (its result, None) or (None, the one line that the user sees)."""
    try:
        with bounded():
            return read(), None
    except UserError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 2000, line
        return None, line


def listing(folder):
    """Every file under a folder with its bytes, to see that a reader leaves none behind and changes none."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_zarr_v2(path, **changes):
    """A Zarr v2 array of 2 × 4 × 4 bytes without a chunk; ``changes`` are keys of its metadata."""
    meta = {"zarr_format": 2, "shape": [2, 4, 4], "chunks": [2, 4, 4], "dtype": "|u1", "compressor": None}
    path.mkdir()
    (path / ".zarray").write_text(json.dumps(meta | {"filters": None, "fill_value": 0, "order": "C"} | changes))
    return path
