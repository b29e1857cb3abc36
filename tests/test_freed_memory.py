"""Memory that tensors gave back stays with the process, where the C library can be told so."""

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource
import torch
from emlib.runs.freed_memory import keep_freed_memory

assert keep_freed_memory()
for _ in range(10):
    torch.zeros(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_large_blocks_are_used_again():
    """Ten blocks of 64 MiB, freed one after another, take hardly any new pages; each would take 16384 of 4 KiB."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16384
