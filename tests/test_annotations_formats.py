"""Files as other programs write them are read; each covers the pixels that its program's convention says."""

import json

import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH, box, grey, labelme_shape, png_text, save, write_labelme
from PIL import Image

from emlib.annotations.classes import read_classes
from emlib.annotations.convert import ConvertSettings, convert
from emlib.errors import UserError

BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[20:30, 10:20] = True  # the pixels of a rectangle from (10, 20) to (20, 30)


def run(folder, kind, **more):
    """Convert folder/in and return the output folder."""
    options = {"format": kind, "input": folder / "in", "output": folder / "out", "split": (1, 0, 0), **more}
    convert(ConvertSettings(**options))
    return options["output"]


def masks(out, name="img", split="train"):
    """The pixels of each class of an index mask, by name."""
    ids = np.asarray(Image.open(out / split / "masks" / f"{name}.png"))
    return {one.name: ids == one.id for one in read_classes(out / "classes.yaml").classes}


@pytest.fixture
def folder(tmp_path):
    """A folder whose ``in`` holds img.png."""
    save(tmp_path / "in" / "img.png", grey())
    return tmp_path


# Labelme


def test_labelme_shapes_of_all_types(folder):
    mask = np.array([[1, 0, 1], [1, 1, 1]], bool)
    shapes = [
        labelme_shape("polygon", box(10, 20, 20, 30)),
        labelme_shape("rectangle", [[60, 50], [50, 40]], "rectangle"),
        labelme_shape("circle", [[40, 10], [40, 15]], "circle"),
        labelme_shape("line", [[30, 30], [40, 30]], "line"),
        labelme_shape("strip", [[50, 5], [60, 5], [60, 15]], "linestrip"),
        labelme_shape("point", [[70.5, 50.5]], "point"),
        labelme_shape("points", [[70, 20], [75, 30]], "points"),
        labelme_shape("mask", [[2, 3], [4, 4]], "mask", mask=png_text(mask)),
    ]
    write_labelme(folder / "in" / "img.json", shapes)
    found = masks(run(folder, "labelme", line_width=4, point_radius=2))
    assert (found["polygon"] == BOX).all()
    assert found["rectangle"][40:50, 50:60].all() and found["rectangle"].sum() == 100
    assert found["circle"].sum() == pytest.approx(np.pi * 25, abs=4) and found["circle"][5:15, 39:41].all()
    assert found["line"][28:32, 30:40].all() and not found["line"][27, 35] and not found["line"][32, 35]
    assert found["strip"][5, 55] and found["strip"][12, 60]
    assert found["point"][49:52, 69:72].all() and found["point"].sum() == pytest.approx(4 * np.pi, abs=2)
    assert found["points"][20, 70] and found["points"][30, 75]
    assert (found["mask"][3:5, 2:5] == mask).all() and found["mask"].sum() == 5


def test_labelme_reads_the_image_that_a_file_holds(tmp_path):
    inside = grey(3)
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape("m", box(10, 20, 20, 30))], "lost.png", png_text(inside))
    out = run(tmp_path, "labelme")
    assert (np.asarray(Image.open(out / "train/raw/a.png")) == inside).all()
    assert (masks(out, "a")["m"] == BOX).all()


def test_a_file_beside_wins_over_the_image_inside_and_keeps_16_bits(tmp_path):
    image = grey(3, dtype=np.uint16)
    save(tmp_path / "in" / "a.png", image)
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape("m", box(1, 1, 5, 5))], "a.png", png_text(grey(1)))
    written = np.asarray(Image.open(run(tmp_path, "labelme") / "train/raw/a.png"))
    assert written.dtype == np.uint16 and (written == image).all()


def test_labelme_paths_of_windows_and_other_folders(tmp_path):
    save(tmp_path / "pictures" / "img.tif", grey())
    write_labelme(tmp_path / "in" / "img.json", [labelme_shape("m", box(1, 1, 5, 5))], "..\\scans\\img.png")
    out = run(tmp_path, "labelme", images=tmp_path / "pictures")
    assert (np.asarray(Image.open(out / "train/raw/img.png")) == grey()).all()


def test_labelme_groups_are_one_object(folder):
    import tifffile

    shapes = [labelme_shape("m", box(1, 1, 5, 5), group_id=4), labelme_shape("m", box(10, 10, 15, 15), group_id=4)]
    write_labelme(folder / "in" / "img.json", [*shapes, labelme_shape("m", box(20, 20, 25, 25))])
    labels = tifffile.imread(run(folder, "labelme", to="instances") / "train/instances/img.tif")
    assert labels.dtype == np.uint16 and labels[2, 2] == labels[12, 12] == 1 and labels[22, 22] == 2


def test_colour_images_become_grey_with_a_note(tmp_path):
    save(tmp_path / "in" / "img.png", np.stack([grey(1), grey(2), grey(3)], axis=-1))
    write_labelme(tmp_path / "in" / "img.json", [labelme_shape("m", box(1, 1, 5, 5))])
    out = run(tmp_path, "labelme")
    luma = 0.299 * grey(1) + 0.587 * grey(2) + 0.114 * grey(3)
    assert np.abs(np.asarray(Image.open(out / "train/raw/img.png")) - luma).max() <= 0.501
    assert "RGB converted to grey" in (out / "report.md").read_text()


# COCO


def coco(annotations, images=None, **more):
    """A COCO file's content."""
    listed = images or [{"id": 1, "file_name": "img.png", "height": HEIGHT, "width": WIDTH}]
    return {"info": {}, "licenses": [], "images": listed, "annotations": annotations,
            "categories": [{"id": 7, "name": "m", "supercategory": ""}, {"id": 9, "name": "n"}], **more}  # fmt: skip


def runs_of(mask):
    """Uncompressed run lengths, down the columns, by definition."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return [0, *counts] if flat[0] else counts


@pytest.mark.parametrize("kind", ["polygon", "runs", "compressed", "box"])
def test_coco_segmentations_of_all_kinds(folder, kind):
    from pycocotools import mask as coco_mask

    one = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 100, "bbox": [10, 20, 10, 10]}
    compressed = coco_mask.encode(np.asfortranarray(BOX, np.uint8))
    one["segmentation"] = {
        "polygon": [[10, 20, 20, 20, 20, 30, 10, 30]],
        "runs": {"size": [HEIGHT, WIDTH], "counts": runs_of(BOX)},
        "compressed": {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()},
        "box": [],
    }[kind]
    (folder / "in" / "instances.json").write_text(json.dumps(coco([one])))
    assert (masks(run(folder, "coco"))["m"] == BOX).all()


@pytest.mark.parametrize(
    "listed, said", [({"height": 60, "width": 80}, "60 × 81 and 60 × 80"), ({}, "of an image of 60 × 81")]
)
def test_coco_run_lengths_of_another_size(folder, listed, said):
    one = {"id": 1, "image_id": 1, "category_id": 7, "segmentation": {"size": [60, 81], "counts": [60 * 81]}}
    (folder / "in" / "a.json").write_text(json.dumps(coco([one], [{"id": 1, "file_name": "img.png", **listed}])))
    with pytest.raises(UserError, match=said):
        run(folder, "coco")


def test_coco_polygons_of_one_annotation_are_one_object(folder):
    two = [np.ravel(box(0, 0, 5, 5)).tolist(), np.ravel(box(10, 0, 15, 5)).tolist()]
    (folder / "in" / "a.json").write_text(
        json.dumps(coco([{"id": "x", "image_id": 1, "category_id": 7, "segmentation": two}]))
    )
    out = run(folder, "coco", to="instances")
    assert (out / "instances.csv").read_text() == "split,image,id,class,pixels\ntrain,img,1,m,50\n"


def test_coco_splits_of_files_names_with_folders_and_images_without_shapes(tmp_path):
    for split in ("train", "val"):
        save(tmp_path / "in" / split / "a.png", grey())
        images = [{"id": 0, "file_name": "a.png"}]  # Label Studio may leave sizes out
        found = [{"id": 0, "image_id": 0, "category_id": 9, "segmentation": [np.ravel(box(10, 20, 20, 30)).tolist()]}]
        content = coco(found if split == "train" else [], images)
        (tmp_path / "in" / split / "_annotations.coco.json").write_text(json.dumps(content))  # as Roboflow
    out = run(tmp_path, "coco", split=None)
    assert (masks(out, "a")["n"] == BOX).all() and not masks(out, "a", "val")["n"].any()
    assert "empty" in (out / "report.csv").read_text()


# CVAT


CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>1</id><name>em</name><size>1</size><mode>annotation</mode></task></meta>
  <image id="0" name="img.png" width="{WIDTH}" height="{HEIGHT}">
    <polygon label="top" source="manual" occluded="0" z_order="1"
             points="10.00,20.00;20.00,20.00;20.00,30.00;10.00,30.00">
    </polygon>
    <box label="box" source="manual" occluded="0" xtl="15.0" ytl="25.0" xbr="40.0" ybr="35.0" z_order="0">
      <attribute name="sure">yes</attribute>
    </box>
    <ellipse label="ellipse" source="manual" occluded="0" cx="60.0" cy="20.0" rx="10.0" ry="5.0" z_order="0"></ellipse>
    <polyline label="line" source="manual" occluded="0" points="5.0,50.0;25.0,50.0" z_order="0"></polyline>
    <points label="point" source="manual" occluded="0" points="70.5,50.5;75.5,50.5" z_order="0"></points>
    <mask label="mask" source="semi-auto" occluded="0" rle="1, 2, 3, 1, 1" left="2" top="3" width="4" height="2"
          z_order="0">
    </mask>
    <tag label="good" source="manual"></tag>
  </image>
</annotations>
"""


def test_cvat_shapes_of_all_types(folder):
    (folder / "in" / "annotations.xml").write_text(CVAT)
    out = run(folder, "cvat", point_radius=1)
    found = masks(out)
    assert (found["top"] == BOX).all()  # z_order 1 lies on the box, though written before it
    assert found["box"].sum() == 250 - 25 and found["ellipse"].sum() == pytest.approx(np.pi * 50, abs=5)
    assert found["ellipse"][20, 50] and found["ellipse"][20, 69] and not found["ellipse"][26, 60]
    assert found["line"].sum() > 60 and found["point"][50, 70] and found["point"][50, 75]
    assert found["mask"][3:5, 2:6].astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert "<tag> has no area" in (out / "report.md").read_text()


def test_cvat_tracks_are_refused(folder):
    (folder / "in" / "a.xml").write_text("<annotations><track id='0' label='m'/></annotations>")
    with pytest.raises(UserError, match=r"CVAT for images 1\.1"):
        run(folder, "cvat")


# VIA


def via_regions():
    """Regions as VIA 2.0.12 writes them."""
    shapes = [
        ("polygon", {"name": "polygon", "all_points_x": [10, 20, 20, 10], "all_points_y": [20, 20, 30, 30]}),
        ("rect", {"name": "rect", "x": 50, "y": 40, "width": 10, "height": 10}),
        ("circle", {"name": "circle", "cx": 40, "cy": 10, "r": 5}),
        ("ellipse", {"name": "ellipse", "cx": 60, "cy": 20, "rx": 10, "ry": 3, "theta": 1.5708}),
        ("polyline", {"name": "polyline", "all_points_x": [5, 25], "all_points_y": [50, 50]}),
        ("point", {"name": "point", "cx": 70, "cy": 50}),
    ]
    return [{"shape_attributes": shape, "region_attributes": {"label": label, "note": ""}} for label, shape in shapes]


@pytest.mark.parametrize("form", ["project", "exported", "version 1"])
def test_via_files_of_all_forms(folder, form):
    regions = via_regions()
    listed = {str(i): one for i, one in enumerate(regions)} if form == "version 1" else regions
    images = {"img.png4711": {"filename": "img.png", "size": 4711, "regions": listed, "file_attributes": {}}}
    project = {"_via_settings": {"ui": {}, "core": {}, "project": {"name": "em"}}, "_via_img_metadata": images,
               "_via_attributes": {"region": {"label": {"type": "text"}}, "file": {}},
               "_via_data_format_version": "2.0.10", "_via_image_id_list": ["img.png4711"]}  # fmt: skip
    (folder / "in" / "via.json").write_text(json.dumps(project if form == "project" else images))
    found = masks(run(folder, "via"))
    assert (found["polygon"] == BOX).all() and found["rect"].sum() == 100
    assert found["circle"].sum() == pytest.approx(np.pi * 25, abs=4)
    assert found["ellipse"][12, 60] and found["ellipse"][28, 60] and not found["ellipse"][20, 65]
    assert found["polyline"][50, 15] and found["point"][50, 70]


def via_with(attributes, options=None):
    """A VIA project with one region of these attributes."""
    region = {"shape_attributes": {"name": "rect", "x": 10, "y": 20, "width": 10, "height": 10}}
    image = {"filename": "img.png", "size": 1, "regions": [region | {"region_attributes": attributes}]}
    return {"_via_img_metadata": {"a": image}, "_via_attributes": {"region": options or {}, "file": {}}}


@pytest.mark.parametrize(
    "attributes, options, more, label",
    [
        ({"organelle": "mito"}, None, {}, "mito"),
        ({"organelle": "1"}, {"organelle": {"type": "dropdown", "options": {"1": "mito"}}}, {}, "mito"),
        ({"organelle": {"mito": True}}, None, {}, "mito"),
        ({"sure": "yes", "organelle": "mito"}, None, {"attribute": "organelle"}, "mito"),
        ({}, None, {"label": "cell"}, "cell"),
    ],
)
def test_via_labels(folder, attributes, options, more, label):
    (folder / "in" / "via.json").write_text(json.dumps(via_with(attributes, options)))
    assert (masks(run(folder, "via", **more))[label] == BOX).all()


@pytest.mark.parametrize(
    "attributes, more, said",
    [
        ({"a": "1", "b": "2"}, {}, "has the attributes a, b; say which with --attribute"),
        ({"organelle": "1"}, {"attribute": "organell"}, "did you mean organelle"),
        ({}, {}, "has no label"),
    ],
)
def test_via_labels_that_cannot_be_told(folder, attributes, more, said):
    (folder / "in" / "via.json").write_text(json.dumps(via_with(attributes)))
    with pytest.raises(UserError, match=said):
        run(folder, "via", **more)


# YOLO


@pytest.mark.parametrize("names", ["names: [bg, m]", "names:\n  0: bg\n  1: m"])
def test_yolo_polygons_and_boxes(tmp_path, names):
    save(tmp_path / "in" / "images" / "train" / "img.png", grey())
    save(tmp_path / "in" / "images" / "val" / "img.png", grey(1))
    (tmp_path / "in" / "data.yaml").write_text(f"path: ../data\ntrain: images/train\nval: images/val\n{names}\n")
    for split, line in (
        ("train", "1 0.125 0.333333 0.25 0.333333 0.25 0.5 0.125 0.5"),
        ("val", "1 0.1875 0.41667 0.125 0.16667"),
    ):
        path = tmp_path / "in" / "labels" / split / "img.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"{line}\n")
    out = run(tmp_path, "yolo-seg", split=None)
    assert (masks(out)["m"] == BOX).all() and (masks(out, split="val")["m"] == BOX).all()
    assert (np.asarray(Image.open(out / "val/raw/img.png")) == grey(1)).all()


@pytest.mark.parametrize(
    "line, said",
    [("5 0 0 1 0 1 1", "has class 5, which data.yaml does not name; it names 0 m"), ("0 0 0 1", "has 3 numbers"),
     ("m 0 0 1 1", "is not 'class x y x y …'")],
)  # fmt: skip
def test_yolo_lines_that_are_wrong(folder, line, said):
    (folder / "in" / "data.yaml").write_text("names: [m]")
    (folder / "in" / "img.txt").write_text(line)
    with pytest.raises(UserError, match=said):
        run(folder, "yolo-seg")


def test_yolo_without_names(folder):
    (folder / "in" / "img.txt").write_text("0 0 0 1 0 1 1")
    with pytest.raises(UserError, match=r"no data.yaml"):
        run(folder, "yolo-seg")


# GeoJSON


def feature(geometry, **properties):
    """A feature as QuPath 0.5 writes it."""
    return {
        "type": "Feature",
        "id": "a",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def ring(*args):
    """A closed ring."""
    return [*box(*args), box(*args)[0]]


@pytest.mark.parametrize("form", ["collection", "list", "one"])
def test_geojson_of_qupath(folder, form):
    mito = {"name": "mito", "color": [200, 0, 0]}
    one = feature({"type": "Polygon", "coordinates": [ring(10, 20, 20, 30)]}, classification=mito)
    content = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one], "one": one}[form]
    (folder / "in" / "img.geojson").write_text(json.dumps(content))
    assert (masks(run(folder, "geojson"))["mito"] == BOX).all()


def test_geojson_holes_and_several_parts(folder):
    many = {"type": "MultiPolygon", "coordinates": [[ring(10, 20, 20, 30), ring(12, 22, 15, 25)], [ring(40, 0, 45, 5)]]}
    line = {"type": "LineString", "coordinates": [[5, 50, 0], [25, 50, 0]]}
    content = [feature(many, classification={"names": ["a", "b"]}), feature(line, name="line")]
    (folder / "in" / "img.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    found = masks(run(folder, "geojson"))
    assert found["a: b"].sum() == 100 - 9 + 25 and not found["a: b"][22:25, 12:15].any() and found["line"][50, 10]


def test_geojson_of_ogr(folder):
    """As gdal_polygonize writes an image without georeference; and with y upwards, as QGIS draws on one."""
    down = {
        "type": "Feature",
        "properties": {"DN": 3},
        "geometry": {"type": "Polygon", "coordinates": [ring(10, 20, 20, 30)]},
    }
    content = {"type": "FeatureCollection", "name": "out", "features": [down]}
    (folder / "in" / "img.geojson").write_text(json.dumps(content))
    assert (masks(run(folder, "geojson"))["3"] == BOX).all()
    down["geometry"]["coordinates"] = [[[x, -y] for x, y in ring(10, 20, 20, 30)]]
    (folder / "in" / "img.geojson").write_text(json.dumps(content))
    out = run(folder, "geojson", output=folder / "up")
    assert (masks(out)["3"] == BOX).all() and "turned round" in (out / "report.md").read_text()


def test_geojson_without_a_class(folder):
    one = feature({"type": "Polygon", "coordinates": [ring(10, 20, 20, 30)]}, organelle="mito")
    (folder / "in" / "img.geojson").write_text(json.dumps([one]))
    with pytest.raises(UserError, match="it has objectType, organelle"):
        run(folder, "geojson")
    assert (masks(run(folder, "geojson", attribute="organelle"))["mito"] == BOX).all()


# napari


NAPARI = """index,shape-type,vertex-index,axis-0,axis-1
0,rectangle,0,19.5,9.5
0,rectangle,1,19.5,19.5
0,rectangle,2,29.5,19.5
0,rectangle,3,29.5,9.5
1,ellipse,0,5.2,40.2
1,ellipse,1,5.2,59.8
1,ellipse,2,14.8,59.8
1,ellipse,3,14.8,40.2
2,path,0,50.0,5.0
2,path,1,50.0,25.0
"""


def test_napari_counts_from_the_centres_of_pixels(folder):
    path = folder / "in" / "mito" / "img.csv"
    path.parent.mkdir()
    path.write_text(NAPARI)
    found = masks(run(folder, "napari-shapes", line_width=1))["mito"]
    assert (found[20:30] == BOX[20:30]).all()
    assert found[:18].sum() == pytest.approx(np.pi * 9.8 * 4.8, abs=6)
    rows, columns = np.nonzero(found[:18])
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (20, 100)  # symmetric about pixel (10, 50)
    assert found[50, 5:26].all() and found[45:].sum() == 21  # a line along the centres of row 50, one pixel wide


def test_napari_labels_come_from_folders_or_the_flag(folder):
    (folder / "in" / "img.csv").write_text(NAPARI)
    with pytest.raises(UserError, match="says no label"):
        run(folder, "napari-shapes")
    assert "cell" in masks(run(folder, "napari-shapes", label="cell"))


def test_napari_shapes_in_three_axes_are_refused(folder):
    (folder / "in" / "img.csv").write_text(NAPARI.replace("axis-1", "axis-1,axis-2"))
    with pytest.raises(UserError, match="three axes"):
        run(folder, "napari-shapes", label="cell")


# ImageJ


def roi(points=None, name="mito-1", kind="POLYGON", **more):
    """A region as ImageJ writes it."""
    import roifile

    made = roifile.ImagejRoi.frompoints(points) if points is not None else roifile.ImagejRoi()
    made.roitype, made.name = roifile.ROI_TYPE[kind], name
    for key, value in more.items():
        setattr(made, key, value)
    return made


def test_imagej_regions(folder):
    import roifile

    corners = np.array(box(10, 20, 20, 30))
    regions = [
        roi(corners, "mito-1"),
        roi(None, "rect_2", "RECT", left=50, top=40, right=60, bottom=50),
        roi(None, "oval", "OVAL", left=30, top=5, right=50, bottom=15),
        roi(np.array([(5, 50), (25, 50)]), "line", "POLYLINE", stroke_width=1),
        roi(np.array([(70, 50)]), "point 3", "POINT"),
    ]
    roifile.roiwrite(folder / "in" / "RoiSet_img.zip", regions)
    found = masks(run(folder, "imagej-roi", point_radius=2.7))
    assert (found["mito"] == BOX).all() and found["rect"].sum() == 100
    assert found["oval"].sum() == pytest.approx(np.pi * 50, abs=5)
    assert found["line"][50, 5:25].all() and found["line"].sum() == pytest.approx(21, abs=1)
    assert found["point"][50, 70]
    rows, columns = np.nonzero(found["point"])
    assert rows.mean() == 50 and columns.mean() == 70  # about the pixel's centre


def test_imagej_names_that_say_no_label(folder):
    roi(np.array(box(10, 20, 20, 30)), "0025-0015").tofile(folder / "in" / "img.roi")
    with pytest.raises(UserError, match="says no label"):
        run(folder, "imagej-roi")
    assert (masks(run(folder, "imagej-roi", label="mito"))["mito"] == BOX).all()


def test_imagej_composite_regions_have_holes(folder):
    import roifile

    path = []
    for one in (box(10, 20, 20, 30), box(12, 22, 15, 25)):
        path += [0, *one[0], *(value for point in one[1:] for value in (1, *point)), 4]
    made = roi(None, "mito", "RECT", left=10, top=20, right=20, bottom=30)
    made.multi_coordinates = np.array(path, np.float32)
    made.shape_roi_size = len(path)
    made.tofile(folder / "in" / "img.roi")
    assert roifile.roiread(folder / "in" / "img.roi").composite
    found = masks(run(folder, "imagej-roi"))["mito"]
    assert found.sum() == 91 and not found[22:25, 12:15].any()


# Masks


def mask_folder(tmp_path, mask, name="img.png", folder="masks"):
    """A data set of one image and its mask."""
    save(tmp_path / "in" / "raw" / "img.png", grey())
    save(tmp_path / "in" / folder / name, mask)
    return tmp_path


def test_index_masks_keep_their_classes_and_ignored_pixels(tmp_path):
    mask = np.where(BOX, 2, 0).astype(np.uint8)
    mask[:5] = 255
    mask_folder(tmp_path, mask)
    text = "classes:\n- {id: 0, name: background}\n- {id: 2, name: m, colour: '#0A0B0C'}\nignore: 255\n"
    (tmp_path / "in" / "classes.yaml").write_text(text)
    out = run(tmp_path, "index-mask")
    assert (np.asarray(Image.open(out / "train/masks/img.png")) == mask).all()
    assert read_classes(out / "classes.yaml") == read_classes(tmp_path / "in" / "classes.yaml")


def test_index_masks_of_16_bits(tmp_path):
    names = "\n".join(f"- {{id: {i}, name: c{i}}}" for i in (0, 1, 300))
    mask = np.where(BOX, 300, 1).astype(np.uint16)
    mask_folder(tmp_path, mask)
    (tmp_path / "in" / "classes.yaml").write_text(f"classes:\n{names}\n")
    written = np.asarray(Image.open(run(tmp_path, "index-mask") / "train/masks/img.png"))
    assert written.dtype == np.uint16 and (written == mask).all()


def test_index_masks_without_names(tmp_path):
    mask_folder(tmp_path, np.where(BOX, 3, 0).astype(np.uint8), "img_mask.png")
    assert (masks(run(tmp_path, "index-mask"))["3"] == BOX).all()


def test_a_class_id_outside_of_classes_yaml(tmp_path):
    mask_folder(tmp_path, np.where(BOX, 3, 0).astype(np.uint8))
    (tmp_path / "in" / "classes.yaml").write_text("classes: [{id: 0, name: background}, {id: 1, name: m}]")
    with pytest.raises(
        UserError, match=r"has the class id 3 in 100 pixels, which is outside of classes.yaml; its ids are 0, 1"
    ):
        run(tmp_path, "index-mask")


def test_colour_masks(tmp_path):
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[BOX] = (230, 159, 0)
    mask_folder(tmp_path, colours)
    assert (masks(run(tmp_path, "rgb-mask"))["#E69F00"] == BOX).all()
    text = "classes:\n- {id: 0, name: background, colour: '#000000'}\n- {id: 1, name: m, colour: '#E69F00'}\n"
    (tmp_path / "in" / "classes.yaml").write_text(text)
    assert (masks(run(tmp_path, "rgb-mask", output=tmp_path / "named"))["m"] == BOX).all()
    (tmp_path / "in" / "classes.yaml").write_text(text.replace("E69F00", "E69F01"))
    with pytest.raises(UserError, match="colour #E69F00 in 100 pixels, which no class has; the nearest is #E69F01 m"):
        run(tmp_path, "rgb-mask", output=tmp_path / "other")


def test_colour_masks_with_smoothed_edges_are_refused(tmp_path):
    mask_folder(tmp_path, np.stack([grey(1)] * 3, axis=-1))
    with pytest.raises(UserError, match="too many for classes"):
        run(tmp_path, "rgb-mask")


def test_instances_and_black_and_white_masks(tmp_path):
    import tifffile

    labels = np.where(BOX, 70000, 0).astype(np.uint32)
    labels[40:50, 40:50] = 3
    save(tmp_path / "in" / "raw" / "img.png", grey())
    (tmp_path / "in" / "cell").mkdir()
    tifffile.imwrite(tmp_path / "in" / "cell" / "img_cp_masks.tif", labels)
    white = np.where(BOX, 255, 0).astype(np.uint8)
    white[0, 0] = 255
    save(tmp_path / "in" / "mito" / "img.png", white)
    out = run(tmp_path, "instances", to="organelles")
    assert ((np.asarray(Image.open(out / "train/cell/img.png")) == 255) == (labels > 0)).all()
    assert (np.asarray(Image.open(out / "train/mito/img.png")) == white).all()
    rows = (run(tmp_path, "instances", to="instances", output=tmp_path / "i") / "instances.csv").read_text().split()
    assert rows[1:] == ["train,img,1,cell,100", "train,img,2,cell,0", "train,img,3,mito,1", "train,img,4,mito,100"]
