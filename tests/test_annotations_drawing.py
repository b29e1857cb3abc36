"""Shapes become the right pixels: centres inside, against definitions, analytic areas and other libraries."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from skimage.measure import points_in_poly

from emlib.annotations import geometry
from emlib.annotations.classes import make_classes
from emlib.annotations.drawing import DrawSettings, draw, rasterise, scaled
from emlib.annotations.overlap import index_mask, instance_labels, organelle_masks, overlapping_pixels, painting_order
from emlib.annotations.shapes import Annotation, Shape
from emlib.annotations.tracing import trace

SIZE = (60, 80)
HOW = DrawSettings()


def full(region, size=SIZE):
    """The pixels of a region in the whole image."""
    image = np.zeros(size, bool)
    image[region.window] = region.mask
    return image


def pixels(area, size=SIZE):
    """The pixels of an area in the whole image."""
    mask, (row, column) = rasterise(area, size)
    image = np.zeros(size, bool)
    image[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
    return image


def test_a_box_from_10_to_20_covers_columns_10_to_19():
    image = pixels(geometry.rectangle(10, 5, 20, 8))
    rows, columns = np.nonzero(image)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 7, 10, 19)
    assert image.sum() == 30


def test_a_centre_on_an_edge_belongs_to_the_right_and_below():
    image = pixels(geometry.rectangle(10.5, 5.5, 20.5, 8.5))
    rows, columns = np.nonzero(image)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 7, 10, 19)


@pytest.mark.parametrize("seed", range(5))
def test_shapes_side_by_side_share_no_pixel_and_leave_none_out(seed):
    """Triangles that tile the image, corners on pixel centres, where an edge may run through centres."""
    rng = np.random.default_rng(seed)
    places = np.concatenate([rng.integers(0, 60, (20, 2)) + 0.5, [(0, 0), (80, 0), (80, 60), (0, 60)]])
    triangles = shapely.get_parts(shapely.delaunay_triangles(shapely.MultiPoint(places)))
    count = sum(pixels(triangle).astype(int) for triangle in triangles)
    assert (count == 1).all()


@pytest.mark.parametrize("seed", range(10))
def test_pixels_are_those_whose_centre_is_inside(seed):
    """A star-shaped polygon against scikit-image's point test, a hole included."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    ring = np.c_[40 + np.cos(angles) * rng.uniform(12, 28, 12), 30 + np.sin(angles) * rng.uniform(12, 28, 12)]
    hole = [(38, 28), (43, 29), (41, 34)]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    centres = np.c_[x.ravel() + 0.5, y.ravel() + 0.5]
    inside = points_in_poly(centres, ring) & ~points_in_poly(centres, hole)
    area = shapely.make_valid(geometry.polygon(ring, [hole]))
    assert (pixels(area) == inside.reshape(SIZE)).all()


@pytest.mark.parametrize(
    "area, analytic",
    [
        (geometry.polygon(np.array([(10, 10), (400, 30), (300, 420), (40, 350)])), None),
        (geometry.polygon([(0, 0), (500, 0), (500, 500), (0, 500)], [[(100, 100), (200, 100), (200, 200), (100, 200)]]),
         500 * 500 - 100 * 100),
        (geometry.ellipse((250, 250), (200, 200)), np.pi * 200**2),
        (geometry.ellipse((250, 250), (200, 80), 37), np.pi * 200 * 80),
        (geometry.widened(geometry.line([(50, 60), (450, 360)]), 30, 1), 500 * 30 + np.pi * 15**2),
        (geometry.widened(geometry.points([(100, 100), (300, 300)]), 1, 40), 2 * np.pi * 40**2),
    ],
)  # fmt: skip
def test_the_number_of_pixels_is_the_area(area, analytic):
    assert pixels(area, (512, 512)).sum() == pytest.approx(area.area if analytic is None else analytic, rel=2e-3)


def test_an_ellipse_turns_clockwise_as_seen():
    image = pixels(geometry.ellipse((40, 30), (25, 3), 45))
    assert image[45, 55] and not image[15, 55]  # y points down: its right end is below


@pytest.mark.parametrize("seed", range(5))
def test_polygons_agree_with_pycocotools(seed):
    rng = np.random.default_rng(seed)
    ring = shapely.convex_hull(shapely.MultiPoint(rng.uniform((0, 0), (80, 60), (12, 2)))).exterior.coords[:-1]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([np.ravel(ring).tolist()], *SIZE))).astype(bool)
    ours = pixels(geometry.polygon(ring))
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.98  # theirs rounds corners to a fifth of a pixel


def test_a_figure_of_eight_becomes_its_two_loops():
    region, found = draw(Shape("a", "polygon", geometry.polygon([(10, 10), (30, 30), (30, 10), (10, 30)])), SIZE, HOW)
    assert found == ["mended"]
    assert region.mask.sum() == pytest.approx(200, abs=20)
    assert full(region)[20, 12] and full(region)[20, 27] and not full(region)[12, 20]


def test_a_loop_over_its_own_start_stays_filled():
    ring = [(0, 0), (30, 0), (30, 30), (12, 30), (12, 12), (42, 12), (42, 42), (0, 42)]
    region, found = draw(Shape("a", "polygon", geometry.polygon(ring)), SIZE, HOW)
    assert found == ["mended"] and full(region)[20, 20]  # enclosed twice


def test_what_reaches_outside_is_cut_off_and_told():
    region, found = draw(Shape("a", "polygon", geometry.rectangle(-10, 50, 10, 70)), SIZE, HOW)
    assert found == ["clipped"] and full(region).sum() == 100
    assert draw(Shape("a", "polygon", geometry.rectangle(80, 0, 90, 10)), SIZE, HOW) == (None, ["outside"])
    assert draw(Shape("a", "polygon", geometry.rectangle(-0.3, 0, 80.4, 60)), SIZE, HOW)[1] == []


@pytest.mark.parametrize(
    "shape, found",
    [
        (Shape("a", "polygon", geometry.polygon([(1, 1), (5, 5)])), "degenerate"),
        (Shape("a", "polygon", geometry.polygon([(1, 1), (5, 5), (1, 1)])), "degenerate"),
        (Shape("a", "polygon", geometry.polygon([(1, 1), (5, 5), (9, 9)])), "degenerate"),
        (Shape("a", "rectangle", geometry.rectangle(3, 3, 3, 9)), "degenerate"),
        (Shape("a", "polygon", geometry.rectangle(3.6, 3.6, 4.4, 4.4)), "no pixel"),
        (Shape("a", "mask", mask=np.zeros((3, 3), bool)), "degenerate"),
        (Shape("a", "mask", mask=np.ones((3, 3), bool), corner=(60, 0)), "outside"),
    ],
)
def test_shapes_without_pixels_are_told(shape, found):
    region, told = draw(shape, SIZE, HOW)
    assert region is None and told[-1] == found


def test_a_mask_is_cut_at_the_border():
    mask = np.arange(12).reshape(3, 4) % 2 == 0
    region, found = draw(Shape("a", "mask", mask=mask, corner=(-1, 78)), SIZE, HOW)
    assert found == ["clipped"]
    assert (full(region)[0:2, 78:80] == mask[1:, :2]).all() and full(region).sum() == mask[1:, :2].sum()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_points_that_are_no_numbers_are_refused(value):
    with pytest.raises(ValueError, match="two finite numbers"):
        geometry.polygon([(0, 0), (value, 1), (2, 2)])


def test_fractions_become_pixels():
    shape = Shape("a", "polygon", geometry.rectangle(0.25, 0.5, 0.5, 1))
    annotation = Annotation("here", (shape,), "", None, relative=True)
    assert scaled(annotation, SIZE).shapes[0].geometry.bounds == (20, 30, 40, 60)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_traced_outlines_draw_the_same_pixels(seed, share):
    mask = np.random.default_rng(seed).random((13, 17)) < share
    drawn = np.zeros(SIZE, bool)
    for part in trace(mask, (4, 5)):
        assert part.is_valid
        drawn |= pixels(part)
    assert (drawn[4:17, 5:22] == mask).all() and drawn.sum() == mask.sum()


def regions(*boxes):
    """Named rectangles as regions."""
    return [(name, draw(Shape(name, "polygon", geometry.rectangle(*box)), SIZE, HOW)[0]) for name, box in boxes]


@pytest.mark.parametrize(
    "rule, priority, wins",
    [("later", (), "b"), ("earlier", (), "a"), ("smaller", (), "a"), ("larger", (), "b"), ("later", ("a",), "a"),
     ("earlier", ("b", "a"), "b")],
)  # fmt: skip
def test_the_stated_shape_wins_a_pixel(rule, priority, wins):
    both = regions(("a", (10, 10, 20, 20)), ("b", (15, 15, 40, 40)))
    classes = make_classes(["a", "b"])
    mask = index_mask(both, painting_order(both, rule, priority), classes, SIZE)
    assert mask[17, 17] == classes.id_of(wins) and mask[12, 12] == 1 and mask[30, 30] == 2 and mask[0, 0] == 0
    assert overlapping_pixels(both, SIZE) == 25
    organelles = organelle_masks(both, ["a", "b"], SIZE)
    assert [int((organelles[name] == 255).sum()) for name in "ab"] == [100, 625]


def test_instances_of_a_group_are_one_and_hidden_ones_keep_their_number():
    found = regions(("a", (0, 0, 5, 5)), ("a", (10, 0, 15, 5)), ("a", (20, 0, 25, 5)), ("a", (20, 0, 25, 5)))
    found[1] = ("a", type(found[1][1])(Shape("a", "polygon", group="7"), *[found[1][1].mask, found[1][1].corner]))
    found[0] = ("a", type(found[0][1])(Shape("a", "polygon", group="7"), *[found[0][1].mask, found[0][1].corner]))
    labels, objects = instance_labels(found, painting_order(found, "later"), SIZE)
    assert objects == [(1, "a", 50), (2, "a", 0), (3, "a", 25)]
    assert labels.dtype == np.uint16 and labels[2, 2] == labels[2, 12] == 1 and labels[2, 22] == 3


def test_crowds_are_not_numbered():
    region = draw(Shape("a", "mask", mask=np.ones((3, 3), bool), crowd=True), SIZE, HOW)[0]
    labels, objects = instance_labels([("a", region)], [0], SIZE)
    assert not labels.any() and objects == []
