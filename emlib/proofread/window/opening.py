"""Open the window on a session, from the script or from a napari that runs already."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from emlib.errors import UserError
from emlib.proofread.session import Session
from emlib.proofread.window.commands import bind_keys
from emlib.proofread.window.dock import Dock
from emlib.proofread.window.probe import require_qt
from emlib.proofread.window.proofreader import Proofreader
from emlib.proofread.window.references import keep_none

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QWidget


def proofread_in(viewer: napari.components.ViewerModel, session: Session) -> Proofreader:
    """Show a session in a viewer, with its mouse and keys; needs no Qt."""
    proofreader = Proofreader(viewer, session)
    bind_keys(proofreader)
    proofreader.tell(f"{session.edits_in_force} edits in force; click on a neurite, then use buttons or keys")
    return proofreader


def open_window(session: Session, show: bool = True) -> tuple[napari.Viewer, Dock]:
    """Open a window on a session.

    Parameters
    ----------
    session : Session
        Stays open; the caller closes it when the window is closed.
    show : bool

    Returns
    -------
    viewer : napari.Viewer
    dock : Dock
    """
    import napari

    viewer = napari.Viewer(title=f"emlib: {session.files.root}", show=show, show_welcome_screen=False)
    return viewer, add_dock(viewer, session)


def add_dock(viewer: napari.Viewer, session: Session) -> Dock:
    """Show a session in a viewer that has a window, with the dock widget."""
    keep_none()
    proofreader = proofread_in(viewer, session)
    proofreader.in_background, proofreader.later = in_thread, in_a_moment
    dock = Dock(proofreader)
    viewer.window.add_dock_widget(dock.widget, name="proofreading", area="right")
    viewer.reset_view()
    return dock


def run_window(session: Session) -> None:
    """Open a window on a session, and return when it was closed.

    Raises
    ------
    UserError
        If Qt cannot open one here.
    """
    require_qt()
    import napari

    _, dock = open_window(session)
    napari.run()
    dock.proofreader.take_up_strokes()


def in_thread(work: Callable[[], Any], use: Callable[[Any], None]) -> None:
    """Compute in a thread of Qt's, and use the result in the main one; what fails comes back as a `UserError`."""
    from napari.qt.threading import create_worker

    worker = create_worker(lambda: (work(),), _start_thread=False, _ignore_errors=True)
    worker.returned.connect(lambda result: use(result[0]))  # wrapped: a result that is an exception would be raised
    worker.errored.connect(lambda error: use(UserError(f"{type(error).__name__}: {error}")))
    worker.start()


def in_a_moment(action: Callable[[], None]) -> None:
    """Do something when the events at hand are done with."""
    from qtpy.QtCore import QTimer

    QTimer.singleShot(0, action)


def proofreading_widget() -> QWidget:
    """Return the dock widget of the plugin: choose the folder of a run, and proofread it in this napari."""
    import napari
    from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

    widget = QWidget()
    column = QVBoxLayout(widget)
    said, button = QLabel("Open the output folder of run_pipeline.py to proofread it."), QPushButton("open a run …")
    said.setWordWrap(True)
    column.addWidget(said)
    column.addWidget(button)
    column.addStretch(1)

    def chosen() -> None:
        folder = QFileDialog.getExistingDirectory(widget, "Output folder of a run")
        if folder:
            open_run(folder)

    def open_run(folder: str) -> None:
        viewer = napari.current_viewer()
        try:
            session = Session.open(folder)
        except UserError as error:
            said.setText(str(error))
            return
        dock = add_dock(viewer, session)
        dock.widget.destroyed.connect(partial(_close, session))
        said.setText(f"open: {folder}")
        button.setEnabled(False)

    button.clicked.connect(chosen)
    widget.open_run = open_run
    return widget


def _close(session: Session, *_: object) -> None:
    session.close()
