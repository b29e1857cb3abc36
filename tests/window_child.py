"""A real window, driven by its own buttons; the tests start it in a process of its own and kill it.

python window_child.py RUN work|full|predict|plugin
"""

import os
import sys
import time

import numpy as np


def main(run, what):
    """Open the run in a window, do it, and say what came of it, a line each."""
    import napari
    from qtpy.QtWidgets import QApplication

    from emlib.proofread import Session
    from emlib.proofread.window.opening import open_window

    if what == "plugin":
        plugin(run)
        return
    session = Session.open(run)
    viewer, dock = open_window(session)
    QApplication.processEvents()
    print("open", *(layer.name.replace(" ", "_") for layer in viewer.layers), flush=True)
    {"work": work, "full": full, "predict": predict}[what](viewer, dock, session)
    napari.run() if what == "never" else QApplication.processEvents()
    viewer.close()
    session.close()
    print("closed", flush=True)


def place(labels, neurite):
    """A voxel of a neurite."""
    voxels = np.argwhere(labels == neurite)
    return tuple(map(int, voxels[len(voxels) // 2]))


def tap(viewer, proofreader, path):
    """Press, drag and release the real mouse on the canvas, along voxels of the section in view."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    canvas = viewer.window._qt_viewer.canvas.native
    QApplication.processEvents()
    points = [on_canvas(viewer, proofreader, voxel) for voxel in path]
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mouseMove(canvas, QPoint(*points[0]))
    QTest.mousePress(canvas, left, none, QPoint(*points[0]))
    for point in points[1:]:
        QTest.mouseMove(canvas, QPoint(*point), 5)
        QApplication.processEvents()
    QTest.mouseRelease(canvas, left, none, QPoint(*points[-1]))
    QApplication.processEvents()


def on_canvas(viewer, proofreader, voxel):
    """Where a voxel of the section in view lies on the canvas, in pixels from its corner."""
    size = np.asarray(proofreader.session.voxel_size_nm)[1:]
    canvas, camera = viewer.window._qt_viewer.canvas.native, viewer.scene.camera
    middle = np.array([canvas.height(), canvas.width()]) / 2
    at = middle + (np.asarray(voxel[1:]) * size - np.asarray(camera.center)[1:]) * camera.zoom
    return round(float(at[1])), round(float(at[0]))


def work(viewer, dock, session):
    """Edits by the buttons and the mouse, one more each time, until the process is killed."""
    from qtpy.QtWidgets import QApplication

    proofreader = dock.proofreader
    proofreader.layers.look_at(2)
    ids = [int(neurite) for neurite in np.unique(session.labels[2]) if neurite][:4]
    dock.buttons["merge"].click()
    for neurite in ids[:2]:
        voxels = np.argwhere(session.labels[2] == neurite)
        tap(viewer, proofreader, [(2, *map(int, voxels[len(voxels) // 2]))])
    print("said", proofreader.said.text, flush=True)
    proofreader.choose(ids[2])
    dock.buttons["paint"].click()
    proofreader.layers.neurites.brush_size = 2
    tap(viewer, proofreader, [(2, 4, 4), (2, 8, 8), (2, 12, 12)])
    dock.buttons["end"].click()
    proofreader.choose(ids[3])
    dock.buttons["delete"].click()
    dock.name.setText("AVAL")
    proofreader.choose(ids[2])
    dock.name.setText("AVAL")
    dock.name.returnPressed.emit()
    dock.buttons["accept_section"].click()
    QApplication.processEvents()
    np.save(session.files.root / "seen.npy", session.labels)
    print("edits", *(entry.operation for entry in session.journal.entries()), flush=True)
    for _ in range(600):  # killed here
        QApplication.processEvents()
        time.sleep(0.1)


def full(viewer, dock, session):
    """SQLite's own limit on the size of the file fails as a full disk does."""
    from qtpy.QtWidgets import QApplication

    db = session.journal._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    before = session.labels.copy()
    dock.proofreader.choose(int(before.max()))
    for _ in range(200):
        dock.buttons["accept_section"].click()
        if dock.proofreader.said.refused:
            break
    dock.buttons["paint"].click()
    tap(viewer, dock.proofreader, [(0, 4, 4), (0, 8, 8)])
    QApplication.processEvents()
    refused = dock.proofreader.said.refused and "disk is full" in dock.said.text()
    print("refused", refused, np.array_equal(session.labels, before), viewer.window._qt_window.isVisible(), flush=True)
    db.execute("PRAGMA max_page_count = 1000000")
    dock.proofreader.choose(int(before.max()))
    dock.buttons["delete"].click()
    print("said", dock.said.text(), flush=True)


def predict(viewer, dock, session):
    """A live prediction in its thread; the window answers meanwhile."""
    from qtpy.QtWidgets import QApplication

    dock.model.setEditText(os.environ["EMLIB_TEST_MODEL"])
    dock.predict.click()
    turns = 0
    while dock.predicting.busy and turns < 3000:
        QApplication.processEvents()
        time.sleep(0.02)
        turns += 1
    print("predicted", turns > 0, viewer.layers[-1].data.shape, dock.said.text(), flush=True)


def plugin(run):
    """The widget of the manifest in a napari that runs already."""
    from pathlib import Path

    import napari
    import npe2
    from qtpy.QtWidgets import QApplication

    import emlib

    manager = npe2.PluginManager.instance()
    if "emlib" not in manager._manifests:
        manager.register(npe2.PluginManifest.from_file(Path(emlib.__file__).parent / "napari.yaml"))
    viewer = napari.Viewer(show_welcome_screen=False)
    _, widget = viewer.window.add_plugin_dock_widget("emlib", "Proofreading")
    widget.open_run(f"{run}/nowhere")
    print("open", widget.layout().itemAt(0).widget().text(), flush=True)
    widget.open_run(run)
    QApplication.processEvents()
    print("open", *(layer.name.replace(" ", "_") for layer in viewer.layers), flush=True)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
