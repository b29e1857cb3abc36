"""The array that is drawn on, and the one that is read from disk, against NumPy's own."""

import numpy as np
import pytest

from emlib.proofread.window.drawing import Drawing
from emlib.proofread.window.stored import Stored
from emlib.volumes.volume import VolumeSource

SHAPE = (3, 4, 5)


def draw_key(rng):
    """An index as napari makes them: numbers, slices, an ellipsis, arrays of places, a mask."""

    def one(length):
        if rng.random() < 0.3:
            return int(rng.integers(-length, length))
        low, high = sorted(rng.integers(0, length + 1, 2))
        return slice(int(low), int(high), int(rng.integers(1, 3)))

    kind = rng.integers(0, 6)
    if kind == 0:
        return tuple(rng.integers(-n, n, 6) for n in SHAPE)
    if kind == 1:
        return rng.random(SHAPE) < 0.2
    if kind == 2:
        return (Ellipsis, one(SHAPE[2]))
    return tuple(one(n) for n in SHAPE[: rng.integers(1, 4)])


@pytest.mark.parametrize("seed", range(40))
def test_a_drawing_is_indexed_as_an_array_and_leaves_what_lies_below(seed):
    rng = np.random.default_rng(seed)
    below = rng.integers(0, 9, SHAPE).astype(np.int32)
    kept, seen, drawing = below.copy(), below.copy(), Drawing(below)
    for _ in range(6):
        key, value = draw_key(rng), int(rng.integers(0, 20))
        if rng.random() < 0.5:
            drawing[key] = value
            seen[key] = value
        assert np.array_equal(drawing[key], seen[key])
    assert np.array_equal(np.asarray(drawing), seen) and np.array_equal(below, kept)
    redrawn = below.copy()
    for label, voxels in drawing.strokes().items():
        redrawn[tuple(voxels.T)] = label
    assert np.array_equal(redrawn, seen)
    drawing.wipe()
    assert not drawing and drawing.strokes() == {} and np.array_equal(drawing[...], kept)


def test_what_is_read_can_be_changed_without_a_trace():
    drawing = Drawing(np.zeros(SHAPE, np.int32))
    drawing[1][0, 0] = 5
    drawing[0:2, :, :][0] = 7
    assert not drawing and not drawing.under.any()


def test_a_section_that_is_not_there():
    drawing = Drawing(np.zeros(SHAPE, np.int32))
    with pytest.raises(IndexError, match="no section 3 of 3"):
        drawing[3]


@pytest.mark.parametrize("seed", range(20))
def test_a_stored_volume_is_indexed_as_an_array(seed):
    rng = np.random.default_rng(seed)
    array, boxes = rng.integers(0, 99, SHAPE), []

    def read(box):
        boxes.append(box)
        return array[box]

    stored = Stored(VolumeSource("none", SHAPE, array.dtype, read))
    for _ in range(6):
        key = draw_key(rng)
        if isinstance(key, np.ndarray):
            continue
        if all(isinstance(entry, np.ndarray) for entry in key):
            continue  # places all over the volume: napari asks a drawing for them, never a picture
        assert np.array_equal(stored[key], array[key])
    stored[1]
    assert boxes[-1] == (slice(1, 2), slice(0, 4), slice(0, 5))  # one section is read, not the volume
    assert np.array_equal(np.asarray(stored), array)
    with pytest.raises(IndexError, match="outside of an axis of 3"):
        stored[3]
