"""Wall time and peak memory of a command, for the benchmarks that run one as a user types it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A child's peak, as the system counts it, is never below that of the process which started it. Hence a small process
# in between, which starts the command, waits, and tells.
_BETWEEN = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(time.perf_counter() - start, peak / (2**20 if sys.platform == "darwin" else 2**10), file=sys.stderr)
sys.exit(code)
"""


def run_script(script: str, *args: object) -> tuple[float, float]:
    """Run a script of the repository; return wall seconds with interpreter start, and peak MiB. Exit if it fails."""
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    done = subprocess.run([sys.executable, "-c", _BETWEEN, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    seconds, peak = done.stderr.strip().splitlines()[-1].split()
    return float(seconds), float(peak)
