"""Whether Qt can open a window here, tried in a process of its own: where it cannot, it ends its process."""

from __future__ import annotations

import subprocess
import sys

from emlib.errors import UserError
from emlib.proofread.display import WITHOUT

TRY = "from qtpy.QtGui import QGuiApplication; QGuiApplication([])"
SECONDS = 60


def require_qt() -> None:
    """Make sure that Qt can connect to the display.

    Raises
    ------
    UserError
        With what Qt says: a display that does not answer, or a library of the system that is missing.
    """
    try:
        done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"no window: Qt got no answer from the display in {SECONDS} s; check it, or {WITHOUT}"
        ) from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in said if "needed" in line or "not connect" in line), said[-1] if said else "")
        raise UserError(f"no window: Qt ended with {done.returncode} ({why[:200]}); mend that, or {WITHOUT}")
