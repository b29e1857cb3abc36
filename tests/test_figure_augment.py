"""The contact sheet of augmented patches: outlines where the masks end, hatching where nobody annotated."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from emlib.publish.figure_augment import COLOURS, default_colours, figure_augment


def texts(figure):
    return [text.get_text() for text in figure.texts]


def sheet(count=2, organelles=2, side=64):
    return np.full((count, side, side), 0.5), np.zeros((count, organelles, side, side))


def painted(picture, colour):
    return (picture == np.round(255 * np.array(to_rgb(colour)))).all(-1)


def test_outlines_lie_within_their_masks_in_their_colours():
    images, masks = sheet()
    masks[1, 0, 10:30, 20:50] = 1
    masks[1, 1, 40:60, 5:15] = 1
    figure = figure_augment(images, masks, ["membranes", "synapses"], ["#FF0000", "#00FF00"])
    plain, picture = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    assert not painted(plain, "#FF0000").any() and not painted(plain, "#00FF00").any()
    factor = picture.shape[0] // 64
    for colour, (y, x) in (("#FF0000", ((10, 30), (20, 50))), ("#00FF00", ((40, 60), (5, 15)))):
        rows, columns = painted(picture, colour).nonzero()
        assert (rows.min(), rows.max() + 1) == (y[0] * factor, y[1] * factor)
        assert (columns.min(), columns.max() + 1) == (x[0] * factor, x[1] * factor)
        assert len(rows) < 0.5 * factor**2 * (y[1] - y[0]) * (x[1] - x[0])  # a line, no filling


def test_what_nobody_annotated_is_hatched_or_named():
    images, masks = sheet(3)
    masks[0, :, :20] = np.nan
    masks[1, 1] = np.nan
    masks[2] = np.nan
    figure = figure_augment(images, masks, ["membranes", "synapses"])
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    changed = [(picture != picture[-1, -1]).any(-1) for picture in pictures]
    factor = pictures[0].shape[0] // 64
    assert changed[0][: 20 * factor].any() and not changed[0][20 * factor :].any()
    assert not changed[1].any() and 0.2 < (pictures[2] != pictures[1]).any(-1).mean() < 0.5
    assert texts(figure).count("not annotated") == 1 and "not annotated: synapses" in texts(figure)
    assert "not annotated" not in texts(figure_augment(*sheet(), ["membranes", "synapses"]))


def test_background_of_classes_is_not_outlined():
    images, masks = sheet(1)
    masks[0, 0], masks[0, 1, 10:20, 10:20] = 1, 1
    masks[0, 0, 10:20, 10:20] = 0
    figure = figure_augment(images, masks, ["background", "nucleus"], ["#0000FF", "#FF0000"])
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert painted(picture, "#FF0000").any() and not painted(picture, "#0000FF").any()
    assert "nucleus" in texts(figure) and "background" not in texts(figure)


def test_sixteen_patches_of_eight_organelles_fit_a_page():
    names = [f"a rather long name of organelle {i}" for i in range(8)]
    figure = figure_augment(*sheet(16, 8), names)
    assert len(figure.axes) == 16 and set(names) <= set(texts(figure)) and max(figure.get_size_inches()) < 14
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    figure.canvas.draw()
    for text in figure.texts:
        box = text.get_window_extent().transformed(figure.transFigure.inverted())
        assert 0 <= box.x0 and box.x1 <= 1 and not any(box.overlaps(panel) for panel in boxes if text.get_text())


def test_grey_is_stretched_alike_and_low_contrast_is_seen():
    """Twelve bits in sixteen fill a sixteenth of the range; on the sheet they fill it."""
    ramp = np.linspace(0, 1 / 16, 64)[None].repeat(64, 0)
    figure = figure_augment(np.stack([ramp, ramp / 2]), sheet()[1], ["a", "b"])
    bright, dark = (np.asarray(axes.images[0].get_array()).max() for axes in figure.axes)
    assert bright == 255 and 110 < dark < 145


def test_default_colours_differ():
    assert default_colours(3) == list(COLOURS[:3]) and len(set(default_colours(40))) == 40


def test_what_does_not_fit_is_refused():
    images, masks = sheet()
    with pytest.raises(ValueError, match="do not fit"):
        figure_augment(images, masks, ["one"])
    with pytest.raises(ValueError, match="do not fit"):
        figure_augment(images[:0], masks[:0], ["a", "b"])
    with pytest.raises(ValueError, match="2 names and 1 colours"):
        figure_augment(images, masks, ["a", "b"], ["red"])
