"""A proofreader on napari's viewer model, which needs neither Qt nor a display, and a mouse for it."""

from types import SimpleNamespace

import numpy as np
import pytest
from proofread_run import write_run

from emlib.proofread import Session
from emlib.proofread.window.commands import COMMANDS, run


def open_model(folder):
    """Open the run in a folder; skips where napari is not installed."""
    components = pytest.importorskip("napari.components", reason="napari is not installed: requirements-gui.txt")
    from emlib.proofread.window.opening import proofread_in

    return proofread_in(components.ViewerModel(), Session.open(folder))


def new_model(folder, labels=None, **options):
    """Write a run and open it."""
    pytest.importorskip("napari", reason="napari is not installed: requirements-gui.txt")
    write_run(folder, labels, **options)
    return open_model(folder)


def world(proofreader, voxel):
    """The place of a voxel in nm."""
    return tuple(np.asarray(voxel) * proofreader.session.voxel_size_nm)


def point_at(proofreader, voxel):
    """Put the mouse over a voxel, and its section into view."""
    proofreader.layers.look_at(voxel[0])
    proofreader.viewer.mouse_over_canvas = True
    proofreader.viewer.cursor.position = world(proofreader, voxel)


def press(proofreader, name, voxel=None):
    """Press the key of a command, over a voxel if one is given; through napari's own keymap."""
    from napari.utils.key_bindings import KeymapHandler

    if voxel is not None:
        point_at(proofreader, voxel)
    viewer = proofreader.viewer
    handler = KeymapHandler()
    handler.keymap_providers = [viewer.layers.selection.active, viewer]
    assert handler.press_key(COMMANDS[name].key)
    viewer.mouse_over_canvas = False


def push(proofreader, name):
    """Press the button of a command."""
    return run(proofreader, name)


def mouse(proofreader, voxels, holder=None):
    """Press the left button at the first voxel, move over the others, release; through napari's callbacks."""
    from napari.utils import interactions
    from napari.utils._proxies import ReadOnlyWrapper

    proofreader.layers.look_at(voxels[0][0])
    kinds = ["mouse_press", *["mouse_move"] * (len(voxels) - 1), "mouse_release"]
    calls = {
        "mouse_press": interactions.mouse_press_callbacks,
        "mouse_move": interactions.mouse_move_callbacks,
        "mouse_release": interactions.mouse_release_callbacks,
    }
    for kind, voxel in zip(kinds, [*voxels, voxels[-1]], strict=True):
        event = SimpleNamespace(
            type=kind,
            button=1,
            position=world(proofreader, voxel),
            pos=np.zeros(2),
            is_dragging=kind == "mouse_move",
            modifiers=(),
            view_direction=None,
            up_direction=None,
            dims_displayed=[1, 2],
            handled=False,
            camera_zoom=1.0,
        )
        for target in (proofreader.viewer, proofreader.viewer.layers.selection.active):
            calls[kind](target, ReadOnlyWrapper(event, exceptions=("handled",)))


def click(proofreader, voxel):
    """Click on a voxel."""
    mouse(proofreader, [voxel])


def inside(labels, neurite, section=None):
    """A voxel of a neurite."""
    places = np.argwhere(labels == neurite)
    if section is not None:
        places = places[places[:, 0] == section]
    return tuple(map(int, places[len(places) // 2]))


def refused(proofreader, text):
    """Whether the last thing that the window said is a refusal that holds this text, in one line."""
    said = proofreader.said
    return said.refused and text in said.text and "\n" not in said.text and proofreader.viewer.status == said.text
