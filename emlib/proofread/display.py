"""Whether a window can be opened here, said in one line before anything heavy is loaded."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from emlib.errors import UserError

QT = ("PySide6", "PyQt6", "PyQt5")
WITHOUT = "--replay JOURNAL applies a journal without a window"


def require_window() -> None:
    """Make sure that napari is installed and there is a display.

    Raises
    ------
    UserError
        It names the variable or the package that is missing, and the way without a window.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError(
            f"no display: neither DISPLAY nor WAYLAND_DISPLAY is set; log in with a desktop or ssh -X, or {WITHOUT}"
        )
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if platform in ("offscreen", "minimal"):
        raise UserError(f"no display: QT_QPA_PLATFORM is {platform}, which draws no window; unset it, or {WITHOUT}")
    missing = "napari" if find_spec("napari") is None else None if any(map(find_spec, QT)) else "PySide6-Essentials"
    if missing:
        raise UserError(
            f"no window: the package {missing} is not installed; pip install -r requirements-gui.txt, or {WITHOUT}"
        )
