"""The figure of the worst merge and split: the right ids painted, the ring on the place, all named and legible."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from emlib.publish.figure_errors import GROUND, ErrorView, figure_errors
from emlib.publish.page import save_figure
from emlib.publish.style import GREEN, ORANGE, SKY

NOTE = "SYNTHETIC PHANTOM: BossDB could not be reached"
HUGE = 2**63


def box(shape=(9, 40, 60)):
    """Truth: 11 left, 12 right of the middle, 13 above both; prediction: 7 over 11 and 12, 8 and 9 in 13; EM noise."""
    truth, pred = np.zeros((2, *shape), np.int64)
    half = shape[2] // 2
    truth[:, 10:, :half], truth[:, 10:, half:], truth[:, :9] = 11, 12, 13
    pred[:, 10:], pred[:, :9, :half], pred[:, :9, half:] = 7, 8, 9
    em = np.random.default_rng(0).integers(60, 200, shape).astype(np.uint8)
    return truth, pred, em


def merge(shape=(9, 40, 60), **changes) -> ErrorView:
    truth, pred, em = box(shape)
    place = (shape[0] // 2, 15, shape[2] // 2)
    return replace(
        ErrorView("merge", truth, pred, em, place, (100, 2000, 30), 7, (11, 12), 0.12345, (8100, 900)), **changes
    )


def split(shape=(9, 40, 60), **changes) -> ErrorView:
    truth, pred, em = box(shape)
    place = (0, 4, shape[2] // 2)
    return replace(ErrorView("split", truth, pred, em, place, (0, 0, 0), 13, (8, 9), 0.5, (2430, 2430)), **changes)


def huge(view: ErrorView) -> ErrorView:
    """The same with ids that fit into no int64."""
    truth, pred = (np.where(ids > 0, ids.astype(np.uint64) + np.uint64(HUGE), 0) for ids in (view.truth, view.pred))
    first, second = view.parts
    return replace(view, truth=truth, pred=pred, one=view.one + HUGE, parts=(first + HUGE, second + HUGE))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def panels(figure: Figure) -> dict:
    """The panels by title without their letter; of several with one title the first."""
    titles = {text.get_position(): text.get_text()[3:] for text in figure.texts}
    found = {}
    for axes in figure.axes:
        place = axes.get_position()
        nearest = min(titles, key=lambda at: np.hypot(at[0] - place.x0, at[1] - place.y1))
        found.setdefault(titles[nearest], axes)
    return found


def paint(axes, x: float, y: float) -> str | None:
    """The colour painted at a voxel, or None where there is grey only."""
    left, right, bottom, top = axes.images[0].get_extent()
    picture = np.asarray(axes.images[0].get_array())[..., :3].astype(float)
    column, row = (x - left) / (right - left) * picture.shape[1], (y - top) / (bottom - top) * picture.shape[0]
    pixel = picture[int(row), int(column)]
    tint = pixel - pixel.mean()
    if np.abs(tint).max() < 3:
        return None
    hues = {colour: np.array(to_rgb(colour)) - np.mean(to_rgb(colour)) for colour in (ORANGE, SKY, GREEN)}
    return max(hues, key=lambda colour: tint @ hues[colour] / np.linalg.norm(hues[colour]))


FIGURES = {
    "merge and split": lambda: figure_errors([merge(), split()], (50, 4, 4), NOTE),
    "near isotropic": lambda: figure_errors([merge(), split()], (10, 10, 10), NOTE),
    "no EM": lambda: figure_errors([merge(em=None), split(em=None)], (50, 4, 4), NOTE),
    "no voxel size": lambda: figure_errors([merge(), split()], None, NOTE),
    "one view": lambda: figure_errors([split()], (50, 4, 4), NOTE),
    "several of a kind": lambda: figure_errors([split(), merge(), merge()], (50, 4, 4), NOTE),
    "single sections": lambda: figure_errors([merge((1, 40, 60)), split((1, 20, 20))], (50, 4, 4), NOTE),
    "narrow": lambda: figure_errors([merge((17, 257, 6)), split((5, 257, 4))], (50, 4, 4), NOTE),
    "flat": lambda: figure_errors([merge((2, 16, 257)), split((2, 16, 257), em=None)], (10, 10, 10), NOTE),
    "ids beyond int64": lambda: figure_errors([huge(merge()), huge(split(em=None))], (50, 4, 4), NOTE),
    "grey of floats, all equal": lambda: figure_errors([merge(em=np.full((9, 40, 60), 0.5))], (50, 4, 4), NOTE),
    "nothing wrong": lambda: figure_errors([], (50, 4, 4), NOTE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_legible(name, tmp_path):
    """Nothing is cut off, no text overlaps another, the note stands first."""
    figure = FIGURES[name]()
    png, pdf = save_figure(figure, tmp_path, "errors")
    assert np.asarray(Image.open(png)).std() > 1 and pdf.read_bytes().rstrip().endswith(b"%%EOF")
    assert figure.get_suptitle().startswith(NOTE)
    hidden = {text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
    boxes = np.array([text.get_window_extent(figure.canvas.get_renderer()).extents for text in texts])
    assert (boxes[:, :2] > -1).all() and (boxes[:, 2:] < np.array(figure.bbox.size) + 1).all()
    common = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    clash = np.argwhere(np.triu((common > 2).all(2), 1))  # boxes are a little larger than the ink
    assert not len(clash), [(texts[i].get_text(), texts[j].get_text()) for i, j in clash]
    for text, extents in zip(texts, boxes, strict=True):  # nor does the page's text run into a picture
        if text.axes is None:
            for axes in figure.axes:
                over = np.minimum(extents[2:], axes.bbox.extents[2:]) - np.maximum(extents[:2], axes.bbox.extents[:2])
                assert over.min() < 2, text.get_text()


@pytest.mark.parametrize("change", [lambda view: view, huge, lambda view: replace(view, em=None)])
def test_only_the_ids_at_fault_are_painted(change):
    at = panels(figure_errors([change(merge())], (50, 4, 4)))
    truth, pred = at["Truth, z = 104"], at["Prediction, z = 104"]
    assert [paint(truth, x, 30) for x in (10, 50)] == [ORANGE, SKY]
    assert [paint(pred, x, 30) for x in (10, 50)] == [GREEN, GREEN]
    assert [paint(axes, x, 4) for axes in (truth, pred) for x in (10, 50)] == [None] * 4
    truth, pred = at["Truth, x–z at y = 2015"], at["Prediction, x–z at y = 2015"]
    assert [paint(truth, x, 1) for x in (10, 50)] == [ORANGE, SKY]
    assert [paint(pred, x, 7) for x in (10, 50)] == [GREEN, GREEN]

    at = panels(figure_errors([change(split())], (50, 4, 4)))
    assert [paint(at["Truth, z = 0"], x, 4) for x in (10, 50)] == [GREEN, GREEN]
    assert [paint(at["Prediction, z = 0"], x, 4) for x in (10, 50)] == [ORANGE, SKY]
    assert [paint(at["Prediction, z = 0"], x, 30) for x in (10, 50)] == [None, None]


def test_neighbouring_ids_beyond_float_precision_stay_apart():
    """11 and 12 beyond 2^63 are one number as float64; the outlines and the paint must not be."""
    at = panels(figure_errors([huge(merge())], (50, 4, 4)))["Truth, z = 104"]
    assert paint(at, 28, 30) == ORANGE and paint(at, 32, 30) == SKY


def test_the_cut_runs_through_the_row_of_the_place():
    view = merge()
    view.truth[view.place[0] + 1 :, view.place[1], 30:] = 0  # nor in other rows than the cut's
    at = panels(figure_errors([view], (50, 4, 4)))["Truth, x–z at y = 2015"]
    assert [paint(at, 50, z) for z in (0, 4, 5, 8)] == [SKY, SKY, None, None]


def test_em_stands_alone_and_others_are_outlined():
    """The EM panel has no colour and no outline; in the others a white line parts ids that are not painted."""
    view = merge(em=np.full((9, 40, 60), 7, np.uint8))
    at = panels(figure_errors([view], (50, 4, 4)))
    assert len(np.unique(np.asarray(at["EM, z = 104"].images[0].get_array()))) == 1
    bare = figure_errors([merge(em=None)], (50, 4, 4))
    assert "EM, z = 104" not in panels(bare)
    picture = np.asarray(panels(bare)["Prediction, z = 104"].images[0].get_array())
    across = picture[picture.shape[0] // 10, :, 0]  # through predicted 8 and 9, which have no part in the merge
    assert (across > GROUND + 20).sum() == 1 and np.median(across) == GROUND & 0xFC


def test_the_ring_sits_on_the_place_and_the_titles_lead_there():
    view = merge(place=(1, 39, 0))
    figure = figure_errors([view], (50, 4, 4))
    at = panels(figure)
    assert set(at) == {
        "EM, z = 101",
        "Truth, z = 101",
        "Prediction, z = 101",
        "Truth, x–z at y = 2039",
        "Prediction, x–z at y = 2039",
    }
    for title, axes in at.items():
        rings = [mark.get_offsets().tolist() for mark in axes.collections if mark.get_gid() == "place"]
        assert rings == [[[0, 1 if "x–z" in title else 39]]] * 2
        assert axes.get_xlim() == (-0.5, 59.5) and axes.get_ylim() == ((8.5 if "x–z" in title else 39.5), -0.5)
    text = " ".join(words(figure))
    assert "Merge: predicted 7 joins true 11 and true 12" in text
    assert "true 11: 8\u202f100 voxels in common" in text and "true 12: 900 voxels in common" in text
    assert "Place (z, y, x): 101, 2039, 30" in text and "Adds 0.123 bits to VOI merge" in text


def test_ids_are_written_whole():
    text = " ".join(words(figure_errors([huge(merge()), huge(split())], (50, 4, 4))))
    for one in (7, 11, 12, 13, 8, 9):
        assert str(HUGE + one) in text


def test_a_part_absent_from_the_section_is_said_to_be():
    view = merge()
    view.truth[view.place[0], 10:, 30:] = 0
    assert "true 12: 900 voxels in common, none at z = 104" in words(figure_errors([view], (50, 4, 4)))
    assert not any("none at" in text for text in words(figure_errors([merge()], (50, 4, 4))))


def test_merges_come_first_and_only_what_is_there_is_named():
    rows = [text for text in words(figure_errors([split(), merge()], None)) if text.startswith(("Merge", "Split"))]
    assert rows == [
        "Merge: predicted 7 joins true 11 and true 12",
        "Split: true 13 is cut into predicted 8 and predicted 9",
    ]
    assert figure_errors([split(), merge()], None).get_suptitle() == "The worst merge and the worst split"
    assert figure_errors([split()], None).get_suptitle() == "The worst split"
    assert figure_errors([merge(), merge()], None).get_suptitle() == "The 2 worst merges"
    assert "No merge and no split was found" in " ".join(words(figure_errors([], None)))


def test_pictures_keep_their_shape_unless_a_factor_is_given():
    for size, factor in (((50, 4, 4), None), ((10, 10, 10), "z × 1.3"), (None, "z × 1.3")):
        for title, axes in panels(figure_errors([merge()], size)).items():
            inches = axes.get_position().size * axes.figure.get_size_inches()
            voxel = inches / np.abs([np.subtract(*axes.get_xlim()), np.subtract(*axes.get_ylim())])
            cut = "x–z" in title
            true = (size[0] if cut else size[1]) / size[2] if size else 1
            stretch = voxel[1] / voxel[0] / true
            assert (factor is None or not cut) == ("z ×" not in title)
            assert stretch == pytest.approx(float(title.split("× ")[1]) if "z ×" in title else 1, abs=0.05)


def test_scale_bars_only_where_the_size_is_known():
    for size, length in (((50, 4, 8), 8), (None, None)):
        figure = figure_errors([merge()], size)
        bars = [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "scale_bar"]
        assert len(bars) == (5 if size else 0)
        if size:
            labels = [text.get_text() for axes in figure.axes for text in axes.texts]
            assert [float(label.split()[0]) for label in labels] == pytest.approx(
                [bar.get_width() * length for bar in bars]
            )
    assert "Voxel size not known" in " ".join(words(figure))


def test_equal_errors_give_equal_bytes(tmp_path):
    first = [path.read_bytes() for path in save_figure(FIGURES["merge and split"](), tmp_path / "a", "errors")]
    second = [path.read_bytes() for path in save_figure(FIGURES["merge and split"](), tmp_path / "b", "errors")]
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hole"}, "a merge or a split, not 'hole'"),
        ({"pred": np.zeros((9, 40, 61), int)}, "one shape"),
        ({"place": (9, 0, 0)}, "outside of the box"),
        ({"parts": (11, 11)}, "one id, 11"),
    ],
)
def test_impossible_views_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        merge(**change)


def test_figure_of_real_neurites(real_data):
    """Two neighbours under one id in a real crop: both are painted, and the EM is the section's."""
    tifffile = pytest.importorskip("tifffile")
    window = np.s_[4:11, 100:300, 80:280]
    em, truth = (
        tifffile.imread(real_data / "larval-vnc-3d" / name)[window] for name in ("em_u8_zyx.tif", "neurites_u8_zyx.tif")
    )
    ids, voxels = np.unique(truth[3][truth[3] > 0], return_counts=True)
    first, second = (int(one) for one in ids[np.argsort(-voxels)][:2])
    pred = np.where(truth == second, first, truth)
    y, x = (int(n[0]) for n in np.nonzero(truth[3] == second))
    view = ErrorView("merge", truth, pred, em, (3, y, x), (4, 100, 80), first, (first, second), 0.1, (1, 1))
    at = panels(figure_errors([view], (50, 4, 4)))
    for one, colour in ((first, ORANGE), (second, SKY)):
        inside = np.argwhere(truth[3] == one)
        y, x = inside[len(inside) // 2]
        assert paint(at["Truth, z = 7"], x, y) == colour and paint(at["Prediction, z = 7"], x, y) == GREEN
    outside = np.argwhere((truth[3] != first) & (truth[3] != second))[::997]
    assert all(paint(at["Truth, z = 7"], x, y) is None for y, x in outside)
